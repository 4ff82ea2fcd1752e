//! Everything this process logs, at TRACE and before anything is made unreadable. Worlds live side by
//! side in one process, so each hears the others as well; what nobody listens to any more is let go.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, Once, PoisonError};

/// Somebody who listens; what was said while they do is kept.
pub(super) struct Ear(u64);

/// What was said, from `from` bytes after the first word on.
struct Said {
    from: usize,
    text: Vec<u8>,
    next: u64,
    /// Where each ear began to listen.
    ears: BTreeMap<u64, usize>,
}

/// What the subscriber writes to.
struct Mouth;

static SAID: Mutex<Said> = Mutex::new(Said { from: 0, text: Vec::new(), next: 0, ears: BTreeMap::new() });
static SPOKEN: Once = Once::new();

// === impl Ear ===

impl Ear {
    /// Listens from now on.
    pub(super) fn open() -> Self {
        SPOKEN.call_once(|| {
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .without_time()
                .with_ansi(false)
                .with_writer(|| Mouth)
                .try_init()
                .expect("nobody else takes the log");
        });
        let mut said = lock();
        let (ear, now) = (said.next, said.from + said.text.len());
        said.next += 1;
        said.ears.insert(ear, now);
        Self(ear)
    }

    /// What was said since.
    pub(super) fn heard(&self) -> Vec<u8> {
        let said = lock();
        said.text[said.ears[&self.0] - said.from..].to_vec()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut said = lock();
        said.ears.remove(&self.0);
        let end = said.from + said.text.len();
        let wanted = said.ears.values().copied().min().unwrap_or(end);
        let over = wanted - said.from;
        said.text.drain(..over);
        said.from = wanted;
    }
}

// === impl Mouth ===

impl io::Write for Mouth {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut said = lock();
        if !said.ears.is_empty() {
            said.text.extend_from_slice(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock() -> std::sync::MutexGuard<'static, Said> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}
