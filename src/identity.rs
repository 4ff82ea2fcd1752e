//! Who: from a key to the subject behind it.
//!
//! The directory answers from memory. A key is read from the database on its first use, once for
//! any number of waiters, and again when what is known of it has aged.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moka::future::Cache;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::credential::key::{KeyDigest, KeyFormat, Pepper, PlainKey};
use crate::ids::UserId;
use crate::plan::{AddressRules, Plans};
use crate::store::keys::Holder;
use crate::store::{self, Db, StoreError};
use crate::telemetry::Metrics;

mod changes;
mod follow;
mod subject;
mod table;
mod uses;

pub use changes::{Changed, Revision};
pub use subject::{AddressRule, NotPermitted, Subject};

use changes::{Changes, Who};
use table::{Known, Table};
use uses::{LastUse, Uses};

/// Every key in use. Clones are the same directory.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    table: Table,
    changes: Changes,
    /// Digests that lead nowhere, and reads under way, so that one read serves all who wait.
    lookups: Cache<KeyDigest, Lookup>,
    db: Db,
    background: Background,
    clock: Clock,
    metrics: Arc<Metrics>,
    pepper: Pepper,
    plans: Plans,
    access: AddressRules,
    accept_v1: bool,
    uses: Uses,
    /// Gone with the last directory, which ends who follows the audit trail.
    alive: OnceLock<mpsc::Sender<Infallible>>,
}

/// A key as the database has it, whether or not it opens anything.
#[derive(Clone, Debug)]
pub struct Examined {
    /// Whom it leads to, and what they may do.
    pub subject: Arc<Subject>,
    /// Whether its user is active.
    pub is_active: bool,
    /// Whether it has come to its end by itself.
    pub has_expired: bool,
}

/// What a directory is made of.
pub struct Sources {
    /// Where keys are read.
    pub db: Db,
    /// Where reading runs.
    pub background: Background,
    /// How old knowledge is.
    pub clock: Clock,
    /// What went wrong, counted.
    pub metrics: Arc<Metrics>,
    /// How digests are made.
    pub pepper: Pepper,
    /// What users may do.
    pub plans: Plans,
    /// From where anybody may come at all.
    pub access: AddressRules,
    /// Whether keys without a checksum are looked up.
    pub accept_v1: bool,
    /// Most keys kept.
    pub capacity: usize,
}

/// A key that was let in, and as of when, so that what it opens can be looked at again.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    digest: KeyDigest,
    as_of: Revision,
}

#[derive(Clone)]
enum Lookup {
    Found(Arc<Known>),
    Nobody,
}

/// A key that opens nothing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentifyError {
    /// Nobody has this key, or has it no longer.
    #[error("unknown key")]
    Unknown,
    /// The user is not active.
    #[error("the user is disabled")]
    Disabled,
    /// The key was given an end, and it has come.
    #[error("the key has expired")]
    Expired,
    /// Nobody can tell: the database does not answer.
    #[error("the key cannot be looked up")]
    StoreDown,
}

/// Knowledge this young is used without asking.
const FRESH: Duration = Duration::from_secs(5);
/// Knowledge this old is used only while the database is away.
const STALE: Duration = Duration::from_mins(1);
/// How long a digest that led nowhere is remembered, and how many are.
const NOBODY_FOR: Duration = Duration::from_secs(5);
const MOST_NOBODIES: u64 = 65_536;

// === impl Directory ===

