//! What the gateway tells about itself: log lines and metrics. Neither steers anything.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

pub mod metrics;

mod redact;

pub use metrics::Metrics;

use redact::Redacting;

/// Sends the log to standard error: lines for people on a terminal, JSON elsewhere. `RUST_LOG`
/// chooses what is told; `debug` is the default level of the gateway's own lines otherwise `info`.
/// A second call in one process changes nothing.
pub fn init(debug: bool, terminal: bool) {
    let fallback = if debug { "info,tollgate=debug" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Stderr);
    let outcome = if terminal { builder.try_init() } else { builder.json().flatten_event(true).try_init() };
    if outcome.is_err() {
        tracing::debug!("the log was set up before");
    }
}

/// Standard error, with keys made unreadable.
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Redacting<io::StderrLock<'a>>;

    fn make_writer(&'a self) -> Self::Writer {
        Redacting::new(io::stderr().lock())
    }
}

/// A line of the log that could not be written has nowhere else to go.
impl<W: Write> Drop for Redacting<W> {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}
