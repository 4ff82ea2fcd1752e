//! How many connections may be open: in all, and from one address. Shared by all workers.
//!
//! When all places are taken, idle connections of the address that has most make room, so that clients that
//! connect and ask nothing cannot keep others out.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Acceptor;

/// A connection this young is not closed for others: its first request may be on its way.
const YOUNG: Duration = Duration::from_secs(1);
/// Most connections of one address that make room at a time; the table is searched once for all of them.
const EVICTED_AT_ONCE: usize = 32;
/// How often the log tells that connections are refused for their address.
const WARN_EVERY: Duration = Duration::from_mins(1);
/// Locks of the table of addresses; enough that workers seldom meet at one.
const SHARDS: usize = 64;

/// Counters of connections, written by the workers and read by the metrics.
#[derive(Debug, Default)]
pub struct Connected {
    /// Connections open now, upgraded ones included.
    pub open: AtomicUsize,
    /// Connections ever accepted, refused ones not counted.
    pub accepted: AtomicU64,
    /// How often accepting paused because all places were taken by connections in use.
    pub paused_full: AtomicU64,
    /// Connections closed at once because their address held all the places it may.
    pub refused_address: AtomicU64,
    /// Idle connections closed to make room for new ones.
    pub evicted: AtomicU64,
    /// Failed calls of `accept`, such as for want of descriptors.
    pub accept_errors: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub failed_handshakes: AtomicU64,
    /// Connections cut because a request head took too long.
    pub slow_heads: AtomicU64,
    /// Connections and HTTP/2 streams cut because the client would not read.
    pub stalled: AtomicU64,
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub struct Admission {
    acceptor: Arc<Acceptor>,
    seat: Arc<Seat>,
    /// Whose count to lower; `None` for addresses that are not counted.
    counted: Option<IpAddr>,
}

/// Why a connection has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// All places are taken by connections in use.
    Full,
    /// Its address holds all the places it may.
    Address,
}

/// What is known of a connection to those who look for one that may make room.
#[derive(Debug)]
pub(super) struct Seat {
    taken: Instant,
    /// Whether an exchange runs, or a tunnel.
    in_use: AtomicBool,
    /// Cancelled when the connection is to be closed for want of room. Its place is free already.
    pub(super) evicted: CancellationToken,
}

/// The table behind [`Admission`]. It has an entry only for addresses with open connections, so the
/// total cap bounds it too.
#[derive(Debug)]
pub(super) struct Caps {
    max: usize,
    max_per_address: usize,
    /// When a refusal of an address was last written to the log.
    warned: Mutex<Option<Instant>>,
    hasher: RandomState,
    /// Connections of each address, the oldest first.
    shards: Vec<Mutex<HashMap<IpAddr, Vec<Arc<Seat>>>>>,
}

// === impl Admission ===

impl Admission {
    /// A place for a connection from `peer`. Where all are taken, idle connections make room.
    ///
    /// # Errors
    /// When there is no place.
    pub fn ask(acceptor: &Arc<Acceptor>, peer: IpAddr) -> Result<Self, NoPlace> {
        let (caps, connected) = (&acceptor.caps, &acceptor.connected);
        if connected.open.fetch_add(1, Ordering::AcqRel) >= caps.max {
            let evicted = caps.evict();
            connected.open.fetch_sub(evicted, Ordering::AcqRel);
            connected.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
            if evicted == 0 {
                connected.open.fetch_sub(1, Ordering::AcqRel);
                return Err(NoPlace::Full);
            }
        }
        let counted = (!acceptor.proxies.trusts(peer)).then(|| network_of(peer));
        let seat = Arc::new(Seat::new());
        if counted.is_some_and(|address| !caps.enter(address, &seat)) {
            connected.open.fetch_sub(1, Ordering::AcqRel);
            connected.refused_address.fetch_add(1, Ordering::Relaxed);
            caps.warn_of(peer);
            return Err(NoPlace::Address);
        }
        connected.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(Self { acceptor: Arc::clone(acceptor), seat, counted })
    }

    /// The server this place is in.
    pub(super) fn acceptor(&self) -> &Arc<Acceptor> {
        &self.acceptor
    }

