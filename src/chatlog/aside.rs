//! What cannot become a row is kept beside the spool, for people to look at, until somebody whose it may
//! be is forgotten.

use std::io;
use std::path::PathBuf;

use serde::Deserialize;

use super::record::{self, Begin, Whole};
use crate::ids::{ExchangeId, UserId};
use crate::spool::{self, Kind, Reader, Room};
use crate::store::exchanges::Exchange;

/// The folder of it.
pub(super) struct Aside(spool::Aside);

/// Who is to be forgotten.
pub(super) struct Person {
    pub(super) user: UserId,
    /// Every name and address they were logged with.
    pub(super) names: Vec<String>,
}

/// Whose something says that it is; so it stands in a row, which has more.
#[derive(Deserialize)]
struct Owner {
    #[serde(rename = "user_id")]
    user: Option<UserId>,
    username: String,
    email: String,
}

/// What comes later is only counted.
const MOST: Room = Room { files: 1000, bytes: 1 << 30 };
/// The kind of file that holds a row.
const ROW: &str = "row.json";

// === impl Aside ===

impl Aside {
    /// The folder is made with its first file.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(spool::Aside::new(folder, MOST))
    }

    /// Keeps `bytes` as a file that only the gateway's own account can read.
    pub(super) fn keep(&mut self, id: ExchangeId, kind: &str, bytes: &[u8]) {
        self.keep_pieces(id, kind, bytes.len() as u64, std::iter::once(bytes));
    }

    /// The same of pieces of so many bytes together.
    pub(super) fn keep_pieces(
        &mut self,
        id: ExchangeId,
        kind: &str,
        bytes: u64,
        pieces: impl Iterator<Item = impl AsRef<[u8]>>,
    ) {
        let name = format!("{id}.{kind}");
        match self.0.keep_pieces(&name, bytes, pieces) {
            Ok(true) => tracing::error!(file = %self.0.path(&name).display(), "set aside"),
            Ok(false) => tracing::error!(%id, "not set aside: too much already is"),
            Err(error) => tracing::error!(%error, %id, "cannot be set aside"),
        }
    }

    /// Removes what is theirs, or does not say whose it is; how many files.
    pub(super) fn forget(&mut self, person: &Person) -> io::Result<u64> {
        self.0.remove(|name, bytes| {
            let owner = if name.ends_with(ROW) { Owner::of_row(bytes) } else { Owner::of_records(bytes) };
            // What is said here was whole when it was set aside: a number is who it is, a name may have
            // been another's before.
            let is_theirs = |owner: &Owner| match owner.user {
                Some(user) => user == person.user,
                None => person.is_named(owner),
            };
            owner.as_ref().map_or(person.is_known(), is_theirs)
        })
    }
}

// === impl Person ===

impl Person {
    /// Removes the damaged pieces of the spool but for those that are one record which says that it is
    /// somebody else's; how many files.
    pub(super) fn leave_damage(&self, reader: &mut Reader) -> io::Result<u64> {
        reader.remove_damaged(|record| {
            let owner = record.and_then(|(kind, payload)| Owner::of_record(kind, payload));
            // Bits of the number may be wrong, or of the name.
            let is_theirs = |owner: &Owner| owner.user == Some(self.user) || self.is_named(owner);
            owner.as_ref().map_or(self.is_known(), is_theirs)
        })
    }

    /// Whether they ever were here; of who was not, only what names them can be theirs.
    fn is_known(&self) -> bool {
        !self.names.is_empty()
    }

    fn is_named(&self, owner: &Owner) -> bool {
        let same = |name: &String| {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            is(&owner.username) || is(&owner.email)
        };
        self.names.iter().any(same)
    }
}

// === impl Owner ===

impl Owner {
    fn of_row(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Records of one conversation, one behind the other, the one that names its owner first.
    fn of_records(bytes: &[u8]) -> Option<Self> {
        Self::of_record(Kind::Begin, bytes).or_else(|| Self::of_record(Kind::Whole, bytes))
    }

    fn of_record(kind: Kind, payload: &[u8]) -> Option<Self> {
        let owner = match kind {
            Kind::Begin => Self::of_begin(&record::read::<Begin<'_>>(payload).ok()?.0),
            Kind::Whole => match Whole::read(payload).ok()? {
                Whole::Conversation(both, _) => Self::of_begin(&both.0),
                Whole::Row(row) => Self::of_exchange(*row),
            },
            Kind::Part | Kind::End => return None,
        };
        // Other bytes can be read as facts too, by chance.
        owner.email.contains('@').then_some(owner)
    }

    fn of_begin(begin: &Begin<'_>) -> Self {
        let (username, email) = (begin.username.to_owned(), begin.email.to_owned());
        Self { user: Some(begin.user), username, email }
    }

    fn of_exchange(row: Exchange) -> Self {
        Self { user: row.user_id, username: row.username, email: row.email }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Aside, Person};
    use crate::chatlog::record::tests::{begin, end};
    use crate::chatlog::record::{Begin, Whole, facts};
    use crate::ids::{ExchangeId, UserId};
    use crate::store::exchanges::Exchange;
    use crate::store::tests::exchange;

    const ANN: UserId = UserId(7);
    const BOB: UserId = UserId(8);

    #[test]
    fn who_is_forgotten_takes_along_what_is_theirs_or_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let poison = folder.path().join("poison");
        let mut aside = Aside::new(poison.clone());
        let keep = |aside: &mut Aside, kind: &str, bytes: &[u8]| {
            let id = ExchangeId::generate();
            aside.keep(id, kind, bytes);
            id
        };
        let row = |user_id, username: &str| {
            let row = Exchange { user_id, username: username.into(), email: "x@y".into(), ..exchange(1) };
            serde_json::to_vec(&row).unwrap()
        };
        let of_bob = Begin { user: BOB, username: "bob", email: "bob@example.com", ..begin() };
        let kept = [
            keep(&mut aside, "row.json", &row(Some(BOB), "ann")),
            keep(&mut aside, "row.json", &row(None, "carl")),
            keep(&mut aside, "records", &[&facts(&of_bob)[..], b"ann said so"].concat()),
            keep(&mut aside, "records", &Whole::conversation(&of_bob, &end())),
        ];
        keep(&mut aside, "row.json", &row(Some(ANN), "another"));
        keep(&mut aside, "row.json", &row(None, "Ann"));
        keep(&mut aside, "row.json", b"{\"user_id\": 8");
        keep(&mut aside, "records", &[&facts(&begin())[..], b"rest"].concat());
        keep(&mut aside, "records", &Whole::row(&Exchange { user_id: Some(ANN), ..exchange(1) }));
        keep(&mut aside, "records", b"\x09 none of ours");
        let stranger = Person { user: UserId(9), names: Vec::new() };
        assert_eq!(aside.forget(&stranger).unwrap(), 0);
        let person = Person { user: ANN, names: vec!["ann".into(), "ann@example.com".into()] };
        assert_eq!(aside.forget(&person).unwrap(), 6);
        assert_eq!(aside.forget(&person).unwrap(), 0);
        let mut left: Vec<_> = fs::read_dir(poison)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut kept: Vec<_> = kept.iter().map(ToString::to_string).collect();
        kept.sort();
        assert!(left.iter().zip(&kept).all(|(left, id)| left.starts_with(id)) && left.len() == 4, "{left:?}");
    }
}
