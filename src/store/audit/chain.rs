//! The chain: each row's hash covers its own columns and the hash of the row before it.
//!
//! Whoever alters, removes or inserts a row breaks the chain from there on, unless they compute all
//! later hashes anew. Against that, and against a tail cut off, a link noted elsewhere helps: it is in
//! the walk's answer and in the gateway's own log each night, and [`walk`] says whether it still holds.
//!
//! Rows from before the chain have no hash. They are counted, and none may come after the first link.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::store::{Db, SlowRead, StoreError, Tx};

/// A place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Counts from 1, without a gap; 0 before the first.
    pub seq: i64,
    /// SHA-256, 32 bytes.
    pub hash: Vec<u8>,
}

/// A text that is no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a link is a number, a colon, and 64 hexadecimal digits")]
pub struct NotALink;

/// What a walk over the whole chain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Rows whose hash is right, up to the first that is not.
    pub sound: i64,
    /// Rows from before the chain.
    pub unchained: i64,
    /// The last link, as it was when the walk began.
    pub head: Link,
    /// Where the chain breaks first.
    pub broken: Option<Break>,
}

/// The first place where the chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The link that does not hold.
    pub seq: i64,
    /// The row that bears it, if there is one.
    pub id: Option<i64>,
    /// What is wrong with it.
    pub why: &'static str,
}

/// A row's columns, as they are stored.
#[derive(sqlx::FromRow)]
pub(super) struct Content {
    pub(super) at: Timestamp,
    pub(super) actor_kind: String,
    pub(super) actor_id: Option<i64>,
    pub(super) actor_name: String,
    pub(super) action: String,
    pub(super) target: String,
    pub(super) detail: String,
    pub(super) request_id: String,
    pub(super) client_ip: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Chained {
    id: i64,
    seq: i64,
    hash: Option<Vec<u8>>,
    #[sqlx(flatten)]
    content: Content,
}

/// Rows read at a time.
const STEP: i64 = 1000;
/// What the bytes of a row begin with, so that another form can follow one day.
const FORM: &[u8] = b"tollgate-audit-1";

const NEXT: &str = "UPDATE audit_head SET seq = seq + 1 WHERE one = 1 RETURNING seq, hash";

/// The link that a row about to be written will bear, given what it says. Until `tx` ends, other
/// writers wait here, so this is the last lock that a transaction takes.
pub(super) async fn next(tx: &mut Tx, content: &Content) -> Result<Link, sqlx::Error> {
    let (seq, before): (i64, Vec<u8>) = on!(tx, within conn => sqlx::query_as(NEXT).fetch_one(conn).await)?;
    Ok(Link { seq, hash: content.hash(seq, &before) })
}

const MOVE_HEAD: &str = "UPDATE audit_head SET hash = $1 WHERE one = 1";

/// Makes `link` the last one.
pub(super) async fn close(tx: &mut Tx, link: &Link) -> Result<(), sqlx::Error> {
    on!(tx, within conn => sqlx::query(MOVE_HEAD).bind(&link.hash).execute(conn).await.map(|_| ()))
}

const HEAD: &str = "SELECT seq, hash FROM audit_head";

/// The last link.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn head(db: &Db) -> Result<Link, StoreError> {
    let (seq, hash) = on!(db, read pool => sqlx::query_as(HEAD).fetch_one(pool).await)?;
    Ok(Link { seq, hash })
}

const PAGE: &str = "SELECT id, seq, hash, at, actor_kind, actor_id, actor_name, action, target, detail,
    request_id, client_ip FROM audit WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3";
const UNCHAINED: &str = "SELECT COUNT(*) FROM audit WHERE seq IS NULL";
const STRAY: &str = "SELECT MIN(id) FROM audit
    WHERE seq IS NULL AND id > (SELECT MIN(id) FROM audit WHERE seq IS NOT NULL)";

/// Walks the chain from its beginning to what was its end when the walk began, and stops where it
/// breaks. A link that was `noted` before must still be in it.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn walk(reads: &SlowRead, noted: Option<&Link>) -> Result<Walked, StoreError> {
    let db = reads.db();
    let head = head(db).await?;
    let unchained = on!(db, read pool => sqlx::query_scalar(UNCHAINED).fetch_one(pool).await)?;
    let mut reached = Link { seq: 0, hash: vec![0; 32] };
    let broken = follow(db, &head, noted, &mut reached).await?;
    Ok(Walked { sound: reached.seq, unchained, head, broken })
}

async fn follow(
    db: &Db,
    head: &Link,
    noted: Option<&Link>,
    reached: &mut Link,
) -> Result<Option<Break>, StoreError> {
    loop {
        let rows: Vec<Chained> = on!(db, read pool => sqlx::query_as(PAGE)
            .bind(reached.seq).bind(head.seq).bind(STEP).fetch_all(pool).await)?;
        if rows.is_empty() {
            return last_look(db, head, noted, reached).await;
        }
        for row in rows {
            if let Some(why) = row.wrong_after(reached, noted) {
                let seq = if why == MISSING { reached.seq + 1 } else { row.seq };
                let id = (why != MISSING).then_some(row.id);
                return Ok(Some(Break { seq, id, why }));
            }
            *reached = Link { seq: row.seq, hash: row.hash.unwrap_or_default() };
        }
    }
}

