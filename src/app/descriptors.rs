//! How many files the process may open, and what they are for.
//!
//! Sockets of clients and of upstreams share what is left once the spool, the database, name resolution, TLS
//! files, webhooks and mail have theirs, so that these never fail for want of a descriptor.

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, DatabaseLocation};

/// Descriptors for what has no number of its own: standard streams, the lock, directories, segments being read
/// or set aside, signals, the runtimes, names being resolved, webhooks, mail, certificates read again.
const BASE: u64 = 48;
/// Descriptors of a worker: its runtime, its segment of the spool and the one before, two names being resolved.
const PER_WORKER: u64 = 10;
/// Fewest sockets of clients, and of upstreams, with which a gateway starts.
const FEWEST: u64 = 16;
/// Where "unlimited" is refused as a soft limit, as on macOS.
const MODEST: u64 = 10_240;

/// The part of the limit that each kind of descriptor gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    clients: u64,
    upstreams: u64,
    database: u32,
    idle_per_pool: u64,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    workers: u64,
    listeners: u64,
    clients: u64,
    /// Requests that may be under way at a time.
    requests: u64,
    pools: u64,
    idle_per_pool: u64,
    database: u32,
    /// Files of one database connection.
    per_database: u64,
}

/// Raises the soft limit of open files to the hard one, and makes the configuration fit it. Gives how many
/// connections to upstreams may be open at a time.
///
/// # Errors
///
/// When the limit leaves no room for a gateway.
pub(super) fn fit(config: &mut Config) -> anyhow::Result<usize> {
    let upstreams = match raise() {
        None => u64::MAX,
        Some(limit) => fit_into(config, limit)?,
    };
    let connections = &mut config.server.connections;
    let quarter = (connections.max / 4).max(1);
    if connections.max_per_address > quarter {
        let (configured, max) = (connections.max_per_address, connections.max);
        tracing::warn!(
            configured,
            used = quarter,
            max,
            "server.connections.max_per_address lowered to a quarter of max"
        );
        connections.max_per_address = quarter;
    }
    Ok(usize::try_from(upstreams).unwrap_or(usize::MAX).min(tokio::sync::Semaphore::MAX_PERMITS))
}

fn fit_into(config: &mut Config, limit: u64) -> anyhow::Result<u64> {
    let wanted = Wanted::by(config);
    let Some(shares) = wanted.share(limit) else {
        bail!(
            "the limit of open files is {limit}, and a gateway needs {} at least: raise it (ulimit -n, LimitNOFILE= of systemd, --ulimit nofile= of Docker)",
            wanted.reserved(wanted.database.min(1)) + 2 * FEWEST
        );
    };
    let connections = &mut config.server.connections;
    let lowered = |used: u64, asked: u64, key: &str| {
        if used < asked {
            let needed = wanted.everything();
            tracing::warn!(
                limit,
                needed,
                configured = asked,
                used,
                "{key} lowered to fit the limit of open files"
            );
        }
    };
    lowered(shares.clients, wanted.clients, "server.connections.max");
    lowered(shares.database.into(), wanted.database.into(), "database.max_connections");
    lowered(shares.idle_per_pool, wanted.idle_per_pool, "upstreams.pool_max_idle");
    lowered(shares.upstreams, wanted.upstreams(), "the number of connections to upstreams");
    connections.max = usize::try_from(shares.clients).unwrap_or(usize::MAX);
    config.database.max_connections = shares.database;
    let idle = usize::try_from(shares.idle_per_pool).unwrap_or(usize::MAX);
    for upstream in &mut config.upstreams {
        upstream.pool_max_idle = upstream.pool_max_idle.min(idle);
    }
    Ok(shares.upstreams)
}

/// The soft limit after it was raised to the hard one; `None` for no limit.
fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let wanted = Rlimit { current: maximum, maximum };
        let modest = Rlimit { current: Some(maximum.map_or(MODEST, |hard| hard.min(MODEST))), maximum };
        if let Err(error) = setrlimit(Resource::Nofile, wanted)
            && let Err(_refused) = setrlimit(Resource::Nofile, modest)
        {
            tracing::warn!(%error, soft = current, hard = maximum, "cannot raise the limit of open files");
        }
    }
    getrlimit(Resource::Nofile).current
}

// === impl Wanted ===

