//! Promise 5, closed: whatever happens, no secret is in any line the process writes.

use serde_json::{Value, json};

use super::child::{Site, route_to};
use crate::authenticator::Authenticator;
use crate::post_office::PostOffice;
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

#[tokio::test]
async fn nothing_that_opens_a_session_is_in_any_line_either() {
    let mut office = PostOffice::open();
    let site = Site::new(&office.config());
    let mut child = site.serve(&[("DEBUG", "true"), ("RUST_LOG", "trace")]).await;
    site.user("ann").await;
    let form = json!({"email": "ann@example.com", "password": "password123"});
    let (_, login) = site.post("/api/v1/auth/login", None, &form).await;
    let word = |from: &Value, name: &str| from[name].as_str().unwrap_or_else(|| panic!("{from}")).to_owned();
    let refresh = json!({"refresh_token": login["refresh_token"]});
    let (_, next) = site.post("/api/v1/auth/refresh", None, &refresh).await;
    let jwt = word(&next, "access_token");
    let (_, enrolled) = site.post("/api/v1/auth/totp/enroll", Some(&jwt), &json!({})).await;
    let seconds = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let code = Authenticator::scan(&word(&enrolled, "otpauth_url")).shows(i64::try_from(seconds).unwrap());
    let (_, confirmed) =
        site.post("/api/v1/auth/totp/confirm", Some(&jwt), &json!({"totp_code": code})).await;
    let recovery: Vec<String> = serde_json::from_value(confirmed["recovery_codes"].clone()).unwrap();
    for code in [recovery[0].as_str(), "WRONG-CODES"] {
        let form = json!({"email": "ann@example.com", "password": "password123", "recovery_code": code});
        site.post("/api/v1/auth/login", None, &form).await;
    }
    site.post("/api/v1/auth/password-reset/request", None, &json!({"email": "ann@example.com"})).await;
    let token = office.letter().await.token();
    let reset = json!({"email": "ann@example.com", "token": token, "new_password": "another-Word-1",
                       "confirm_new_password": "another-Word-1"});
    assert_eq!(site.post("/api/v1/auth/password-reset/confirm", None, &reset).await.0, 200);
    // Shown again: the session it belonged to is over, and that is said.
    site.post("/api/v1/auth/refresh", None, &refresh).await;
    child.signal("TERM");
    let (code, said) = child.ends();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("a letter was sent"), "{said}");
    let mut secrets = vec![
        word(&login, "access_token"),
        word(&login, "refresh_token"),
        jwt,
        word(&next, "refresh_token"),
        word(&enrolled, "secret"),
        token,
        "the-post-masters-word".to_owned(),
        // The same as it travels in AUTH PLAIN.
        "dGhlLXBvc3QtbWFzdGVycy13b3Jk".to_owned(),
        "another-Word-1".to_owned(),
        "WRONG-CODES".to_owned(),
    ];
    secrets.extend(recovery);
    for secret in secrets {
        let line = said.lines().find(|line| line.contains(&secret));
        assert!(line.is_none(), "{secret} is in:\n{}", line.unwrap());
    }
}
