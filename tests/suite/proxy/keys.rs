//! Where a key may be shown, and that it goes no further.

use serde_json::json;

use crate::upstream::Answer;
use crate::world::{UPSTREAM_SECRET, World, chat_request};

const UNKNOWN: &str = "pe-0123456789abcdefghijABCDEFGHIJ01";

#[tokio::test]
async fn a_key_opens_the_gate_from_every_header_clients_use_and_never_reaches_the_upstream() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let bearer = format!("bEARER {}", ann.key);
    let places = [("authorization", bearer.as_str()), ("x-api-key", &ann.key), ("api-key", &ann.key)];
    for (name, value) in places {
        let call = world.post("/v1/chat/completions").header(name, value).header("cookie", "session=1");
        assert_eq!(call.json(&chat_request()).send().await.status, 200, "{name}");
        let seen = world.upstream.last();
        assert!(!seen.everything().contains(&ann.key), "{seen:?}");
        assert_eq!(seen.all("authorization"), [format!("Bearer {UPSTREAM_SECRET}")]);
        for gone in ["x-api-key", "api-key", "cookie"] {
            assert_eq!(seen.header(gone), None, "{gone}");
        }
    }
}

#[tokio::test]
async fn the_same_key_twice_is_one_key_and_two_keys_are_one_too_many() {
    let world = World::start().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let both = |other: &str| world.chat(&ann).header("x-api-key", other).send();
    assert_eq!(both(&ann.key).await.status, 200);
    assert_eq!(both("sk-somebodys-own").await.status, 200, "what is not ours is dropped");
    let refused = both(&bob.key).await;
    assert_eq!(
        (refused.status, refused.json()["error"]["type"].as_str()),
        (400, Some("invalid_request_error"))
    );
    assert!(!refused.text().contains("pe-"));
    assert_eq!(world.upstream.hits(), 2);
}

#[tokio::test]
async fn whoever_shows_no_good_key_hears_the_same_401() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let renewed = world.post("/api/v1/auth/regenerate-key").bearer(&ann.jwt).send().await;
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    let mut refusals = Vec::new();
    for shown in [
        "",
        "Bearer sk-1234567890",
        "Bearer pe-short",
        &format!("Bearer {UNKNOWN}"),
        &format!("Bearer {}", ann.key),
    ] {
        let mut call = world.post("/v1/chat/completions").json(&chat_request());
        if !shown.is_empty() {
            call = call.header("authorization", shown);
        }
        let answer = call.send().await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{shown}");
        assert!(!answer.text().contains("pe-") && !answer.text().contains("sk-"), "{}", answer.text());
        refusals.push(answer.body);
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(world.upstream.hits(), 0);
}

#[tokio::test]
async fn a_renewed_key_works_at_once_and_the_old_one_at_once_no_more() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    let renewed = world.post("/api/v1/auth/regenerate-key?reveal=true").bearer(&ann.jwt).send().await;
    assert_eq!(world.chat(&ann).send().await.status, 401);
    let mut renamed = ann.clone();
    renamed.key = renewed.json()["api_key"].as_str().unwrap().to_owned();
    assert_eq!(world.chat(&renamed).send().await.status, 200);
    assert_eq!(world.left(&ann).await, 8);
}

#[tokio::test]
async fn a_disabled_account_is_403_at_once() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    world.change("ann", json!({"is_active": false})).await;
    let answer = world.chat(&ann).send().await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (403, Some("account_disabled")));
    assert_eq!(answer.header("x-tollgate-denied-by"), "account_disabled");
}

#[tokio::test]
async fn a_session_is_no_key_and_a_key_is_no_session() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let by_session = world.post("/v1/chat/completions").bearer(&ann.jwt).json(&chat_request()).send().await;
    assert_eq!(by_session.status, 401);
    assert_eq!(world.get("/api/v1/auth/profile").bearer(&ann.key).send().await.status, 401);
}

#[tokio::test]
async fn the_operators_credential_reaches_nobody() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::bytes("text/plain", "hello").header("authorization", "Bearer x"));
    let answer = world.chat(&ann).send().await;
    assert!(!format!("{:?}{}", answer.headers, answer.text()).contains(UPSTREAM_SECRET));
}
