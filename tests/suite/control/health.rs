//! What orchestrators and people who look around are told.

use serde_json::json;

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
