//! The signals that a gateway heeds: some ask it to stop, and some are ignored because their default action
//! would end the process in the middle of its streams.
//!
//! | signal | sent by | here |
//! |---|---|---|
//! | `TERM`, `INT`, `QUIT` | service managers, container engines, terminals | stops in order |
//! | `PWR` | LXC, init at a power failure | stops in order |
//! | `XCPU` | the kernel, at the soft limit of CPU time | stops in order |
//! | `HUP` | a terminal that closes, `systemctl reload`, logrotate | ignored |
//! | `USR1`, `USR2` | logrotate, habits of other servers | ignored |
//! | `ALRM`, `VTALRM`, `PROF`, `IO` | timers that were left behind, profilers | ignored |
//! | `XFSZ` | the kernel, at the limit of a file's size | ignored: the write fails instead |
//! | `PIPE` | the kernel | ignored by Rust's runtime: the write fails instead |
//!
//! Real-time signals, and those that report a fault of the process, keep their default action.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Signals caught from when this is made: one that comes before anything waits is not lost.
pub struct Signals {
    stopping: Vec<Caught>,
    ignored: Vec<Caught>,
}

struct Caught {
    name: &'static str,
    signal: Signal,
    logged: Option<Instant>,
}

const STOPPING: [(&str, Number); 5] = [
    ("SIGTERM", Number::TERM),
    ("SIGINT", Number::INT),
    ("SIGQUIT", Number::QUIT),
    ("SIGPWR", Number::POWER),
    ("SIGXCPU", Number::XCPU),
];
const IGNORED: [(&str, Number); 8] = [
    ("SIGHUP", Number::HUP),
    ("SIGUSR1", Number::USR1),
    ("SIGUSR2", Number::USR2),
    ("SIGALRM", Number::ALARM),
    ("SIGVTALRM", Number::VTALARM),
    ("SIGPROF", Number::PROF),
    ("SIGIO", Number::IO),
    ("SIGXFSZ", Number::XFSZ),
];
/// Shortest time between two lines about one ignored signal.
const LOG_EVERY: Duration = Duration::from_secs(1);

// === impl Signals ===

impl Signals {
    /// From now on they no longer end the process.
    ///
    /// # Errors
    ///
    /// When signals cannot be listened to.
    pub fn catch() -> io::Result<Self> {
        let all = |signals: &[(&'static str, Number)]| {
            signals.iter().map(|(name, number)| Caught::new(name, *number)).collect::<io::Result<_>>()
        };
        Ok(Self { stopping: all(&STOPPING)?, ignored: all(&IGNORED)? })
    }

    /// Waits for the next signal that asks to stop. Logs those that are ignored meanwhile.
    pub async fn next(&mut self) {
        poll_fn(|cx| self.poll_next(cx)).await;
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for caught in &mut self.ignored {
            while caught.signal.poll_recv(cx).is_ready() {
                caught.log_ignored();
            }
        }
        for caught in &mut self.stopping {
            if caught.signal.poll_recv(cx).is_ready() {
                tracing::info!(signal = caught.name, "asked to stop");
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

// === impl Caught ===

impl Caught {
    fn new(name: &'static str, number: Number) -> io::Result<Self> {
        let signal = signal(SignalKind::from_raw(number.as_raw()))?;
        Ok(Self { name, signal, logged: None })
    }

    fn log_ignored(&mut self) {
        let now = Instant::now();
        if self.logged.is_none_or(|logged| now.duration_since(logged) >= LOG_EVERY) {
            self.logged = Some(now);
            tracing::warn!(
                signal = self.name,
                "signal ignored: the gateway reloads nothing; SIGTERM stops it"
            );
        }
    }
}
