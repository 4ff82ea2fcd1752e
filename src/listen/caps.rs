//! How many connections may be open: in all, and from one address. Shared by all workers.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Acceptor;

/// Locks of the table of addresses; enough that workers seldom meet at one.
const SHARDS: usize = 64;

/// Counters of connections, written by the workers and read by the metrics.
#[derive(Debug, Default)]
pub struct Connected {
    /// Connections open now, upgraded ones included.
    pub open: AtomicUsize,
    /// Connections ever accepted, refused ones not counted.
    pub accepted: AtomicU64,
    /// Connections closed at once because all the places were taken.
    pub refused_full: AtomicU64,
    /// Connections closed at once because their address held all the places it may.
    pub refused_address: AtomicU64,
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
    /// Whose count to lower; `None` for addresses that are not counted.
    counted: Option<IpAddr>,
}

/// The table behind [`Admission`]. It has an entry only for addresses with open connections, so the
/// total cap bounds it too.
#[derive(Debug)]
pub(super) struct Caps {
    max: usize,
    max_per_address: usize,
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<IpAddr, usize>>>,
}

// === impl Admission ===

impl Admission {
    /// A place for a connection from `peer`; `None`, counted, when there is none.
    #[must_use]
    pub fn ask(acceptor: &Arc<Acceptor>, peer: IpAddr) -> Option<Self> {
        let (caps, connected) = (&acceptor.caps, &acceptor.connected);
        if connected.open.fetch_add(1, Ordering::AcqRel) >= caps.max {
            connected.open.fetch_sub(1, Ordering::AcqRel);
            connected.refused_full.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let counted = (!acceptor.proxies.trusts(peer)).then(|| network_of(peer));
        if counted.is_some_and(|address| !caps.enter(address)) {
            connected.open.fetch_sub(1, Ordering::AcqRel);
            connected.refused_address.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        connected.accepted.fetch_add(1, Ordering::Relaxed);
        Some(Self { acceptor: Arc::clone(acceptor), counted })
    }

    /// The server this place is in.
    pub(super) fn acceptor(&self) -> &Arc<Acceptor> {
        &self.acceptor
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(address) = self.counted {
            self.acceptor.caps.leave(address);
        }
        self.acceptor.connected.open.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl Caps ===

impl Caps {
    pub(super) fn new(max: usize, max_per_address: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { max, max_per_address, hasher: RandomState::new(), shards }
    }

    fn enter(&self, address: IpAddr) -> bool {
        let Some(mut shard) = self.shard(address) else { return false };
        let count = shard.entry(address).or_insert(0);
        if *count >= self.max_per_address {
            return false;
        }
        *count += 1;
        true
    }

    fn leave(&self, address: IpAddr) {
        let Some(mut shard) = self.shard(address) else { return };
        if let Entry::Occupied(mut entry) = shard.entry(address) {
            *entry.get_mut() = entry.get().saturating_sub(1);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    fn shard(&self, address: IpAddr) -> Option<MutexGuard<'_, HashMap<IpAddr, usize>>> {
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

    use super::Admission;
    use crate::config::Connections;
    use crate::listen::protocol::testing::limits;
    use crate::listen::{Acceptor, ClientIps};

    fn acceptor(max: usize, max_per_address: usize) -> Arc<Acceptor> {
        let limits = Connections { max, max_per_address, ..limits() };
        let proxies = Arc::new(ClientIps::new(vec!["10.0.0.0/8".parse().unwrap()]));
        Arc::new(Acceptor::new(limits, None, proxies))
    }

    fn ask(acceptor: &Arc<Acceptor>, ip: &str) -> Option<Admission> {
        Admission::ask(acceptor, ip.parse::<IpAddr>().unwrap())
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
        assert!(ask(&acceptor, "192.0.2.1").is_none());
        assert_eq!(acceptor.connected().refused_full.load(Ordering::Relaxed), 1);
        drop(held);
        assert!(ask(&acceptor, "192.0.2.1").is_some());
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
