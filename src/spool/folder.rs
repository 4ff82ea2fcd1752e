//! The folder: looked at before anything in it is touched, and locked.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::disk::{self, Disk};
use super::frame::{FORMAT, HEADER, Header};
use super::{OpenError, Options, room};

/// A file of an earlier run.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// Least bytes that must be free to begin at all, where the floor is not less: the drain needs some to
/// make room.
const LEAST_FREE: u64 = 16 << 20;

/// Takes the lock and says what is there, in the order of the names. Where the answer is an error,
/// nothing was created, changed or removed.
pub(super) fn open(options: &Options, disk: &dyn Disk) -> Result<(File, Vec<Old>), OpenError> {
    let folder = &options.folder;
    let path = folder.join("lock");
    let at_folder = |error| trouble(folder, folder, error);
    let at_lock = |error| trouble(folder, &path, error);
    let held = match OpenOptions::new().write(true).open(&path) {
        Ok(file) => Some(take(file, &path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(at_lock(error)),
    };
    for file in list(folder).map_err(at_folder)? {
        refuse_newer(&file.path)?;
    }
    refuse_full(options, disk)?;
    let held = match held {
        Some(held) => held,
        None => make(folder, &path, disk).map_err(|error| match error {
            Made::Folder(error) => at_folder(error),
            Made::Lock(error) => at_lock(error),
        })?,
    };
    let held = take(held, &path)?;
    Ok((held, list(folder).map_err(at_folder)?))
}

/// The machine's boot, as a number: the same until it is started again. Zero where it is not told.
pub(super) fn boot() -> u64 {
    let boot = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digest = Sha256::digest(&boot);
    digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// What went wrong at `path`; a disk that is used up is named so.
fn trouble(folder: &Path, path: &Path, error: io::Error) -> OpenError {
    if disk::is_full(&error) {
        return OpenError::NoSpace { folder: folder.to_owned(), free: 0, needed: LEAST_FREE };
    }
    OpenError::Io { path: path.to_owned(), error }
}

enum Made {
    Folder(io::Error),
    Lock(io::Error),
}

fn make(folder: &Path, lock: &Path, disk: &dyn Disk) -> Result<File, Made> {
    if !folder.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(Made::Folder)?;
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk.sync_folder(parent).map_err(Made::Folder)?;
        }
    }
    let mut how = OpenOptions::new();
    how.write(true).create(true).truncate(false).mode(0o600).open(lock).map_err(Made::Lock)
}

/// Taking what is already ours is no error.
fn take(file: File, path: &Path) -> Result<File, OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { lock: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(OpenError::Io { path: path.to_owned(), error }),
    }
}

/// Every file of records.
fn list(folder: &Path) -> io::Result<Vec<Old>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let found = entry.metadata()?;
        if found.is_file() && path.extension().is_some_and(|kind| kind == "seg") {
            files.push(Old { path, bytes: found.len() });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// A header that is damaged says nothing about its format: then the reader sees to it.
fn refuse_newer(path: &Path) -> Result<(), OpenError> {
    let mut bytes = Vec::with_capacity(HEADER);
    let read = File::open(path).and_then(|file| file.take(HEADER as u64).read_to_end(&mut bytes));
    match read.ok().and_then(|_| Header::decode(&bytes)) {
        Some(header) if header.format > FORMAT => {
            Err(OpenError::Newer { file: path.to_owned(), found: header.format, known: FORMAT })
        }
        _ => Ok(()),
    }
}

/// A spool below its floor may be opened, since what is in it must be drained. A disk that is full
/// would let nobody drain.
fn refuse_full(options: &Options, disk: &dyn Disk) -> Result<(), OpenError> {
    let mut there = options.folder.as_path();
    while !there.exists() {
        match there.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => there = parent,
            _ => there = Path::new("."),
        }
    }
    let space = disk.space(there).map_err(|error| OpenError::Io { path: options.folder.clone(), error })?;
    let needed = room::floor(options, space).min(LEAST_FREE);
    if space.free < needed {
        return Err(OpenError::NoSpace { folder: options.folder.clone(), free: space.free, needed });
    }
    Ok(())
}

/// Removes a file that was given up before anybody was told of it.
pub(super) fn discard(path: &Path) {
    if let Err(error) = disk::remove(path) {
        tracing::warn!(%error, file = %path.display(), "a spool file cannot be removed; the next start reads it");
    }
}