    pub(super) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.counted.is_none_or(|address| self.acceptor.caps.leave(address, &self.seat)) {
            self.acceptor.connected.open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

// === impl Seat ===

impl Seat {
    fn new() -> Self {
        Self { taken: Instant::now(), in_use: AtomicBool::new(false), evicted: CancellationToken::new() }
    }

    pub(super) fn use_it(&self, in_use: bool) {
        self.in_use.store(in_use, Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        !self.in_use.load(Ordering::Relaxed) && self.taken.elapsed() >= YOUNG
    }
}

// === impl Caps ===

impl Caps {
    pub(super) fn new(max: usize, max_per_address: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { max, max_per_address, warned: Mutex::default(), hasher: RandomState::new(), shards }
    }

    fn enter(&self, address: IpAddr, seat: &Arc<Seat>) -> bool {
        let Some(mut shard) = self.shard(address) else { return false };
        let seats = shard.entry(address).or_default();
        let fits = seats.len() < self.max_per_address;
        if fits {
            seats.push(Arc::clone(seat));
        }
        fits
    }

    /// Writes to the log that an address has all the connections it may, once a minute.
    fn warn_of(&self, peer: IpAddr) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|last| last.elapsed() < WARN_EVERY) {
            return;
        }
        *warned = Some(Instant::now());
        drop(warned);
        tracing::warn!(
            client_ip = %peer,
            max = self.max_per_address,
            setting = "server.connections.max_per_address",
            "connection refused: its IP address has all the connections it may; raise the setting, or name the \
             address in server.trusted_proxies if it is a proxy"
        );
    }

    /// Whether the connection had a place still.
    fn leave(&self, address: IpAddr, seat: &Arc<Seat>) -> bool {
        let Some(mut shard) = self.shard(address) else { return true };
        let Entry::Occupied(mut entry) = shard.entry(address) else { return false };
        let found = entry.get().iter().position(|other| Arc::ptr_eq(other, seat));
        if let Some(position) = found {
            entry.get_mut().remove(position);
        }
        if entry.get().is_empty() {
            entry.remove();
        }
        found.is_some()
    }

    /// Closes idle connections of the address that has most of all that have an idle one: the oldest half of
    /// what it has at most. How many.
    fn evict(&self) -> usize {
        let mut most: Option<(usize, IpAddr)> = None;
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (address, seats) in shard.iter() {
                let is_more = most.is_none_or(|(count, _)| seats.len() > count);
                if is_more && seats.iter().any(|seat| seat.is_idle()) {
                    most = Some((seats.len(), *address));
                }
            }
        }
        let Some((count, address)) = most else { return 0 };
        let Some(mut shard) = self.shard(address) else { return 0 };
        let Entry::Occupied(mut entry) = shard.entry(address) else { return 0 };
        let limit = count.div_ceil(2).min(EVICTED_AT_ONCE);
        let mut chosen = Vec::with_capacity(limit);
        entry.get_mut().retain(|seat| {
            let goes = chosen.len() < limit && seat.is_idle();
            if goes {
                chosen.push(Arc::clone(seat));
            }
            !goes
        });
        if entry.get().is_empty() {
            entry.remove();
        }
        drop(shard);
        for seat in &chosen {
            seat.evicted.cancel();
        }
        chosen.len()
    }

