//! Several keys of one user.

use std::time::Duration;

use serde_json::{Value, json};

use crate::upstream::PATIENCE;
use crate::world::{Person, World};

const KEYS: &str = "/api/v1/auth/keys";

async fn made(world: &World, person: &Person, form: Value) -> Value {
    let reply = world.post(KEYS).bearer(&person.jwt).json(&form).send().await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply.json()
}

fn secret(told: &Value) -> String {
    told["api_key"].as_str().unwrap_or_else(|| panic!("no key in {told}")).to_owned()
}

fn at(told: &Value) -> String {
    format!("{KEYS}/{}", told["id"].as_str().unwrap())
}

async fn status(world: &World, key: &str) -> u16 {
    let chat = world.post("/v1/chat/completions").bearer(key).json(&crate::world::chat_request());
    chat.send().await.status
}

#[tokio::test]
async fn a_key_of_ones_own_name_is_told_once_and_works_beside_the_default_one() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let ci = made(&world, &ann, json!({"name": "ci", "label": "the build"})).await;
    let key = secret(&ci);
    assert_eq!((key.len(), ci["prefix"].as_str()), (35, key.get(..7)));
    assert_eq!((status(&world, &key).await, status(&world, &ann.key).await), (200, 200));
    let listed = world.get(KEYS).bearer(&ann.jwt).send().await.json();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|key| key["name"].clone()).collect();
    assert_eq!(names, ["default", "ci"]);
    assert!(!listed.to_string().contains(&key), "a list tells no secret");
    let shown = world.get(&at(&ci)).bearer(&ann.jwt).send().await.json();
    assert_eq!((&shown["label"], shown.get("api_key")), (&json!("the build"), None));
    let revealed = world.get(&(at(&ci) + "?reveal=true")).bearer(&ann.jwt).send().await;
    assert_eq!(secret(&revealed.json()), key);
    world.clock.advance(Duration::from_mins(6));
    let late = world.get(&(at(&ci) + "?reveal=true")).bearer(&ann.jwt).send().await;
    assert_eq!(late.status, 403);
}

#[tokio::test]
async fn a_name_is_given_once_and_the_default_key_keeps_its_own() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let ci = made(&world, &ann, json!({"name": "ci"})).await;
    let again = world.post(KEYS).bearer(&ann.jwt).json(&json!({"name": "ci"})).send().await;
    assert_eq!((again.status, &again.json()["detail"]), (409, &json!("This key name is taken already.")));
    let other = made(&world, &ann, json!({"name": "other"})).await;
    let renamed = world.put(&at(&other)).bearer(&ann.jwt).json(&json!({"name": "ci"})).send().await;
    assert_eq!(renamed.status, 409);
    let default = world.get(KEYS).bearer(&ann.jwt).send().await.json()[0].clone();
    let refused = world.put(&at(&default)).bearer(&ann.jwt).json(&json!({"name": "mine"})).send().await;
    assert_eq!(refused.status, 422);
    assert_eq!(world.delete(&at(&ci)).bearer(&ann.jwt).send().await.status, 200);
    made(&world, &ann, json!({"name": "ci"})).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_key_is_told_at_once() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let wrong = json!({"name": "two words", "expires_at": "2026-10-01T09:59:59Z", "plan": "gold",
                       "allowed_ips": ["localhost"], "digest": "x"});
    let refused = world.post(KEYS).bearer(&ann.jwt).json(&wrong).send().await;
    assert_eq!(refused.status, 422);
    let told = refused.json();
    let fields: Vec<_> = told["detail"].as_array().unwrap().iter().map(|one| one["loc"][1].clone()).collect();
    for field in ["name", "expires_at", "plan", "allowed_ips", "digest"] {
        assert!(fields.contains(&json!(field)), "{field} in {fields:?}");
    }
    assert_eq!(world.post(KEYS).bearer(&ann.key).json(&json!({"name": "x"})).send().await.status, 401);
}

