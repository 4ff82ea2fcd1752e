//! Handing out what was written, and removing what is done.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::aside::{Aside, Room};
use super::cursor::{Cursor, Step, Stretch};
use super::folder::Old;
use super::frame::{HEADER, Key, size, sole_record};
use super::shared::Shared;
use super::window::Window;
use super::{Entry, FRAME, Kind, Location, disk, lock};
use crate::ids::RunId;

/// Hands out records. There is one, and its calls block on the disk.
pub struct Reader {
    shared: Arc<Shared>,
    /// Files of earlier runs, not yet begun.
    old: VecDeque<Old>,
    old_cursor: Option<Cursor>,
    /// Files of this run, in the order in which they were begun.
    live: Vec<Cursor>,
    turn: usize,
    files: HashMap<u64, Tally>,
    window: Window,
    damage: Damage,
    aside: Aside,
    /// The file whose payload was read last.
    opened: Mutex<Option<(u64, Arc<File>)>>,
    numbers: u64,
}

/// What could not be read, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Records that are lost. Exact between two records that are there; at a file's end at least one.
    pub records: u64,
    /// Bytes that belong to no valid record.
    pub bytes: u64,
    /// Files whose end was torn, as a loss of power leaves it.
    pub torn: u64,
    /// Files that could not be read at all. They are copied to `damaged`, or stay.
    pub files: u64,
}

/// What became of a file's records.
struct Tally {
    path: PathBuf,
    key: Key,
    bytes: u64,
    handed: u32,
    finished: bool,
    done: u32,
    /// Bit by ordinal.
    is_done: Vec<u64>,
}

/// What is kept of damaged files, over all runs; it is not part of the spool's quota.
const MOST_DAMAGED: Room = Room { files: 10_000, bytes: 64 << 20 };
/// Most bytes of one piece of them.
const MAX_PIECE: u64 = 16 << 20;
/// Numbers of old files, apart from those of this run.
pub(super) const OLD: u64 = 1 << 63;

