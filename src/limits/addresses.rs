//! The rate of each client address, with tokens that are lent: a request that turns out to carry a good key
//! returns its token, and everything else keeps it spent.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::rate::Buckets;
use super::{LimitError, Standing};

/// The buckets of all addresses, and how many tokens of each are lent now.
pub(super) struct Addresses {
    buckets: Buckets<IpAddr>,
    /// Has an entry only while a key of that address is looked up.
    lent: Mutex<HashMap<IpAddr, u32>>,
    settled: Notify,
    waiting: AtomicUsize,
}

/// A token of an address, lent until it is known whether the request's key is good. Dropped, it is spent.
pub struct Loan {
    addresses: Arc<Addresses>,
    address: IpAddr,
    standing: Standing,
}

/// Counts one request that waits for a token.
struct Waiting<'a>(&'a AtomicUsize);

/// How long a request waits for tokens that are lent to others of its address.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most requests that wait for one.
const MAX_WAITING: usize = 1024;

// === impl Addresses ===

impl Addresses {
    pub(super) fn new(buckets: Buckets<IpAddr>) -> Self {
        let (lent, settled, waiting) = (Mutex::default(), Notify::new(), AtomicUsize::new(0));
        Self { buckets, lent, settled, waiting }
    }

    pub(super) fn take(&self, address: IpAddr) -> Result<Standing, LimitError> {
        self.buckets.take(&address)
    }

    /// A token of `address`. Where the bucket is empty and some of its tokens are lent, waits for them: they
    /// come back when the keys they were lent for are good.
    pub(super) async fn lend(self: &Arc<Self>, address: IpAddr) -> Result<Loan, LimitError> {
        let deadline = Instant::now() + PATIENCE;
        let mut place = None;
        loop {
            let mut settled = pin!(self.settled.notified());
            settled.as_mut().enable();
            let refused = match self.take(address) {
                Ok(standing) => return Ok(self.lent_to(address, standing)),
                Err(refused) => refused,
            };
            if !self.table().contains_key(&address) {
                return Err(refused);
            }
            let waits = place.get_or_insert_with(|| Waiting::enter(&self.waiting));
            if waits.is_none() || timeout_at(deadline, settled).await.is_err() {
                return Err(refused);
            }
        }
    }

    fn lent_to(self: &Arc<Self>, address: IpAddr, standing: Standing) -> Loan {
        *self.table().entry(address).or_insert(0) += 1;
        Loan { addresses: Arc::clone(self), address, standing }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Loan ===

impl Loan {
    /// How the bucket stands without the token.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Returns the token: the request carries a good key.
    pub fn give_back(self) {
        self.addresses.buckets.give_back(&self.address);
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut table = self.addresses.table();
        if let Entry::Occupied(mut entry) = table.entry(self.address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        drop(table);
        self.addresses.settled.notify_waiters();
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let place = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
