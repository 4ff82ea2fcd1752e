//! Which headers pass, which are ours, and which are nobody's business.

use serde_json::json;

use crate::upstream::Answer;
use crate::wire::exchange;
use crate::world::{Person, World, chat_request};

fn request(person: &Person, more: &str) -> String {
    let (key, body) = (&person.key, chat_request().to_string());
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gate.example\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{more}\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn what_clients_must_not_say_is_removed_in_every_spelling() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let lies = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-prefix",
        "x-real-ip",
        "forwarded",
        "x-tollgate-user",
        "x-tollgate-plan",
        "x-tollgate-level",
        "x-tollgate-remaining",
        "x_forwarded_for",
        "X_Tollgate_User",
        "X-Tollgate-USER",
        "x_real_ip",
        "proxy-authorization",
        "te",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "cookie",
        "x-request-id",
        "http2-settings",
    ];
    let plain = lies.map(|name| format!("{name}: lie\r\n")).concat();
    assert_eq!(exchange(world.addr, request(&ann, &plain)).await.status(), 200);
    let named = format!("connection: close, x-drop, {}\r\nx-drop: lie\r\n{plain}", lies.join(", "));
    assert_eq!(exchange(world.addr, request(&ann, &named)).await.status(), 200);
    for seen in world.upstream.requests() {
        assert!(!seen.headers.iter().any(|(_, value)| value.contains("lie")), "{:#?}", seen.headers);
        assert!(seen.names().iter().all(|name| !name.contains('_')), "{:#?}", seen.headers);
    }
    assert_eq!(world.upstream.hits(), 2);
}

#[tokio::test]
async fn what_connection_names_goes_but_never_our_own() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let more = "connection: authorization, content-type, content-length, host\r\n";
    let answer = exchange(world.addr, request(&ann, more)).await;
    assert!(matches!(answer.status(), 200 | 400), "{}", answer.status());
    if let Some(seen) = world.upstream.requests().first() {
        assert_eq!(seen.header("authorization").as_deref(), Some("Bearer sk-the-operators-own"));
        assert_eq!(seen.json(), chat_request());
    }
}

#[tokio::test]
async fn what_belongs_to_the_conversation_is_kept_and_the_host_is_the_upstreams() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let kept = [
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "a,b"),
        ("openai-beta", "assistants=v2"),
        ("idempotency-key", "k1"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("accept", "text/event-stream"),
        ("user-agent", "sdk/1"),
        ("x-stainless-lang", "python"),
    ];
    let more = kept.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    exchange(world.addr, request(&ann, &more)).await;
    let seen = world.upstream.last();
    for (name, value) in kept {
        assert_eq!(seen.all(name), [value], "{name}");
    }
    assert_eq!(seen.all("host"), [world.upstream.addr.to_string()]);
    assert_eq!(seen.target, "/v1/chat/completions");
}

#[tokio::test]
async fn the_query_is_passed_on_as_it_is() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let call = world.get("/v1/models?limit=2&after=a%2Fb&x=//..").bearer(&ann.key);
    assert_eq!(call.send().await.status, 200);
    assert_eq!(world.upstream.last().target, "/v1/models?limit=2&after=a%2Fb&x=//..");
}

#[tokio::test]
async fn a_route_that_asks_for_it_is_told_who_speaks() {
    let world = World::with(|setup| setup.only_route("prefix = \"/v1\"\nidentity_headers = true")).await;
    let ann = world.user("ann").await;
    let lies = "x-tollgate-user: root\r\nX-Tollgate-Plan: premium\r\nx_tollgate_level: high\r\n";
    assert_eq!(exchange(world.addr, request(&ann, lies)).await.status(), 200);
    let seen = world.upstream.last();
    for (name, value) in [("user", "ann"), ("plan", "free"), ("level", "basic"), ("remaining", "9")] {
        assert_eq!(seen.all(&format!("x-tollgate-{name}")), [value], "{name}");
    }
}

