//! What the gateway tells about itself: log lines and metrics. Neither steers anything.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

pub mod metrics;
pub mod printed;

mod output;
mod redact;

pub use metrics::Metrics;

use redact::Redacting;

/// How long the last lines may take to be written before the process dies of a panic that cannot unwind.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Sends the log to standard error: lines for people on a terminal, JSON elsewhere. `RUST_LOG`
/// chooses what is told; `debug` is the default level of the gateway's own lines otherwise `info`.
/// Panics become log lines too. A second call in one process changes nothing.
///
/// Nothing that logs waits for standard error or fails because of it; see [`flush`].
pub fn init(debug: bool, terminal: bool) {
    let fallback = if debug {
        "info,tollgate=debug,tokio_cron_scheduler=warn"
    } else {
        "info,tokio_cron_scheduler=warn"
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    // The subscriber would report its own errors by `eprintln!`, which blocks and panics.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines).log_internal_errors(false);
    // Colours would be escaped with everything else that acts on a terminal.
    let builder = builder.with_ansi(false);
    let outcome = if terminal { builder.try_init() } else { builder.json().flatten_event(true).try_init() };
    if outcome.is_err() {
        tracing::debug!("the log was set up before");
        return;
    }
    std::panic::set_hook(Box::new(log_panic));
}

/// Writes `text` to standard error, in its turn among the log lines, as [`printed::lines`] shows it. Ends
/// with a newline.
pub fn say(text: &str) {
    output::stderr().push(printed::lines(text).into_owned().into_bytes());
}

/// Waits until everything logged so far is written, or dropped; at most for `patience`. To be called
/// before the process ends.
pub fn flush(patience: Duration) {
    output::stderr().flush(patience);
}

/// The standard hook writes to standard error itself, and so could hold the panicking thread for ever.
fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("a panic without a message");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(panic = message, %location, %thread, %backtrace, "a thread panicked");
    } else {
        tracing::error!(panic = message, %location, %thread, "a thread panicked");
    }
    // Of a second panic during the first, the process aborts as soon as this returns.
    if message.starts_with("panic in a ") {
        flush(LAST_LINES);
    }
}

/// One line for standard error, with keys made unreadable; queued when dropped.
struct Line(Vec<u8>);

struct Lines;

/// The line as it may stand in a terminal, with its newline and no other.
fn one_line(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
    let mut safe = printed::field(&text).into_owned().into_bytes();
    safe.push(b'\n');
    safe
}

// === impl Lines ===

impl MakeWriter<'_> for Lines {
    type Writer = Redacting<Line>;

    fn make_writer(&self) -> Self::Writer {
        Redacting::new(Line(Vec::new()))
    }
}

// === impl Line ===

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        output::stderr().push(one_line(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_log_line_is_one_line() {
        let forged = b"warn model=x\n2026 error forged\x1b[2J\xff\n";
        assert_eq!(one_line(forged), "warn model=x\\u000a2026 error forged\\u001b[2J\u{fffd}\n".as_bytes());
    }
}
