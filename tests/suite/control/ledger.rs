//! The ledger: whether the balances are right, and what somebody's day went to.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tollgate::store::Db;

use crate::upstream::Answer;
use crate::world::{Person, World};

const DAY: Duration = Duration::from_hours(24);

async fn verify(world: &World, query: &str) -> Value {
    let admin = world.admin().await;
    let reply = world.get(&format!("/api/v1/admin/ledger/verify{query}")).bearer(&admin).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

async fn explain(world: &World, path: &str) -> Value {
    let admin = world.admin().await;
    let reply = world.get(&format!("/api/v1/admin/ledger/{path}")).bearer(&admin).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

async fn post(world: &World, path: &str) -> Value {
    let reply = world.post(path).bearer(&world.admin().await).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// Somebody with access to the database changes it.
async fn tamper(world: &World, text: &str) {
    let text = AssertSqlSafe(text.to_owned());
    let changed = match world.db() {
        Db::Sqlite { writer, .. } => sqlx::query(text).execute(writer).await.unwrap().rows_affected(),
        Db::Postgres(pool) => sqlx::query(text).execute(pool).await.unwrap().rows_affected(),
    };
    assert!(changed > 0);
}

/// A conversation that the model refuses, and so is given back.
async fn refused(world: &World, person: &Person) {
    world.upstream.next(Answer::bytes("text/plain", "no").status(503));
    assert!(world.chat(person).send().await.status >= 500);
}

async fn race(world: &World, person: &Person, calls: usize) -> usize {
    let all = (0..calls).map(|_| world.chat(person).send());
    let answers = futures_util::future::join_all(all).await;
    answers.iter().filter(|answer| answer.status == 200).count()
}

fn sound(report: &Value) {
    assert_eq!((&report["ok"], &report["complete"]), (&json!(true), &json!(true)), "{report:#}");
    assert_eq!((&report["total"], &report["differences"]), (&json!(0), &json!([])), "{report:#}");
}

#[tokio::test]
async fn whatever_users_and_admins_do_the_ledger_holds() {
    let world = World::start().await;
    sound(&verify(&world, "").await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let cid = world.user_with("cid", json!({"subscription_plan": "premium"})).await;
    refused(&world, &ann).await;
    assert_eq!(race(&world, &ann, 30).await, 10);
    refused(&world, &cid).await;
    assert_eq!(race(&world, &cid, 30).await, 30);
    assert_eq!(world.post("/api/v1/auth/verify-key").bearer(&bob.key).send().await.status, 200);
    let message = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let logged = world.post("/api/v1/auth/log-message").bearer(&bob.key).json(&message).send().await;
    assert_eq!(logged.status, 200, "{}", logged.text());
    sound(&verify(&world, "").await);

    world.change("ann", json!({"limits": {"conversation_limit": 2}})).await;
    assert_eq!(race(&world, &ann, 5).await, 2);
    world.change("cid", json!({"subscription_plan": "free"})).await;
    assert_eq!(world.left(&cid).await, 0, "the smaller plan gives fewer than were used");
    sound(&verify(&world, "").await);
    post(&world, "/api/v1/admin/reset-limits").await;
    assert_eq!(race(&world, &ann, 20).await, 10);
    sound(&verify(&world, "").await);

    let admin = world.admin().await;
    assert_eq!(world.delete("/api/v1/admin/users/ann").bearer(&admin).send().await.status, 200);
    sound(&verify(&world, "").await);
    let back = post(&world, "/api/v1/admin/deleted-users/1/restore").await;
    let ann = Person { key: back["new_key"].as_str().unwrap().to_owned(), ..ann };
    assert_eq!(race(&world, &ann, 3).await, 3);
    sound(&verify(&world, "").await);
    world.clock.advance(DAY);
    assert_eq!(race(&world, &bob, 12).await, 10);
    let report = verify(&world, "").await;
    sound(&report);
    assert_eq!((&report["users"], &report["first_day"]), (&json!(3), &Value::Null), "{report:#}");
    // 31 of cid's; one and ten of bob's; three of ann's, whose others are of a balance that went with her.
    assert_eq!(report["conversations"], 45, "{report:#}");
}

/// Calls come and go, epochs begin, and every look finds a ledger that holds.
#[tokio::test]
async fn nobody_is_accused_while_the_gate_is_busy() {
    let world = World::start().await;
    let ann = world.user_with("ann", json!({"subscription_plan": "premium"})).await;
    let bob = world.user("bob").await;
    let over = std::sync::atomic::AtomicBool::new(false);
    let over = &over;
    let calls = (0..6).map(async |n| {
        let mut made = 0;
        while !over.load(std::sync::atomic::Ordering::Acquire) {
            if made % 5 == n % 5 {
                world.upstream.next(Answer::bytes("text/plain", "no").status(503));
            }
            world.chat(if n < 4 { &ann } else { &bob }).send().await;
            made += 1;
        }
        made
    });
    let looks = async {
        for look in 0..12 {
            sound(&verify(&world, "").await);
            match look % 4 {
                0 => world.change("bob", json!({"limits": {"conversation_limit": 5}})).await,
                2 => drop(post(&world, "/api/v1/admin/reset-limits").await),
                _ => {}
            }
        }
        over.store(true, std::sync::atomic::Ordering::Release);
    };
    let (made, ()) = futures_util::join!(futures_util::future::join_all(calls), looks);
    assert!(made.iter().sum::<i32>() > 20, "{made:?}");
    sound(&verify(&world, "").await);
}

#[tokio::test]
async fn what_was_changed_behind_the_gates_back_is_named() {
    let world = World::start().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    race(&world, &ann, 3).await;
    race(&world, &bob, 2).await;
    sound(&verify(&world, "").await);
    tamper(&world, "UPDATE exchanges SET verdict = 'free' WHERE user_id = 1").await;
    tamper(&world, "UPDATE quota SET refunded = 7 WHERE user_id = 2").await;
    let report = verify(&world, "").await;
    let of = |user: &str, name: &str, what: &str, expected: i64, found: i64| {
        json!({"user_id": user, "username": name, "day": "2026-10-01", "epoch": 0, "what": what,
               "expected": expected, "found": found, "remedy": "recount"})
    };
    let (of_ann, of_bob) = (of("1", "ann", "charged", 0, 3), of("2", "bob", "refunded", 0, 7));
    assert_eq!((&report["ok"], &report["total"]), (&json!(false), &json!(2)));
    assert_eq!(report["differences"], json!([of_ann, of_bob]));
    assert_eq!(verify(&world, "?username=bob").await["differences"], json!([of_bob]));
    assert_eq!(verify(&world, "?after=1").await["differences"], json!([of_bob]));
    let day = explain(&world, "ann").await;
    assert_eq!((&day["ok"], &day["differences"]), (&json!(false), &json!([of_ann])));
    let admin = world.admin().await;
    let statuses = [("verify?username=eve", 404), ("verify?after=x", 422), ("verify?limit=1", 422)];
    for (path, status) in statuses {
        let reply = world.get(&format!("/api/v1/admin/ledger/{path}")).bearer(&admin).send().await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
    }
}

#[tokio::test]
async fn rows_that_the_clean_up_removed_are_out_of_reach_and_no_difference() {
    let world = World::with(|setup| setup.add("[message_log]\nmetadata_retention = \"3d\"")).await;
    let ann = world.user("ann").await;
    for _ in 0..6 {
        race(&world, &ann, 2).await;
        world.clock.advance(DAY);
    }
    sound(&verify(&world, "").await);
    let (path, admin) = ("/api/v1/admin/jobs/log_clean_up/run", world.admin().await);
    while world.post(path).bearer(&admin).send().await.status != 200 {}
    let report = verify(&world, "").await;
    sound(&report);
    // What began before the 4th, ten in the morning, may be gone; far to the east the 5th began then.
    let told = (&report["first_day"], &report["balances"], &report["out_of_reach"]);
    assert_eq!(told, (&json!("2026-10-06"), &json!(6), &json!(5)), "{report:#}");
    tamper(&world, "DELETE FROM exchanges WHERE quota_day >= 20732").await;
    let report = verify(&world, "").await;
    assert_eq!((&report["total"], &report["differences"][0]["day"]), (&json!(1), &json!("2026-10-06")));
}

/// Of an epoch: its allowance, what was charged, what was not, and what was given back.
fn units(epoch: &Value) -> [i64; 4] {
    let units = |name: &str| epoch[name].as_i64().unwrap();
    let unused = units("held") + units("forfeited") + units("left");
    [units("allowance"), units("charged"), unused, units("refunded")]
}

#[tokio::test]
async fn a_day_is_told_conversation_by_conversation() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    race(&world, &ann, 1).await;
    world.clock.advance(Duration::from_secs(1));
    refused(&world, &ann).await;
    world.clock.advance(Duration::from_secs(1));
    world.change("ann", json!({"limits": {"conversation_limit": 4}})).await;
    assert_eq!(world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await.status, 200);
    world.clock.advance(Duration::from_secs(1));
    let message = json!({"model": "m", "messages": [{"role": "user", "content": "my-private-words"}]});
    world.post("/api/v1/auth/log-message").bearer(&ann.key).json(&message).send().await;
    let day = explain(&world, "ann").await;
    assert_eq!((&day["ok"], &day["total"], &day["day"]), (&json!(true), &json!(4), &json!("2026-10-01")));
    let lines: Vec<_> = day["conversations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let words =
                ["time", "call", "verdict", "why"].map(|name| line[name].as_str().unwrap().to_owned());
            (words, line["epoch"].clone(), line["left"].clone())
        })
        .collect();
    let line = |second: u8, call: &str, verdict: &str, why: &str| {
        [format!("2026-10-01T10:00:0{second}Z"), call.to_owned(), verdict.to_owned(), why.to_owned()]
    };
    let free = "an app logged it; such a call costs nothing";
    assert_eq!(
        lines,
        [
            (line(0, "chat.completions", "charged", "answered to the end"), json!(0), json!(9)),
            (
                line(1, "chat.completions", "refunded", "the upstream failed, so it was given back"),
                json!(0),
                json!(9)
            ),
            (line(2, "verify-key", "charged", "an app had the key verified"), json!(1), json!(3)),
            (line(3, "log-message", "free", free), Value::Null, Value::Null),
        ]
    );
    let epochs = day["epochs"].as_array().unwrap();
    let balances: Vec<_> = epochs.iter().map(units).collect();
    assert_eq!((balances, &epochs[1]["live"]), (vec![[10, 1, 9, 1], [4, 1, 3, 0]], &json!(true)));
    assert!(!day.to_string().contains("my-private-words"), "{day:#}");

    let page = explain(&world, "ANN?limit=1&offset=2&day=2026-10-01").await;
    assert_eq!(page["conversations"], json!([day["conversations"][2]]));
}

#[tokio::test]
async fn who_reads_a_day_is_noted_and_a_day_nobody_can_mean_is_refused() {
    let world = World::start().await;
    world.user("ann").await;
    let before = explain(&world, "ann?day=2026-09-30").await;
    assert_eq!((&before["total"], &before["epochs"]), (&json!(0), &json!([])));
    let read = world.audit().await;
    assert_eq!((&read[0]["action"], &read[0]["target"]), (&json!("message_log.read"), &json!("ann")));
    assert_eq!(read[0]["detail"]["ledger_of"], "2026-09-30");
    let admin = world.admin().await;
    for (path, status) in [("eve", 404), ("ann?day=yesterday", 422), ("ann?from=2026-10-01", 422)] {
        let reply = world.get(&format!("/api/v1/admin/ledger/{path}")).bearer(&admin).send().await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_user_may_be_called_verify() {
    let world = World::start().await;
    world.user("verify").await;
    assert_eq!(explain(&world, "VERIFY").await["username"], "verify");
}