#[tokio::test]
async fn somebody_elses_key_is_not_there() {
    let world = World::start().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let ci = made(&world, &ann, json!({"name": "ci"})).await;
    let path = at(&ci);
    let calls = [
        world.get(&path),
        world.put(&path).json(&json!({"label": "mine"})),
        world.delete(&path),
        world.post(&(path.clone() + "/rotate")).json(&json!({})),
    ];
    for call in calls {
        assert_eq!(call.bearer(&bob.jwt).send().await.status, 404);
    }
    for nothing in ["0", "x", "99999999999999999999", "-1"] {
        assert_eq!(world.get(&format!("{KEYS}/{nothing}")).bearer(&ann.jwt).send().await.status, 404);
    }
    assert_eq!(status(&world, &secret(&ci)).await, 200);
}

#[tokio::test]
async fn a_rotated_key_keeps_its_id_and_its_old_secret_for_the_grace() {
    let world = World::start().await;
    let ann = world.user_with("ann", json!({"subscription_plan": "premium"})).await;
    let ci = made(&world, &ann, json!({"name": "ci"})).await;
    let old = secret(&ci);
    assert_eq!(status(&world, &old).await, 200);
    let rotate = async |grace: Value| {
        let jwt = world.login(&ann.email, &ann.password).await;
        let reply = world.post(&(at(&ci) + "/rotate")).bearer(&jwt).json(&grace).send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let rotated = rotate(json!({"grace_period": 3600})).await;
    let new = secret(&rotated);
    assert_eq!(
        (&rotated["id"], &rotated["previous_expires_at"]),
        (&ci["id"], &json!("2026-10-01T11:00:00Z"))
    );
    assert_eq!((status(&world, &old).await, status(&world, &new).await), (200, 200));
    world.clock.advance(Duration::from_secs(3599));
    assert_eq!(status(&world, &old).await, 200);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!((status(&world, &old).await, status(&world, &new).await), (401, 200));
    let last = secret(&rotate(json!({})).await);
    assert_eq!((status(&world, &new).await, status(&world, &last).await), (401, 200), "no grace, at once");
    let jwt = world.login(&ann.email, &ann.password).await;
    let long = world.post(&(at(&ci) + "/rotate")).bearer(&jwt).json(&json!({"grace_period": 2_592_001}));
    assert_eq!(long.send().await.status, 422);
}

#[tokio::test]
async fn a_second_rotation_ends_the_secret_before_the_last() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let ci = made(&world, &ann, json!({"name": "ci"})).await;
    let mut secrets = vec![secret(&ci)];
    for _ in 0..2 {
        let call = world.post(&(at(&ci) + "/rotate")).bearer(&ann.jwt);
        secrets.push(secret(&call.json(&json!({"grace_period": 600})).send().await.json()));
    }
    let mut works = Vec::new();
    for key in &secrets {
        works.push(status(&world, key).await);
    }
    assert_eq!(works, [401, 200, 200]);
}

#[tokio::test]
async fn a_key_ends_by_itself_and_its_end_can_be_moved() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let ci = made(&world, &ann, json!({"name": "ci", "expires_at": "2026-10-01T10:01:00Z"})).await;
    let key = secret(&ci);
    assert_eq!(status(&world, &key).await, 200);
    world.clock.advance(Duration::from_mins(1));
    assert_eq!(status(&world, &key).await, 401);
    let change = json!({"expires_at": null});
    let changed = world.put(&at(&ci)).bearer(&ann.jwt).json(&change).send().await;
    assert_eq!((changed.status, &changed.json()["expires_at"]), (200, &Value::Null));
    assert_eq!(status(&world, &key).await, 200);
}

#[tokio::test]
async fn a_keys_addresses_narrow_its_users() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let ci = made(&world, &ann, json!({"name": "ci", "allowed_ips": ["203.0.113.0/24"]})).await;
    let key = secret(&ci);
    assert_eq!((status(&world, &key).await, status(&world, &ann.key).await), (403, 200));
    let open = json!({"allowed_ips": ["127.0.0.1"]});
    let changed = world.put(&at(&ci)).bearer(&ann.jwt).json(&open).send().await;
    assert_eq!(changed.json()["allowed_ips"], json!(["127.0.0.1/32"]));
    assert_eq!(status(&world, &key).await, 200);
    world.change("ann", json!({"allowed_ips": ["203.0.113.0/24"]})).await;
    assert_eq!(status(&world, &key).await, 403, "the user's own rules hold as well");
}

