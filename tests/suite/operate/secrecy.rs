//! Promise 5, closed: whatever happens, no secret is in any line the process writes.

use serde_json::json;

use super::child::{Site, route_to};
use crate::upstream::{Answer, Upstream};

#[tokio::test]
async fn no_key_is_in_any_line_even_when_everything_is_logged() {
    let upstream = Upstream::start();
    let site = Site::new(&route_to(&upstream.url()));
    let secrets = [
        ("ADMIN_PASSWORD", "correct-horse-7"),
        ("SECRET_KEY", "0123456789-a-secret-of-this-very-test-0123456789"),
        ("DEBUG", "true"),
        ("RUST_LOG", "trace"),
    ];
    let mut child = site.serve(&secrets).await;
    let (jwt, key) = site.user("ann").await;
    let admin = site.admin("correct-horse-7").await.unwrap();
    let unknown = "pe-0123456789abcdefghijABCDEFGHIJ01";
    let client = reqwest::Client::new();
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "my-private-words"}]});
    upstream.next(Answer::json(&json!({})));
    upstream.next(Answer::cut());
    upstream.next(Answer::bytes("text/plain", "refused").status(401));
    for shown in [&key, &key, &key, unknown] {
        let call = client.post(site.url("/v1/chat/completions")).json(&chat);
        call.bearer_auth(shown).header("x-api-key", shown).send().await.unwrap();
    }
    for path in ["/v1/models", "/v1//models", "/nowhere", "/api/v1/auth/nothing"] {
        client.get(site.url(&format!("{path}?key={key}&api_key={unknown}"))).send().await.unwrap();
    }
    client.get(site.url("/v1/models")).header("authorization", format!("Basic {key}")).send().await.unwrap();
    site.post("/api/v1/auth/verify-key", Some(&key), &json!({})).await;
    site.post(
        "/api/v1/auth/login",
        None,
        &json!({"email": "ann@example.com", "password": "wrong-Password-1"}),
    )
    .await;
    site.get("/api/v1/admin/users", &admin).await;
    child.signal("TERM");
    let (code, said) = child.ends();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.is_empty(), "nothing was logged at all");
    for secret in [
        key.as_str(),
        key.trim_start_matches("pe-"),
        unknown,
        &jwt,
        &admin,
        "correct-horse-7",
        "wrong-Password-1",
        "password123",
        "the-operators-own",
        "a-secret-of-this-very-test",
        "my-private-words",
    ] {
        assert!(
            !said.contains(secret),
            "{secret} is in:\n{}",
            said.lines().find(|line| line.contains(secret)).unwrap()
        );
    }
}
