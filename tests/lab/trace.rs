//! The gate under strace: what it asks of the disk, and failures put in the way.
//!
//! The tracer is the gate's grandchild (`-D`), so that what we started, signal and wait for is the gate.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::strace_log;

/// Where the kernel names its boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

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

/// Runs `binary`, and lets `calls` fail as `how` says.
pub(crate) fn inject(binary: &Path, calls: &str, how: &str) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qqq", "-e", &format!("trace={calls}"), "-e", "signal=none"]);
    command.args(["-e", &format!("inject={calls}:{how}"), "-o", "/dev/null", "--"]).arg(binary);
    command
}

/// Traces the running process `pid`, lets `calls` fail as `how` says, on `file` alone where one is named, and
/// writes those calls to `log`.
pub(crate) fn attach(pid: u32, log: &Path, (calls, how): (&str, &str), file: Option<&str>) -> Child {
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq", "-e", &format!("trace={calls}"), "-e", "signal=none"]);
    command.args(["-e", &format!("inject={calls}:{how}"), "-p", &pid.to_string(), "-o"]).arg(log);
    command.args(file.into_iter().flat_map(|file| ["-P", file]));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("strace")
}

/// Whether a file may be laid over one of `/proc`, for one process.
pub(crate) fn may_bind() -> bool {
    let mut command = unshare();
    command.args(["mount", "--bind", "/proc/uptime", BOOT]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs `binary`, which finds what `boot` says as the machine's boot, and writes every change of a file
/// to `log`, bytes and all.
pub(crate) fn record_on_other_boot(binary: &Path, log: &Path, boot: &Path) -> Command {
    let mut command = unshare();
    let script = format!(
        "mount --bind \"$1\" {BOOT} && exec strace -D -f -y -ttt -T -xx -s 20000000 -qq -e signal=none \
         -e trace={} -o \"$2\" -- \"$3\" \"$4\"",
        strace_log::CALLS
    );
    command.args(["sh", "-c", &script, "sh"]).arg(boot).arg(log).arg(binary);
    command
}

/// A view of the file system that ends with its process. Who is not root becomes it in there.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    command.arg(if is_root { "-m" } else { "-Urm" }).arg("--");
    command
}
