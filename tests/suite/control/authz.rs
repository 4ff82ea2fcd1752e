//! Apps that are not behind the gate, and the proxies in front of them, ask before they answer.

use serde_json::json;

use crate::spellings::{
    Running, asking_caddy, asking_nginx, asking_traefik, express, go, spellings, starlette,
};
use crate::upstream::Upstream;
use crate::wire::Wire;
use crate::world::{Person, World};

const TRUSTED: &str =
    "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n[authz]\ncharge = [\"POST /chat\", \"GET /paid/*\"]";
const FORWARDED: &str = "[authz]\nheaders = \"x-forwarded\"";

#[tokio::test]
async fn a_good_key_passes_and_the_headers_say_who_it_is() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    for call in [world.get("/api/v1/authz"), world.post("/api/v1/authz")] {
        let passed = call.bearer(&ann.key).send().await;
        assert_eq!(passed.status, 200, "{}", passed.text());
        let told = ["user", "plan", "level", "remaining"];
        let told = told.map(|name| passed.header(&format!("x-tollgate-{name}")).to_owned());
        assert_eq!(told, ["ann", "free", "basic", "10"]);
    }
    assert_eq!(world.left(&ann).await, 10, "asking costs nothing");
}

#[tokio::test]
async fn a_conversation_is_taken_only_when_it_is_asked_for() {
    let world = World::start().await;
    let ann = world.user_with("ann", json!({"limits": {"conversation_limit": 1}})).await;
    let ask = async |query: &str| world.get(&format!("/api/v1/authz{query}")).bearer(&ann.key).send().await;
    let charged = ask("?charge=1").await;
    assert_eq!((charged.status, charged.header("x-tollgate-remaining")), (200, "0"));
    let row = world.row().await;
    assert_eq!((&row["call"], &row["verdict"]), (&json!("authz"), &json!("charged")));
    let refused = ask("?charge=1").await;
    assert_eq!((refused.status, refused.header("x-tollgate-denied-by")), (429, "insufficient_quota"));
    assert_eq!(refused.header("retry-after"), (14 * 60 * 60).to_string());
    let for_nginx = ask("?charge=1&limit_status=403").await;
    assert_eq!((for_nginx.status, for_nginx.header("x-tollgate-denied-by")), (403, "insufficient_quota"));
    let free = ask("").await;
    assert_eq!(
        (free.status, free.header("x-tollgate-remaining")),
        (200, "0"),
        "as on the gate, what is free passes"
    );
    assert_eq!(ask("?chrage=1").await.status, 422);
}

#[tokio::test]
async fn who_may_not_is_401_403_or_429() {
    let world = World::with(|setup| {
        setup.add(
            "[plans.free]\nmodels = [\"gpt-*\"]\nscopes = [\"wiki\"]\nrate_limit_per_minute = 60\nburst = 9",
        );
    })
    .await;
    let ann = world.user("ann").await;
    let other = "pe-0123456789abcdefghijABCDEFGHIJ01";
    let ask = async |key: &str, query: &str| {
        world.get(&format!("/api/v1/authz{query}")).bearer(key).send().await.status
    };
    assert_eq!(world.get("/api/v1/authz").send().await.status, 401);
    assert_eq!((ask(other, "").await, ask("sk-theirs", "").await), (401, 401));
    let two = world.get("/api/v1/authz").bearer(&ann.key).header("x-api-key", other).send().await;
    assert_eq!((two.status, two.header("x-tollgate-denied-by")), (401, "two_api_keys"));
    assert_eq!((ask(&ann.key, "?model=gpt-4o").await, ask(&ann.key, "?model=o3").await), (200, 403));
    assert_eq!((ask(&ann.key, "?scope=wiki").await, ask(&ann.key, "?scope=shop").await), (200, 403));
    assert_eq!((ask(&ann.key, "?r_type=bpe").await, ask(&ann.key, "?r_type=image").await), (200, 403));
    assert_eq!([ask(&ann.key, "").await, ask(&ann.key, "").await, ask(&ann.key, "").await], [200; 3]);
    assert_eq!(ask(&ann.key, "").await, 429, "its burst is nine");
    world.change("ann", json!({"is_active": false})).await;
    assert_eq!(ask(&ann.key, "").await, 403);
}

