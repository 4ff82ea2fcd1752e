//! How fast: per client address and per user, burst and sustained, on a clock moved by hand.

use std::time::Duration;

use serde_json::json;

use crate::world::World;

/// Of the shape of a key, and nobody's.
fn guess(number: usize) -> String {
    format!("pe-0123456789abcdefghijABCDEFGH{number:04}")
}

const PROXIED: &str =
    "[limits]\nrate_limit_per_minute = 60\nburst = 20\n[server]\ntrusted_proxies = [\"127.0.0.1/32\"]";

#[tokio::test]
async fn an_address_has_a_burst_of_guesses_and_then_a_steady_rate() {
    let world = World::with(|setup| setup.add(PROXIED)).await;
    let ann = world.user_with("ann", json!({"subscription_plan": "premium"})).await;
    let from = |address: &'static str, n| {
        world.post("/v1/chat/completions").bearer(&guess(n)).header("x-forwarded-for", address).send()
    };
    for n in 0..20 {
        assert_eq!(from("203.0.113.7", n).await.status, 401);
    }
    let refused = from("203.0.113.7", 21).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"), "{}", refused.text());
    assert_eq!(refused.header("x-tollgate-denied-by"), "rate_limit_exceeded");
    assert_eq!(from("203.0.113.8", 21).await.status, 401, "a neighbour has a bucket of their own");
    let login = json!({"email": "ann@example.com", "password": "wrong-password1"});
    let login = world.post("/api/v1/auth/login").header("x-forwarded-for", "203.0.113.7").json(&login);
    assert_eq!(login.send().await.status, 429, "the same bucket holds logins");
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(from("203.0.113.7", 22).await.status, 401);
    assert_eq!(from("203.0.113.7", 23).await.status, 401);
    assert_eq!(from("203.0.113.7", 24).await.status, 429);
    assert_eq!(world.chat(&ann).header("x-forwarded-for", "203.0.113.9").send().await.status, 200);
    let known = world.chat(&ann).header("x-forwarded-for", "203.0.113.7").send().await;
    assert_eq!(known.status, 200, "a key that is known to be good passes beside guesses of its address");
    assert_eq!(world.upstream.hits(), 2);
}

#[tokio::test]
async fn an_ipv6_network_shares_one_bucket() {
    let world = World::with(|setup| setup.add(PROXIED)).await;
    let from = |address: String| {
        world.get("/v1/models").bearer(&guess(1)).header("x-forwarded-for", &address).send()
    };
    for i in 0..20 {
        assert_eq!(from(format!("2001:db8:0:1::{i:x}")).await.status, 401);
    }
    assert_eq!(from("2001:db8:0:1::ffff".to_owned()).await.status, 429);
    assert_eq!(from("2001:db8:0:2::1".to_owned()).await.status, 401);
}

#[tokio::test]
async fn an_office_behind_one_address_with_good_keys_is_not_throttled() {
    let world = World::with(|setup| setup.add("[limits]\nrate_limit_per_minute = 60\nburst = 8")).await;
    let mut people = Vec::new();
    for n in 0..4 {
        people.push(world.user_with(&format!("user_{n}"), json!({"subscription_plan": "premium"})).await);
        world.clock.advance(Duration::from_mins(1));
    }
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let all = futures_util::future::join_all(
            people.iter().map(|person| world.get("/v1/models").bearer(&person.key).send()),
        );
        statuses.extend(all.await.into_iter().map(|answer| answer.status));
    }
    for person in &people {
        for path in ["/api/v1/key", "/api/v1/authz"] {
            statuses.push(world.get(path).bearer(&person.key).send().await.status);
        }
        statuses.push(world.post("/api/v1/auth/verify-key").bearer(&person.key).send().await.status);
    }
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[tokio::test]
async fn a_users_rate_holds_for_all_their_keys_and_no_rotation_empties_it() {
    let world = World::with(|setup| {
        setup.add("[plans.slow]\nconversation_limit = 100\nrate_limit_per_minute = 10\nburst = 10");
    })
    .await;
    let ann = world.user_with("ann", json!({"subscription_plan": "slow"})).await;
    let mut keys = vec![ann.key.clone()];
    for name in ["a", "b", "c"] {
        let made = world.post("/api/v1/auth/keys").bearer(&ann.jwt).json(&json!({"name": name}));
        keys.push(made.send().await.json()["api_key"].as_str().unwrap().to_owned());
    }
    let mut passed = 0;
    for _ in 0..6 {
        for key in &keys {
            passed += usize::from(world.get("/v1/models").bearer(key).send().await.status == 200);
        }
    }
    assert_eq!(passed, 10);
    let rotated = world.post("/api/v1/auth/regenerate-key?reveal=true").bearer(&ann.jwt).send().await.json();
    let key = rotated["api_key"].as_str().unwrap();
    assert_eq!(world.get("/v1/models").bearer(key).send().await.status, 429);
    assert_eq!(world.get("/api/v1/authz").bearer(key).send().await.status, 429);
}

