//! The clockwork: jobs by the zone's clock, once, seen and set going by the admin.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate::clock::Timestamp;

use crate::upstream::PATIENCE;
use crate::world::World;

const HOUR: Duration = Duration::from_hours(1);

/// 2026-10-24T12:00:00Z, the day before clocks go back in Berlin.
const BEFORE_WINTER: Timestamp = Timestamp(1_792_843_200_000);

async fn jobs(world: &World) -> Vec<Value> {
    let listed = world.get("/api/v1/admin/jobs").bearer(&world.admin().await).send().await;
    assert_eq!(listed.status, 200, "{}", listed.text());
    listed.json().as_array().unwrap().clone()
}

async fn job(world: &World, name: &str) -> Value {
    jobs(world).await.into_iter().find(|job| job["name"] == name).unwrap()
}

/// The job once its latest run was due then and is over: the clockwork ticks by the real clock.
async fn job_when(world: &World, name: &str, due_at: &str) -> Value {
    let asked = Instant::now();
    loop {
        let job = job(world, name).await;
        if job["last_run"]["due_at"] == due_at && job["last_run"]["state"] != "running" {
            return job;
        }
        assert!(asked.elapsed() < PATIENCE, "never due at {due_at}: {job:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_contracts_jobs_are_shown_with_their_hours() {
    let world = World::start().await;
    let shown: Vec<(Value, Value, Value)> = jobs(&world)
        .await
        .into_iter()
        .map(|job| (job["name"].clone(), job["schedule"].clone(), job["scope"].clone()))
        .collect();
    let told = [
        ("reset_of_limits", "0 0 * * *", "fleet"),
        ("message_log_batch", "every 600s", "node"),
        ("memory_check", "every 120s", "node"),
        ("usage_statistics", "0 1 * * *", "fleet"),
        ("log_clean_up", "0 2 * * SUN", "fleet"),
        ("deleted_users", "30 2 * * *", "fleet"),
        ("house_keeping", "0 3 * * *", "fleet"),
        ("lost_nodes", "30 3 * * *", "fleet"),
    ];
    for ((name, schedule, scope), line) in told.into_iter().zip(&shown) {
        assert_eq!(*line, (json!(name), json!(schedule), json!(scope)));
    }
}

#[tokio::test]
async fn what_was_missed_happens_at_start_and_then_each_job_waits_for_its_hour() {
    let world = World::start().await;
    let reset = job_when(&world, "reset_of_limits", "2026-10-01T00:00:00Z").await;
    assert_eq!(reset["last_run"]["state"], "done", "{reset:#}");
    assert_eq!(reset["next_run"], "2026-10-02T00:00:00Z");
    let told = reset["last_run"]["result"].as_str().unwrap();
    assert!(told.starts_with("the day of 2026-10-01 has begun"), "{told}");
    job_when(&world, "log_clean_up", "2026-09-27T02:00:00Z").await;
    world.clock.advance(HOUR * 15 + Duration::from_secs(11));
    job_when(&world, "reset_of_limits", "2026-10-02T00:00:00Z").await;
    let statistics = job_when(&world, "usage_statistics", "2026-10-02T01:00:00Z").await;
    assert_eq!(statistics["last_run"]["by_hand"], false);
    assert_eq!(statistics["next_run"], "2026-10-03T01:00:00Z");
    let memory = job_when(&world, "memory_check", "2026-10-02T01:00:00Z").await;
    assert!(memory["last_run"]["result"].as_str().unwrap().starts_with("0 of 104857600 bytes"), "{memory:#}");
}

#[tokio::test]
async fn hours_are_those_of_the_configured_zone_on_the_day_clocks_are_changed_too() {
    let world = World::with(|setup| setup.add("[limits]\ntime_zone = \"Europe/Berlin\"")).await;
    assert_eq!(job(&world, "reset_of_limits").await["next_run"], "2026-10-01T22:00:00Z");
    assert_eq!(job(&world, "reset_of_limits").await["time_zone"], "Europe/Berlin");
    world.clock.set(BEFORE_WINTER);
    job_when(&world, "reset_of_limits", "2026-10-23T22:00:00Z").await;
    assert_eq!(job(&world, "reset_of_limits").await["next_run"], "2026-10-24T22:00:00Z");
    world.clock.advance(HOUR * 11);
    job_when(&world, "reset_of_limits", "2026-10-24T22:00:00Z").await;
    assert_eq!(job(&world, "reset_of_limits").await["next_run"], "2026-10-25T23:00:00Z");
    world.clock.advance(HOUR * 25);
    job_when(&world, "reset_of_limits", "2026-10-25T23:00:00Z").await;
}

#[tokio::test]
async fn a_job_is_set_going_by_hand_by_the_admin_alone() {
    let world = World::start().await;
    let (ann, admin) = (world.user("ann").await, world.admin().await);
    job_when(&world, "usage_statistics", "2026-10-01T01:00:00Z").await;
    let run = |name: &str| world.post(&format!("/api/v1/admin/jobs/{name}/run"));
    let ran = run("usage_statistics").bearer(&admin).send().await;
    assert_eq!((ran.status, &ran.json()["state"]), (200, &json!("done")), "{}", ran.text());
    assert_eq!(
        (&ran.json()["by_hand"], &ran.json()["due_at"]),
        (&json!(true), &json!("2026-10-01T10:00:00Z"))
    );
    let seen = job(&world, "usage_statistics").await;
    assert_eq!(seen["last_run"], ran.json());
    assert_eq!(seen["next_run"], "2026-10-02T01:00:00Z", "its hour stays");
    let node = run("message_log_batch").bearer(&admin).send().await;
    assert_eq!((node.status, &node.json()["by_hand"]), (200, &json!(true)));
    assert_eq!(run("everything").bearer(&admin).send().await.status, 404);
    for token in [ann.jwt.as_str(), ann.key.as_str(), ""] {
        assert_eq!(run("usage_statistics").bearer(token).send().await.status, 401);
        assert_eq!(world.get("/api/v1/admin/jobs").bearer(token).send().await.status, 401);
    }
}
