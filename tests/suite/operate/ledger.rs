//! `tollgate ledger`: what an operator types when somebody says that the count is wrong.

use serde_json::{Value, json};

use super::child::{Child, PATIENCE, route_to};
use super::commands::{ENV, Place};
use crate::upstream::{Answer, Upstream};

/// A model's name that would write to an operator's terminal, and a line that nobody printed.
const FORGED: &str = "m\u{1b}]0;owned\u{7}\r\nepoch 9\u{9b}2J\u{202e}";

/// A gateway, and ann, who had two conversations and one that failed.
async fn talked_to(place: &Place, upstream: &Upstream) -> Child {
    let made = place.done(&["user", "add", "ann", "--email", "ann@example.com"]);
    let key = made["api_key"].as_str().unwrap().to_owned();
    let gateway = place.site.serve(&ENV).await;
    let chat = json!({"model": FORGED, "messages": [{"role": "user", "content": "Hi"}]});
    for answer in
        [Answer::json(&json!({})), Answer::bytes("text/plain", "no").status(503), Answer::json(&json!({}))]
    {
        upstream.next(answer);
        place.site.post("/v1/chat/completions", Some(&key), &chat).await;
    }
    gateway
}

async fn written(place: &Place) {
    let admin = place.site.admin("correct-horse-7").await.unwrap();
    let (status, rows) = place.site.get("/api/v1/admin/ledger/verify", &admin).await;
    assert_eq!((status, &rows["ok"], &rows["conversations"]), (200, &json!(true), &json!(3)), "{rows}");
}

#[tokio::test]
async fn verify_is_0_beside_a_running_gateway_1_on_a_difference_and_2_when_nobody_can_tell() {
    let upstream = Upstream::start();
    let place = Place::new(&route_to(&upstream.url())).await;
    let mut gateway = talked_to(&place, &upstream).await;
    written(&place).await;
    let sound = place.done(&["ledger", "verify"]);
    assert_eq!(
        (&sound["users"], &sound["conversations"], &sound["total"]),
        (&json!(1), &json!(3), &json!(0))
    );
    let (code, said) = place.plain(&["ledger", "verify"]);
    let words = "The ledger holds.\nCounted again: 3 conversations, for 1 balance of 1 user.\n";
    assert_eq!((code, said.as_str()), (Some(0), words));
    gateway.signal("TERM");
    assert_eq!(gateway.ends().0, Some(0));
    place.done(&["ledger", "verify"]);

    place.sql("UPDATE quota SET charged = charged + 1").await;
    let (code, told) = place.run(&["ledger", "verify", "--user", "ANN"]);
    assert_eq!((code, &told["ok"], &told["total"]), (Some(1), &json!(false), &json!(2)), "{told}");
    let charged = &told["differences"][1];
    let numbers = (&charged["username"], &charged["what"], &charged["expected"], &charged["found"]);
    assert_eq!(numbers, (&json!("ann"), &json!("charged"), &json!(2), &json!(3)), "{told}");
    let (code, said) = place.plain(&["ledger", "verify"]);
    assert_eq!(code, Some(1), "{said}");
    let wanted =
        ["DOES NOT HOLD: 2 differences", "quota.charged against charged rows", "the ledger does not hold"];
    assert!(wanted.iter().all(|words| said.contains(words)), "{said}");

    let planned = place.run(&["ledger", "repair"]);
    assert_eq!((planned.0, &planned.1["applied"], &planned.1["total"]), (Some(1), &json!(false), &json!(2)));
    let (code, said) = place.plain(&["ledger", "repair"]);
    let wanted =
        "2 differences found, 2 of them with a remedy. Nothing was changed: `tollgate ledger repair --apply`";
    assert!(code == Some(1) && said.contains(wanted), "{said}");
    let repaired = place.done(&["ledger", "repair", "--apply", "--user", "ann"]);
    let one = &repaired["repaired"][0];
    assert_eq!((&one["username"], &one["remedies"]), (&json!("ann"), &json!(["recount", "regrant"])));
    assert_eq!((&one["before"]["charged"], &one["after"]["charged"]), (&json!(3), &json!(2)), "{one}");
    place.done(&["ledger", "verify"]);
    assert_eq!(place.done(&["ledger", "repair", "--apply"])["repaired"], json!([]));

    let (code, told) = place.run(&["ledger", "verify", "--user", "eve"]);
    assert_eq!((code, &told["ok"]), (Some(2), &json!(false)), "{told}");
    let nowhere = "database.url = \"postgres://postgres@127.0.0.1:1/none\"\n";
    std::fs::write(place.site.folder.path().join("gateway.toml"), nowhere).unwrap();
    let (code, said) =
        Child::tollgate(place.site.folder.path(), &["ledger", "verify"], &ENV).ends_within(3 * PATIENCE);
    assert_eq!(code, Some(2), "{said}");
    for words in
        ["waiting up to 30 s for the database", "the ledger cannot be read: PostgreSQL takes no connection"]
    {
        assert!(said.contains(words), "{said}");
    }
    std::fs::write(place.site.folder.path().join("gateway.toml"), "wrong = 1\n").unwrap();
    assert_eq!(place.plain(&["ledger", "verify"]).0, Some(78));
    place.leave().await;
}

