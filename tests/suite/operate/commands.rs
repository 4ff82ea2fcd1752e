//! Accounts and the audit trail from the command line, beside a running gateway and without one.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};

use super::child::{Child, PATIENCE, Site, route_to};
use crate::authenticator::Authenticator;
use crate::upstream::{Answer, Upstream};
use crate::world::Database;

pub(super) const ENV: [(&str, &str); 2] = [("ADMIN_PASSWORD", "correct-horse-7"), ("USER", "olga")];

/// A site on whichever engine the tests run on.
pub(super) struct Place {
    pub(super) site: Site,
    database: Option<Database>,
}

impl Place {
    pub(super) async fn new(more: &str) -> Self {
        let database = Database::from_env().await;
        let url = database.as_ref().map(|database| format!("database.url = \"{}\"\n", database.url()));
        Self { site: Site::new(&(url.unwrap_or_default() + more)), database }
    }

    /// `tollgate ARGS --json`; exit code and what was printed.
    pub(super) fn run(&self, args: &[&str]) -> (Option<i32>, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(args).arg("--json").current_dir(self.site.folder.path()).env_clear().envs(ENV);
        let done = command.output().unwrap();
        let told = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{args:?}: {done:?}"));
        (done.status.code(), told)
    }

    /// The same, which must succeed.
    pub(super) fn done(&self, args: &[&str]) -> Value {
        let (code, told) = self.run(args);
        assert_eq!((code, &told["ok"]), (Some(0), &json!(true)), "{args:?}: {told}");
        told
    }

    pub(super) fn plain(&self, args: &[&str]) -> (Option<i32>, String) {
        Child::tollgate(self.site.folder.path(), args, &ENV).ends()
    }

    async fn status(&self, key: &str) -> u16 {
        self.site.get("/v1/models", key).await.0
    }