impl Wanted {
    fn by(config: &Config) -> Self {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let (server, database) = (&config.server, &config.database);
        let idle = config.upstreams.iter().map(|upstream| upstream.pool_max_idle).max().unwrap_or(0);
        Self {
            workers: count(server.workers).saturating_add(count(server.admin_listen.len().min(1))),
            listeners: count(server.listen.len()),
            clients: count(server.connections.max),
            requests: count(config.limits.max_parallel),
            pools: count(config.upstreams.len()).saturating_mul(count(server.workers)),
            idle_per_pool: count(idle),
            database: database.max_connections,
            // A database and its write-ahead log; the index of that is one for all.
            per_database: if matches!(database.location, DatabaseLocation::Sqlite(_)) { 2 } else { 1 },
        }
    }

    /// Descriptors that are no sockets of clients or upstreams.
    fn reserved(&self, database: u32) -> u64 {
        let workers = self.workers.saturating_mul(PER_WORKER.saturating_add(self.listeners));
        // Writer, readiness and statistics have connections besides the pool's.
        let database = u64::from(database).saturating_add(6).saturating_mul(self.per_database);
        BASE.saturating_add(workers).saturating_add(database)
    }

    /// Connections to upstreams, used and idle, that there may be without waiting.
    fn upstreams(&self) -> u64 {
        self.requests.saturating_add(self.pools.saturating_mul(self.idle_per_pool))
    }

    fn everything(&self) -> u64 {
        self.reserved(self.database).saturating_add(self.clients).saturating_add(self.upstreams())
    }

    /// Parts of `limit`; `None` when it is too low.
    fn share(&self, limit: u64) -> Option<Shares> {
        if self.everything() <= limit {
            let upstreams = self.upstreams().max(FEWEST);
            return Some(Shares {
                clients: self.clients,
                upstreams,
                database: self.database,
                idle_per_pool: self.idle_per_pool,
            });
        }
        // The database has an eighth at most.
        let most = u32::try_from(limit / 8 / self.per_database).unwrap_or(u32::MAX).max(1);
        let database = self.database.min(most);
        let sockets = limit.checked_sub(self.reserved(database)).filter(|rest| *rest >= 2 * FEWEST)?;
        let upstreams = self.upstreams().clamp(FEWEST, (sockets / 2).max(FEWEST));
        let clients = self.clients.min(sockets.saturating_sub(upstreams));
        // What is idle never takes more than a quarter from what is needed.
        let idle_per_pool = self.idle_per_pool.min(upstreams / 4 / self.pools.max(1));
        Some(Shares { clients, upstreams, database, idle_per_pool })
    }
}

#[cfg(test)]
mod tests {
    use super::{FEWEST, Wanted, fit, getrlimit};
    use crate::config::{Config, Vars};
    use proptest::prelude::{ProptestConfig, proptest};

    fn usual() -> Wanted {
        Wanted {
            workers: 2,
            listeners: 1,
            clients: 20_000,
            requests: 1024,
            pools: 2,
            idle_per_pool: 64,
            database: 8,
            per_database: 2,
        }
    }

    #[test]
    fn a_high_limit_changes_nothing_and_a_low_one_leaves_room_for_all() {
        let shares = usual().share(524_288).unwrap();
        assert_eq!((shares.clients, shares.upstreams, shares.idle_per_pool), (20_000, 1152, 64));
        let shares = usual().share(1024).unwrap();
        assert_eq!((shares.clients, shares.upstreams), (463, 463));
        let shares = usual().share(256).unwrap();
        assert_eq!((shares.clients, shares.upstreams, shares.idle_per_pool), (79, 79, 9));
        assert!(usual().share(100).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn all_shares_together_never_pass_the_limit(
            limit in 0u64..100_000, workers in 1u64..128, clients in 1u64..50_000, requests in 1u64..50_000,
            upstreams in 0u64..20, idle_per_pool in 0u64..200, database in 1u32..1000, per_database in 1u64..3,
        ) {
            let pools = workers * upstreams;
            let wanted = Wanted { workers, clients, requests, pools, idle_per_pool, database, per_database, ..usual() };
            if let Some(shares) = wanted.share(limit) {
                let reserved = wanted.reserved(shares.database);
                assert!(reserved + shares.clients + shares.upstreams <= limit, "{shares:?}");
                assert!(shares.clients >= FEWEST.min(clients) && shares.upstreams >= FEWEST, "{shares:?}");
                assert!(shares.idle_per_pool * pools < shares.upstreams, "idle ones never take all: {shares:?}");
            }
        }
    }

    #[test]
    fn one_address_has_a_quarter_at_most_and_the_soft_limit_is_the_hard_one() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[server.connections]\nmax = 100\nmax_per_address = 90";
        let mut config = Config::from_toml(text, folder.path(), &Vars::default()).unwrap();
        fit(&mut config).unwrap();
        assert_eq!((config.server.connections.max, config.server.connections.max_per_address), (100, 25));
        let limit = getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