#[tokio::test]
async fn the_clients_address_is_told_only_where_the_upstream_asks_for_it() {
    let world = World::with(|setup| setup.upstream("forward_client_address = true")).await;
    let ann = world.user("ann").await;
    exchange(world.addr, request(&ann, "x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\n")).await;
    let seen = world.upstream.last();
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-host"), ["gate.example"]);
}

#[tokio::test]
async fn every_answer_has_one_name_under_two_headers() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::json(&json!({})).header("x-request-id", "theirs"));
    let answer = exchange(world.addr, request(&ann, "x-request-id: mine\r\n")).await;
    let id = answer.header("x-request-id").unwrap();
    assert!(!id.is_empty() && !["mine", "theirs"].contains(&id), "{id}");
    assert_eq!(answer.header("request-id"), Some(id));
    assert_eq!(answer.header("x-upstream-request-id"), Some("theirs"));
    assert_eq!(world.row().await["request_id"], id);
}

#[tokio::test]
async fn a_trusted_proxys_request_id_is_taken_over_when_it_is_well_formed() {
    let world = World::with(|setup| setup.add("[server]\ntrusted_proxies = [\"127.0.0.1/32\"]")).await;
    let ann = world.user("ann").await;
    let answer = exchange(world.addr, request(&ann, "x-request-id: edge-42\r\n")).await;
    assert_eq!(
        (answer.header("x-request-id"), answer.header("request-id")),
        (Some("edge-42"), Some("edge-42"))
    );
    let odd = exchange(world.addr, request(&ann, "x-request-id: <script>\r\n")).await;
    assert_ne!(odd.header("x-request-id"), Some("<script>"));
}

#[tokio::test]
async fn what_describes_the_operators_account_is_removed_and_a_route_may_keep_it() {
    let theirs = [
        ("x-ratelimit-remaining-tokens", "149984"),
        ("anthropic-ratelimit-requests-remaining", "999"),
        ("openai-organization", "org-x"),
        ("anthropic-organization-id", "o"),
        ("set-cookie", "a=b"),
        ("server", "cloud"),
        ("alt-svc", "h3=\":443\""),
    ];
    let scripted =
        || theirs.iter().fold(Answer::json(&json!({})), |answer, (name, value)| answer.header(name, value));
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.upstream.next(scripted().header("openai-processing-ms", "12"));
    let answer = world.chat(&ann).send().await;
    for (name, value) in theirs {
        assert_ne!(answer.header(name), value, "{name}");
    }
    assert_eq!(answer.header("openai-processing-ms"), "12");

    let world = World::with(|setup| setup.only_route("prefix = \"/v1\"\nkeep_upstream_headers = true")).await;
    let ann = world.user("ann").await;
    world.upstream.next(scripted());
    let answer = world.chat(&ann).send().await;
    for (name, value) in theirs {
        assert_eq!(answer.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn what_is_left_is_told_in_the_headers_of_each_dialect() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let openai = world.chat(&ann).send().await;
    assert_eq!(openai.header("x-ratelimit-limit-requests"), "10");
    assert_eq!(openai.header("x-ratelimit-remaining-requests"), "9");
    assert_eq!(openai.header("x-ratelimit-reset-requests"), "14h0m0s");
    assert_eq!(openai.header("ratelimit-policy"), "\"day\";q=10;w=86400");
    assert_eq!(openai.header("ratelimit"), "\"day\";r=9;t=50400");

    let anthropic =
        world.post("/v1/messages").header("x-api-key", &ann.key).json(&chat_request()).send().await;
    assert_eq!(anthropic.header("anthropic-ratelimit-requests-limit"), "10");
    assert_eq!(anthropic.header("anthropic-ratelimit-requests-remaining"), "8");
    assert_eq!(anthropic.header("anthropic-ratelimit-requests-reset"), "2026-10-02T00:00:00Z");
    assert_eq!(anthropic.header("x-ratelimit-limit-requests"), "");
}