    /// Waits until the running gateway answers this to the key: five seconds by its promise.
    async fn status_becomes(&self, key: &str, status: u16) {
        let begun = Instant::now();
        while self.status(key).await != status {
            assert!(begun.elapsed() < PATIENCE, "{key} never {status}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert!(begun.elapsed().as_secs_f64() < 7.0, "{:?}", begun.elapsed());
    }

    pub(super) async fn sql(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        if let Some(database) = &self.database {
            PgConnection::connect(&database.url()).await.unwrap().execute(sql).await.unwrap();
        } else {
            let file = self.site.folder.path().join("data/tollgate.db");
            let mut connection =
                SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
            connection.execute(sql).await.unwrap();
            connection.close().await.unwrap();
        }
    }

    pub(super) async fn leave(self) {
        if let Some(database) = self.database {
            database.remove().await;
        }
    }
}

#[tokio::test]
async fn accounts_are_made_before_the_first_start_and_changed_beside_a_running_gateway() {
    let upstream = Upstream::start();
    let place = Place::new(&route_to(&upstream.url())).await;
    let made = place.done(&["user", "add", "ann", "--email", "ann@example.com", "--name", "Ann"]);
    let key = made["api_key"].as_str().unwrap().to_owned();
    let password = made["password"].as_str().unwrap().to_owned();
    let _gateway = place.site.serve(&ENV).await;
    upstream.next(Answer::json(&json!({})));
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    assert_eq!(place.site.post("/v1/chat/completions", Some(&key), &chat).await.0, 200);
    let login = json!({"email": "ann@example.com", "password": password});
    let (status, answer) = place.site.post("/api/v1/auth/login", None, &login).await;
    assert_eq!(status, 200, "{answer}");
    let jwt = answer["access_token"].as_str().unwrap().to_owned();

    assert_eq!(
        place.done(&["user", "limit", "ann", "--left", "3", "--per-day", "50"])["limits"],
        json!({"conversation_limit": 3, "reset": 50})
    );
    let profile = place.site.get("/api/v1/auth/profile", &jwt).await.1;
    assert_eq!(profile["limits"], json!({"conversation_limit": 3, "reset": 50}));

    assert_eq!(place.done(&["user", "reset-limits"])["users"], json!(1));
    assert_eq!(
        place.done(&["user", "show", "ann"])["limits"],
        json!({"conversation_limit": 50, "reset": 50})
    );

    place.done(&["user", "disable", "ann"]);
    assert_eq!(place.site.get("/api/v1/auth/profile", &jwt).await.0, 401, "sessions end at once");
    place.status_becomes(&key, 403).await;
    place.done(&["user", "enable", "ann"]);
    place.status_becomes(&key, 200).await;
    let new = place.done(&["user", "key", "ann"])["api_key"].as_str().unwrap().to_owned();
    place.status_becomes(&key, 401).await;
    assert_eq!(place.status(&new).await, 200);

    let shown = place.done(&["user", "show", "ANN"]);
    assert_eq!((&shown["username"], &shown["is_active"]), (&json!("ann"), &json!(true)));
    assert!(new.starts_with(shown["key"]["prefix"].as_str().unwrap()), "{shown}");
    assert!(!shown.to_string().contains(&new), "{shown}");
    let listed = place.done(&["user", "list"]);
    assert_eq!((&listed["total"], &listed["users"][0]["email"]), (&json!(1), &json!("ann@example.com")));
    place.leave().await;
}

#[tokio::test]
async fn what_cannot_be_is_1_and_wrong_usage_is_2() {
    let place = Place::new("").await;
    place.done(&["user", "add", "ann", "--email", "ann@example.com"]);
    let refused: [&[&str]; 8] = [
        &["user", "add", "ANN", "--email", "other@example.com"],
        &["user", "add", "bob", "--email", "ANN@example.com"],
        &["user", "add", "no spaces", "--email", "b@example.com"],
        &["user", "add", "bob", "--email", "nowhere"],
        &["user", "add", "bob", "--email", "b@example.com", "--plan", "gold"],
        &["user", "show", "bob"],
        &["staff", "disable", "bob"],
        &["admin", "reset-password", "bob"],
    ];
    for args in refused {
        let (code, told) = place.run(args);
        assert_eq!((code, &told["ok"]), (Some(1), &json!(false)), "{args:?}: {told}");
        assert!(told["error"].as_str().is_some_and(|error| error.len() > 10), "{told}");
    }
    let misused: [&[&str]; 5] = [
        &["user", "limit", "ann"],
        &["user", "limit", "ann", "--left", "-1"],
        &["user", "add", "bob"],
        &["staff", "add", "sue", "--email", "s@example.com", "--level", "owner"],
        &["audit", "verify", "--noted", "7"],
    ];
    for args in misused {
        assert_eq!(place.plain(args).0, Some(2), "{args:?}");
    }
    std::fs::write(place.site.folder.path().join("gateway.toml"), "wrong = 1\n").unwrap();
    assert_eq!(place.plain(&["user", "list"]).0, Some(78));
    place.leave().await;
}

#[tokio::test]
async fn staff_are_taken_on_and_the_admin_gets_in_again() {
    let place = Place::new("").await;
    place.done(&["migrate"]);
    let sue = place.done(&["staff", "add", "sue", "--email", "sue@example.com", "--level", "support"]);
    assert_eq!(sue["staff_level"], "support");
    assert_eq!(sue["password"].as_str().unwrap().len(), 20);
    place.done(&["staff", "disable", "sue"]);
    let listed = place.done(&["staff", "list"]);
    assert_eq!(
        (&listed["staff"][0]["username"], &listed["staff"][0]["is_active"]),
        (&json!("sue"), &json!(false))
    );
    place.done(&["staff", "enable", "sue"]);

    let _gateway = place.site.serve(&ENV[1..]).await;
    let before = place.done(&["admin", "reset-password"])["admin_password"].as_str().unwrap().to_owned();
    let session = place.site.admin(&before).await.unwrap();
    let mut typed = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["admin", "reset-password", "admin", "--password-stdin"])
        .current_dir(place.site.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    typed.stdin.take().unwrap().write_all(b"typed-by-hand-7\n").unwrap();
    let said = typed.wait_with_output().unwrap();
    assert!(
        said.status.success() && !String::from_utf8_lossy(&said.stdout).contains("typed-by-hand"),
        "{said:?}"
    );
    assert_eq!(place.site.admin(&before).await, Err(401));
    assert_eq!(place.site.get("/api/v1/admin/users", &session).await.0, 401, "earlier sessions are over");
    assert!(place.site.admin("typed-by-hand-7").await.is_ok());
    place.leave().await;
}

#[tokio::test]
async fn a_lost_second_factor_is_removed_from_the_command_line_and_v1_keys_are_counted() {
    let place = Place::new("").await;
    let gateway = place.site.serve(&ENV).await;
    place.site.user("ann").await;
    let login = json!({"email": "ann@example.com", "password": "password123"});
    let (_, session) = place.site.post("/api/v1/auth/login", None, &login).await;
    let jwt = session["access_token"].as_str().unwrap();
    let (_, enrolled) = place.site.post("/api/v1/auth/totp/enroll", Some(jwt), &json!({})).await;
    let seconds = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let code = Authenticator::scan(enrolled["otpauth_url"].as_str().unwrap()).shows(seconds);
    let confirm = json!({ "totp_code": code });
    assert_eq!(place.site.post("/api/v1/auth/totp/confirm", Some(jwt), &confirm).await.0, 200);
    assert_eq!(place.site.post("/api/v1/auth/login", None, &login).await.1["code"], "totp_required");
    assert_eq!(place.done(&["user", "reset-totp", "ann"])["removed"], true);
    assert_eq!(place.done(&["user", "reset-totp", "ann"])["removed"], false);
    assert_eq!(place.site.post("/api/v1/auth/login", None, &login).await.0, 200);
    assert_eq!(place.site.get("/api/v1/auth/profile", jwt).await.0, 401, "its sessions are over");
    let admin = place.site.admin("correct-horse-7").await.unwrap();
    let (_, trail) = place.site.get("/api/v1/admin/audit", &admin).await;
    let noted = trail.as_array().unwrap().iter().filter(|row| row["action"] == "totp.reset");
    let noted: Vec<_> = noted.map(|row| (row["actor_name"].as_str(), row["target"].as_str())).collect();
    assert_eq!(noted, [(Some("command line (olga)"), Some("ann"))]);
    drop(gateway);

    let told = |place: &Place| {
        let said = place.done(&["check"])["notes"].clone();
        let of_keys = |note: &&Value| note["path"] == "security.accept_v1_keys";
        said.as_array().unwrap().iter().find(of_keys).unwrap()["message"].as_str().unwrap().to_owned()
    };
    assert!(told(&place).starts_with("is false, since"), "{}", told(&place));
    place.sql("UPDATE keys SET format = 1").await;
    assert!(told(&place).starts_with("is true, since the database holds 1 "), "{}", told(&place));
    place.leave().await;
}

#[tokio::test]
async fn the_trail_is_walked_and_a_changed_row_is_found() {
    let place = Place::new("").await;
    place.done(&["user", "add", "ann", "--email", "ann@example.com"]);
    place.done(&["user", "disable", "ann"]);
    let sound = place.done(&["audit", "verify"]);
    assert_eq!((&sound["rows"], &sound["unchained"], &sound["broken"]), (&json!(2), &json!(0), &Value::Null));
    let head = sound["head"].as_str().unwrap().to_owned();
    place.done(&["user", "enable", "ann"]);
    place.done(&["audit", "verify", "--noted", &head]);
    place.sql("UPDATE audit SET actor_name = 'somebody else' WHERE seq = 2").await;
    let (code, told) = place.run(&["audit", "verify"]);
    assert_eq!((code, &told["ok"], &told["rows"]), (Some(1), &json!(false), &json!(1)), "{told}");
    assert_eq!(told["broken"]["link"], 2);
    let (code, said) = place.plain(&["audit", "verify"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("Link 2, row 2: the row is not as it was written."), "{said}");
    place.sql("UPDATE audit SET actor_name = 'command line (olga)' WHERE seq = 2").await;
    place.done(&["audit", "verify"]);
    place.leave().await;
}

#[test]
fn shells_and_people_read_about_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| Child::tollgate(folder.path(), args, &[]).ends();
    for shell in ["bash", "zsh", "fish"] {
        let (code, said) = run(&["completions", shell]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("reset-password") && said.contains("tollgate"), "{shell}");
    }
    let (code, said) = run(&["man"]);
    assert_eq!(code, Some(0));
    assert!(said.contains(".TH tollgate 1"), "{said}");
    assert_eq!(run(&["man", "--dir", "pages"]).0, Some(0));
    let pages: Vec<_> = std::fs::read_dir(folder.path().join("pages")).unwrap().collect();
    assert!(pages.len() > 15, "{pages:?}");
}
