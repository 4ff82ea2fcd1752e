//! `tollgate check`, and what the command line answers to mistakes.

use std::path::Path;

use tollgate::config::{Config, Vars};

use super::child::{Child, Site};

fn run(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    Child::tollgate(folder, args, env).ends()
}

fn folder_with(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    folder
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    let folder = folder_with(
        "[server]\nlisten = [\"nowhere\"]\nwrokers = 2\n[limits]\nmax_body_size = \"ten\"\n\
         [plans.free]\nconversation_limit = -1\n[[upstreams]]\nname = \"a\"\nurl = \"ftp://x\"\n\
         credential = { header = \"authorization\", value = \"Bearer ${NOT_SET}\" }\n\
         [[routes]]\nprefix = \"v1\"\nupstream = \"b\"\n",
    );
    for command in ["check", "serve"] {
        let (code, said) = run(folder.path(), &[command], &[]);
        assert_eq!(code, Some(78), "{said}");
        for place in [
            "server.listen",
            "server.wrokers",
            "limits.max_body_size",
            "plans.free.conversation_limit",
            "upstreams[0].url",
            "upstreams[0].credential.value",
            "NOT_SET",
            "routes[0].prefix",
            "routes[0].upstream",
        ] {
            assert!(said.contains(place), "{command} does not mention {place}:\n{said}");
        }
        for place in ["server.listen", "upstreams[0].credential.value"] {
            assert_eq!(said.matches(place).count(), 1, "one mistake is told once:\n{said}");
        }
    }
    assert!(!folder.path().join("data").exists(), "nothing is made while there are mistakes");
}

#[test]
fn text_that_is_not_toml_is_told_with_its_line() {
    let folder = folder_with("[server]\nlisten = \n");
    let (code, said) = run(folder.path(), &["check"], &[]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("line 2") || said.contains(":2"), "{said}");
}

#[test]
fn a_sound_file_is_sound_and_nothing_is_written() {
    let site = Site::new("");
    let (code, said) = run(site.folder.path(), &["check"], &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!site.folder.path().join("data").exists());
}

#[test]
fn what_routes_open_and_charge_is_printed_and_changed_defaults_are_told() {
    let credential = "credential = { header = \"authorization\", value = \"Bearer x\" }";
    let folder = folder_with(&format!(
        "[[upstreams]]\nname = \"a\"\nurl = \"http://127.0.0.1:9\"\n{credential}\n\
         [[routes]]\nprefix = \"/v1\"\nupstream = \"a\"\n\
         [[routes]]\nprefix = \"/wide\"\nupstream = \"a\"\ncharge = [\"POST /wide/*\"]\nallow = [\"*\"]\n\
         [[routes]]\nprefix = \"/app\"\nupstream = \"a\"\ndialect = \"plain\"\n\
         [[routes]]\nprefix = \"/few\"\nupstream = \"a\"\ncharge = [\"POST /few/v1/chat/completions\"]\n",
    ));
    let (code, said) = run(folder.path(), &["check"], &[]);
    assert_eq!(code, Some(0), "{said}");
    let line = |start: &str| {
        said.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {said}"))
    };
    let usual = line("route /v1: ");
    for part in [
        "charge = [\"POST /v1*\", \"PUT /v1*\", \"PATCH /v1*\"]",
        "\"POST */embeddings\"",
        "\"POST */chat/completions\"",
    ] {
        assert!(usual.contains(part), "{part}: {usual}");
    }
    assert_eq!(line("route /wide: "), "route /wide: charge = [\"POST /wide/*\"]; free = []; allow = [\"*\"]");
    assert_eq!(line("route /app: "), "route /app: charge = [\"POST /app*\"]; free = []; allow = [\"*\"]");
    let restores = "charge = [\"POST /v1/chat/completions\", \"POST /v1/completions\", \"POST /v1/responses\", \"POST /v1/messages\",";
    assert!(line("note: routes[0].charge: ").contains(restores), "{said}");
    assert!(line("note: routes[0].allow: ").contains("allow = [\"*\"] restores what was"), "{said}");
    let wide = line("warning: routes[1].allow: ");
    for part in [
        "the files of all users",
        "the batches of all users",
        "stored answers",
        "the upstream's own administration",
    ] {
        assert!(wide.contains(part), "{part}: {wide}");
    }
    for quiet in ["routes[1].charge", "note: routes[1].allow", "routes[2]", "warning: routes[0]"] {
        assert!(!said.contains(quiet), "{quiet}: {said}");
    }
    let work = line("route /few: costs nothing, though a model works for it: ");
    assert!(
        work.contains("POST /few/v1/images/generations") && !work.contains("/chat/completions"),
        "{work}"
    );
    let (code, told) = run(folder.path(), &["check", "--json"], &[]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["routes"][1]["allow"]), (Some(0), &serde_json::json!(["*"])), "{told}");
    assert_eq!(told["routes"][0]["free_work"], serde_json::json!([]), "{told}");
}

#[test]
fn the_example_is_sound() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.toml.example");
    let text = std::fs::read_to_string(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let names =
        text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| (name, "set"));
    let vars: Vars = names.collect();
    let config =
        Config::from_toml(&text, folder.path(), &vars).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
    assert!(!config.routes.is_empty() && !config.upstreams.is_empty());
}

#[test]
fn the_file_is_looked_for_where_it_was_named() {
    let folder = folder_with("[server]\nwrokers = 1\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml").display().to_string();
    for (args, env) in
        [(vec!["check", "--config", &file], vec![]), (vec!["check"], vec![("GATEWAY_CONFIG", file.as_str())])]
    {
        let (code, said) = run(elsewhere.path(), &args, &env);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("server.wrokers"), "{said}");
    }
    let (code, said) = run(elsewhere.path(), &["check", "--config", "missing.toml"], &[]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("missing.toml"), "{said}");
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &["srve"], &[]).0, Some(2));
    assert_eq!(run(folder.path(), &["serve", "--nonsense"], &[]).0, Some(2));
    let (code, said) = run(folder.path(), &["--help"], &[]);
    assert_eq!(code, Some(0));
    for command in ["serve", "demo", "check", "migrate", "health"] {
        assert!(said.contains(command), "{said}");
    }
    assert_eq!(run(folder.path(), &["--version"], &[]).0, Some(0));
}

#[test]
fn weak_secrets_are_refused_in_production_by_name_and_never_by_value() {
    let site = Site::new("server.environment = \"production\"\n");
    let weak = [
        ("SECRET_KEY", "hunter2-hunter2"),
        ("ADMIN_PASSWORD", "admin123!"),
        ("ENCRYPTION_KEY", "tiny-and-known"),
    ];
    for command in ["check", "serve"] {
        let (code, said) = run(site.folder.path(), &[command], &weak);
        assert_eq!(code, Some(78), "{said}");
        for (name, value) in weak {
            assert!(
                said.contains(name) || said.contains(&format!("security.{}", name.to_lowercase())),
                "{name}:\n{said}"
            );
            assert!(!said.contains(value), "{said}");
        }
    }
}
