//! Apps that are not behind the gate, and the proxies in front of them, ask before they answer.

use serde_json::json;

use crate::operate::child::Child;
use crate::proof::ports::free_port;
use crate::upstream::Upstream;
use crate::world::World;

const TRUSTED: &str =
    "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n[authz]\ncharge = [\"POST /chat\", \"GET /paid/*\"]";

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
    assert_eq!((refused.status, refused.header("x-tollgate-denied-by")), (429, "insufficient-quota"));
    assert_eq!(refused.header("retry-after"), (14 * 60 * 60).to_string());
    let for_nginx = ask("?charge=1&limit_status=403").await;
    assert_eq!((for_nginx.status, for_nginx.header("x-tollgate-denied-by")), (403, "insufficient-quota"));
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
            "[plans.free]\nmodels = [\"gpt-*\"]\nscopes = [\"wiki\"]\nrate_limit_per_minute = 60\nburst = 6",
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
    assert_eq!(two.status, 401);
    assert_eq!((ask(&ann.key, "?model=gpt-4o").await, ask(&ann.key, "?model=o3").await), (200, 403));
    assert_eq!((ask(&ann.key, "?scope=wiki").await, ask(&ann.key, "?scope=shop").await), (200, 403));
    assert_eq!((ask(&ann.key, "?r_type=bpe").await, ask(&ann.key, "?r_type=image").await), (200, 403));
    assert_eq!([ask(&ann.key, "").await, ask(&ann.key, "").await, ask(&ann.key, "").await], [200; 3]);
    assert_eq!(ask(&ann.key, "").await, 429, "its burst is six");
    world.change("ann", json!({"is_active": false})).await;
    assert_eq!(ask(&ann.key, "").await, 403);
}

#[tokio::test]
async fn what_a_proxy_says_of_the_request_counts_only_when_it_is_trusted() {
    let trusting = World::with(|setup| setup.add(TRUSTED)).await;
    let wary = World::with(|setup| setup.add("[authz]\ncharge = [\"POST /chat\"]")).await;
    let cases = [
        ("x-original-uri", "x-original-method", "/chat?x=1", "POST", true),
        ("x-forwarded-uri", "x-forwarded-method", "/chat", "POST", true),
        ("x-original-uri", "x-original-method", "/chat", "GET", false),
        ("x-original-uri", "x-original-method", "/paid/a/b", "GET", true),
        ("x-original-uri", "x-original-method", "/other", "POST", false),
    ];
    for (world, believes) in [(&trusting, true), (&wary, false)] {
        let ann = world.user("ann").await;
        let mut left = 10;
        for (uri, method, path, verb, charged) in cases {
            let call = world.get("/api/v1/authz").bearer(&ann.key).header(uri, path).header(method, verb);
            assert_eq!(call.send().await.status, 200);
            left -= i64::from(charged && believes);
            assert_eq!(world.left(&ann).await, left, "{verb} {path}");
        }
    }
}

#[tokio::test]
async fn the_address_is_the_clients_where_a_trusted_proxy_says_so() {
    let terms = json!({"allowed_ips": ["203.0.113.0/24"]});
    let trusting = World::with(|setup| setup.add(TRUSTED)).await;
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

/// nginx as an operator would set it up: it asks us, and lets the app know who it is.
#[tokio::test]
async fn nginx_asks_by_auth_request() {
    let world = World::with(|setup| setup.add(TRUSTED)).await;
    let ann = world.user_with("ann", json!({"limits": {"conversation_limit": 2}})).await;
    let app = Upstream::start();
    let (folder, front) = (tempfile::tempdir().unwrap(), free_port());
    let (home, gate, app_at) = (folder.path().display(), world.addr, app.addr);
    let config = format!(
        "daemon off; master_process off; pid {home}/pid; error_log stderr notice; events {{}}\n\
         http {{ access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p;\n\
           fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;\n\
           server {{ listen {front};\n\
             location = /authz {{ internal; proxy_pass http://{gate}/api/v1/authz?limit_status=403;\n\
               proxy_pass_request_body off; proxy_set_header Content-Length \"\";\n\
               proxy_set_header X-Original-URI $request_uri; proxy_set_header X-Original-Method $request_method;\n\
               proxy_set_header X-Forwarded-For $remote_addr; }}\n\
             location / {{ auth_request /authz;\n\
               auth_request_set $who $upstream_http_x_tollgate_user;\n\
               auth_request_set $why $upstream_http_x_tollgate_denied_by;\n\
               add_header x-why $why always; proxy_set_header X-User $who;\n\
               proxy_set_header Authorization \"\"; proxy_pass http://{app_at}; }} }} }}"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = std::process::Command::new("nginx");
    command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(&file);
    let nginx = Child::start(command);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let begun = std::time::Instant::now();
    while tokio::net::TcpStream::connect(front).await.is_err() {
        assert!(begun.elapsed() < crate::upstream::PATIENCE, "{}", nginx.said());
    }
    let send = async |path: &str, key: &str| {
        let call = client.post(format!("http://{front}{path}")).bearer_auth(key).body("hello");
        let reply = call.send().await.unwrap();
        let why = reply.headers().get("x-why").map(|why| why.to_str().unwrap().to_owned());
        (reply.status().as_u16(), why.unwrap_or_default())
    };
    assert_eq!(send("/chat", "pe-nobody").await, (401, "invalid-api-key".to_owned()));
    assert_eq!(app.hits(), 0, "nothing reached the app");
    for _ in 0..2 {
        assert_eq!(send("/chat", &ann.key).await.0, 200, "{}", nginx.said());
    }
    let seen = app.last();
    assert_eq!((seen.header("x-user").as_deref(), seen.header("authorization")), (Some("ann"), None));
    assert_eq!(&seen.body[..], b"hello");
    assert_eq!(send("/chat", &ann.key).await, (403, "insufficient-quota".to_owned()));
    assert_eq!(send("/free", &ann.key).await.0, 200);
    assert_eq!(world.left(&ann).await, 0);
}