#[tokio::test]
async fn what_a_proxy_says_of_the_request_counts_only_when_it_is_trusted() {
    let trusting = World::with(|setup| setup.add(TRUSTED)).await;
    let wary = World::with(|setup| setup.add("[authz]\ncharge = [\"POST /chat\"]")).await;
    let cases = [
        ("/chat?x=1", "POST", true),
        ("/chat?<", "POST", true),
        ("/Chat/", "post", true),
        ("/chat", "GET", false),
        ("/paid/a/b", "GET", true),
        ("/paid/a/b", "HEAD", true),
        ("/other", "POST", false),
        ("/files/a%20b?x=//..", "PUT", false),
    ];
    for (world, believes) in [(&trusting, true), (&wary, false)] {
        let ann = world.user("ann").await;
        let mut left = 10;
        for (path, verb, charged) in cases {
            let call = world.get("/api/v1/authz").bearer(&ann.key);
            let answer = call.header("x-original-uri", path).header("x-original-method", verb).send().await;
            let expected = if believes { (200, "") } else { (403, "doubtful_path") };
            assert_eq!((answer.status, answer.header("x-tollgate-denied-by")), expected, "{verb} {path}");
            left -= i64::from(charged && believes);
            assert_eq!(world.left(&ann).await, left, "{verb} {path}");
        }
        for (query, cost) in [("?charge=0", 0), ("?charge=1", 1)] {
            let call = world.get(&format!("/api/v1/authz{query}")).bearer(&ann.key);
            assert_eq!(call.send().await.status, 200, "an app that asks for itself says what it wants");
            left -= cost;
            assert_eq!(world.left(&ann).await, left);
        }
    }
}

#[tokio::test]
async fn what_cannot_be_told_from_a_charged_request_is_403() {
    let original = World::with(|setup| setup.add(TRUSTED)).await;
    let forwarded = World::with(|setup| setup.add(&TRUSTED.replace("[authz]", FORWARDED))).await;
    let names = ["x-original-uri", "x-original-method", "x-forwarded-uri", "x-forwarded-method"];
    for (world, [uri, method, other_uri, other_method]) in
        [(&original, names), (&forwarded, [names[2], names[3], names[0], names[1]])]
    {
        let ann = world.user("ann").await;
        let (path, verb) = ((uri, "/chat"), (method, "POST"));
        let doubtful: [&[(&str, &str)]; 18] = [
            &[],
            &[path],
            &[verb],
            &[(other_uri, "/free"), (other_method, "POST")],
            &[path, verb, (other_uri, "/free")],
            &[path, verb, (other_method, "GET")],
            &[(uri, "/free"), verb, (other_uri, "/chat")],
            &[path, (uri, "/free"), verb],
            &[path, verb, (method, "GET")],
            &[(uri, ""), verb],
            &[(uri, "chat"), verb],
            &[(uri, "http://app/chat"), verb],
            &[(uri, "*"), verb],
            &[(uri, "/chat%0a"), verb],
            &[(uri, "//chat"), verb],
            &[(uri, "/chat%3Fx"), verb],
            &[(uri, "/chat#"), verb],
            &[path, (method, "P OST")],
        ];
        for pairs in doubtful {
            let call = world.get("/api/v1/authz").bearer(&ann.key);
            let call = pairs.iter().fold(call, |call, (name, value)| call.header(name, value));
            let answer = call.send().await;
            let told = (answer.status, answer.header("x-tollgate-denied-by"));
            assert_eq!(told, (403, "doubtful_path"), "{pairs:?}");
        }
        assert_eq!(world.left(&ann).await, 10);
        let same = [path, verb, (other_uri, "/chat"), (other_method, "POST")];
        let overridden = [path, (method, "GET"), ("x-http-method-override", "POST")];
        for pairs in [&same[..], &overridden] {
            let call = world.get("/api/v1/authz").bearer(&ann.key);
            let call = pairs.iter().fold(call, |call, (name, value)| call.header(name, value));
            assert_eq!(call.send().await.status, 200, "{pairs:?}");
        }
        assert_eq!(world.left(&ann).await, 8, "what contradicts nothing is charged");
    }
}

#[tokio::test]
async fn the_address_is_the_clients_where_a_trusted_proxy_says_so() {
    let terms = json!({"allowed_ips": ["203.0.113.0/24"]});
    let trusting = World::with(|setup| setup.add("[server]\ntrusted_proxies = [\"127.0.0.1/32\"]")).await;
    let wary = World::start().await;
    for (world, inside) in [(&trusting, 200), (&wary, 403)] {
        let ann = world.user_with("ann", terms.clone()).await;
        let ask = async |from: &str| {
            let call = world.get("/api/v1/authz").bearer(&ann.key).header("x-forwarded-for", from);
            call.send().await.status
        };
        assert_eq!((ask("203.0.113.9").await, ask("192.0.2.1").await), (inside, 403));
    }
}

