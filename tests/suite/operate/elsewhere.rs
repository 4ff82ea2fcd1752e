//! Commands in a folder that is no installation: only those that are meant to make one do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sqlx::{Connection, Executor, SqliteConnection};

use super::child::{Child, Site};
use super::commands::Place;
use crate::proof::ports::free_port;

/// What a command does where there is no installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It makes one.
    Makes,
    /// It says that there is none.
    Refuses,
    /// It needs none.
    NeedsNone,
}

/// Every command, by the name of its manual page.
const COMMANDS: [(&str, &str, Effect); 36] = [
    ("serve", "serve", Effect::Makes),
    ("demo", "demo", Effect::Makes),
    ("migrate", "migrate", Effect::Makes),
    ("user-add", "user add ann --email ann@example.com", Effect::Makes),
    ("check", "check", Effect::NeedsNone),
    ("openapi", "openapi", Effect::NeedsNone),
    ("completions", "completions bash", Effect::NeedsNone),
    ("man", "man", Effect::NeedsNone),
    ("health", "health", Effect::Refuses),
    ("user-list", "user list", Effect::Refuses),
    ("user-show", "user show ann", Effect::Refuses),
    ("user-key", "user key ann", Effect::Refuses),
    ("user-limit", "user limit ann --left 3", Effect::Refuses),
    ("user-reset-limits", "user reset-limits", Effect::Refuses),
    ("user-disable", "user disable ann", Effect::Refuses),
    ("user-enable", "user enable ann", Effect::Refuses),
    ("user-reset-totp", "user reset-totp ann", Effect::Refuses),
    ("staff-add", "staff add sue --email sue@example.com", Effect::Refuses),
    ("staff-list", "staff list", Effect::Refuses),
    ("staff-disable", "staff disable sue", Effect::Refuses),
    ("staff-enable", "staff enable sue", Effect::Refuses),
    ("staff-reset-totp", "staff reset-totp sue", Effect::Refuses),
    ("admin-list", "admin list", Effect::Refuses),
    ("admin-add", "admin add root", Effect::Refuses),
    ("admin-disable", "admin disable admin", Effect::Refuses),
    ("admin-enable", "admin enable admin", Effect::Refuses),
    ("admin-delete", "admin delete admin", Effect::Refuses),
    ("admin-reset-totp", "admin reset-totp admin", Effect::Refuses),
    ("admin-reset-password", "admin reset-password", Effect::Refuses),
    ("audit-verify", "audit verify", Effect::Refuses),
    ("ledger-verify", "ledger verify", Effect::Refuses),
    ("ledger-repair", "ledger repair --apply", Effect::Refuses),
    ("ledger-explain", "ledger explain ann", Effect::Refuses),
    ("clock-show", "clock show", Effect::Refuses),
    ("clock-accept", "clock accept", Effect::Refuses),
    // Without a folder it prints.
    ("man-dir", "man --dir pages", Effect::Makes),
];

/// Everything below a folder: each path with its mode and bytes.
fn contents(folder: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            let bytes = if path.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
            if path.is_dir() {
                open.push(path.clone());
            }
            found.insert(path.display().to_string(), (mode, bytes));
        }
    }
    found
}

fn run(folder: &Path, line: &str) -> (Option<i32>, String) {
    let listen = free_port().to_string();
    let args: Vec<&str> = line.split(' ').collect();
    Child::tollgate(folder, &args, &[("GATEWAY__SERVER__LISTEN", &listen), ("HOST", "127.0.0.1")]).ends()
}

#[test]
fn every_command_stands_in_the_table() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), "man --dir pages").0, Some(0));
    let pages: BTreeSet<String> = std::fs::read_dir(folder.path().join("pages"))
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap().trim_end_matches(".1").to_owned())
        .collect();
    let is_leaf = |page: &&String| !pages.iter().any(|other| other.starts_with(&format!("{page}-")));
    let leaves: BTreeSet<&str> =
        pages.iter().filter(is_leaf).filter_map(|page| page.strip_prefix("tollgate-")).collect();
    let table = COMMANDS.iter().map(|(name, ..)| *name).filter(|name| *name != "man-dir");
    assert_eq!(leaves, table.collect(), "say of each command what it does without an installation");
}