/// What cannot be seen in any one row.
async fn last_look(
    db: &Db,
    head: &Link,
    noted: Option<&Link>,
    reached: &Link,
) -> Result<Option<Break>, StoreError> {
    let at = |seq, id, why| Ok(Some(Break { seq, id, why }));
    if reached != head {
        return at(reached.seq + 1, None, "rows at the end are missing, or the head is not theirs");
    }
    if let Some(noted) = noted.filter(|noted| noted.seq > head.seq) {
        return at(noted.seq, None, "the noted link is not there any more");
    }
    let stray: Option<i64> = on!(db, read pool => sqlx::query_scalar(STRAY).fetch_one(pool).await)?;
    if stray.is_some() {
        return at(0, stray, "a row without a link stands among those that have one");
    }
    Ok(None)
}

const MISSING: &str = "a row is missing";

// === impl Link ===

/// `17:9f86d081…`
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.seq)?;
        self.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Link {
    type Err = NotALink;

    fn from_str(text: &str) -> Result<Self, NotALink> {
        let (seq, hex) = text.trim().split_once(':').ok_or(NotALink)?;
        let seq = seq.parse().map_err(|_| NotALink)?;
        let pairs = hex.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let hash: Vec<u8> = pairs.map(byte).collect::<Option<_>>().ok_or(NotALink)?;
        if hash.len() == 32 { Ok(Self { seq, hash }) } else { Err(NotALink) }
    }
}

// === impl Chained ===

impl Chained {
    /// What is wrong with this row, standing after `before`.
    fn wrong_after(&self, before: &Link, noted: Option<&Link>) -> Option<&'static str> {
        if self.seq != before.seq + 1 {
            return Some(MISSING);
        }
        if self.hash.as_deref() != Some(&self.content.hash(self.seq, &before.hash)) {
            return Some("the row is not as it was written");
        }
        let noted = noted.filter(|noted| noted.seq == self.seq)?;
        (self.hash.as_deref() != Some(&noted.hash)).then_some("the noted link is another one")
    }
}

// === impl Content ===

impl Content {
    /// SHA-256 of the form, the hash before, and each column with its length in front, so that no two
    /// rows have the same bytes.
    fn hash(&self, seq: i64, before: &[u8]) -> Vec<u8> {
        let mut hash = Sha256::new();
        let mut add = |bytes: Option<&[u8]>| {
            hash.update([u8::from(bytes.is_some())]);
            let bytes = bytes.unwrap_or_default();
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        add(Some(FORM));
        add(Some(before));
        add(Some(&seq.to_be_bytes()));
        add(Some(&self.at.0.to_be_bytes()));
        add(Some(self.actor_kind.as_bytes()));
        add(self.actor_id.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
        for text in [&self.actor_name, &self.action, &self.target, &self.detail, &self.request_id] {
            add(Some(text.as_bytes()));
        }
        add(self.client_ip.as_deref().map(str::as_bytes));
        hash.finalize().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Link, NotALink};
    use crate::clock::Timestamp;

    fn content() -> Content {
        Content {
            at: Timestamp(1),
            actor_kind: "admin".into(),
            actor_id: Some(7),
            actor_name: "ann".into(),
            action: "user.update".into(),
            target: "bob".into(),
            detail: "{}".into(),
            request_id: "req_1".into(),
            client_ip: None,
        }
    }

    #[test]
    fn every_column_and_the_row_before_count() {
        let changes: [fn(&mut Content); 9] = [
            |c| c.at = Timestamp(2),
            |c| c.actor_kind = "staff".into(),
            |c| c.actor_id = None,
            |c| c.actor_name = "annu".into(),
            |c| c.action = "ser.update".into(),
            |c| c.target = "bo".into(),
            |c| c.detail = "{\"a\":1}".into(),
            |c| c.request_id = String::new(),
            |c| c.client_ip = Some(String::new()),
        ];
        let first = content().hash(1, &[0; 32]);
        let mut all = vec![first.clone(), content().hash(2, &[0; 32]), content().hash(1, &[1; 32])];
        for change in changes {
            let mut other = content();
            change(&mut other);
            all.push(other.hash(1, &[0; 32]));
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(content().hash(1, &[0; 32]), first);
    }

    #[test]
    fn a_link_is_read_as_it_is_written() {
        let link = Link { seq: 17, hash: (0..32).collect() };
        assert!(link.to_string().starts_with("17:000102"), "{link}");
        assert_eq!(link.to_string().parse(), Ok(link));
        for bad in
            ["", "17", "17:00", "x:00", &format!("1:{}", "g".repeat(64)), &format!("1:{}", "0".repeat(66))]
        {
            assert_eq!(bad.parse::<Link>(), Err(NotALink), "{bad}");
        }
    }

    #[test]
    fn what_moves_from_one_column_to_the_next_is_another_row() {
        let mut moved = content();
        (moved.action, moved.target) = ("user.updateb".into(), "ob".into());
        assert_ne!(moved.hash(1, &[0; 32]), content().hash(1, &[0; 32]));
    }
}
