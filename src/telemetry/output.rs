//! Standard error, behind a bounded queue and a thread of its own.
//!
//! Who logs only appends to the queue: it never waits for the terminal, pipe or disk at the other end,
//! and never learns of its errors. Lines that cannot be queued or written are dropped and counted, and the
//! count is logged as soon as a line gets through again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

/// Most bytes that wait to be written.
const MAX_QUEUED: usize = 4 * 1024 * 1024;
/// Pause before writing again to a non-blocking descriptor that takes nothing at the moment.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// A queue of lines and the thread that writes them.
pub(super) struct Output {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// A line was queued.
    queued: Condvar,
    /// The queue is empty and nothing is being written.
    written: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    /// Of all lines, with the one that is being written.
    bytes: usize,
    /// Dropped since the count was last logged.
    unreported: u64,
}

/// Writes whole lines to `sink`.
struct LineWriter<W> {
    sink: W,
    /// A line was written in part: the next one begins on a line of its own.
    torn: bool,
}

/// The writer of standard error. It belongs to the process, as standard error does.
pub(super) fn stderr() -> &'static Output {
    static STDERR: OnceLock<Output> = OnceLock::new();
    STDERR.get_or_init(|| Output::start(io::stderr()))
}

// === impl Output ===

impl Output {
    /// Starts the thread. Where there can be none, every line is dropped and counted.
    fn start(sink: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            queued: Condvar::new(),
            written: Condvar::new(),
            dropped: Counter::default(),
        });
        let writing = Arc::clone(&shared);
        let writer = LineWriter { sink, torn: false };
        let started = thread::Builder::new().name("log-writer".into()).spawn(move || writing.run(writer));
        if started.is_err() {
            shared.lock().bytes = MAX_QUEUED;
        }
        Self { shared }
    }

    /// Queues one or more whole lines, which are written or dropped together.
    pub(super) fn push(&self, line: Vec<u8>) {
        let mut queue = self.shared.lock();
        if queue.bytes + line.len() > MAX_QUEUED {
            queue.unreported += 1;
            self.shared.dropped.inc();
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line);
        drop(queue);
        self.shared.queued.notify_one();
    }

    /// Waits until everything queued is written or dropped, at most for `patience`; whether it is.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut queue = self.shared.lock();
        while queue.bytes > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.shared.written.wait_timeout(queue, left);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Lines that were dropped.
    pub(super) fn dropped(&self) -> &Counter {
        &self.shared.dropped
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's life.
    fn run(&self, mut writer: LineWriter<impl Write>) {
        loop {
            let line = self.next();
            let is_written = writer.write(&line).is_ok();
            if let Some(lines) = self.done(line.len(), is_written) {
                tracing::warn!(lines, "log lines were dropped: standard error did not take them");
            }
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut queue = self.lock();
        loop {
            match queue.lines.pop_front() {
                Some(line) => return line,
                None => queue = self.queued.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Notes what became of a line. How many were dropped before it, once all that waited is written.
    fn done(&self, bytes: usize, is_written: bool) -> Option<u64> {
        let mut queue = self.lock();
        queue.bytes -= bytes;
        if !is_written {
            queue.unreported += 1;
            self.dropped.inc();
        }
        let is_empty = queue.lines.is_empty();
        let report = is_written && is_empty && queue.unreported > 0;
        let lines = report.then(|| std::mem::take(&mut queue.unreported));
        drop(queue);
        if is_empty {
            self.written.notify_all();
        }
        lines
    }
}

// === impl LineWriter ===

impl<W: Write> LineWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.write_all(b"\n")?;
            self.torn = false;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.sink.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    self.torn = !bytes.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_AFTER),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::{LineWriter, MAX_QUEUED, Output};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// What one write takes: so many bytes, or an error.
    type Step = Result<usize, ErrorKind>;

    /// Takes what the script says; everything once the script is over.
    struct Scripted {
        script: Receiver<Step>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let most = self.script.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.taken.lock().unwrap().extend_from_slice(&bytes[..most]);
            Ok(most)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scripted() -> (Sender<Step>, Arc<Mutex<Vec<u8>>>, Scripted) {
        let (sender, script) = channel();
        let taken = Arc::<Mutex<Vec<u8>>>::default();
        (sender, Arc::clone(&taken), Scripted { script, taken })
    }

    fn text(taken: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(taken.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn lines_are_written_in_order_and_whole() {
        let (script, taken, sink) = scripted();
        let output = Output::start(sink);
        for step in [Ok(2), Err(ErrorKind::Interrupted), Err(ErrorKind::WouldBlock), Ok(1)] {
            script.send(step).unwrap();
        }
        drop(script);
        output.push(b"first\n".into());
        output.push(b"second\n".into());
        assert!(output.flush(PATIENCE));
        assert_eq!(text(&taken), "first\nsecond\n");
        assert_eq!(output.dropped().get(), 0);
    }

    #[test]
    fn a_sink_that_takes_nothing_holds_no_caller_and_what_is_too_much_is_counted() {
        let (script, taken, sink) = scripted();
        let output = Output::start(sink);
        let line = vec![b'x'; MAX_QUEUED / 4];
        for _ in 0..10 {
            output.push(line.clone());
        }
        assert_eq!(output.dropped().get(), 6);
        assert!(!output.flush(Duration::from_millis(1)));
        drop(script);
        assert!(output.flush(PATIENCE));
        assert_eq!(taken.lock().unwrap().len(), MAX_QUEUED);
        output.push(b"after\n".into());
        assert!(output.flush(PATIENCE));
        assert!(text(&taken).ends_with("after\n"));
    }

    #[test]
    fn lines_that_fail_are_counted_and_a_torn_one_does_not_touch_the_next() {
        let (script, taken, sink) = scripted();
        let output = Output::start(sink);
        let full = ErrorKind::StorageFull;
        for step in [Err(ErrorKind::BrokenPipe), Ok(3), Err(full), Err(full)] {
            script.send(step).unwrap();
        }
        drop(script);
        for line in ["gone\n", "torn\n", "lost\n", "whole\n"] {
            output.push(line.into());
        }
        assert!(output.flush(PATIENCE));
        assert_eq!(text(&taken), "tor\nwhole\n");
        assert_eq!(output.dropped().get(), 3);
    }

    #[test]
    fn what_was_dropped_is_told_once_when_a_line_gets_through() {
        let shared = super::Shared {
            queue: Mutex::default(),
            queued: std::sync::Condvar::new(),
            written: std::sync::Condvar::new(),
            dropped: prometheus_client::metrics::counter::Counter::default(),
        };
        shared.lock().bytes = 3;
        assert_eq!(shared.done(1, false), None);
        assert_eq!(shared.done(1, true), Some(1));
        assert_eq!(shared.done(1, true), None);
    }

    #[test]
    fn a_sink_that_writes_nothing_without_an_error_is_no_endless_loop() {
        let mut writer = LineWriter { sink: &mut [0_u8; 2][..], torn: false };
        assert_eq!(writer.write(b"long\n").unwrap_err().kind(), ErrorKind::WriteZero);
        assert!(writer.torn);
    }
}
