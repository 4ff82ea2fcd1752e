//! Letters: an address is verified, a forgotten password replaced, and nobody learns who is here.

use std::time::Duration;

use serde_json::{Value, json};

use crate::post_office::PostOffice;
use crate::world::{PASSWORD, Person, Reply, World};

/// A gateway that brings its letters to a post office of its own.
async fn with_post(more: &str) -> (World, PostOffice) {
    let office = PostOffice::open();
    let world = World::with(|setup| {
        setup.add(&office.config());
        setup.add(more);
    });
    (world.await, office)
}

async fn ask(world: &World, what: &str, email: &str) -> Reply {
    world.post(&format!("/api/v1/auth/{what}/request")).json(&json!({"email": email})).send().await
}

async fn reset(world: &World, email: &str, token: &str, password: &str) -> Reply {
    let form =
        json!({"email": email, "token": token, "new_password": password, "confirm_new_password": password});
    world.post("/api/v1/auth/password-reset/confirm").json(&form).send().await
}

async fn log_in(world: &World, email: &str, password: &str) -> Reply {
    world.post("/api/v1/auth/login").json(&json!({"email": email, "password": password})).send().await
}

/// Asks for a reset and reads the letter.
async fn letter_to(world: &World, office: &mut PostOffice, person: &Person) -> String {
    assert_eq!(ask(world, "password-reset", &person.email).await.status, 202);
    office.letter().await.token()
}

/// An answer without what names its request.
fn anonymous(reply: &Reply) -> (u16, Value) {
    let mut body = reply.json();
    for own in ["request_id", "timestamp"] {
        body.as_object_mut().unwrap().remove(own);
    }
    (reply.status, body)
}

#[tokio::test]
async fn a_forgotten_password_is_replaced_and_every_session_ends() {
    let (world, mut office) = with_post("").await;
    let ann = world.user("ann").await;
    let login = log_in(&world, &ann.email, PASSWORD).await.json();
    assert_eq!(ask(&world, "password-reset", "ANN@example.com").await.status, 202);
    let letter = office.letter().await;
    assert_eq!((letter.from.as_str(), letter.to.as_str()), ("gate@example.org", "ann@example.com"));
    assert_eq!(letter.account, "gate the-post-masters-word");
    assert!(letter.head.contains("Subject: Reset your password"), "{}", letter.head);
    assert!(letter.head.contains("From: Gate <gate@example.org>"), "{}", letter.head);
    assert!(letter.text.contains("Hello ann,"), "{}", letter.text);

    let done = reset(&world, &ann.email, &letter.token(), "another-word-9").await;
    let told = json!({"message": "Password updated successfully"});
    assert_eq!((done.status, done.json()), (200, told));
    assert_eq!(log_in(&world, &ann.email, PASSWORD).await.status, 401);
    assert_eq!(log_in(&world, &ann.email, "another-word-9").await.status, 200);
    assert_eq!(world.get("/api/v1/auth/profile").bearer(&ann.jwt).send().await.status, 401);
    let refresh = json!({"refresh_token": login["refresh_token"]});
    assert_eq!(world.post("/api/v1/auth/refresh").json(&refresh).send().await.status, 401);
    assert_eq!(world.chat(&ann).send().await.status, 200, "the key goes on");
    let again = reset(&world, &ann.email, &letter.token(), "a-third-word-9").await;
    assert_eq!((again.status, again.json()["code"].clone()), (400, json!("wrong_mail_token")));
}

#[tokio::test]
async fn nobody_learns_whether_an_account_is_there() {
    let (world, mut office) = with_post("").await;
    let ann = world.user("ann").await;
    for what in ["password-reset", "verify-email"] {
        let (known, unknown) =
            (ask(&world, what, &ann.email).await, ask(&world, what, "eve@example.com").await);
        assert_eq!(anonymous(&known), anonymous(&unknown));
        assert_eq!(known.status, 202);
    }
    for _ in 0..2 {
        assert_eq!(office.letter().await.to, ann.email);
    }
    let no_token = world.user("bob").await;
    let mut told = Vec::new();
    for email in [ann.email.as_str(), no_token.email.as_str(), "eve@example.com"] {
        told.push(anonymous(&reset(&world, email, "23456789abcdefghijkm", "another-word-9").await));
        let form = json!({"email": email, "token": "23456789abcdefghijkm"});
        told.push(anonymous(&world.post("/api/v1/auth/verify-email/confirm").json(&form).send().await));
    }
    assert!(told.iter().all(|one| *one == told[0] && one.0 == 400), "{told:#?}");
    assert!(!office.has_one(), "nobody else was written to");
}

#[tokio::test]
async fn a_token_lasts_half_an_hour_until_the_next_letter_and_longer_than_a_network_may_guess() {
    let (world, mut office) = with_post("").await;
    let ann = world.user("ann").await;
    let first = letter_to(&world, &mut office, &ann).await;
    let second = letter_to(&world, &mut office, &ann).await;
    assert_eq!(reset(&world, &ann.email, &first, "another-word-9").await.status, 400, "replaced");
    world.clock.advance(Duration::from_mins(30));
    assert_eq!(reset(&world, &ann.email, &second, "another-word-9").await.status, 400, "too late");

    let third = letter_to(&world, &mut office, &ann).await;
    world.clock.advance(Duration::from_mins(5));
    for _ in 0..5 {
        assert_eq!(reset(&world, &ann.email, "23456789abcdefghijkm", "another-word-9").await.status, 400);
    }
    let sixth = reset(&world, &ann.email, &third, "another-word-9").await;
    assert_eq!((sixth.status, sixth.header("retry-after")), (429, "60"));
    world.clock.advance(Duration::from_mins(1));
    assert_eq!(reset(&world, &ann.email, &third, "another-word-9").await.status, 200);
}

