//! What orchestrators and people who look around are told.

use std::time::Instant;

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};

use crate::upstream::PATIENCE;
use crate::world::World;

#[tokio::test]
async fn health_has_the_seeds_shape() {
    let world = World::start().await;
    let reply = world.get("/health").send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let health = reply.json();
    assert_eq!(
        (&health["database"], &health["timestamp"]),
        (&json!("healthy"), &json!("2026-10-01T10:00:00Z"))
    );
    for (group, member) in [
        ("memory", "used_percent"),
        ("memory", "used_mb"),
        ("memory", "available_mb"),
        ("disk", "used_percent"),
        ("disk", "free_gb"),
    ] {
        assert!(health[group][member].is_number(), "{group}.{member}");
    }
    assert!(health["message_buffer_size"].is_u64() && health["scheduler_running"].is_boolean());
}

#[tokio::test]
async fn a_running_gateway_is_alive_and_ready() {
    let world = World::start().await;
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(world.get(path).send().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_root_and_the_info_say_what_this_is() {
    let world = World::start().await;
    let root = world.get("/").send().await.json();
    assert_eq!(
        (&root["status"], &root["docs"], &root["health"]),
        (&json!("running"), &json!("/docs"), &json!("/health"))
    );
    assert!(root["features"].is_array());
    let info = world.get("/api/v1/info").send().await.json();
    for member in ["api_name", "version", "endpoints", "authentication_methods", "rate_limits"] {
        assert!(info.get(member).is_some(), "{member}");
    }
    for group in ["authentication", "admin", "staff"] {
        assert!(info["endpoints"][group].is_object(), "{group}");
    }
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let world = World::start().await;
    let reply = world.get("/metrics").send().await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").starts_with("application/openmetrics-text"));
    assert!(reply.text().contains("tollgate_quota_reserved_total"), "{}", reply.text());
}

#[tokio::test]
async fn metrics_are_for_this_machine_for_listed_networks_and_for_the_token() {
    let mut world = World::start().await;
    let asked = async |world: &World, headers: &[(&str, &str)]| {
        let call = headers.iter().fold(world.get("/metrics"), |call, (name, value)| call.header(name, value));
        let reply = call.send().await;
        let code = if reply.status == 200 {
            String::new()
        } else {
            reply.json()["code"].as_str().unwrap().to_owned()
        };
        (reply.status, code)
    };
    let (yes, no) = ((200, String::new()), (403, "metrics_not_allowed".to_owned()));
    let behind = [("x-forwarded-for", "203.0.113.9")];
    assert_eq!(asked(&world, &[]).await, yes);
    assert_eq!(asked(&world, &behind).await, no, "a proxy on this machine");
    assert_eq!(asked(&world, &[("authorization", "Bearer the-token-of-prometheus-1"), behind[0]]).await, no);
    let more = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[metrics]\nallowed_ips = [\"203.0.113.0/24\"]\n\
                token = \"the-token-of-prometheus-1\"";
    world.restart(|setup| setup.add(more)).await;
    assert_eq!(asked(&world, &behind).await, yes, "a listed network, by the word of a trusted proxy");
    assert_eq!(asked(&world, &[("x-forwarded-for", "198.51.100.9")]).await, no);
    let shown = [("authorization", "Bearer the-token-of-prometheus-1"), ("x-forwarded-for", "198.51.100.9")];
    assert_eq!(asked(&world, &shown).await, yes);
}

#[tokio::test]
async fn every_answer_of_the_api_is_counted_by_the_path_it_was_routed_to() {
    let world = World::start().await;
    let (ann, admin) = (world.user("ann").await, world.admin().await);
    for name in ["ann", "bob", "eve"] {
        world.get(&format!("/api/v1/admin/users/{name}?x={}", ann.key)).bearer(&admin).send().await;
    }
    world.get("/api/v1/auth/pe-whatever").send().await;
    world.call("BREW", "/api/v1/info").send().await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    let count = |method: &str, route: &str, status: u16| {
        let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
        world.metric(&format!("tollgate_api_requests_total{{{labels}}}")).to_string()
    };
    let one = "/api/v1/admin/users/{username}";
    assert_eq!((count("GET", one, 200), count("GET", one, 404)), ("1".to_owned(), "2".to_owned()));
    assert_eq!(count("POST", "/api/v1/auth/register", 201), "1");
    assert_eq!(
        (count("GET", "none", 404), count("other", "/api/v1/info", 405)),
        ("1".to_owned(), "1".to_owned())
    );
    let of_the_model = "tollgate_requests_total{route=\"/v1\",status=\"200\",source=\"upstream\"}";
    assert_eq!(world.metric(of_the_model).to_string(), "1");
}

/// Waits until `/readyz` answers `status`; what it says then.
async fn ready_when(world: &World, status: u16) -> serde_json::Value {
    let asked = Instant::now();
    loop {
        let reply = world.get("/readyz").send().await;
        if reply.status == status {
            return reply.json();
        }
        assert!(asked.elapsed() < PATIENCE, "{}: {}", reply.status, reply.text());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_database_that_answers_and_takes_no_writes_is_not_ready_and_afterwards_it_is() {
    let world = World::start().await;
    ready_when(&world, 200).await;
    let url = world.database_url();
    // What a grant needs is another session's: SQLite's lock; with PostgreSQL each table in its turn.
    for table in ["quota", "leases", "users", "errands", "write_probe"] {
        let refused = if url.starts_with("sqlite") {
            let mut other = SqliteConnection::connect(&url).await.unwrap();
            other.execute("BEGIN IMMEDIATE").await.unwrap();
            let refused = ready_when(&world, 503).await;
            other.execute("ROLLBACK").await.unwrap();
            refused
        } else {
            let mut other = PgConnection::connect(&url).await.unwrap();
            let lock = format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE");
            other.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(lock))).await.unwrap();
            let refused = ready_when(&world, 503).await;
            assert_eq!(world.get("/health").send().await.json()["database"], "unhealthy");
            other.execute("ROLLBACK").await.unwrap();
            refused
        };
        assert_eq!(refused["reasons"], json!(["database_cannot_write"]), "{refused}");
        ready_when(&world, 200).await;
        if url.starts_with("sqlite") {
            break;
        }
    }
}
