//! What a disk may hold after the power went: a model of files whose writes are durable only once they
//! were synced, and of names that are durable only once their folder was.

use std::collections::HashMap;

use super::dice::Dice;

/// One call that changes a disk, or makes it durable. Paths are relative to the data folder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Create(String),
    Write {
        path: String,
        at: usize,
        bytes: Vec<u8>,
    },
    /// To the end of the file.
    Append {
        path: String,
        bytes: Vec<u8>,
    },
    Cut {
        path: String,
        len: usize,
    },
    Sync(String),
    SyncFolder(String),
    Unlink(String),
    Rename(String, String),
}

/// When it was asked for and when it was done, in seconds of 1970.
#[derive(Clone, Debug)]
pub(crate) struct Timed {
    pub(crate) op: Op,
    pub(crate) begun: f64,
    pub(crate) done: f64,
}

/// Files by path, as found after the crash.
pub(crate) type Files = HashMap<String, Vec<u8>>;

/// A disk under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    inodes: Vec<Inode>,
    now: HashMap<String, usize>,
    durable: HashMap<String, usize>,
    /// Changes of names, and when they were done.
    names: Vec<(Name, f64)>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    len: usize,
    pending: Vec<(Change, f64)>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

#[derive(Clone, Debug)]
enum Name {
    Is(String, usize),
    IsGone(String),
}

/// What became of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// All of it is there: the process died, and the machine did not.
    Kept,
    /// None of it is.
    Dropped,
    /// Of each write some sectors, of each name one state or the other.
    Torn,
    /// The last ones are there, those before are not.
    Reordered,
}

/// What a disk writes in one piece.
const SECTOR: usize = 512;

// === impl Disk ===

impl Disk {
    /// A disk with these files, long since durable.
    pub(crate) fn with(files: &Files) -> Self {
        let mut disk = Self::default();
        for (path, bytes) in files {
            let inode = Inode { durable: bytes.clone(), len: bytes.len(), pending: Vec::new() };
            disk.inodes.push(inode);
            disk.now.insert(path.clone(), disk.inodes.len() - 1);
        }
        disk.durable = disk.now.clone();
        disk
    }

    /// The next call is done.
    pub(crate) fn apply(&mut self, Timed { op, begun, done }: &Timed) {
        match op {
            Op::Create(path) => {
                if !self.now.contains_key(path) {
                    self.inodes.push(Inode::default());
                    self.name(path, self.inodes.len() - 1, *done);
                }
            }
            Op::Write { path, at, bytes } => self.change(path, |_| Change::Write(*at, bytes.clone()), *done),
            Op::Append { path, bytes } => self.change(path, |len| Change::Write(len, bytes.clone()), *done),
            Op::Cut { path, len } => self.change(path, |_| Change::Cut(*len), *done),
            Op::Sync(path) => {
                if let Some(inode) = self.now.get(path) {
                    self.inodes[*inode].sync(*begun);
                }
            }
            Op::SyncFolder(folder) => self.sync_folder(folder, *begun),
            Op::Unlink(path) => {
                self.now.remove(path);
                self.names.push((Name::IsGone(path.clone()), *done));
            }
            Op::Rename(from, to) => {
                if let Some(inode) = self.now.remove(from) {
                    self.names.push((Name::IsGone(from.clone()), *done));
                    self.name(to, inode, *done);
                }
            }
        }
    }

    /// What is found if the power goes now.
    pub(crate) fn crash(&self, fate: Fate, dice: &mut Dice) -> Files {
        let mut names = self.durable.clone();
        for (at, (name, _)) in self.names.iter().enumerate() {
            if fate.keeps(at, self.names.len(), dice) {
                name.apply(&mut names);
            }
        }
        names.into_iter().map(|(path, inode)| (path, self.inodes[inode].crash(fate, dice))).collect()
    }

    fn name(&mut self, path: &str, inode: usize, done: f64) {
        self.now.insert(path.to_owned(), inode);
        self.names.push((Name::Is(path.to_owned(), inode), done));
    }

    fn change(&mut self, path: &str, change: impl FnOnce(usize) -> Change, done: f64) {
        let inode = &mut self.inodes[*self.now.get(path).unwrap_or_else(|| panic!("{path} was never made"))];
        let change = change(inode.len);
        inode.len = match &change {
            Change::Write(at, bytes) => inode.len.max(at + bytes.len()),
            Change::Cut(len) => *len,
        };
        inode.pending.push((change, done));
    }

