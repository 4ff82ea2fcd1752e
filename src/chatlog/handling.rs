//! Which records are being handled, in a file: the next start learns from it what the process did not survive.
//!
//! The file is written in place before records are handled and emptied afterwards, without waiting for the disk:
//! it has to survive the process, not the machine.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::ids::ExchangeId;

/// The file, and what earlier processes left in it.
pub(super) struct Handling {
    path: PathBuf,
    file: Option<File>,
    /// Records that processes died over and that are not written yet, and how often that was.
    suspects: HashMap<ExchangeId, u32>,
    is_empty: bool,
}

/// Lines that are read of what is there: a batch has at most a hundred records.
const MOST_LINES: usize = 1000;
/// The first word of a line: the process was handling the record, or had still to.
const HANDLED: &str = "handled";
const WAITING: &str = "waiting";

// === impl Handling ===

impl Handling {
    pub(super) fn open(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let suspects: HashMap<_, _> = text.lines().take(MOST_LINES).filter_map(read).collect();
        if !suspects.is_empty() {
            tracing::warn!(
                records = suspects.len(),
                "the process died while it handled records; they are handled one by one"
            );
        }
        let handling = Self { path, file: None, suspects, is_empty: text.is_empty() };
        // Whatever comes first, these counts stay.
        if handling.suspects.is_empty() { handling } else { handling.with(&[]) }
    }

    /// How often a process died while it handled this record.
    pub(super) fn deaths(&self, id: ExchangeId) -> u32 {
        self.suspects.get(&id).copied().unwrap_or(0)
    }

    /// These records are about to be handled.
    pub(super) fn begin(&mut self, names: &[ExchangeId]) {
        self.write(names);
    }

    /// These records are done.
    pub(super) fn end(&mut self, names: &[ExchangeId]) {
        for name in names {
            self.suspects.remove(name);
        }
        self.rest();
    }

    /// Nothing is being handled.
    pub(super) fn rest(&mut self) {
        if !self.is_empty {
            self.write(&[]);
        }
    }

    fn with(mut self, names: &[ExchangeId]) -> Self {
        self.write(names);
        self
    }

    fn write(&mut self, names: &[ExchangeId]) {
        let mut text = String::new();
        for name in names {
            let _ = writeln!(text, "{HANDLED} {} {name}", self.deaths(*name));
        }
        let waiting = self.suspects.iter().filter(|(name, _)| !names.contains(name));
        for (name, deaths) in waiting {
            let _ = writeln!(text, "{WAITING} {deaths} {name}");
        }
        self.is_empty = text.is_empty();
        if let Err(error) = self.put(text.as_bytes()) {
            tracing::debug!(%error, "what is being handled cannot be noted");
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = if let Some(file) = &self.file {
            file
        } else {
            let mut how = OpenOptions::new();
            let file = how.write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
            self.file.insert(file)
        };
        file.write_all_at(bytes, 0)?;
        file.set_len(bytes.len() as u64)
    }
}

fn read(line: &str) -> Option<(ExchangeId, u32)> {
    let mut words = line.split(' ');
    let (how, deaths, name) = (words.next()?, words.next()?, words.next()?);
    let deaths: u32 = deaths.parse().ok()?;
    let deaths = deaths.saturating_add(u32::from(how == HANDLED));
    Some((ExchangeId(name.parse().ok()?), deaths)).filter(|(_, deaths)| *deaths > 0)
}

#[cfg(test)]
mod tests {
    use super::Handling;
    use crate::ids::ExchangeId;

    #[test]
    fn what_a_process_died_over_is_counted_until_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handling");
        let [a, b, c] = [1, 2, 3].map(ExchangeId::first_at);
        let open = || Handling::open(path.clone());
        let deaths = |of: &Handling| [a, b, c].map(|id| of.deaths(id));
        open().begin(&[a, b]);
        let mut next = open();
        assert_eq!(deaths(&next), [1, 1, 0]);
        next.begin(&[b]);
        let mut next = open();
        assert_eq!(deaths(&next), [1, 2, 0], "what waited is counted no further");
        next.begin(&[a]);
        next.rest();
        let mut next = open();
        assert_eq!(deaths(&next), [1, 2, 0], "nothing was being handled");
        next.end(&[a]);
        next.end(&[b]);
        next.begin(&[c]);
        next.end(&[c]);
        assert_eq!(deaths(&open()), [0, 0, 0]);
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        std::fs::write(&path, "handled x y\n\u{0}\nhandled 0\nhandled 7").unwrap();
        assert_eq!(deaths(&open()), [0, 0, 0]);
    }
}
