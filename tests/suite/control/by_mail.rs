//! Registration by mail: nothing tells whose e-mail address is known.

use serde_json::{Value, json};

use crate::post_office::PostOffice;
use crate::world::{PASSWORD, Reply, World};

const BY_MAIL: &str = "[security]\nregistration_by_mail = true";

fn form(username: &str, email: &str) -> Value {
    json!({"username": username, "name": username, "email": email, "password": PASSWORD,
           "confirm_password": PASSWORD})
}

async fn register(world: &World, username: &str, email: &str) -> Reply {
    world.post("/api/v1/auth/register").json(&form(username, email)).send().await
}

async fn log_in(world: &World, email: &str) -> Reply {
    world.post("/api/v1/auth/login").json(&json!({"email": email, "password": PASSWORD})).send().await
}

async fn confirm(world: &World, email: &str, token: &str) -> Reply {
    let form = json!({"email": email, "token": token});
    world.post("/api/v1/auth/verify-email/confirm").json(&form).send().await
}

/// A world with an account of ann's, which then registers by mail.
async fn with_ann(office: &PostOffice) -> World {
    let mut world = World::with(|setup| setup.add(&office.config())).await;
    world.user("ann").await;
    world.restart(|setup| setup.add(BY_MAIL)).await;
    world
}

#[tokio::test]
async fn a_known_address_is_answered_as_an_unknown_one_and_its_owner_gets_a_letter() {
    let mut office = PostOffice::open();
    let world = with_ann(&office).await;
    let mut told = Vec::new();
    for (username, email) in [("eve", "Ann@Example.com"), ("bob", "bob@example.com")] {
        let reply = register(&world, username, email).await;
        told.push((reply.status, reply.json()));
        let taken = register(&world, "ANN", email).await;
        assert_eq!(
            (taken.status, taken.json()["code"].clone()),
            (409, json!("taken")),
            "a name is no secret"
        );
        assert_eq!(log_in(&world, &format!("{username}@example.com")).await.status, 401, "not open yet");
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0].0, 202);
    let (one, two) = (office.letter().await, office.letter().await);
    let (anns, bobs) = if one.to == "ann@example.com" { (one, two) } else { (two, one) };
    assert_eq!((anns.to.as_str(), bobs.to.as_str()), ("ann@example.com", "bob@example.com"));
    assert!(anns.head.contains("Subject: You have an account already"), "{}", anns.head);
    assert!(anns.text.contains("Hello ann,") && !anns.text.contains("eve"), "{}", anns.text);

    // The name that went with ann's address is as free as the one that went with bob's.
    for name in ["eve", "bob"] {
        assert_eq!(register(&world, name, &format!("{name}.two@example.com")).await.status, 202);
        office.letter().await;
    }
    assert_eq!(confirm(&world, "bob@example.com", &bobs.token()).await.status, 200);
    assert_eq!(log_in(&world, "bob@example.com").await.status, 200);
    assert_eq!(confirm(&world, "bob@example.com", &bobs.token()).await.status, 400, "once");
    let shown = world.audit().await.into_iter().find(|row| row["target"] == "bob").unwrap();
    assert_eq!(shown["action"], "user.register");
    assert_eq!(log_in(&world, "ann@example.com").await.status, 200, "ann's is as it was");
    assert!(!office.has_one());
}

#[tokio::test]
async fn a_name_that_was_taken_meanwhile_and_a_token_of_another_open_nothing() {
    let mut office = PostOffice::open();
    let world = with_ann(&office).await;
    for email in ["one@example.com", "two@example.com"] {
        assert_eq!(register(&world, "same", email).await.status, 202);
    }
    let (one, two) = (office.letter().await, office.letter().await);
    assert_eq!(confirm(&world, &one.to, &two.token()).await.status, 400, "of another address");
    assert_eq!(confirm(&world, &one.to, &one.token()).await.status, 200);
    let late = confirm(&world, &two.to, &two.token()).await;
    assert_eq!((late.status, late.json()["code"].clone()), (409, json!("taken")));
    assert_eq!(confirm(&world, "ann@example.com", "23456789abcdefghijkm").await.status, 400);
    assert_eq!(register(&world, "last", "last@example.com").await.status, 202);
    let last = office.letter().await;
    world.clock.advance(std::time::Duration::from_mins(31));
    assert_eq!(confirm(&world, &last.to, &last.token()).await.status, 400, "too late");
}

#[tokio::test]
async fn another_address_is_changed_to_by_letter_and_tells_nothing_either() {
    let mut office = PostOffice::open();
    let mut world = World::with(|setup| setup.add(&office.config())).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    world.restart(|setup| setup.add(BY_MAIL)).await;
    let change = async |email: &str| {
        let form = json!({"new_email": email, "password": PASSWORD});
        let reply = world.put("/api/v1/auth/email").bearer(&ann.jwt).json(&form).send().await;
        (reply.status, reply.json())
    };
    let known = change(&bob.email).await;
    assert_eq!(office.letter().await.to, bob.email);
    let unknown = change("ann@example.org").await;
    assert_eq!((known.0, &known), (202, &unknown));
    let letter = office.letter().await;
    assert_eq!(log_in(&world, "ann@example.com").await.status, 200, "it does not hold yet");
    assert_eq!(confirm(&world, "ann@example.org", &letter.token()).await.status, 200);
    assert_eq!(
        (log_in(&world, "ann@example.org").await.status, log_in(&world, &ann.email).await.status),
        (200, 401)
    );
    assert_eq!(
        world.get("/api/v1/auth/profile").bearer(&ann.jwt).send().await.status,
        401,
        "its sessions are over"
    );
    assert_eq!(log_in(&world, &bob.email).await.status, 200);
}
