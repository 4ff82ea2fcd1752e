//! Apps that are not behind the gate tell what was said, and the admin reads it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Person, World};

async fn tell(world: &World, ann: &Person, model: &str) -> Value {
    let messages =
        json!([{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there!"}]);
    let form = json!({"model": model, "messages": messages, "research_model": false});
    let reply = world.post("/api/v1/auth/log-message").bearer(&ann.key).json(&form).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["message"], "Message logged successfully");
    reply.json()
}

#[tokio::test]
async fn what_was_told_is_in_the_log_when_the_answer_comes_and_costs_nothing() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let logged = tell(&world, &ann, "gpt-3.5-turbo").await;
    let path = format!("/api/v1/admin/message-logs/{}", logged["log_id"].as_str().unwrap());
    let row = world.get(&path).bearer(&world.admin().await).send().await.json();
    assert_eq!((&row["username"], &row["email"]), (&json!("ann"), &json!("ann@example.com")));
    assert_eq!((&row["model"], &row["research_model"]), (&json!("gpt-3.5-turbo"), &json!(false)));
    assert_eq!((&row["call"], &row["verdict"]), (&json!("log-message"), &json!("free")));
    assert_eq!(row["messages"][1], json!({"role": "assistant", "content": "Hi there!"}));
    assert_eq!(row["time"], "2026-10-01T10:00:00Z");
    assert_eq!(world.left(&ann).await, 10);
}

#[tokio::test]
async fn a_page_of_the_log_is_found_by_its_filters() {
    let world = World::start().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    for model in ["one", "two", "three"] {
        tell(&world, &ann, model).await;
        world.clock.advance(Duration::from_mins(1));
    }
    tell(&world, &bob, "one").await;
    let admin = world.admin().await;
    let list = async |query: &str| {
        let reply = world.get(&format!("/api/v1/admin/message-logs?{query}")).bearer(&admin).send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let rows = reply.json();
        let models: Vec<&str> =
            rows.as_array().unwrap().iter().map(|row| row["model"].as_str().unwrap()).collect();
        (models.join(" "), reply)
    };
    assert_eq!(list("").await.0, "one three two one");
    assert_eq!(list("username=ann").await.0, "three two one");
    assert_eq!(list("model=one&username=bob").await.0, "one");
    assert_eq!(list("since=2026-10-01T10:01:00Z&until=2026-10-01T10:03:00Z").await.0, "three two");
    let (models, reply) = list("username=ann&limit=2").await;
    assert_eq!(models, "three two");
    assert_eq!(reply.header("x-total-count"), "3");
    let next = "</api/v1/admin/message-logs?username=ann&limit=2&offset=2>; rel=\"next\"";
    assert_eq!(reply.header("link"), next);
    let (models, reply) = list("username=ann&limit=2&offset=2").await;
    assert_eq!((models.as_str(), reply.header("link")), ("one", ""));
    for bad in ["limit=0", "limit=1001", "offset=-1", "since=yesterday", "user=ann"] {
        let refused = world.get(&format!("/api/v1/admin/message-logs?{bad}")).bearer(&admin).send().await;
        assert_eq!(refused.status, 422, "{bad}");
    }
}

#[tokio::test]
async fn a_page_of_long_conversations_ends_before_its_limit_and_names_the_next() {
    let world = World::start().await;
    let (ann, admin) = (world.user("ann").await, world.admin().await);
    let words = "x".repeat(900 << 10);
    for n in 0..10 {
        let form = json!({"model": format!("m{n}"), "messages": [{"role": "user", "content": words}]});
        let logged = world.post("/api/v1/auth/log-message").bearer(&ann.key).json(&form).send().await;
        assert_eq!(logged.status, 200, "{}", logged.text());
        world.clock.advance(Duration::from_secs(1));
    }
    let (mut models, mut sizes) = (Vec::new(), Vec::new());
    let mut path = "/api/v1/admin/message-logs?limit=1000".to_owned();
    while !path.is_empty() {
        let page = world.get(&path).bearer(&admin).send().await;
        assert_eq!(page.header("x-total-count"), "10");
        assert!(page.body.len() < 9 << 20, "{} bytes", page.body.len());
        let rows = page.json().as_array().unwrap().clone();
        models.extend(rows.iter().map(|row| row["model"].as_str().unwrap().to_owned()));
        sizes.push(rows.len());
        let link = page.header("link");
        path = link.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |l| l.0).to_owned();
    }
    let newest_first: Vec<String> = (0..10).rev().map(|n| format!("m{n}")).collect();
    assert_eq!((models, sizes), (newest_first, vec![9, 1]));
}

#[tokio::test]
async fn what_is_no_conversation_is_refused() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let message = json!({"role": "user", "content": "Hi"});
    let cases = [
        (json!({"messages": [message]}), json!(["body", "model"])),
        (json!({"model": "m", "messages": []}), json!(["body", "messages"])),
        (json!({"model": "m", "messages": [message, "Hi"]}), json!(["body", "messages", 1])),
        (json!({"model": "m", "messages": "Hi"}), json!(["body", "messages"])),
        (json!({"model": "m", "messages": [message], "username": "bob"}), json!(["body", "username"])),
    ];
    for (form, loc) in cases {
        let refused = world.post("/api/v1/auth/log-message").bearer(&ann.key).json(&form).send().await;
        assert_eq!((refused.status, &refused.json()["detail"][0]["loc"]), (422, &loc), "{form}");
    }
    let large = json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(1 << 20)}]});
    let refused = world.post("/api/v1/auth/log-message").bearer(&ann.key).json(&large).send().await;
    assert_eq!(refused.status, 413);
    let admin = world.admin().await;
    for id in ["nonsense", "0190c0de-0000-7000-8000-000000000000"] {
        let path = format!("/api/v1/admin/message-logs/{id}");
        assert_eq!(world.get(&path).bearer(&admin).send().await.status, 404);
    }
}