#[tokio::test]
async fn a_command_in_the_wrong_folder_says_so_and_leaves_it_as_it_was() {
    let empty = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("data")).unwrap();
    std::fs::write(other.path().join("data/tollgate.db"), "").unwrap();
    let foreign = tempfile::tempdir().unwrap();
    std::fs::create_dir(foreign.path().join("data")).unwrap();
    let file = foreign.path().join("data/tollgate.db");
    let mut db = SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", file.display())).await.unwrap();
    db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY)").await.unwrap();
    db.close().await.unwrap();
    for folder in [&empty, &other, &foreign] {
        let before = contents(folder.path());
        for (name, line, effect) in COMMANDS {
            if effect == Effect::Makes {
                continue;
            }
            let (code, said) = run(folder.path(), line);
            if effect == Effect::Refuses {
                assert!(matches!(code, Some(1 | 78)), "{name}: {code:?} {said}");
                let place = folder.path().canonicalize().unwrap().display().to_string();
                assert!(said.contains(&place) && said.contains("configuration"), "{name}: {said}");
                let told = said.lines().filter(|line| !line.starts_with("warning")).count();
                assert_eq!(told, 1, "{name}: one sentence: {said}");
            } else {
                assert_eq!(code, Some(0), "{name}: {said}");
            }
            assert_eq!(contents(folder.path()), before, "{name} changed the folder");
        }
    }
}

#[tokio::test]
async fn an_installation_without_its_secrets_gets_no_new_ones() {
    let place = Place::new("").await;
    place.done(&["migrate"]);
    assert_eq!(place.plain(&["ledger", "verify"]).0, Some(0));
    for secret in ["secret_key", "encryption_key"] {
        let file = place.site.folder.path().join("data").join(secret);
        let kept = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let (code, said) = place.plain(&["user", "list"]);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(secret) && !file.exists(), "{said}");
        std::fs::write(&file, kept).unwrap();
    }
    place.leave().await;
}

#[tokio::test]
async fn a_database_without_tables_is_refused_by_all_but_those_that_make_them() {
    let place = Place::new("").await;
    for (name, line, effect) in
        COMMANDS.iter().filter(|(name, _, e)| *e == Effect::Refuses && *name != "health")
    {
        let args: Vec<&str> = line.split(' ').collect();
        let (code, said) = place.plain(&args);
        assert_eq!(code, Some(78), "{name} {effect:?}: {said}");
    }
    assert!(!place.site.folder.path().join("data").exists());
    place.done(&["user", "add", "ann", "--email", "ann@example.com"]);
    place.done(&["user", "show", "ann"]);
    place.leave().await;
}

#[tokio::test]
async fn what_keeps_a_start_from_succeeding_is_found_before_anything_is_made() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let pair = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (one, other) = (pair("localhost"), pair("localhost"));
    let free = free_port();
    let cases = [
        (format!("listen = [\"{address}\"]\n"), "server.listen"),
        (format!("listen = [\"{free}\"]\nadmin_listen = [\"{address}\"]\n"), "server.admin_listen"),
        (
            format!(
                "listen = [\"{free}\"]\n[server.tls]\ncertificate = \"cert.pem\"\nprivate_key = \"key.pem\"\n"
            ),
            "",
        ),
        (format!("listen = [\"{free}\"]\ndata_dir = \"gateway.toml/data\"\n"), "gateway.toml/data"),
        (
            format!("listen = [\"{free}\"]\n[database]\nurl = \"sqlite:///./gateway.toml/x/tollgate.db\"\n"),
            "database.url",
        ),
    ];
    for (text, place) in cases {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("gateway.toml"), format!("[server]\n{text}")).unwrap();
        std::fs::write(folder.path().join("cert.pem"), one.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), other.signing_key.serialize_pem()).unwrap();
        let before = contents(folder.path());
        let (code, said) = Child::tollgate(folder.path(), &["serve"], &[]).ends();
        assert!(matches!(code, Some(1 | 78)), "{text}: {code:?} {said}");
        assert!(said.contains(place) && !said.contains("admin_password="), "{text}: {said}");
        assert_eq!(contents(folder.path()), before, "{text}: {said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, said) =
        Child::tollgate(folder.path(), &["demo", "--listen", &address.to_string(), "--data", "d"], &[])
            .ends();
    assert_eq!(code, Some(1), "{said}");
    assert!(contents(folder.path()).is_empty(), "{said}");
}

#[tokio::test]
async fn a_start_names_its_configuration_and_its_database_first() {
    let site = Site::new("");
    let mut gateway = site.serve(&[("ADMIN_PASSWORD", "correct-horse-7")]).await;
    gateway.signal("TERM");
    let (_, said) = gateway.ends();
    let folder = site.folder.path().canonicalize().unwrap();
    let first = said.lines().next().unwrap();
    for path in ["gateway.toml", "data/tollgate.db"] {
        assert!(first.contains(&folder.join(path).display().to_string()), "{path}: {said}");
    }
    assert!(said.contains("routes: there is none"), "{said}");
}