#[tokio::test]
async fn a_token_is_of_one_purpose_and_one_address_and_a_bad_password_does_not_spend_it() {
    let (world, mut office) = with_post("").await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let token = letter_to(&world, &mut office, &ann).await;
    assert_eq!(reset(&world, &bob.email, &token, "another-word-9").await.status, 400, "ann's, not bob's");
    let verify = json!({"email": ann.email, "token": token});
    assert_eq!(world.post("/api/v1/auth/verify-email/confirm").json(&verify).send().await.status, 400);
    assert_eq!(reset(&world, &ann.email, &token, "short").await.status, 422);
    let differ = json!({"email": ann.email, "token": token, "new_password": "another-word-9", "confirm_new_password": "x"});
    let reply = world.post("/api/v1/auth/password-reset/confirm").json(&differ).send().await;
    assert_eq!(reply.json()["detail"][0]["loc"], json!(["body", "confirm_new_password"]));
    world.change("ann", json!({"email": "ann@elsewhere.example"})).await;
    assert_eq!(reset(&world, &ann.email, &token, "another-word-9").await.status, 400);
    let moved = reset(&world, "ann@elsewhere.example", &token, "another-word-9").await;
    assert_eq!(moved.status, 400, "the letter went to another address");
}

#[tokio::test]
async fn where_verified_addresses_are_wanted_nobody_logs_in_before() {
    let (world, mut office) = with_post("[security]\nrequire_verified_email = true").await;
    let form = json!({"username": "ann", "name": "Click http://evil.example", "email": "ann@example.com",
                      "password": PASSWORD, "confirm_password": PASSWORD, "type": "Personal"});
    assert_eq!(world.post("/api/v1/auth/register").json(&form).send().await.status, 201);
    let letter = office.letter().await;
    assert_eq!(letter.to, "ann@example.com");
    assert!(!letter.text.contains("evil"), "nobody's words but ours: {}", letter.text);
    let refused = log_in(&world, "ann@example.com", PASSWORD).await;
    assert_eq!((refused.status, refused.json()["code"].clone()), (403, json!("email_not_verified")));
    let wrong = log_in(&world, "ann@example.com", "password124").await;
    assert_eq!(wrong.json()["code"], "wrong_credentials", "only who knows the password is told");

    let confirm = async |token: &str| {
        let form = json!({"email": "Ann@Example.com", "token": token});
        world.post("/api/v1/auth/verify-email/confirm").json(&form).send().await
    };
    assert_eq!(confirm(&letter.token()).await.status, 200);
    assert_eq!(log_in(&world, "ann@example.com", PASSWORD).await.status, 200);
    assert_eq!(confirm(&letter.token()).await.status, 400, "once");
    world.change("ann", json!({"email": "ann@elsewhere.example"})).await;
    assert_eq!(log_in(&world, "ann@elsewhere.example", PASSWORD).await.status, 403, "another address");
    assert_eq!(ask(&world, "verify-email", "ann@elsewhere.example").await.status, 202);
    assert_eq!(office.letter().await.to, "ann@elsewhere.example");
}

#[tokio::test]
async fn a_mail_server_that_is_busy_gets_the_letter_later_and_a_mailbox_is_not_filled() {
    let (world, mut office) = with_post("").await;
    let ann = world.user("ann").await;
    office.put_off(1);
    assert_eq!(ask(&world, "password-reset", &ann.email).await.status, 202);
    assert_eq!(office.letter().await.to, ann.email);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(ask(&world, "password-reset", &ann.email).await.status);
    }
    assert_eq!(statuses, [202, 202, 202, 202, 429]);
}

#[tokio::test]
async fn a_gateway_that_stops_sends_the_letters_it_has_taken() {
    let (mut world, mut office) = with_post("").await;
    let ann = world.user("ann").await;
    for _ in 0..3 {
        assert_eq!(ask(&world, "password-reset", &ann.email).await.status, 202);
    }
    world.take_app().shutdown().await;
    for _ in 0..3 {
        assert!(office.has_one());
        office.letter().await;
    }
}

#[tokio::test]
async fn without_a_mail_server_letters_are_files_or_nothing() {
    let world = World::start().await;
    let off = ask(&world, "password-reset", "ann@example.com").await;
    assert_eq!((off.status, off.json()["code"].clone()), (403, json!("mail_off")));
    let mut world = World::with(|setup| setup.add("[mail]\ntransport = \"file\"")).await;
    let ann = world.user("ann").await;
    assert_eq!(ask(&world, "verify-email", &ann.email).await.status, 202);
    world.take_app().shutdown().await;
    let files = std::fs::read_dir(world.folder.path().join("data/mail")).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(files[0].extension().unwrap(), "eml");
    let text = std::fs::read_to_string(&files[0]).unwrap();
    assert!(text.contains("To: ann@example.com") && text.contains("Verify your e-mail address"), "{text}");
}