impl Directory {
    /// An empty directory.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let lookups = Cache::builder().max_capacity(MOST_NOBODIES).time_to_live(NOBODY_FOR).build();
        let Sources { db, background, clock, metrics, pepper, plans, access, accept_v1, capacity } = sources;
        let table = Table::new(capacity);
        let uses = Uses::start(db.clone(), &background);
        Self(Arc::new(Inner {
            table,
            changes: Changes::default(),
            lookups,
            db,
            background,
            clock,
            metrics,
            pepper,
            plans,
            access,
            accept_v1,
            uses,
            alive: OnceLock::new(),
        }))
    }

    /// The subject behind a key.
    ///
    /// # Errors
    ///
    /// See [`IdentifyError`]. A client learns the difference between the first and the third from
    /// our log only.
    pub async fn identify(&self, key: &PlainKey) -> Result<Arc<Subject>, IdentifyError> {
        self.admit(key).await.map(|(subject, _)| subject)
    }

    /// [`Directory::identify`], for what runs on and must end when the key opens it no longer.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn admit(&self, key: &PlainKey) -> Result<(Arc<Subject>, Shown), IdentifyError> {
        if !self.0.accept_v1 && key.format() == KeyFormat::V1 {
            return Err(IdentifyError::Unknown);
        }
        let shown = Shown { digest: key.digest(&self.0.pepper), as_of: self.0.changes.revision() };
        let known = self.known(shown.digest).await?;
        self.open(&known).map(|subject| (subject, shown))
    }

    /// What a key that was let in opens now; this does not count as a use.
    ///
    /// # Errors
    ///
    /// As [`Directory::identify`].
    pub async fn review(&self, shown: &Shown) -> Result<Arc<Subject>, IdentifyError> {
        let known = self.known(shown.digest).await?;
        self.judge(&known)?;
        Ok(Arc::clone(&known.subject))
    }

    /// Whether there is a user of this number; also where nobody can tell.
    pub async fn has_user(&self, user: UserId) -> bool {
        let db = self.0.db.clone();
        let found = self.0.background.run(async move { store::deleted::is_here(&db, user).await });
        !matches!(found.await, Ok(Ok(false)))
    }

    /// Whose rights changed since `seen`, which moves on to now.
    #[must_use]
    pub fn changed_since(&self, seen: &mut Revision) -> Changed {
        self.0.changes.since(seen)
    }

    async fn known(&self, digest: KeyDigest) -> Result<Arc<Known>, IdentifyError> {
        let now = self.0.clock.elapsed();
        let remembered = self.0.table.get(&digest);
        if let Some(known) = remembered.as_ref().filter(|known| known.age(now) < FRESH) {
            return Ok(Arc::clone(known));
        }
        match (self.look_up(digest).await, remembered) {
            (Ok(Lookup::Found(known)), _) => Ok(known),
            (Ok(Lookup::Nobody), _) => Err(IdentifyError::Unknown),
            (Err(_), Some(known)) if known.age(now) < STALE => Ok(known),
            (Err(_), _) => Err(IdentifyError::StoreDown),
        }
    }

    /// Whether a key is in memory already and opens something from this address, so that using it costs no
    /// lookup of an unknown key.
    #[must_use]
    pub fn recalls(&self, key: &PlainKey, from: IpAddr) -> bool {
        let known = self.0.table.get(&key.digest(&self.0.pepper));
        let is_good = |known: &Known| {
            let subject = &known.subject;
            known.is_active
                && !subject.has_expired(self.0.clock.now())
                && subject.permits_address(from).is_ok()
        };
        known.is_some_and(|known| is_good(&known))
    }

    /// What the database knows of a key, read now and not remembered; it does not count as a use.
    ///
    /// # Errors
    ///
    /// [`IdentifyError::Unknown`], also of a kind that is not accepted here; [`IdentifyError::StoreDown`].
    pub async fn examine(&self, key: &PlainKey) -> Result<Examined, IdentifyError> {
        if !self.0.accept_v1 && key.format() == KeyFormat::V1 {
            return Err(IdentifyError::Unknown);
        }
        let holder = self.0.holder(key.digest(&self.0.pepper)).await?;
        holder.map(|holder| self.examined(holder)).ok_or(IdentifyError::Unknown)
    }

    /// [`Directory::examine`] of a user's key by its name.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn examine_named(&self, user: UserId, name: String) -> Result<Examined, IdentifyError> {
        let db = self.0.db.clone();
        let read = async move { store::keys::holder_named(&db, user, &name).await };
        let holder = self.0.asked(read).await?;
        holder.map(|holder| self.examined(holder)).ok_or(IdentifyError::Unknown)
    }

    /// Forgets what is known of a user, because it was changed: the next use of any key reads anew, and what
    /// runs is looked at again.
    pub fn forget_user(&self, user: UserId) {
        self.0.forget(Who::User(user));
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        self.0.forget(Who::All);
    }

    fn open(&self, known: &Known) -> Result<Arc<Subject>, IdentifyError> {
        let now = self.judge(known)?;
        self.0.uses.note(known.subject.key, &known.used, now);
        Ok(Arc::clone(&known.subject))
    }

    /// Whether a key opens anything, and when that was.
    fn judge(&self, known: &Known) -> Result<Timestamp, IdentifyError> {
        if !known.is_active {
            return Err(IdentifyError::Disabled);
        }
        let now = self.0.clock.now();
        if known.subject.has_expired(now) { Err(IdentifyError::Expired) } else { Ok(now) }
    }

    fn examined(&self, holder: Holder) -> Examined {
        let is_active = holder.is_active;
        let subject = Arc::new(Subject::of(holder, &self.0.plans, &self.0.access));
        Examined { is_active, has_expired: subject.has_expired(self.0.clock.now()), subject }
    }

    async fn look_up(&self, digest: KeyDigest) -> Result<Lookup, Arc<IdentifyError>> {
        let inner = Arc::clone(&self.0);
        let lookup = self.0.lookups.try_get_with(digest, async move { inner.read(digest).await }).await?;
        // What was found lives in the table; kept here too it would outlive `forget_user`.
        if matches!(lookup, Lookup::Found(_)) {
            self.0.lookups.invalidate(&digest).await;
        }
        Ok(lookup)
    }
}

