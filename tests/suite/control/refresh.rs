//! A session goes on, and ends: refresh tokens and logging out.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::world::{ADMIN_PASSWORD, PASSWORD, Person, Reply, World};

/// Both halves of a login.
struct Pair {
    access: String,
    refresh: String,
}

// === impl Pair ===

impl Pair {
    fn of(reply: &Reply) -> Self {
        assert_eq!(reply.status, 200, "{}", reply.text());
        let half = |name: &str| reply.json()[name].as_str().expect(name).to_owned();
        Self { access: half("access_token"), refresh: half("refresh_token") }
    }

    async fn of_user(world: &World, person: &Person) -> Self {
        let form = json!({"email": person.email, "password": person.password});
        Self::of(&world.post("/api/v1/auth/login").json(&form).send().await)
    }

    async fn of_admin(world: &World) -> Self {
        let form = json!({"username": "admin", "password": ADMIN_PASSWORD});
        Self::of(&world.post("/api/v1/admin/login").json(&form).send().await)
    }
}

async fn refresh(world: &World, role: &str, token: &str) -> Reply {
    let form = json!({"refresh_token": token});
    world.post(&format!("/api/v1/{role}/refresh")).json(&form).send().await
}

async fn opens(world: &World, access: &str) -> u16 {
    world.get("/api/v1/auth/profile").bearer(access).send().await.status
}

#[tokio::test]
async fn a_session_goes_on_when_its_access_token_is_over_and_grows_no_younger() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let pair = Pair::of_user(&world, &ann).await;
    world.clock.advance(Duration::from_mins(31));
    assert_eq!(opens(&world, &pair.access).await, 401);
    let reply = refresh(&world, "auth", &pair.refresh).await;
    let next = Pair::of(&reply);
    assert_eq!(
        (reply.json()["token_type"].as_str(), reply.json()["expires_in"].as_str()),
        (Some("bearer"), Some("1800"))
    );
    assert!(next.refresh != pair.refresh && next.access != pair.access);
    assert_eq!(opens(&world, &next.access).await, 200);
    let shown = world.get("/api/v1/auth/api-key?reveal=true").bearer(&next.access).send().await;
    assert_eq!(shown.json()["code"], "login_too_old", "renewing is no login: {}", shown.text());
}

#[tokio::test]
async fn a_used_refresh_token_that_is_shown_again_ends_its_session_and_no_other() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let (stolen, other) = (Pair::of_user(&world, &ann).await, Pair::of_user(&world, &ann).await);
    let next = Pair::of(&refresh(&world, "auth", &stolen.refresh).await);
    let again = refresh(&world, "auth", &stolen.refresh).await;
    assert_eq!((again.status, again.json()["code"].clone()), (401, json!("invalid_refresh_token")));
    assert_eq!(refresh(&world, "auth", &next.refresh).await.status, 401, "the whole family is over");
    assert_eq!(opens(&world, &next.access).await, 401);
    assert_eq!(opens(&world, &stolen.access).await, 401);
    assert_eq!(opens(&world, &other.access).await, 200);
    let noted = world.audit().await.into_iter().find(|row| row["action"] == "session.reuse");
    assert_eq!(noted.expect("it is noted")["target"], "user 1");
    Pair::of(&refresh(&world, "auth", &other.refresh).await);
}

#[tokio::test]
async fn of_many_who_show_one_refresh_token_at_once_no_two_get_through() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let pair = Pair::of_user(&world, &ann).await;
    let replies = join_all((0..8).map(|_| refresh(&world, "auth", &pair.refresh))).await;
    let through: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
    assert_eq!(through.len(), 1);
    assert!(replies.iter().all(|reply| matches!(reply.status, 200 | 401)));
    let next = Pair::of(through[0]);
    assert_eq!(refresh(&world, "auth", &next.refresh).await.status, 401, "seven copies were seen");
}

#[tokio::test]
async fn a_refresh_token_opens_its_own_roles_door_only_and_is_not_spent_at_another() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let (user, admin) = (Pair::of_user(&world, &ann).await, Pair::of_admin(&world).await);
    for (role, token) in [
        ("auth", &admin.refresh),
        ("staff", &admin.refresh),
        ("staff", &user.refresh),
        ("admin", &user.refresh),
    ] {
        assert_eq!(refresh(&world, role, token).await.status, 401, "{role}");
    }
    let user = Pair::of(&refresh(&world, "auth", &user.refresh).await);
    let admin = Pair::of(&refresh(&world, "admin", &admin.refresh).await);
    assert_eq!(world.get("/api/v1/admin/users").bearer(&admin.access).send().await.status, 200);
    assert_eq!(opens(&world, &user.access).await, 200);
    assert_eq!(opens(&world, &user.refresh).await, 401, "a refresh token is no access token");
    assert_eq!(refresh(&world, "auth", &user.access).await.status, 422, "nor the other way round");
}

