//! Which upstream a request is for.

use serde_json::json;

use crate::upstream::Upstream;
use crate::wire::exchange;
use crate::world::World;

#[tokio::test]
async fn the_longest_prefix_wins_and_each_upstream_has_its_own_credential() {
    let other = Upstream::start();
    let world = World::with(|setup| {
        let url = other.url();
        setup.add(&format!(
            "[[upstreams]]\nname = \"model\"\nurl = \"UPSTREAM\"\ncredential = {{ header = \"authorization\", value = \"Bearer one\" }}\n\
             [[upstreams]]\nname = \"other\"\nurl = \"{url}/base\"\ncredential = {{ header = \"x-api-key\", value = \"two\" }}\n\
             [[routes]]\nprefix = \"/v1\"\nupstream = \"model\"\nallow = [\"*\"]\n\
             [[routes]]\nprefix = \"/v1/special\"\nupstream = \"other\"\n\
             [[routes]]\nprefix = \"/stripped\"\nupstream = \"other\"\nstrip_prefix = true"
        ));
    })
    .await;
    let ann = world.user("ann").await;
    let get = |path: &str| world.get(path).bearer(&ann.key).send();
    assert_eq!(get("/v1/models").await.status, 200);
    assert_eq!(get("/v1/specials").await.status, 200, "a prefix ends where a segment ends");
    assert_eq!(world.upstream.hits(), 2);
    assert_eq!(world.upstream.last().header("authorization").as_deref(), Some("Bearer one"));
    assert_eq!(get("/v1/special/models?x=1").await.status, 200);
    assert_eq!(other.last().target, "/base/v1/special/models?x=1");
    assert_eq!(
        (other.last().header("x-api-key").as_deref(), other.last().header("authorization")),
        (Some("two"), None)
    );
    assert_eq!(get("/stripped/models").await.status, 200);
    assert_eq!(other.last().target, "/base/models");
}

#[tokio::test]
async fn a_host_may_choose_the_upstream() {
    let other = Upstream::start();
    let world = World::with(|setup| {
        let url = other.url();
        setup.add(&format!(
            "[[upstreams]]\nname = \"model\"\nurl = \"UPSTREAM\"\n[[upstreams]]\nname = \"other\"\nurl = \"{url}\"\n\
             [[routes]]\nprefix = \"/v1\"\nupstream = \"model\"\n\
             [[routes]]\nprefix = \"/v1\"\nhost = \"other.example\"\nupstream = \"other\""
        ));
    })
    .await;
    let ann = world.user("ann").await;
    for (host, hits) in [
        ("gate", (1, 0)),
        ("other.example", (1, 1)),
        ("OTHER.example:8080", (1, 2)),
        ("x.other.example", (2, 2)),
    ] {
        let request = format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\nx-api-key: {}\r\n\r\n", ann.key);
        assert_eq!(exchange(world.addr, request).await.status(), 200, "{host}");
        assert_eq!((world.upstream.hits(), other.hits()), hits, "{host}");
    }
}