// === impl Inner ===

impl Inner {
    /// Told only when nothing in memory is older than the change.
    fn forget(&self, who: Who) {
        self.table.forget(|known| who.is(&known.subject));
        self.lookups.invalidate_all();
        self.changes.tell(who);
    }

    async fn read(&self, digest: KeyDigest) -> Result<Lookup, IdentifyError> {
        loop {
            let before = self.table.generation();
            let Some(holder) = self.holder(digest).await? else {
                self.table.remove(&digest);
                return Ok(Lookup::Nobody);
            };
            let known = Arc::new(Known {
                is_active: holder.is_active,
                read_at: self.clock.elapsed(),
                used: LastUse::new(holder.last_used_at),
                subject: Arc::new(Subject::of(holder, &self.plans, &self.access)),
            });
            // A change committed while this was read must not be undone by it.
            if self.table.insert(digest, &known, before) {
                return Ok(Lookup::Found(known));
            }
        }
    }

    async fn holder(&self, digest: KeyDigest) -> Result<Option<Holder>, IdentifyError> {
        let db = self.db.clone();
        self.asked(async move { store::keys::holder(&db, &digest).await }).await
    }

    async fn asked(
        &self,
        question: impl Future<Output = Result<Option<Holder>, StoreError>> + Send + 'static,
    ) -> Result<Option<Holder>, IdentifyError> {
        match self.background.run(question).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                self.metrics.store_errors.inc();
                tracing::error!(%error, "a key cannot be looked up");
                Err(IdentifyError::StoreDown)
            }
            Err(_) => Err(IdentifyError::StoreDown),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use chrono_tz::Tz;
    use secrecy::SecretString;

    use super::{Directory, IdentifyError, Sources};
    use crate::background::Background;
    use crate::clock::Clock;
    use crate::credential::key::{Pepper, PlainKey};
    use crate::ids::UserId;
    use crate::plan::{AddressRules, Allowance, Permitted, Plan, Plans, Rates};
    use crate::store::keys::NewKey;
    use crate::store::tests::{Fresh, NOW, entry, fresh, new_user};
    use crate::store::users::{UserChange, insert, update};
    use crate::telemetry::Metrics;

