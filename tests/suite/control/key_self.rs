//! What the holder of a key may know of it.

use std::time::Duration;

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn a_key_tells_its_holder_how_it_stands() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    assert_eq!(world.chat(&ann).send().await.status, 200);
    let told = world.get("/api/v1/key").bearer(&ann.key).send().await;
    let expected = json!({
        "label": "default", "limit": 10, "limit_reset": "daily", "limit_remaining": 8,
        "resets_at": "2026-10-02T00:00:00Z", "usage_daily": 2, "usage_weekly": 2, "usage_monthly": 2,
        "expires_at": null, "plan": "free", "level": "basic",
    });
    assert_eq!((told.status, told.json()), (200, expected));
    assert_eq!((told.header("x-ratelimit-limit"), told.header("x-ratelimit-remaining")), ("10", "8"));
    assert_eq!(world.left(&ann).await, 8, "asking costs nothing");
}

#[tokio::test]
async fn usage_is_of_this_day_this_week_and_this_month() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    // Thursday the 1st, Friday the 2nd, Monday the 5th, and the first Sunday of November.
    for (days, expected) in [(0, (1, 1, 1)), (1, (1, 2, 2)), (3, (1, 1, 3)), (27, (1, 1, 1))] {
        world.clock.advance(Duration::from_hours(24 * days));
        assert_eq!(world.chat(&ann).send().await.status, 200);
        let told = world.get("/api/v1/key").bearer(&ann.key).send().await.json();
        let usage = |of: &str| told[format!("usage_{of}")].as_i64().unwrap();
        assert_eq!(
            (usage("daily"), usage("weekly"), usage("monthly")),
            expected,
            "after {days} days: {told}"
        );
    }
}

#[tokio::test]
async fn a_reset_gives_the_limit_back_and_leaves_the_usage() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    let admin = world.admin().await;
    assert_eq!(world.post("/api/v1/admin/reset-limits").bearer(&admin).send().await.status, 200);
    let told = world.get("/api/v1/key").header("x-api-key", &ann.key).send().await.json();
    assert_eq!((&told["limit_remaining"], &told["usage_daily"]), (&json!(10), &json!(1)));
}

#[tokio::test]
async fn a_label_and_an_end_are_the_keys_own_and_a_stranger_learns_nothing() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let form = json!({"name": "ci", "label": "the build", "expires_at": "2027-01-01T00:00:00+01:00"});
    let made = world.post("/api/v1/auth/keys").bearer(&ann.jwt).json(&form).send().await.json();
    let told = world.get("/api/v1/key").bearer(made["api_key"].as_str().unwrap()).send().await.json();
    assert_eq!((&told["label"], &told["expires_at"]), (&json!("the build"), &json!("2026-12-31T23:00:00Z")));
    assert_eq!(world.get("/api/v1/key").bearer(&ann.jwt).send().await.status, 401);
}