#[tokio::test]
async fn the_upstream_is_chosen_by_the_operator_alone() {
    let canary = Upstream::start();
    let world = World::start().await;
    let ann = world.user("ann").await;
    let (url, authority) = (canary.url(), canary.addr.to_string());
    let body = json!({"model": "m", "api_base": url, "base_url": url, "custom_host": url});
    let answer = world
        .post("/v1/chat/completions")
        .bearer(&ann.key)
        .json(&body)
        .header("x-forwarded-host", &authority);
    assert_eq!(answer.send().await.status, 200);
    let request = format!("GET /v1/models HTTP/1.1\r\nhost: {authority}\r\nx-api-key: {}\r\n\r\n", ann.key);
    assert_eq!(exchange(world.addr, request).await.status(), 200);
    for path in [format!("//{authority}/v1/models"), format!("{url}/v1/models"), format!("/v1/@{authority}")]
    {
        let request = format!("GET {path} HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\n\r\n", ann.key);
        exchange(world.addr, request).await;
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn redirects_are_the_clients_to_follow() {
    let canary = Upstream::start();
    let world = World::start().await;
    let ann = world.user("ann").await;
    let location = format!("{}/elsewhere", canary.url());
    world
        .upstream
        .next(crate::upstream::Answer::bytes("text/plain", "").status(307).header("location", &location));
    let request = format!("GET /v1/models HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\n\r\n", ann.key);
    let heard = exchange(world.addr, request).await;
    assert_eq!((heard.status(), heard.header("location")), (307, Some(location.as_str())));
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_redirect_to_the_upstream_itself_is_told_as_the_client_sees_it() {
    let world = World::with(|setup| {
        setup.add(
            "[[upstreams]]\nname = \"model\"\nurl = \"UPSTREAM/base\"\n\
             [[routes]]\nprefix = \"/v1\"\nupstream = \"model\"\n\
             [[routes]]\nprefix = \"/app\"\nupstream = \"model\"\nstrip_prefix = true",
        );
    })
    .await;
    let ann = world.user("ann").await;
    let (url, port) = (world.upstream.url(), world.upstream.addr.port());
    let cases = [
        (format!("{url}/base/v1/x?y=1#z"), "/v1/x?y=1#z", "/app/v1/x?y=1#z"),
        (format!("HTTP://127.0.0.1:{port}/base"), "/", "/app"),
        (format!("https://localhost:{port}/base/v1/"), "/v1/", "/app/v1/"),
        (format!("http://[::1]:{port}/base/v1"), "/v1", "/app/v1"),
        (format!("//127.0.0.1:{port}/base/v1"), "/v1", "/app/v1"),
        (format!("http:\\\\127.0.0.1:{port}\\base\\v1"), "/v1", "/app/v1"),
        (format!("http://u:p@127.0.0.1:{port}/base/v1"), "/v1", "/app/v1"),
        (format!("{url}/base//evil.example/x"), "/.//evil.example/x", "/app//evil.example/x"),
        (format!("{url}/outside"), "/outside", "/app/outside"),
        (format!("{url}/based"), "/based", "/app/based"),
        (format!("{url}?x"), "/?x", "/app?x"),
        ("/base/v1/y".to_owned(), "/v1/y", "/app/v1/y"),
        ("../y".to_owned(), "../y", "../y"),
        (format!("http://127.0.0.1:{}/base", port - 1), "", ""),
        ("https://elsewhere.example/base/v1".to_owned(), "", ""),
    ];
    for (given, plain, stripped) in &cases {
        for (path, expected) in [("/v1/models", plain), ("/app/models", stripped)] {
            let expected = if expected.is_empty() { given.as_str() } else { expected };
            for name in ["location", "content-location", "operation-location"] {
                let answer = crate::upstream::Answer::bytes("text/plain", "").status(307);
                world.upstream.next(answer.header(name, given));
                let request = format!("GET {path} HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\n\r\n", ann.key);
                let heard = exchange(world.addr, request).await;
                assert_eq!((heard.status(), heard.header(name)), (307, Some(expected)), "{name}: {given}");
            }
        }
    }
}

#[tokio::test]
async fn a_redirect_costs_nothing_as_long_as_the_day_has_refunds() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let chat = async |status| {
        let answer = crate::upstream::Answer::bytes("text/plain", "elsewhere").status(status);
        world.upstream.next(answer.header("location", "/v1/chat/completions"));
        let request = format!(
            "POST /v1/chat/completions/ HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{{\"model\":\"m\"}}",
            ann.key,
        );
        assert_eq!(exchange(world.addr, request).await.status(), status);
        world.left(&ann).await
    };
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(chat(status).await, 10, "{status}");
    }
    assert!(world.rows_when(5).await.iter().all(|row| row["reason"] == "upstream_redirect"));
    assert_eq!(chat(307).await, 9, "a day of ten has five refunds");
}

#[tokio::test]
async fn connections_to_the_upstream_are_used_again() {
    let world = World::with(|setup| setup.add("[server]\nworkers = 1")).await;
    let ann = world.user("ann").await;
    for _ in 0..5 {
        assert_eq!(world.chat(&ann).send().await.status, 200);
    }
    assert_eq!((world.upstream.hits(), world.upstream.connections()), (5, 1));
    assert_eq!(world.upstream.last().connection, 0);
}

#[tokio::test]
async fn our_own_paths_are_never_forwarded() {
    let world = World::with(|setup| setup.only_route("prefix = \"/\"\nallow = [\"*\"]")).await;
    let ann = world.user("ann").await;
    for path in ["/health", "/livez", "/readyz", "/api/v1/auth/profile", "/api/v1/nothing", "/metrics"] {
        world.get(path).bearer(&ann.key).send().await;
    }
    assert_eq!(world.upstream.hits(), 0);
    assert_eq!(world.get("/anything/else").bearer(&ann.key).send().await.status, 200);
    assert_eq!(world.upstream.last().target, "/anything/else");
}

#[tokio::test]
async fn another_spelling_of_a_charged_path_is_charged_or_refused() {
    let world = World::with(|setup| {
        setup.add(
            "[plans.free]\nconversation_limit = 1000\n[[upstreams]]\nname = \"app\"\nurl = \"UPSTREAM\"\n\
             [[routes]]\nprefix = \"/v1\"\nupstream = \"app\"\ncharge = [\"POST /v1/chat/completions\"]\n\
             [[routes]]\nprefix = \"/\"\nupstream = \"app\"\ncharge = []",
        );
    })
    .await;
    let ann = world.user("ann").await;
    let (mut hits, mut left) = (0, 1000);
    for (path, is_served) in [
        ("/v1/chat/completions", true),
        ("/V1/chat/completions", true),
        ("/v1/Chat/Completions/", true),
        ("/V1/CHAT/COMPLETIONS.json", true),
        ("/v1/chat/completion%C5%BF", true),
        ("/v1/chat/completions%3Fx", false),
        ("/V1/chat/completions%23", false),
        ("/v1/chat/completions%20", false),
        ("/v1/chat/completions%0a", false),
        ("/v1/chat/completions%3Bx", false),
        ("/v1/%63hat/completions", false),
        ("/V1%2Fchat/completions", false),
    ] {
        let body = json!({"model": "m", "messages": []}).to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            ann.key,
            body.len(),
        );
        let status = exchange(world.addr, request).await.status();
        assert_eq!(status, if is_served { 200 } else { 400 }, "{path}");
        hits += usize::from(is_served);
        left -= i64::from(is_served);
        assert_eq!((world.upstream.hits(), world.left(&ann).await), (hits, left), "{path}");
    }
    assert_eq!(world.get("/files/a%20b").bearer(&ann.key).send().await.status, 200);
    assert_eq!((world.upstream.last().target.as_str(), world.left(&ann).await), ("/files/a%20b", left));
}
