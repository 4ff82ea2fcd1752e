//! The house holds its own plan: who may import whom, how long a file and a function may be, and
//! which names say nothing. ARCHITECTURE.md explains the table; this test enforces it.
#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. A module imports from floors below its own; only the top floor meets itself.
const FLOORS: [&[&str]; 7] = [
    &["ids", "path", "clock", "telemetry", "background", "roots"],
    &["credential", "plan", "dialect"],
    &["config"],
    &["store", "limits", "listen", "notify", "spool"],
    &["identity", "quota", "chatlog", "schedule", "secrets", "timekeeper"],
    &["proxy", "control", "jobs"],
    &["main", "commands", "app", "demo"],
];
const SAYS_NOTHING: [&str; 6] = ["utils", "helpers", "common", "manager", "misc", "mod"];
const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 60;

#[test]
fn the_house_stands_as_planned() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    let mut violations = Vec::new();
    for file in &files {
        let path = file.strip_prefix(&src).unwrap();
        inspect(path, &fs::read_to_string(file).unwrap(), &mut violations);
    }
    assert!(files.len() > 10, "found only {} files under {}", files.len(), src.display());
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// `commands.rs` prints for all of them; `papers.rs` and `openapi.rs` print what the program itself wrote.
#[test]
fn commands_print_in_one_place() {
    let commands = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands");
    let mut files = Vec::new();
    collect(&commands, &mut files);
    assert!(files.len() > 10, "found only {} files under {}", files.len(), commands.display());
    for file in files.iter().filter(|file| !file.ends_with("papers.rs") && !file.ends_with("openapi.rs")) {
        // Whether it is a terminal is asked, nothing is printed by that.
        let text = fs::read_to_string(file).unwrap().replace("stderr().is_terminal()", "");
        for raw in ["stdout()", "stderr()", "println!", "print!(", "dbg!"] {
            assert!(!product(&text).contains(raw), "{} prints by {raw}", file.display());
        }
    }
}