    /// What was done before the sync began is durable; what was under way need not be.
    fn sync_folder(&mut self, folder: &str, begun: f64) {
        let mut names = std::mem::take(&mut self.names);
        names.retain(|(name, done)| {
            let durable = name.folder() == folder && *done <= begun;
            if durable {
                name.apply(&mut self.durable);
            }
            !durable
        });
        self.names = names;
    }
}

// === impl Inode ===

impl Inode {
    fn sync(&mut self, begun: f64) {
        for (change, _) in self.pending.extract_if(.., |(_, done)| *done <= begun) {
            change.apply(&mut self.durable, None);
        }
    }

    fn crash(&self, fate: Fate, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (at, (change, _)) in self.pending.iter().enumerate() {
            if !fate.keeps(at, self.pending.len(), dice) {
                continue;
            }
            let torn = fate == Fate::Torn && dice.chance(50);
            change.apply(&mut bytes, torn.then_some(&mut *dice));
        }
        bytes
    }
}

// === impl Change ===

impl Change {
    fn apply(&self, file: &mut Vec<u8>, mut torn: Option<&mut Dice>) {
        match self {
            Self::Cut(len) => file.resize(*len, 0),
            Self::Write(at, bytes) => {
                let mut from = 0;
                while from < bytes.len() {
                    let to = (from + SECTOR - (at + from) % SECTOR).min(bytes.len());
                    if torn.as_mut().is_none_or(|dice| dice.chance(50)) {
                        file.resize(file.len().max(at + to), 0);
                        file[at + from..at + to].copy_from_slice(&bytes[from..to]);
                    }
                    from = to;
                }
            }
        }
    }
}

// === impl Name ===

impl Name {
    fn apply(&self, names: &mut HashMap<String, usize>) {
        match self {
            Self::Is(path, inode) => names.insert(path.clone(), *inode),
            Self::IsGone(path) => names.remove(path),
        };
    }

    fn folder(&self) -> &str {
        let (Self::Is(path, _) | Self::IsGone(path)) = self;
        path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

// === impl Fate ===

impl Fate {
    fn keeps(self, at: usize, of: usize, dice: &mut Dice) -> bool {
        match self {
            Self::Kept => true,
            Self::Dropped => false,
            Self::Torn => dice.chance(60),
            Self::Reordered => at + 1 + dice.below(3) as usize >= of,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Dice, Disk, Fate, Op, Timed};

    #[test]
    fn what_was_synced_is_there_and_what_was_not_may_be() {
        let mut disk = Disk::default();
        let mut clock = 0.0;
        let mut then = |disk: &mut Disk, op: Op| {
            clock += 1.0;
            disk.apply(&Timed { op, begun: clock, done: clock + 0.5 });
        };
        let a = || "spool/a".to_owned();
        then(&mut disk, Op::Create(a()));
        then(&mut disk, Op::Append { path: a(), bytes: b"one".to_vec() });
        then(&mut disk, Op::Sync(a()));
        assert!(disk.crash(Fate::Dropped, &mut Dice::new(1)).is_empty(), "its name was not synced");
        then(&mut disk, Op::SyncFolder("spool".to_owned()));
        then(&mut disk, Op::Append { path: a(), bytes: b"two".to_vec() });
        assert_eq!(disk.crash(Fate::Dropped, &mut Dice::new(1))["spool/a"], b"one");
        assert_eq!(disk.crash(Fate::Kept, &mut Dice::new(1))["spool/a"], b"onetwo");
        then(&mut disk, Op::Unlink(a()));
        assert_eq!(disk.crash(Fate::Dropped, &mut Dice::new(1))["spool/a"], b"one", "it is still there");
        assert!(disk.crash(Fate::Kept, &mut Dice::new(1)).is_empty());
    }

    #[test]
    fn a_torn_write_is_there_by_sectors() {
        let mut disk = Disk::default();
        let write = Op::Write { path: "a".to_owned(), at: 100, bytes: vec![7; 2000] };
        for op in [Op::Create("a".to_owned()), Op::SyncFolder(String::new()), write] {
            disk.apply(&Timed { op, begun: 1.0, done: 1.0 });
        }
        let torn = (0..200).map(|seed| disk.crash(Fate::Torn, &mut Dice::new(seed))["a"].clone());
        let partly = torn.filter(|bytes| bytes.contains(&7) && bytes[100..].contains(&0));
        for bytes in partly {
            let edges = (101..bytes.len()).filter(|at| bytes[*at] != bytes[at - 1]);
            assert!(edges.clone().all(|at| at % 512 == 0), "{:?}", edges.collect::<Vec<_>>());
        }
    }
}
