//! What was used, for charts and at a glance.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::upstream::Answer;
use crate::world::{Person, World};

const DAY: Duration = Duration::from_hours(24);

async fn usage(world: &World, query: &str) -> Vec<Value> {
    let reply = world.get(&format!("/api/v1/admin/usage?{query}")).bearer(&world.admin().await).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().as_array().unwrap().clone()
}

/// Runs a job by hand, once the clock has not set it going at the same time.
async fn run(world: &World, job: &str) {
    let (path, admin) = (format!("/api/v1/admin/jobs/{job}/run"), world.admin().await);
    let mut ran = world.post(&path).bearer(&admin).send().await;
    while ran.status == 409 {
        ran = world.post(&path).bearer(&admin).send().await;
    }
    assert_eq!((ran.status, &ran.json()["state"]), (200, &json!("done")), "{}", ran.text());
}

/// One conversation of three tokens and one that the model refuses, which is given back.
async fn talk(world: &World, person: &Person) {
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3});
    let message = json!({"role": "assistant", "content": "Ho"});
    world.upstream.next(Answer::json(&json!({"object": "chat.completion", "usage": usage,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})));
    assert_eq!(world.chat(person).send().await.status, 200);
    world.upstream.next(Answer::bytes("text/plain", "no").status(503));
    assert!(world.chat(person).send().await.status >= 500);
}

#[tokio::test]
async fn today_is_counted_as_it_goes_by_day_model_user_and_outcome() {
    let world = World::start().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    assert_eq!(usage(&world, "").await, Vec::<Value>::new());
    for person in [&ann, &ann, &bob] {
        talk(&world, person).await;
    }
    let days = usage(&world, "from=2026-10-01&to=2026-10-01").await;
    assert_eq!(days.len(), 1, "{days:#?}");
    let sums = |of: &Value| {
        ["requests", "conversations", "refunded", "total_tokens"].map(|sum| of[sum].as_i64().unwrap())
    };
    assert_eq!((&days[0]["day"], sums(&days[0])), (&json!("2026-10-01"), [6, 3, 3, 9]));
    let users = usage(&world, "by=user").await;
    assert_eq!((&users[0]["user"], sums(&users[0])), (&json!("ann"), [4, 2, 2, 6]));
    assert_eq!((&users[1]["user"], sums(&users[1])), (&json!("bob"), [2, 1, 1, 3]));
    let models = usage(&world, "by=model&username=bob").await;
    assert_eq!((&models[0]["model"], sums(&models[0])), (&json!("gpt-test"), [2, 1, 1, 3]));
    let outcomes = usage(&world, "by=outcome").await;
    assert_eq!(outcomes.iter().map(|of| of["requests"].as_i64().unwrap()).sum::<i64>(), 6, "{outcomes:#?}");
    assert!(outcomes.len() >= 2, "{outcomes:#?}");
}

#[tokio::test]
async fn a_day_that_is_over_is_kept_and_outlives_the_log() {
    let world = World::with(|setup| setup.add("[message_log]\nmetadata_retention = \"3d\"")).await;
    let ann = world.user("ann").await;
    talk(&world, &ann).await;
    world.clock.advance(DAY);
    talk(&world, &ann).await;
    let both = usage(&world, "").await;
    assert_eq!(both.len(), 2, "{both:#?}");
    for _ in 0..2 {
        run(&world, "usage_statistics").await;
        assert_eq!(usage(&world, "").await, both, "twice is once");
    }
    world.clock.advance(DAY * 10);
    run(&world, "usage_statistics").await;
    run(&world, "log_clean_up").await;
    assert_eq!(world.rows(&world.admin().await).await, Vec::<Value>::new());
    run(&world, "usage_statistics").await;
    assert_eq!(usage(&world, "").await, both);
}

/// Calls of a gateway that was there for a moment, as its spool has them.
async fn left_behind(spool: &Path) {
    let elsewhere = World::start().await;
    let ann = elsewhere.user("ann").await;
    let message = json!({"model": "late", "messages": [{"role": "user", "content": "Hello"}]});
    for _ in 0..3 {
        let call = elsewhere.post("/api/v1/auth/log-message").bearer(&ann.key).json(&message);
        assert_eq!(call.send().await.status, 200);
    }
    for file in std::fs::read_dir(elsewhere.folder.path().join("data/spool")).unwrap() {
        let file = file.unwrap();
        if file.path().extension().is_some_and(|kind| kind == "seg") {
            std::fs::copy(file.path(), spool.join(file.file_name())).unwrap();
        }
    }
}

#[tokio::test]
async fn a_spool_that_is_found_five_days_later_is_summed_up_with_its_day() {
    let mut world = World::start().await;
    let ann = world.user("ann").await;
    talk(&world, &ann).await;
    world.clock.advance(DAY * 5);
    talk(&world, &ann).await;
    run(&world, "usage_statistics").await;
    let before = usage(&world, "by=model").await;
    assert_eq!((before.len(), &before[0]["requests"]), (1, &json!(4)), "{before:#?}");

    world.take_app().shutdown().await;
    left_behind(&world.folder.path().join("data/spool")).await;
    world.start_again().await;
    let rows = world.rows_when(7).await;
    assert_eq!(rows.iter().filter(|row| row["model"] == "late").count(), 3);
    assert_eq!(usage(&world, "by=model").await, before, "not before the night");
    for _ in 0..2 {
        run(&world, "usage_statistics").await;
        let after = usage(&world, "by=model&to=2026-10-01").await;
        let late = after.iter().find(|model| model["model"] == "late");
        assert_eq!(late.map(|model| &model["requests"]), Some(&json!(3)), "{after:#?}");
    }
}

#[tokio::test]
async fn the_statistics_say_how_it_stands() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.user("bob").await;
    world.change("bob", json!({"is_active": false})).await;
    talk(&world, &ann).await;
    let seen = world.get("/api/v1/admin/statistics").bearer(&world.admin().await).send().await.json();
    assert_eq!(seen["accounts"], json!({"users": 2, "active_users": 1, "staff": 0, "admins": 1, "keys": 2}));
    assert_eq!((&seen["day"], &seen["time_zone"]), (&json!("2026-10-01"), &json!("UTC")));
    for period in ["today", "last_7_days", "last_30_days"] {
        assert_eq!(
            (&seen[period]["requests"], &seen[period]["conversations"]),
            (&json!(2), &json!(1)),
            "{period}"
        );
    }
    assert_eq!(seen["top_users"][0]["user"], "ann");
    assert_eq!(seen["top_models"][0]["model"], "gpt-test");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_nobody_else_may_look() {
    let world = World::start().await;
    let (ann, admin) = (world.user("ann").await, world.admin().await);
    let bad = [
        "from=yesterday",
        "from=2026-10-02&to=2026-10-01",
        "from=2020-01-01&to=2026-10-01",
        "by=hour",
        "user=ann",
    ];
    for query in bad {
        let path = format!("/api/v1/admin/usage?{query}");
        let refused = world.get(&path).bearer(&admin).send().await;
        assert_eq!(
            (refused.status, &refused.json()["detail"][0]["loc"][0]),
            (422, &json!("query")),
            "{query}"
        );
    }
    for path in ["/api/v1/admin/usage", "/api/v1/admin/statistics"] {
        assert_eq!(world.get(path).bearer(&ann.jwt).send().await.status, 401);
    }
}