/// The README's nginx: it asks us, and lets the app know who it is.
#[tokio::test]
async fn nginx_asks_by_auth_request() {
    let world = World::with(|setup| setup.add(TRUSTED)).await;
    let ann = world.user_with("ann", json!({"limits": {"conversation_limit": 2}})).await;
    let app = Upstream::start();
    let nginx = asking_nginx(world.addr, app.addr).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = async |path: &str, key: &str| {
        let call = client.post(format!("http://{}{path}", nginx.addr)).bearer_auth(key).body("hello");
        call.send().await.unwrap().status().as_u16()
    };
    assert_eq!(send("/chat", "pe-nobody").await, 401);
    assert_eq!(app.hits(), 0, "nothing reached the app");
    for _ in 0..2 {
        assert_eq!(send("/chat", &ann.key).await, 200);
    }
    let seen = app.last();
    assert_eq!((seen.header("x-user").as_deref(), seen.header("authorization")), (Some("ann"), None));
    assert_eq!(&seen.body[..], b"hello");
    assert_eq!(send("/chat", &ann.key).await, 403, "nginx knows no 429");
    assert_eq!(send("/free", &ann.key).await, 200);
    assert_eq!(world.left(&ann).await, 0);
}

/// Headers by which a client may try to be taken for another request.
const FORGED: &[&str] = &[
    "x-original-uri: /free",
    "x-original-method: GET",
    "x-forwarded-uri: /free",
    "x-forwarded-method: GET",
    "x-original-url: /free",
    "x-rewrite-url: /free",
    "x-http-method-override: GET",
    "x-http-method: GET",
    "x_original_uri: /free",
    "x_forwarded_uri: /free",
    "x-forwarded-prefix: /free",
    "x-forwarded-path: /free",
    "x-original-uri: /free\r\nx-original-method: GET",
    "x-forwarded-uri: /free\r\nx-forwarded-method: GET",
    "x-original-uri: /chat\r\nx-original-uri: /free",
    "x-forwarded-uri: /chat\r\nx-forwarded-uri: /free",
    "connection: x-original-uri, x-original-method",
    "connection: x-forwarded-uri, x-forwarded-method",
    "forwarded: for=127.0.0.1;path=/free",
    "x-original-uri:",
    "x-forwarded-uri:",
    "x-forwarded-host: elsewhere",
];

/// The README's nginx, Traefik and Caddy in front of real apps: every spelling, and every header that a client
/// may add.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "how many were tried is a figure to be read")]
async fn no_request_passes_an_asking_proxy_uncharged() {
    let original = World::with(|setup| setup.add(&format!("{TRUSTED}\n{MANY}"))).await;
    let forwarded = World::with(|setup| {
        setup.add(&format!("{}\n{MANY}", TRUSTED.replace("[authz]", FORWARDED)));
    })
    .await;
    let apps = [starlette(false).await, starlette(true).await, express().await, go().await];
    let (mut tried, mut served) = (0, 0);
    for app in &apps {
        for (world, front) in [
            (&original, asking_nginx(original.addr, app.addr).await),
            (&forwarded, asking_traefik(forwarded.addr, app.addr).await),
            (&forwarded, asking_caddy(forwarded.addr, app.addr).await),
        ] {
            let ann = world.user(&format!("{}_{}", front.name, app.name)).await;
            let mut of_front = 0;
            for (line, forged) in attempts() {
                tried += 1;
                if is_served(&front, &ann, &line, forged).await {
                    of_front += 1;
                    let before = remaining(world, &ann).await;
                    let again = is_served(&front, &ann, &line, forged).await;
                    let cost = before - remaining(world, &ann).await;
                    assert_eq!(
                        (again, cost),
                        (true, 1),
                        "{} before {}: {line} {forged}",
                        front.name,
                        app.name
                    );
                }
            }
            assert!(of_front >= 3, "{} before {} served {of_front}", front.name, app.name);
            served += of_front;
        }
    }
    println!("{tried} variants, {served} reached the app, 0 reached it uncharged");
}

const MANY: &str = "[plans.free]\nconversation_limit = 1000000";

async fn remaining(world: &World, ann: &Person) -> i64 {
    let told = world.get("/api/v1/key").bearer(&ann.key).send().await.json();
    told["limit_remaining"].as_i64().unwrap_or_else(|| panic!("{told}"))
}

/// Request lines without their version, and headers besides the usual ones.
fn attempts() -> Vec<(String, &'static str)> {
    let spelled = spellings("/chat", false).into_iter().map(|path| (format!("POST {path}"), ""));
    let forged = ["POST /chat", "GET /paid/x", "HEAD /paid/x", "POST /CHAT/"].into_iter();
    let forged = forged.flat_map(|line| FORGED.iter().map(move |forged| (line.to_owned(), *forged)));
    spelled.chain(forged).chain([("POST /chat".to_owned(), "")]).collect()
}

async fn is_served(front: &Running, ann: &Person, line: &str, forged: &str) -> bool {
    let forged = if forged.is_empty() { String::new() } else { format!("{forged}\r\n") };
    let close = if forged.starts_with("connection:") { "" } else { "connection: close\r\n" };
    let request = format!(
        "{line} HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\n{close}{forged}content-length: 0\r\n\r\n",
        ann.key,
    );
    let mut wire = Wire::connect(front.addr).await;
    wire.send(request).await;
    wire.head_if_any().await.is_some_and(|head| head.header("x-served") == Some("charged"))
}