#[tokio::test]
async fn what_is_no_refresh_token_is_told_so() {
    let world = World::start().await;
    for rubbish in
        ["x", "tgr_", "tgr_0123456789012345678901234567890123456789012", "' OR 1=1 --", "\u{0}\u{0}x"]
    {
        assert_eq!(refresh(&world, "auth", rubbish).await.status, 401, "{rubbish:?}");
    }
    let bodies = [
        json!({}),
        json!({"refresh_token": ""}),
        json!({"refresh_token": "x".repeat(129)}),
        json!({"refresh_token": 7}),
    ];
    for body in bodies {
        let reply = world.post("/api/v1/auth/refresh").json(&body).send().await;
        assert_eq!(reply.status, 422, "{body}");
        assert_eq!(reply.json()["detail"][0]["loc"], json!(["body", "refresh_token"]));
    }
}

#[tokio::test]
async fn a_session_is_over_when_its_time_is_or_its_owner_is_switched_off() {
    let world = World::start().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let (mut old, off) = (Pair::of_user(&world, &ann).await, Pair::of_user(&world, &bob).await);
    world.change("bob", json!({"is_active": false})).await;
    assert_eq!(refresh(&world, "auth", &off.refresh).await.status, 401);
    for _ in 0..3 {
        world.clock.advance(Duration::from_hours(9 * 24));
        old = Pair::of(&refresh(&world, "auth", &old.refresh).await);
    }
    world.clock.advance(Duration::from_hours(3 * 24));
    assert_eq!(refresh(&world, "auth", &old.refresh).await.status, 401, "thirty days after the login");
}

#[tokio::test]
async fn logging_out_ends_this_session_and_logging_out_everywhere_all_within_a_second() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let (one, two, three) = (
        Pair::of_user(&world, &ann).await,
        Pair::of_user(&world, &ann).await,
        Pair::of_user(&world, &ann).await,
    );
    let out = world.post("/api/v1/auth/logout").bearer(&one.access).send().await;
    assert_eq!((out.status, out.json()), (200, json!({"message": "Logged out successfully"})));
    assert_eq!(opens(&world, &one.access).await, 401);
    assert_eq!(refresh(&world, "auth", &one.refresh).await.status, 401);
    assert_eq!((opens(&world, &two.access).await, opens(&world, &three.access).await), (200, 200));

    let asked = Instant::now();
    let out = world.post("/api/v1/auth/logout-all").bearer(&two.access).send().await;
    assert_eq!(out.status, 200, "{}", out.text());
    for pair in [&two, &three] {
        assert_eq!(opens(&world, &pair.access).await, 401);
        assert_eq!(refresh(&world, "auth", &pair.refresh).await.status, 401);
    }
    assert_eq!(opens(&world, &ann.jwt).await, 401);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(opens(&world, &world.login(&ann.email, PASSWORD).await).await, 200);
    assert_eq!(world.chat(&ann).send().await.status, 200, "the key is no session");
}

#[tokio::test]
async fn an_admin_logs_out_too_and_nobody_logs_out_somebody_else() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let (admin, other) = (Pair::of_admin(&world).await, Pair::of_admin(&world).await);
    for path in ["/api/v1/admin/logout", "/api/v1/admin/logout-all", "/api/v1/staff/logout-all"] {
        assert_eq!(world.post(path).bearer(&ann.jwt).send().await.status, 401, "{path}");
        assert_eq!(world.post(path).send().await.status, 401, "{path}");
    }
    let users = async |token: &str| world.get("/api/v1/admin/users").bearer(token).send().await.status;
    assert_eq!(world.post("/api/v1/admin/logout").bearer(&admin.access).send().await.status, 200);
    assert_eq!((users(&admin.access).await, users(&other.access).await), (401, 200));
    assert_eq!(world.post("/api/v1/admin/logout-all").bearer(&other.access).send().await.status, 200);
    assert_eq!((users(&other.access).await, opens(&world, &ann.jwt).await), (401, 200));
}

#[tokio::test]
async fn nothing_that_opens_a_session_is_in_the_database() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let pair = Pair::of_user(&world, &ann).await;
    let next = Pair::of(&refresh(&world, "auth", &pair.refresh).await);
    let enrolled: Value = world.post("/api/v1/auth/totp/enroll").bearer(&next.access).send().await.json();
    let secret = enrolled["secret"].as_str().unwrap();
    for token in [&pair.refresh, &next.refresh, &pair.access, &next.access, secret] {
        assert!(world.watch().knows(token), "{token}");
    }
    let found = world.end().await;
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test]
async fn whoever_changes_their_password_goes_on_and_nobody_else_does() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let (mine, other) = (Pair::of_user(&world, &ann).await, Pair::of_user(&world, &ann).await);
    let form = json!({"current_password": PASSWORD, "new_password": "another-word-9", "confirm_new_password": "another-word-9"});
    let changed = world.put("/api/v1/auth/password").bearer(&mine.access).json(&form).send().await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!((opens(&world, &mine.access).await, opens(&world, &other.access).await), (200, 401));
    assert_eq!(refresh(&world, "auth", &other.refresh).await.status, 401);
    let next = Pair::of(&refresh(&world, "auth", &mine.refresh).await);
    assert_eq!(opens(&world, &next.access).await, 200);
}