#[test]
fn a_house_that_is_not_as_planned_is_noticed() {
    let long = "fn long() {\n".to_owned() + &"    step();\n".repeat(FUNCTION_LINES) + "}\n";
    let cases = [
        ("plan.rs", "use crate::store::Db;\n", "src/plan.rs:1: plan (floor 1) imports store (floor 3)"),
        (
            "quota/lease.rs",
            "    crate::identity::find()\n",
            "src/quota/lease.rs:1: quota (floor 4) imports identity",
        ),
        (
            "store.rs",
            "use crate::{\n    ids::UserId,\n    proxy::{walk, tee},\n};\n",
            "src/store.rs:1: store (floor 3) imports proxy",
        ),
        ("store.rs", "use crate::wishes::Wish;\n", "src/store.rs:1: wishes stands on no floor"),
        ("proxy/utils.rs", "", "src/proxy/utils.rs:1: `utils` says nothing"),
        ("ids.rs", &"//\n".repeat(FILE_LINES + 1), "src/ids.rs:1: 401 lines"),
        ("ids.rs", &long, "src/ids.rs:1: a function of 62 lines"),
    ];
    for (path, text, complaint) in cases {
        let mut violations = Vec::new();
        inspect(Path::new(path), text, &mut violations);
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert!(violations[0].starts_with(complaint), "{violations:?} should begin {complaint:?}");
    }
    let mut violations = Vec::new();
    let tidy = "/// See [`crate::proxy`].\nuse crate::{config, store::Db};\n#[cfg(test)]\nmod tests {\n    use crate::app::App;\n}\n";
    inspect(Path::new("quota.rs"), tidy, &mut violations);
    inspect(Path::new("demo.rs"), "use crate::app::App;\n", &mut violations);
    assert!(violations.is_empty(), "{violations:?}");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// What stands before the file's `mod tests`; nothing, in a file for tests alone.
fn product(text: &str) -> &str {
    if text.contains("\n#![cfg(test)]\n") {
        return "";
    }
    let begins = |at: &usize| {
        let after = text[at + "\n#[cfg(test)]\n".len()..].lines();
        after
            .into_iter()
            .find(|line| !line.starts_with("#["))
            .is_some_and(|line| line.starts_with("mod tests"))
    };
    let at = text.match_indices("\n#[cfg(test)]\n").map(|(at, _)| at).find(begins);
    at.map_or(text, |at| &text[..=at])
}

fn inspect(path: &Path, text: &str, violations: &mut Vec<String>) {
    let place = |line: usize| format!("src/{}:{}", path.display(), line + 1);
    let stem = path.file_stem().unwrap().to_str().unwrap();
    if SAYS_NOTHING.contains(&stem) {
        violations.push(format!("{}: `{stem}` says nothing about what is inside", place(0)));
    }
    let product = product(text);
    let lines: Vec<&str> = product.lines().collect();
    if lines.len() > FILE_LINES {
        violations.push(format!("{}: {} lines, at most {FILE_LINES}", place(0), lines.len()));
    }
    for (line, length) in functions(&lines).filter(|(_, length)| *length > FUNCTION_LINES) {
        violations.push(format!("{}: a function of {length} lines, at most {FUNCTION_LINES}", place(line)));
    }
    let module = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
    if module == "lib" {
        return;
    }
    for (line, imported) in imports(&lines) {
        let complaint = match (floor(module), floor(&imported)) {
            (_, None) => format!("{imported} stands on no floor"),
            (None, _) => format!("{module} stands on no floor"),
            (Some(6), _) => continue,
            (Some(own), Some(other)) if other < own || imported == module => continue,
            (Some(own), Some(other)) => format!("{module} (floor {own}) imports {imported} (floor {other})"),
        };
        violations.push(format!("{}: {complaint}", place(line)));
    }
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

/// Every `crate::name` (in main.rs: `tollgate::name`) with its line; groups in braces are opened.
fn imports(lines: &[&str]) -> Vec<(usize, String)> {
    let code = |line: &&str| if line.trim_start().starts_with("//") { "" } else { *line }.to_owned() + "\n";
    let text: String = lines.iter().map(code).collect();
    let mut found = Vec::new();
    for root in ["crate::", "tollgate::"] {
        for (at, _) in text.match_indices(root) {
            let line = text[..at].matches('\n').count();
            let rest = &text[at + root.len()..];
            let names =
                if let Some(group) = rest.strip_prefix('{') { first_names(group) } else { vec![word(rest)] };
            found.extend(names.into_iter().filter(|name| !name.is_empty()).map(|name| (line, name)));
        }
    }
    found
}

/// The first word of each entry of a brace group, up to the brace that closes it.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut entry_begins, mut names) = (0, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => entry_begins = true,
            c if entry_begins && !c.is_whitespace() => {
                names.push(word(&group[at..]));
                entry_begins = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// First line and length of every function; rustfmt closes each at the indentation it began with.
fn functions<'a>(lines: &'a [&str]) -> impl Iterator<Item = (usize, usize)> + 'a {
    let begins = |line: &str| {
        let words = ["pub ", "pub(crate) ", "pub(super) ", "const ", "async "];
        words.iter().fold(line.trim_start(), |rest, word| rest.trim_start_matches(word)).starts_with("fn ")
    };
    lines.iter().enumerate().filter(move |(_, line)| begins(line)).map(|(first, line)| {
        let indent = &line[..line.len() - line.trim_start().len()];
        let ends = |candidate: &&str| {
            candidate
                .strip_prefix(indent)
                .is_some_and(|rest| rest == "}" || (rest.starts_with(')') && rest.ends_with(';')))
        };
        let whole = line.ends_with('}') || line.ends_with(';');
        let length = if whole { 1 } else { lines[first..].iter().position(ends).map_or(1, |n| n + 1) };
        (first, length)
    })
}
