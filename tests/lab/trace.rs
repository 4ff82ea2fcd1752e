//! The gate under strace: what it asks of the disk, and failures put in the way.
//!
//! The tracer is the gate's grandchild (`-D`), so that what we started, signal and wait for is the gate.

use std::path::Path;
use std::process::{Command, Stdio};

/// Whether strace is installed and may trace.
pub(crate) fn is_possible() -> bool {
    let mut command = Command::new("strace");
    command
        .args(["-e", "trace=none", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs `binary` and writes its calls named `calls` to `log`, with the paths of its descriptors.
pub(crate) fn record(binary: &Path, log: &Path, calls: &str) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-y", "-qq", "-e", &format!("trace={calls}"), "-e", "signal=none", "-o"]);
    command.arg(log).arg("--").arg(binary);
    command
}

/// Lines of a trace that name this file.
pub(crate) fn count(log: &Path, file: &str) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter(|line| line.contains(file)).count()
}
