//! A folder of files that no program reads: kept for whoever wants to look, within bounds.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::window::read_leniently;

/// Such a folder. It is made with its first file; both are for the gateway's own account alone.
pub struct Aside {
    folder: PathBuf,
    most: Room,
    /// When it was looked at, and what may be added since.
    left: Option<(Instant, Room)>,
}

/// So much.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Files.
    pub files: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// A folder that was full is looked at again after this long: somebody may have cleared it.
const LOOKED_FOR: Duration = Duration::from_mins(1);
const CHUNK: u64 = 64 << 10;

// === impl Aside ===

impl Aside {
    /// At most so much is kept, over all runs.
    #[must_use]
    pub fn new(folder: PathBuf, most: Room) -> Self {
        Self { folder, most, left: None }
    }

    /// Where a file of this name is, or would be.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Keeps `bytes` as a file of this name, in the stead of one that has it, and on the disk when this
    /// returns. False: there is no room for it.
    ///
    /// # Errors
    /// What the disk says; there may be a file with less in it.
    pub fn keep(&mut self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        self.keep_pieces(name, bytes.len() as u64, std::iter::once(bytes))
    }

    /// The same of `pieces` of so many bytes together, with one of them in memory at a time.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub fn keep_pieces(
        &mut self,
        name: &str,
        bytes: u64,
        pieces: impl Iterator<Item = impl AsRef<[u8]>>,
    ) -> io::Result<bool> {
        if !self.take(bytes) {
            return Ok(false);
        }
        let mut file = self.create(name)?;
        for piece in pieces {
            file.write_all(piece.as_ref())?;
        }
        file.sync_all()?;
        Ok(true)
    }

    /// Copies so many bytes of `file` from an offset on; what cannot be read of them is zeros, and what is
    /// nothing but zeros is not kept. False: there is no room for it.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub(super) fn copy(&mut self, name: &str, file: &File, from: u64, bytes: u64) -> io::Result<bool> {
        if !self.take(bytes) {
            return Ok(false);
        }
        let (mut copy, mut buffer, mut at) = (None, Vec::new(), 0);
        while at < bytes {
            buffer.clear();
            buffer.resize(usize::try_from((bytes - at).min(CHUNK)).unwrap_or(0), 0);
            read_leniently(file, &mut buffer, from + at);
            if copy.is_none() && buffer.iter().any(|byte| *byte != 0) {
                copy = Some(self.create(name)?);
                at = 0;
                continue;
            }
            if let Some(copy) = &mut copy {
                copy.write_all(&buffer)?;
            }
            at += buffer.len() as u64;
        }
        Ok(true)
    }

    /// Removes the files of which `is_theirs` says so, given their name and what is in them; how many.
    /// They stay away after a loss of power.
    ///
    /// # Errors
    /// What the disk says; then some may be there still.
    pub fn remove(&mut self, mut is_theirs: impl FnMut(&str, &[u8]) -> bool) -> io::Result<u64> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let mut gone = 0;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_file() && is_theirs(&name.to_string_lossy(), &fs::read(entry.path())?) {
                fs::remove_file(entry.path())?;
                gone += 1;
            }
        }
        if gone > 0 {
            self.left = None;
            File::open(&self.folder)?.sync_all()?;
        }
        Ok(gone)
    }

    fn take(&mut self, bytes: u64) -> bool {
        let less = |room: Room| {
            Some(Room { files: room.files.checked_sub(1)?, bytes: room.bytes.checked_sub(bytes)? })
        };
        let known = self.left.filter(|(looked, left)| less(*left).is_some() || looked.elapsed() < LOOKED_FOR);
        let (looked, left) = known.unwrap_or_else(|| (Instant::now(), self.look()));
        let rest = less(left);
        self.left = Some((looked, rest.unwrap_or(left)));
        rest.is_some()
    }

    fn look(&self) -> Room {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).fold(self.most, |left, found| Room {
            files: left.files.saturating_sub(1),
            bytes: left.bytes.saturating_sub(found.len()),
        })
    }

    fn create(&self, name: &str) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(self.path(name))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{Aside, Room};

    #[test]
    fn what_is_set_aside_is_private_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("aside");
        let mut aside = Aside::new(there.clone(), Room { files: 3, bytes: 100 });
        assert!(aside.keep("one", b"what cannot be read").unwrap());
        assert_eq!(fs::read(there.join("one")).unwrap(), b"what cannot be read");
        assert_eq!(fs::metadata(there.join("one")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&there).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!aside.keep("long", &[1; 82]).unwrap(), "too many bytes");
        assert!(aside.keep("two", &[1; 10]).unwrap() && aside.keep("three", &[1; 10]).unwrap());
        assert!(!aside.keep("four", b"").unwrap(), "too many files");
        let mut again = Aside::new(there.clone(), Room { files: 3, bytes: 100 });
        assert!(!again.keep("four", b"").unwrap(), "whoever put them there");
        assert_eq!(aside.remove(|name, bytes| name == "two" || bytes.len() == 19).unwrap(), 2);
        assert!(aside.keep("four", &[1; 90]).unwrap());
        assert_eq!(fs::read_dir(there).unwrap().count(), 2);
    }
}
