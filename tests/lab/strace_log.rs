//! What a process asked of its data folder, read from strace's words.

use std::collections::HashMap;
use std::path::Path;

use super::crash::{Op, Timed};

/// What is to be traced for this.
pub(crate) const CALLS: &str = "openat,write,writev,pwrite64,pwritev,pwritev2,fdatasync,fsync,ftruncate,fallocate,\
     unlink,unlinkat,rename,renameat,renameat2,sync_file_range,copy_file_range,sendfile";

/// A call that stands on one line, or was put together from two.
struct Line {
    name: String,
    args: String,
    begun: f64,
    done: f64,
}

/// Every change of a file in `folder`, in the order in which they were done. What SQLite shares between
/// processes by memory (`-shm`) is no part of it: nobody relies on it after a crash.
pub(crate) fn read(log: &Path, folder: &Path) -> Vec<Timed> {
    let text = std::fs::read_to_string(log).unwrap();
    let mut unfinished: HashMap<&str, (f64, &str)> = HashMap::new();
    let mut ops = Vec::new();
    for line in text.lines() {
        let Some((process, rest)) = line.split_once(' ') else { continue };
        let Some((moment, said)) = rest.trim_start().split_once(' ') else { continue };
        let Ok(at) = moment.parse::<f64>() else { continue };
        if let Some(first) = said.strip_suffix(" <unfinished ...>") {
            unfinished.insert(process, (at, first));
            continue;
        }
        let whole = match said.split_once(" resumed>") {
            Some((_, end)) => {
                let Some((begun, first)) = unfinished.remove(process) else { continue };
                Line::read(&format!("{first}{end}"), begun, Some(at))
            }
            None => Line::read(said, at, None),
        };
        let Some(call) = whole else { continue };
        if let Some(op) = call.op(folder) {
            ops.push(Timed { op, begun: call.begun, done: call.done });
        }
    }
    ops
}

// === impl Line ===

impl Line {
    /// `None` for what failed, and for what is no call.
    fn read(said: &str, begun: f64, resumed: Option<f64>) -> Option<Self> {
        let (call, result) = said.rsplit_once(") = ")?;
        if result.starts_with('-') || result.starts_with('?') {
            return None;
        }
        let (name, args) = call.split_once('(')?;
        let took = result.rsplit_once('<')?.1.trim_end_matches('>').parse::<f64>().ok()?;
        let done = resumed.unwrap_or(begun + took);
        Some(Self { name: name.to_owned(), args: args.to_owned(), begun, done })
    }

    fn op(&self, folder: &Path) -> Option<Op> {
        let within = |hex: &str| within(hex, folder);
        let mut args = self.args.split(", ");
        match self.name.as_str() {
            "openat" => {
                let path = within(self.quoted(0)?)?;
                let flags = args.nth(2)?;
                assert!(!flags.contains("O_TRUNC"), "{path} is truncated as it is opened");
                flags.contains("O_CREAT").then_some(Op::Create(path))
            }
            "pwrite64" => {
                let at = self.args.rsplit(", ").next()?.parse().unwrap();
                Some(Op::Write { path: within(self.descriptor()?)?, at, bytes: bytes(self.quoted(0)?) })
            }
            "write" => Some(Op::Append { path: within(self.descriptor()?)?, bytes: bytes(self.quoted(0)?) }),
            "fdatasync" | "fsync" => {
                let path = within(self.descriptor()?)?;
                let is_folder = !path.contains('.') && path != "spool/lock";
                Some(if is_folder { Op::SyncFolder(path) } else { Op::Sync(path) })
            }
            "ftruncate" => {
                let len = self.args.rsplit(", ").next()?.parse().unwrap();
                Some(Op::Cut { path: within(self.descriptor()?)?, len })
            }
            "unlink" | "unlinkat" => Some(Op::Unlink(within(self.quoted(0)?)?)),
            "rename" | "renameat" | "renameat2" => {
                Some(Op::Rename(within(self.quoted(0)?)?, within(self.quoted(1)?)?))
            }
            other => {
                let path = self.descriptor().and_then(within);
                assert!(path.is_none(), "{other} of {path:?} is not understood");
                None
            }
        }
    }

    /// The path of the first argument, `5<path>`.
    fn descriptor(&self) -> Option<&str> {
        let (_, rest) = self.args.split_once('<')?;
        rest.split_once('>').map(|(path, _)| path)
    }

    fn quoted(&self, n: usize) -> Option<&str> {
        self.args.split('"').nth(2 * n + 1)
    }
}

/// The path below `folder`, if it is there and is to be followed.
fn within(hex: &str, folder: &Path) -> Option<String> {
    let path = String::from_utf8(bytes(hex)).ok()?;
    // Relative ones count from where the gate runs.
    let path = folder.parent()?.join(path);
    let rest = path.strip_prefix(folder).ok()?.to_str()?.to_owned();
    (!rest.ends_with("-shm")).then_some(rest)
}

/// `\x2f\x74…`
fn bytes(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    hex.as_bytes().chunks_exact(4).map(|chunk| digit(chunk[2]) << 4 | digit(chunk[3])).collect()
}