    struct Office {
        directory: Directory,
        clock: Clock,
        pepper: Pepper,
        database: Fresh,
    }

    impl Office {
        async fn open() -> Self {
            let database = fresh().await;
            let clock = Clock::manual(NOW);
            let pepper = Pepper::derive(&SecretString::from("an encryption key of the tests"));
            let plan = Plan {
                name: "free".into(),
                scopes: Permitted::All,
                models: Permitted::All,
                rates: Rates { per_minute: 0, burst: 0, parallel: 0 },
                allowance: Allowance { per_day: 10, zone: Tz::UTC },
            };
            let directory = Directory::new(Sources {
                db: database.db.clone(),
                background: Background::new(tokio::runtime::Handle::current()),
                clock: clock.clone(),
                metrics: Arc::new(Metrics::new()),
                pepper: pepper.clone(),
                plans: Plans::new(BTreeMap::new(), Arc::new(plan)),
                access: AddressRules::Anywhere,
                accept_v1: true,
                capacity: 100,
            });
            Self { directory, clock, pepper, database }
        }

        async fn register(&self, name: &str) -> (UserId, PlainKey) {
            let key = PlainKey::generate();
            let digest = key.digest(&self.pepper);
            let row = NewKey { digest, sealed: String::new(), prefix: key.prefix().into(), format: 2 };
            let registered = entry("user.register");
            let id = insert(&self.database.db, &new_user(name), &row, NOW, &registered).await.unwrap();
            (id, key)
        }

        async fn deactivate(&self, user: UserId) {
            let change = UserChange { is_active: Some(false), ..UserChange::default() };
            update(&self.database.db, user, &change, NOW, &entry("user.update")).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_key_leads_to_its_user_and_a_strange_one_to_nobody() {
        let office = Office::open().await;
        let (ann, key) = office.register("ann").await;
        let subject = office.directory.identify(&key).await.unwrap();
        assert_eq!((subject.user, subject.username.as_str(), subject.allowance.per_day), (ann, "ann", 10));
        let strange = office.directory.identify(&PlainKey::generate()).await;
        assert_eq!(strange.err(), Some(IdentifyError::Unknown));
    }

    #[tokio::test]
    async fn a_change_holds_at_once_where_it_is_told_and_in_seconds_elsewhere() {
        let office = Office::open().await;
        let (ann, key) = office.register("ann").await;
        assert!(office.directory.identify(&key).await.is_ok());
        office.deactivate(ann).await;
        assert!(office.directory.identify(&key).await.is_ok(), "nobody told the directory");
        office.clock.advance(Duration::from_secs(5));
        assert_eq!(office.directory.identify(&key).await.err(), Some(IdentifyError::Disabled));

        let (bob, key) = office.register("bob").await;
        assert!(office.directory.identify(&key).await.is_ok());
        office.deactivate(bob).await;
        office.directory.forget_user(bob);
        assert_eq!(office.directory.identify(&key).await.err(), Some(IdentifyError::Disabled));
    }

    #[tokio::test]
    async fn while_the_database_is_away_known_keys_serve_a_minute_and_strange_ones_never() {
        let office = Office::open().await;
        let (_, key) = office.register("ann").await;
        assert!(office.directory.identify(&key).await.is_ok());
        office.database.db.close().await;
        office.clock.advance(Duration::from_secs(59));
        assert!(office.directory.identify(&key).await.is_ok());
        let strange = office.directory.identify(&PlainKey::generate()).await;
        assert_eq!(strange.err(), Some(IdentifyError::StoreDown), "not: unknown");
        office.clock.advance(Duration::from_secs(1));
        assert_eq!(office.directory.identify(&key).await.err(), Some(IdentifyError::StoreDown));
    }
}