// === impl Reader ===

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, old: Vec<Old>) -> Self {
        Self {
            aside: Aside::new(shared.options.folder.join("damaged"), MOST_DAMAGED),
            shared,
            old: old.into(),
            old_cursor: None,
            live: Vec::new(),
            turn: 0,
            files: HashMap::new(),
            window: Window::default(),
            damage: Damage::default(),
            opened: Mutex::default(),
            numbers: OLD,
        }
    }

    /// The next record; `None`: nothing new now. Records of earlier runs come first, in the order of
    /// their files. Those of one writer come in the order in which they were appended.
    ///
    /// A record may come twice, and a copy of one later than what follows it: when a sync failed, the
    /// records of that file that were not yet durable are written again, into another.
    #[expect(clippy::should_implement_trait, reason = "it has more to give later, which an iterator has not")]
    pub fn next(&mut self) -> Option<Entry> {
        loop {
            match self.old_cursor.take() {
                Some(mut cursor) => match self.read(&mut cursor) {
                    Some(entry) => {
                        self.old_cursor = Some(cursor);
                        return Some(entry);
                    }
                    None => self.finish(&cursor),
                },
                None => match self.old.pop_front() {
                    Some(old) => self.old_cursor = self.open(&old),
                    None => return self.next_live(),
                },
            }
        }
    }

    /// Leaves the old files of these runs, or with `None` of all runs, to another start. Returns their number.
    pub fn spare(&mut self, runs: Option<&[RunId]>) -> usize {
        let before = self.old.len();
        self.old.retain(|old| {
            let name = old.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            runs.is_some_and(|runs| !runs.iter().any(|run| name.starts_with(&run.0.simple().to_string())))
        });
        before - self.old.len()
    }

    /// Whether every record of earlier runs was handed out. True only after [`next`](Self::next) has
    /// found nothing more of them.
    pub fn old_runs_read(&self) -> bool {
        self.old.is_empty() && self.old_cursor.is_none()
    }

    /// The bytes of a record, checked again.
    ///
    /// # Errors
    ///
    /// The disk's; `InvalidData` when the bytes are no longer what was appended; `NotFound` when the
    /// file is already removed.
    pub fn payload(&self, at: &Location) -> io::Result<Vec<u8>> {
        let tally = self.files.get(&at.file).ok_or(io::ErrorKind::NotFound)?;
        let file = self.file(at.file, tally)?;
        let mut frame = vec![0; usize::try_from(size(at.len)).map_err(io::Error::other)?];
        file.read_exact_at(&mut frame, at.offset)?;
        if !tally.key.holds(at.offset, &frame) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a record of the spool was damaged"));
        }
        frame.truncate(FRAME + at.len as usize);
        frame.drain(..FRAME);
        Ok(frame)
    }

    /// This record is no longer needed. A file that is ended and fully read is removed when all of its
    /// records are done. Twice for one record is once.
    pub fn done(&mut self, at: &Location) {
        let Some(tally) = self.files.get_mut(&at.file) else { return };
        tally.check(at.ordinal);
        if tally.is_over() {
            self.remove(at.file);
        }
    }

    /// What could not be read until now.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Removes pieces of damaged files that were set aside, where `is_theirs` says so; how many. It is
    /// given what may be the one record that the piece is, with wrong bits in it; `None`: it is more, or
    /// less, or none.
    ///
    /// # Errors
    /// What the disk says; then some may be there still.
    pub fn remove_damaged(
        &mut self,
        mut is_theirs: impl FnMut(Option<(Kind, &[u8])>) -> bool,
    ) -> io::Result<u64> {
        self.aside.remove(|name, bytes| is_theirs(sole_record(name, bytes)))
    }

    fn next_live(&mut self) -> Option<Entry> {
        self.take_fresh();
        let mut tried = 0;
        while tried < self.live.len() {
            self.turn %= self.live.len();
            if self.must_wait(self.turn) {
                (self.turn, tried) = (self.turn + 1, tried + 1);
                continue;
            }
            let mut cursor = self.live.remove(self.turn);
            let finished = cursor.is_finished();
            let entry = if finished { None } else { self.read(&mut cursor) };
            if entry.is_none() && cursor.is_finished() {
                // Another file of the same writer may be read now.
                tried = 0;
                self.finish(&cursor);
                continue;
            }
            self.live.insert(self.turn, cursor);
            if entry.is_some() {
                return entry;
            }
            (self.turn, tried) = (self.turn + 1, tried + 1);
        }
        None
    }

    /// Files that were begun since.
    fn take_fresh(&mut self) {
        let fresh = std::mem::take(&mut *lock(&self.shared.fresh));
        for track in fresh {
            match File::open(&track.path) {
                Ok(file) => {
                    let cursor = Cursor::live(track, file);
                    self.files.insert(cursor.number, Tally::new(&cursor));
                    self.live.push(cursor);
                }
                Err(error) => {
                    self.lose_file();
                    tracing::error!(%error, file = %track.path.display(), "a spool file cannot be opened; it stays for the next start");
                }
            }
        }
    }

    /// Whether an earlier file of the same writer has still more to give.
    fn must_wait(&self, at: usize) -> bool {
        let writer = |cursor: &Cursor| cursor.track.as_ref().map(|track| track.writer);
        let (earlier, from) = self.live.split_at(at.min(self.live.len()));
        from.first().is_some_and(|own| earlier.iter().any(|other| writer(other) == writer(own)))
    }

    /// Begins a file of an earlier run. One with nothing in it is removed.
    fn open(&mut self, old: &Old) -> Option<Cursor> {
        let file = match File::open(&old.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.shared.room.sub(old.bytes);
                return None;
            }
            Err(error) => {
                self.lose_file();
                tracing::error!(%error, file = %old.path.display(), "a spool file cannot be opened; it stays for the next start");
                return None;
            }
        };
        self.numbers += 1;
        if old.bytes <= HEADER as u64 {
            self.unlink(&old.path, old.bytes);
            return None;
        }
        match Cursor::old(self.numbers, old, file) {
            Ok(cursor) => {
                self.files.insert(cursor.number, Tally::new(&cursor));
                Some(cursor)
            }
            Err(file) => {
                self.set_aside(&old.path, &file, old.bytes);
                None
            }
        }
    }

    /// The next record of one file, over whatever is damaged.
    fn read(&mut self, cursor: &mut Cursor) -> Option<Entry> {
        cursor.is_finished();
        loop {
            match cursor.step(&mut self.window) {
                Step::End => return None,
                Step::Damage(stretch) => self.note(cursor, stretch),
                Step::Record { at, head } => {
                    if let Some(tally) = self.files.get_mut(&cursor.number) {
                        tally.handed += 1;
                    }
                    let at =
                        Location { file: cursor.number, offset: at, len: head.len, ordinal: head.ordinal };
                    return Some(Entry { kind: head.kind, id: head.id, run: cursor.header.run, at });
                }
            }
        }
    }

    fn note(&mut self, cursor: &Cursor, stretch: Stretch) {
        let Stretch { from, to, records, tail } = stretch;
        let whole_file = tail && cursor.header_lost && from == HEADER as u64;
        let file = cursor.path.display();
        self.damage.bytes += to - from;
        self.shared.metrics.spool_lost_bytes.inc_by(to - from);
        if whole_file {
            // Nothing says that there ever were records in it.
            return;
        }
        self.damage.records += records;
        self.shared.metrics.spool_lost_records.inc_by(records);
        self.damage.torn += u64::from(tail);
        let what = if tail { "the end of a spool file is torn" } else { "a spool file is damaged" };
        tracing::error!(%file, from, to, records, "{what}; what can be read is read");
        self.copy(&cursor.path, &cursor.file, from, to);
    }

    /// All of a file was handed out.
    fn finish(&mut self, cursor: &Cursor) {
        if cursor.header_lost {
            self.damage.bytes += HEADER as u64;
            self.shared.metrics.spool_lost_bytes.inc_by(HEADER as u64);
        }
        let Some(tally) = self.files.get_mut(&cursor.number) else { return };
        tally.finished = true;
        tally.bytes = cursor.bytes();
        if cursor.header_lost && tally.handed == 0 {
            self.damage.bytes = self.damage.bytes.saturating_sub(cursor.bytes());
            self.files.remove(&cursor.number);
            self.set_aside(&cursor.path, &cursor.file, cursor.bytes());
        } else if tally.is_over() {
            self.remove(cursor.number);
        }
    }

    /// A file that nobody can read is copied away, or stays where it is.
    fn set_aside(&mut self, path: &Path, file: &File, bytes: u64) {
        self.lose_file();
        self.damage.bytes += bytes;
        tracing::error!(file = %path.display(), bytes, "nothing of a spool file can be read; it is set aside");
        if self.copy(path, file, 0, bytes) {
            self.unlink(path, bytes);
        }
    }

    /// Copies a stretch of a file, or its beginning where it is long. True: it is there, or there was
    /// nothing in it but zeros, or no more may be kept.
    fn copy(&mut self, path: &Path, file: &File, from: u64, to: u64) -> bool {
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { return false };
        let (name, bytes) = (format!("{name}-{from:016x}.bin"), to.saturating_sub(from).min(MAX_PIECE));
        let Err(error) = self.aside.copy(&name, file, from, bytes) else { return true };
        tracing::warn!(%error, file = %self.aside.path(&name).display(), "damaged bytes cannot be set aside");
        false
    }

    fn lose_file(&mut self) {
        self.damage.files += 1;
        self.shared.metrics.spool_lost_files.inc();
    }

    fn remove(&mut self, number: u64) {
        let Some(tally) = self.files.remove(&number) else { return };
        lock(&self.opened).take_if(|(opened, _)| *opened == number);
        self.unlink(&tally.path, tally.bytes);
    }

    fn unlink(&self, path: &Path, bytes: u64) {
        if let Err(error) = disk::remove(path) {
            tracing::warn!(%error, file = %path.display(), "a spool file that is done cannot be removed");
            return;
        }
        self.shared.room.sub(bytes);
        self.shared.renamed.store(true, Ordering::Release);
        if self.shared.closed.load(Ordering::Acquire) {
            let synced = self.shared.disk.sync_folder(&self.shared.options.folder);
            let _ = synced.inspect_err(|error| tracing::warn!(%error, "the spool's folder cannot be synced"));
        }
    }

    fn file(&self, number: u64, tally: &Tally) -> io::Result<Arc<File>> {
        let mut opened = lock(&self.opened);
        if let Some((last, file)) = &*opened
            && *last == number
        {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(&tally.path)?);
        *opened = Some((number, Arc::clone(&file)));
        Ok(file)
    }
}

// === impl Tally ===

impl Tally {
    fn new(cursor: &Cursor) -> Self {
        Self {
            path: cursor.path.clone(),
            key: cursor.key(),
            bytes: 0,
            handed: 0,
            finished: false,
            done: 0,
            is_done: Vec::new(),
        }
    }

    fn check(&mut self, ordinal: u32) {
        let (word, bit) = (ordinal as usize / 64, 1_u64 << (ordinal % 64));
        if self.is_done.len() <= word {
            self.is_done.resize(word + 1, 0);
        }
        if let Some(word) = self.is_done.get_mut(word).filter(|word| **word & bit == 0) {
            *word |= bit;
            self.done += 1;
        }
    }

    fn is_over(&self) -> bool {
        self.finished && self.done >= self.handed
    }
}