#[tokio::test]
async fn explain_tells_a_day_for_people_and_for_programs() {
    let upstream = Upstream::start();
    let place = Place::new(&route_to(&upstream.url())).await;
    let _gateway = talked_to(&place, &upstream).await;
    written(&place).await;
    let day = place.done(&["ledger", "explain", "ann"]);
    let verdicts: Vec<&Value> =
        day["conversations"].as_array().unwrap().iter().map(|line| &line["verdict"]).collect();
    assert_eq!(verdicts, ["charged", "refunded", "charged"]);
    assert_eq!(day["conversations"][2]["left"], 8);
    let epoch = &day["epochs"][0];
    let parts = ["charged", "held", "forfeited", "left"].map(|part| epoch[part].as_i64().unwrap());
    assert_eq!(parts.iter().sum::<i64>(), 10, "{epoch}");
    assert_eq!((parts[0], &epoch["refunded"], &epoch["live"]), (2, &json!(1), &json!(true)));

    let (code, said) = place.plain(&["ledger", "explain", "Ann"]);
    assert_eq!(code, Some(0), "{said}");
    let request = day["conversations"][1]["request_id"].as_str().unwrap();
    for words in [
        "ann on ",
        "3 conversations",
        "the upstream failed, so it was given back",
        request,
        "the sum of these",
        "m\\u001b]0;owned\\u0007\\u000d\\u000aepoch 9\\u009b2J\\u202e",
    ] {
        assert!(said.contains(words), "no {words:?} in:\n{said}");
    }
    assert!(!said.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{said:?}");
    assert_eq!(said.lines().filter(|line| line.starts_with("epoch")).count(), 1, "{said}");
    assert_eq!(day["conversations"][0]["model"], FORGED);
    let (code, said) = place.plain(&["ledger", "explain", "ann", "--day", "2026-01-01"]);
    assert_eq!(
        (code, said.lines().next()),
        (Some(0), Some("ann on 2026-01-01 (UTC): 0 conversations")),
        "{said}"
    );
    assert_eq!(place.plain(&["ledger", "explain", "eve"]).0, Some(2));
    assert_eq!(place.plain(&["ledger", "explain", "ann", "--day", "today"]).0, Some(2));
    assert_eq!(place.plain(&["ledger", "explain"]).0, Some(2));
    place.sql("UPDATE quota SET refunded = 0").await;
    let (code, told) = place.run(&["ledger", "explain", "ann"]);
    assert_eq!((code, &told["differences"][0]["what"]), (Some(1), &json!("refunded")), "{told}");
    place.leave().await;
}
