//! What every answer has in common.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn every_answer_has_a_name_and_is_kept_by_nobody() {
    let world = World::start().await;
    for path in ["/", "/health", "/api/v1/info", "/api/v1/nothing", "/api/v1/auth/profile"] {
        let reply = world.get(path).send().await;
        assert_eq!(reply.header("x-request-id"), reply.header("request-id"), "{path}");
        assert!(!reply.header("x-request-id").is_empty(), "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
    }
}

#[tokio::test]
async fn a_problem_has_the_members_of_both_kinds_of_clients() {
    let world = World::start().await;
    let reply = world.get("/api/v1/nothing").send().await;
    assert_eq!((reply.status, reply.header("content-type")), (404, "application/problem+json"));
    let problem = reply.json();
    assert_eq!((&problem["status"], &problem["status_code"]), (&json!(404), &json!(404)));
    assert_eq!((&problem["error"], &problem["title"]), (&json!(true), &json!("Not Found")));
    assert_eq!(problem["timestamp"], "2026-10-01T10:00:00Z");
    assert_eq!(problem["request_id"], reply.header("x-request-id"));
    assert_eq!(problem["detail"], "There is nothing at this path.");
}

#[tokio::test]
async fn a_method_that_a_path_does_not_know_is_told_which_it_does() {
    let world = World::start().await;
    let reply = world.delete("/api/v1/auth/profile").send().await;
    assert_eq!((reply.status, reply.header("content-type")), (405, "application/problem+json"));
    assert_eq!(reply.header("allow"), "GET,HEAD,PUT");
    assert_eq!(world.post("/api/v1/auth/account").send().await.header("allow"), "DELETE");
}

#[tokio::test]
async fn a_name_that_is_no_text_is_nobodys() {
    let world = World::start().await;
    let admin = world.admin().await;
    for path in ["/api/v1/admin/users/%FF", "/api/v1/admin/deleted-users/%C3%28", "/docs/%FF"] {
        let reply = world.get(path).bearer(&admin).send().await;
        assert_eq!((reply.status, reply.header("content-type")), (404, "application/problem+json"), "{path}");
    }
}
