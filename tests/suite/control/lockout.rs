//! Who guesses keeps out nobody but themselves: failures count by network first, and successes never.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::post_office::PostOffice;
use crate::world::{ADMIN_PASSWORD, PASSWORD, Reply, World};

/// Stories say where a call comes from.
const BEHIND_A_PROXY: &str = "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]";
const STRANGER: &str = "192.0.2.1";
const HOME: &str = "198.51.100.7";

/// Somebody's own way in, and a stranger's try at it.
#[derive(Clone)]
struct Door {
    path: &'static str,
    right: Value,
    wrong: Value,
}

fn doors() -> Vec<Door> {
    let user = |word: &str| json!({"email": "ann@example.com", "password": word});
    let named = |name: &str, word: &str| json!({"username": name, "password": word});
    let door = |path, right, wrong| Door { path, right, wrong };
    vec![
        door("/api/v1/auth/login", user(PASSWORD), user("wrong-word-1")),
        door("/api/v1/staff/login", named("sue", PASSWORD), named("sue", "wrong-word-1")),
        door("/api/v1/admin/login", named("admin", ADMIN_PASSWORD), named("admin", "wrong-word-1")),
    ]
}

async fn call(world: &World, from: &str, path: &str, form: &Value) -> Reply {
    world.post(path).header("x-forwarded-for", from).json(form).send().await
}

async fn stage(more: &str) -> World {
    let world = World::with(|setup| {
        setup.add(BEHIND_A_PROXY);
        setup.add(more);
    })
    .await;
    world.user("ann").await;
    world.staff("sue", "support").await;
    world
}

#[tokio::test]
async fn wrong_logins_once_a_second_keep_out_the_stranger_and_nobody_else() {
    let world = stage("").await;
    for Door { path, right, wrong } in doors() {
        let mut refused = 0;
        for second in 0..38 {
            refused += u32::from(call(&world, STRANGER, path, &wrong).await.status == 429);
            // Each time from a network where the owner was never before.
            let owner = call(&world, &format!("198.51.100.{second}"), path, &right).await;
            assert_eq!(owner.status, 200, "{path} after {second} s: {}", owner.text());
            world.clock.advance(Duration::from_secs(1));
        }
        assert_eq!(refused, 33, "{path}: five failures in 38 s");
        assert_eq!(call(&world, STRANGER, path, &right).await.status, 429, "{path}: even a right guess");
    }
}

#[tokio::test]
async fn right_logins_at_once_all_succeed() {
    let world = stage("").await;
    for Door { path, right, .. } in doors() {
        let mut running = JoinSet::new();
        for _ in 0..20 {
            let (url, form) = (world.base.clone() + path, right.to_string());
            running.spawn(async move {
                let client = reqwest::Client::builder().no_proxy().build().unwrap();
                let call = client.post(url).header("x-forwarded-for", HOME);
                let call = call.header("content-type", "application/json").body(form);
                call.send().await.unwrap().status().as_u16()
            });
        }
        assert_eq!(running.join_all().await, vec![200; 20], "{path}");
    }
}

#[tokio::test]
async fn a_network_that_fails_at_many_accounts_keeps_its_own_users() {
    let world = stage("").await;
    let right = json!({"email": "ann@example.com", "password": PASSWORD});
    assert_eq!(call(&world, HOME, "/api/v1/auth/login", &right).await.status, 200);
    let mut last = 0;
    for n in 0..25 {
        let wrong = json!({"email": format!("nobody{n}@example.com"), "password": PASSWORD});
        last = call(&world, HOME, "/api/v1/auth/login", &wrong).await.status;
    }
    assert_eq!(last, 429);
    assert_eq!(call(&world, HOME, "/api/v1/auth/login", &right).await.status, 200);
}

#[tokio::test]
async fn a_stranger_who_asks_for_letters_or_guesses_their_tokens_does_not_keep_the_owner_from_a_reset() {
    let mut office = PostOffice::open();
    let world = stage(&office.config()).await;
    let (request, confirm) = ("/api/v1/auth/password-reset/request", "/api/v1/auth/password-reset/confirm");
    let ask = json!({"email": "ann@example.com"});
    let mut strangers = Vec::new();
    for _ in 0..6 {
        strangers.push(call(&world, STRANGER, request, &ask).await.status);
    }
    assert_eq!(strangers, [202, 202, 202, 202, 202, 429]);
    for _ in 0..5 {
        office.letter().await;
    }
    assert_eq!(call(&world, HOME, request, &ask).await.status, 202);
    world.clock.advance(Duration::from_mins(5));
    assert!(!office.has_one(), "the mailbox had five already");
    assert_eq!(call(&world, HOME, request, &ask).await.status, 202);
    let token = office.letter().await.token();

    let guess = |token: &str| {
        json!({"email": "ann@example.com", "token": token, "new_password": "another-word-9",
               "confirm_new_password": "another-word-9"})
    };
    for n in 0..15 {
        let from = format!("192.0.2.{}", n / 4);
        assert_eq!(call(&world, &from, confirm, &guess("23456789abcdefghijkm")).await.status, 400);
    }
    assert_eq!(call(&world, HOME, confirm, &guess(&token)).await.status, 200);
}

#[tokio::test]
async fn a_name_that_is_taken_is_told_before_anything_is_hashed() {
    let world = World::with(|setup| setup.add("[security]\nbcrypt_rounds = 11")).await;
    let form = |name: &str| {
        json!({"username": name, "name": name, "email": format!("{name}@example.com"), "password": PASSWORD,
               "confirm_password": PASSWORD})
    };
    let mut shortest = [Duration::MAX; 2];
    for n in 0..4 {
        for (which, name, status) in [(0, format!("new_{n}"), 201), (1, "new_0".to_owned(), 409)] {
            let begun = Instant::now();
            let reply = world.post("/api/v1/auth/register").json(&form(&name)).send().await;
            shortest[which] = shortest[which].min(begun.elapsed());
            assert_eq!(reply.status, status, "{}", reply.text());
        }
    }
    assert!(shortest[1] * 2 < shortest[0], "{shortest:?}");
}

#[tokio::test]
async fn who_logs_in_is_not_kept_waiting_by_those_who_register() {
    let world = stage("[security]\nbcrypt_rounds = 8").await;
    let mut flood = JoinSet::new();
    for n in 0..64 {
        let url = world.base.clone() + "/api/v1/auth/register";
        let form =
            json!({"username": format!("bot_{n}"), "name": "bot", "email": format!("bot{n}@example.com"),
                          "password": PASSWORD, "confirm_password": PASSWORD})
            .to_string();
        flood.spawn(async move {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let call = client.post(url).header("x-forwarded-for", format!("192.0.2.{}", n % 16));
            let call = call.header("content-type", "application/json").body(form);
            call.send().await.unwrap().status().as_u16()
        });
    }
    for Door { path, right, .. } in doors().into_iter().cycle().take(9) {
        assert_eq!(call(&world, HOME, path, &right).await.status, 200);
    }
    let told = flood.join_all().await;
    assert!(told.iter().all(|status| matches!(status, 201 | 503)) && told.contains(&201), "{told:?}");
}