#[tokio::test]
async fn what_was_verified_can_be_logged_though_the_rate_is_used_up() {
    let world = World::with(|setup| {
        setup.add("[limits]\nrate_limit_per_minute = 60\nburst = 60\n[plans.free]\nconversation_limit = 500");
    })
    .await;
    let ann = world.user("ann").await;
    let told = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]});
    let mut conversations = 0;
    loop {
        let verified = world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await;
        if verified.status != 200 {
            assert_eq!(
                (verified.status, verified.header("x-tollgate-denied-by")),
                (429, "rate_limit_exceeded")
            );
            break;
        }
        let logged = world.post("/api/v1/auth/log-message").bearer(&ann.key).json(&told).send().await;
        assert_eq!(logged.status, 200, "entry {conversations}: {}", logged.text());
        conversations += 1;
    }
    assert_eq!(conversations, 60, "each costs one of the user's rate, not two");
    let unpaid = world.post("/api/v1/auth/log-message").bearer(&ann.key).json(&told).send().await;
    assert_eq!(unpaid.status, 429, "an entry without a conversation takes from the rate");
}

#[tokio::test]
async fn preflights_and_health_take_nothing_from_an_address() {
    let world = World::with(|setup| setup.add("[limits]\nrate_limit_per_minute = 60\nburst = 3")).await;
    for _ in 0..10 {
        for path in ["/v1/chat/completions", "/api/v1/auth/login", "/api/v1/key"] {
            let preflight = world.call("OPTIONS", path).header("origin", "https://app.example");
            let answer = preflight.header("access-control-request-method", "POST").send().await;
            assert_ne!(answer.status, 429, "{path}");
        }
        assert_ne!(world.get("/livez").send().await.status, 429);
    }
    assert_eq!(world.get("/v1/models").bearer(&guess(1)).send().await.status, 401);
}

/// Each denial that a key can meet, on the data plane and on `/api/v1`.
#[tokio::test]
async fn one_denial_has_one_word_on_both_planes() {
    let world = World::with(|setup| {
        setup.add("[plans.slow]\nconversation_limit = 100\nrate_limit_per_minute = 2\nburst = 2");
    })
    .await;
    let disabled = world.user("disabled").await;
    world.change("disabled", json!({"is_active": false})).await;
    let elsewhere = world.user_with("elsewhere", json!({"allowed_ips": ["203.0.113.0/24"]})).await;
    let empty = world.user_with("empty", json!({"limits": {"conversation_limit": 0}})).await;
    let slow = world.user_with("slow", json!({"subscription_plan": "slow"})).await;
    for _ in 0..2 {
        assert_eq!(world.get("/v1/models").bearer(&slow.key).send().await.status, 200);
    }
    let table = [
        (guess(1), "invalid_api_key"),
        (disabled.key, "account_disabled"),
        (elsewhere.key, "ip_not_allowed"),
        (empty.key, "insufficient_quota"),
        (slow.key, "rate_limit_exceeded"),
    ];
    for (key, code) in table {
        let line = format!("tollgate_denied_total{{reason=\"{code}\"}}");
        for (method, path) in [
            ("POST", "/v1/chat/completions"),
            ("POST", "/api/v1/auth/verify-key"),
            ("GET", "/api/v1/authz?charge=1"),
        ] {
            let before = world.metric(&line);
            let answer =
                world.call(method, path).bearer(&key).json(&crate::world::chat_request()).send().await;
            assert_eq!(answer.header("x-tollgate-denied-by"), code, "{path}");
            let body = answer.json();
            let told = if path.starts_with("/v1") { &body["error"]["code"] } else { &body["code"] };
            assert_eq!(told, code, "{path}");
            assert!((world.metric(&line) - before - 1.0).abs() < 0.1, "{path} {code}");
        }
    }
}

/// Every place of a key, on every path that takes one.
#[tokio::test]
async fn a_key_is_accepted_in_the_same_places_everywhere() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let bearer = format!("Bearer {}", ann.key);
    let protocol = format!("realtime, openai-insecure-api-key.{}", ann.key);
    let places = [
        ("authorization", bearer.as_str()),
        ("x-api-key", &ann.key),
        ("api-key", &ann.key),
        ("x-goog-api-key", &ann.key),
        ("sec-websocket-protocol", &protocol),
    ];
    for (name, value) in places {
        for (method, path) in [
            ("GET", "/v1/models"),
            ("GET", "/api/v1/key"),
            ("GET", "/api/v1/authz"),
            ("POST", "/api/v1/auth/verify-key"),
        ] {
            let answer = world.call(method, path).header(name, value).send().await;
            assert_eq!(answer.status, 200, "{path} {name}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_spoofed_address_has_no_bucket_of_its_own() {
    let world = World::with(|setup| setup.add("[limits]\nrate_limit_per_minute = 60\nburst = 20")).await;
    let ann = world.user("ann").await;
    let mut refused = 0;
    for i in 0..40 {
        let answer =
            world.get("/v1/models").bearer(&ann.key).header("x-forwarded-for", &format!("203.0.113.{i}"));
        refused += usize::from(answer.send().await.status == 429);
    }
    assert!(refused >= 20, "{refused} of 40 were refused");
}

#[tokio::test]
async fn a_plan_sets_the_rate_of_each_of_its_users() {
    let world = World::with(|setup| {
        setup.add("[plans.slow]\nconversation_limit = 100\nrate_limit_per_minute = 30\nburst = 2");
    })
    .await;
    let ann = world.user_with("ann", json!({"subscription_plan": "slow"})).await;
    let bob = world.user_with("bob", json!({"subscription_plan": "slow"})).await;
    for person in [&ann, &bob] {
        for status in [200, 200, 429] {
            assert_eq!(world.chat(person).send().await.status, status, "{}", person.username);
        }
    }
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(world.chat(&ann).send().await.status, 200);
    assert_eq!(world.chat(&ann).send().await.status, 429);
    assert_eq!(world.left(&ann).await, 97);
}
