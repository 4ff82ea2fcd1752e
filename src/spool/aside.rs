//! Damaged bytes are kept for whoever wants to look, within bounds.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::window::read_leniently;

/// `<spool>/damaged`.
pub(super) struct Aside {
    folder: PathBuf,
    /// Bytes that may still be put there; known after a first look.
    left: Option<u64>,
}

/// Most bytes of the folder, over all runs; it is not part of the spool's quota.
const MAX_ALL: u64 = 64 << 20;
/// Most bytes of one piece.
const MAX_PIECE: u64 = 16 << 20;
const CHUNK: u64 = 64 << 10;

// === impl Aside ===

impl Aside {
    pub(super) fn new(spool: &Path) -> Self {
        Self { folder: spool.join("damaged"), left: None }
    }

    /// Copies a stretch of a file, or its beginning where it is long. True: it is there, or there was
    /// nothing in it but zeros, or no more may be kept.
    pub(super) fn keep(&mut self, path: &Path, file: &File, from: u64, to: u64) -> bool {
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { return false };
        let target = self.folder.join(format!("{name}-{from:016x}.bin"));
        let left = match self.left {
            Some(left) => left,
            None => MAX_ALL.saturating_sub(used(&self.folder)),
        };
        let bytes = to.saturating_sub(from).min(MAX_PIECE);
        self.left = Some(left.saturating_sub(bytes));
        if bytes > left {
            return true;
        }
        match copy(&target, file, from, bytes) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => true,
            Err(error) => {
                tracing::warn!(%error, file = %target.display(), "damaged bytes cannot be set aside");
                false
            }
        }
    }
}

fn used(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum()
}

fn copy(target: &Path, file: &File, from: u64, bytes: u64) -> io::Result<()> {
    let mut copy = None;
    let mut buffer = Vec::new();
    let mut at = 0;
    while at < bytes {
        let size = (bytes - at).min(CHUNK);
        buffer.clear();
        buffer.resize(usize::try_from(size).unwrap_or(0), 0);
        read_leniently(file, &mut buffer, from + at);
        if copy.is_none() && buffer.iter().any(|byte| *byte != 0) {
            copy = Some(create(target)?);
            at = 0;
            continue;
        }
        if let Some(copy) = &mut copy {
            copy.write_all(&buffer)?;
        }
        at += size;
    }
    Ok(())
}

fn create(target: &Path) -> io::Result<File> {
    if let Some(folder) = target.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)
}
