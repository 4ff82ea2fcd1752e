//! From which networks accounts were lately proved.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The latest networks of the latest accounts.
#[derive(Debug, Default)]
pub(super) struct Known {
    accounts: HashMap<u64, VecDeque<(u64, Duration)>>,
}

/// How long a success counts.
const LASTS: Duration = Duration::from_hours(30 * 24);
/// Networks of one account: who has an account cannot push out those of others.
const NETWORKS: usize = 8;
/// Most accounts.
const MOST_KNOWN: usize = 32_768;

// === impl Known ===

impl Known {
    /// Whether the account was proved from this network.
    pub(super) fn has(&self, account: u64, network: u64, now: Duration) -> bool {
        let networks = self.accounts.get(&account).into_iter().flatten();
        networks.into_iter().any(|(known, at)| *known == network && now.saturating_sub(*at) < LASTS)
    }

    /// It was.
    pub(super) fn note(&mut self, account: u64, network: u64, now: Duration) {
        if self.accounts.len() >= MOST_KNOWN && !self.accounts.contains_key(&account) {
            self.forget();
        }
        let networks = self.accounts.entry(account).or_default();
        networks.retain(|(known, _)| *known != network);
        networks.push_back((network, now));
        if networks.len() > NETWORKS {
            networks.pop_front();
        }
    }

    /// Makes room for an eighth: the accounts that were proved longest ago.
    fn forget(&mut self) {
        let latest = |networks: &VecDeque<(u64, Duration)>| networks.back().map(|(_, at)| *at);
        let mut times: Vec<_> = self.accounts.values().map(latest).collect();
        let (_, last, _) = times.select_nth_unstable(MOST_KNOWN / 8);
        let last = *last;
        self.accounts.retain(|_, networks| latest(networks) > last);
    }
}