    fn shard(&self, address: IpAddr) -> Option<MutexGuard<'_, HashMap<IpAddr, Vec<Arc<Seat>>>>> {
        let hash = self.hasher.hash_one(address);
        let index = usize::try_from(hash % (SHARDS as u64)).ok()?;
        Some(self.shards.get(index)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What counts as one address: an IPv4 address, or an IPv6 /64, which is what one subscriber gets.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::{Admission, NoPlace, YOUNG};
    use crate::config::Connections;
    use crate::listen::protocol::testing::limits;
    use crate::listen::{Acceptor, ClientIps};

    fn acceptor(max: usize, max_per_address: usize) -> Arc<Acceptor> {
        let limits = Connections { max, max_per_address, ..limits() };
        let proxies = Arc::new(ClientIps::new(vec!["10.0.0.0/8".parse().unwrap()]));
        Arc::new(Acceptor::new(limits, None, proxies))
    }

    fn ask(acceptor: &Arc<Acceptor>, ip: &str) -> Option<Admission> {
        Admission::ask(acceptor, ip.parse::<IpAddr>().unwrap()).ok()
    }

    #[test]
    fn an_address_has_its_places_and_gets_them_back() {
        let acceptor = acceptor(100, 2);
        let first = ask(&acceptor, "192.0.2.1").unwrap();
        let second = ask(&acceptor, "::ffff:192.0.2.1").unwrap();
        assert!(ask(&acceptor, "192.0.2.1").is_none());
        assert!(ask(&acceptor, "192.0.2.2").is_some());
        drop(first);
        let third = ask(&acceptor, "192.0.2.1").unwrap();
        assert_eq!(acceptor.connected().open.load(Ordering::Relaxed), 2);
        assert_eq!(acceptor.connected().refused_address.load(Ordering::Relaxed), 1);
        drop((second, third));
        assert_eq!(acceptor.connected().open.load(Ordering::Relaxed), 0);
        assert!(acceptor.caps.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn an_ipv6_subscriber_counts_as_one() {
        let acceptor = acceptor(100, 1);
        let _held = ask(&acceptor, "2001:db8:0:1::1").unwrap();
        assert!(ask(&acceptor, "2001:db8:0:1:ffff::2").is_none());
        assert!(ask(&acceptor, "2001:db8:0:2::1").is_some());
    }

    #[test]
    fn the_total_binds_everyone_and_proxies_only_by_the_total() {
        let acceptor = acceptor(3, 1);
        let held: Vec<_> = (0..3).map(|_| ask(&acceptor, "10.0.0.1").unwrap()).collect();
        let refused = Admission::ask(&acceptor, "192.0.2.1".parse().unwrap());
        assert_eq!(refused.err(), Some(NoPlace::Full), "connections of proxies never make room");
        drop(held);
        assert!(ask(&acceptor, "192.0.2.1").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_of_the_address_that_has_most_make_room() {
        let acceptor = acceptor(12, 10);
        let many: Vec<_> = (0..8).map(|_| ask(&acceptor, "192.0.2.1").unwrap()).collect();
        let few: Vec<_> = (0..4).map(|_| ask(&acceptor, "192.0.2.2").unwrap()).collect();
        for used in few.iter().chain(&many[..2]) {
            used.seat().use_it(true);
        }
        let early = Admission::ask(&acceptor, "192.0.2.3".parse().unwrap());
        assert_eq!(early.err(), Some(NoPlace::Full), "a young connection may be about to ask something");
        tokio::time::advance(YOUNG).await;
        let newcomer = ask(&acceptor, "192.0.2.3").unwrap();
        let evicted =
            |held: &[Admission]| held.iter().filter(|one| one.seat().evicted.is_cancelled()).count();
        assert_eq!((evicted(&many), evicted(&few)), (4, 0));
        assert!(many[2..6].iter().all(|one| one.seat().evicted.is_cancelled()), "the oldest idle ones");
        let open = || acceptor.connected().open.load(Ordering::Relaxed);
        assert_eq!(open(), 9);
        drop(many);
        assert_eq!(open(), 5, "a place is given back once");
        drop((newcomer, few));
        assert_eq!(open(), 0);
        assert!(acceptor.caps.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_in_use_are_never_closed_for_others() {
        let acceptor = acceptor(4, 4);
        let held: Vec<_> = (0..4).map(|_| ask(&acceptor, "192.0.2.1").unwrap()).collect();
        for one in &held {
            one.seat().use_it(true);
        }
        tokio::time::advance(YOUNG).await;
        assert_eq!(Admission::ask(&acceptor, "192.0.2.2".parse().unwrap()).err(), Some(NoPlace::Full));
        held[3].seat().use_it(false);
        assert!(ask(&acceptor, "192.0.2.2").is_some());
    }

    #[test]
    fn many_threads_never_pass_the_cap() {
        let acceptor = acceptor(1_000, 7);
        let most = std::thread::scope(|scope| {
            let ask_many = || (0..200).filter_map(|_| ask(&acceptor, "192.0.2.9")).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask_many)).collect();
            // Joined before any is dropped, so what is counted was held at one time.
            let held: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            held.iter().map(Vec::len).sum::<usize>()
        });
        assert_eq!(most, 7);
    }
}