#[tokio::test]
async fn a_plan_narrows_a_key_and_never_widens_it() {
    let plans = "[plans.small]\nconversation_limit = 1\nmodels = [\"small-*\"]\nrate_limit_per_minute = 60\nburst = 2\n\
                 [plans.big]\nconversation_limit = 5000\n[plans.free]\nmodels = [\"small-1\", \"gpt-test\"]";
    let world = World::with(|setup| setup.add(plans)).await;
    let ann = world.user("ann").await;
    let small = secret(&made(&world, &ann, json!({"name": "small", "plan": "small"})).await);
    let big = secret(&made(&world, &ann, json!({"name": "big", "plan": "big"})).await);
    let ask = async |key: &str, model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
        world.post("/v1/chat/completions").bearer(key).json(&body).send().await.status
    };
    assert_eq!((ask(&small, "small-1").await, ask(&small, "gpt-test").await), (200, 404));
    assert_eq!(ask(&small, "small-1").await, 429, "its burst is two");
    assert_eq!((ask(&big, "gpt-test").await, ask(&big, "gpt-4o").await), (200, 404), "the user's own models");
    assert_eq!(world.left(&ann).await, 8, "the day is the user's");
}

#[tokio::test]
async fn when_a_key_was_last_used_is_noted_once_a_minute() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let used = async |wanted: &str| {
        let asked = std::time::Instant::now();
        loop {
            let jwt = world.login(&ann.email, &ann.password).await;
            let last = world.get(KEYS).bearer(&jwt).send().await.json()[0]["last_used_at"].clone();
            if last == wanted {
                return;
            }
            assert!(asked.elapsed() < PATIENCE, "{last} is not {wanted}");
        }
    };
    assert_eq!(status(&world, &ann.key).await, 200);
    used("2026-10-01T10:00:00Z").await;
    world.clock.advance(Duration::from_secs(59));
    assert_eq!(status(&world, &ann.key).await, 200);
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(status(&world, &ann.key).await, 200);
    used("2026-10-01T10:01:01Z").await;
}

#[tokio::test]
async fn the_admin_sees_and_revokes_the_keys_of_everybody() {
    let world = World::start().await;
    let (ann, admin) = (world.user("ann").await, world.admin().await);
    let ci = made(&world, &ann, json!({"name": "ci"})).await;
    let path = "/api/v1/admin/users/ann/keys";
    let listed = world.get(path).bearer(&admin).send().await;
    assert_eq!(listed.json().as_array().unwrap().len(), 2);
    assert!(!listed.text().contains("api_key"));
    assert_eq!(world.get(path).bearer(&ann.jwt).send().await.status, 401);
    let one = format!("{path}/{}", ci["id"].as_str().unwrap());
    assert_eq!(world.delete(&one).bearer(&ann.jwt).send().await.status, 401);
    assert_eq!(world.delete(&one).bearer(&admin).send().await.status, 200);
    assert_eq!(status(&world, &secret(&ci)).await, 401);
    assert_eq!(world.delete(&one).bearer(&admin).send().await.status, 404);
}

#[tokio::test]
async fn the_old_call_replaces_the_default_key_and_leaves_the_others() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let ci = secret(&made(&world, &ann, json!({"name": "ci"})).await);
    let new = world.post("/api/v1/auth/regenerate-key?reveal=true").bearer(&ann.jwt).send().await.json();
    assert_eq!((status(&world, &ann.key).await, status(&world, &ci).await), (401, 200));
    assert_eq!(status(&world, &secret(&new)).await, 200);
}

#[tokio::test]
async fn nobody_has_more_than_a_hundred_keys() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    for number in 1..100 {
        made(&world, &ann, json!({"name": format!("key-{number}")})).await;
    }
    let one_more = world.post(KEYS).bearer(&ann.jwt).json(&json!({"name": "one-more"})).send().await;
    assert_eq!(one_more.status, 422);
}
