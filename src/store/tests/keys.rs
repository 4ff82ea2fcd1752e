//! Several keys of one user: names, secrets before and after, and turns taken.

use futures_util::future::join_all;

use super::{NOW, digest, entry, fresh, new_key, user};
use crate::clock::Timestamp;
use crate::ids::{KeyId, UserId};
use crate::store::keys::named::{self, Change, KeyError, MOST, Rules, Setting};
use crate::store::{Db, keys};

fn rules(name: &str) -> Rules {
    Rules { name: name.into(), label: String::new(), expires_at: None, allowed_ips: vec![], plan: None }
}

async fn made(db: &Db, user: UserId, name: &str) -> Result<KeyId, KeyError> {
    named::create(db, user, (&new_key(name), &rules(name)), NOW, &entry("key.create")).await
}

async fn leads_to(db: &Db, of: &str) -> Option<(KeyId, Option<Timestamp>)> {
    keys::holder(db, &digest(of)).await.unwrap().map(|holder| (holder.key, holder.former_until))
}

#[tokio::test]
async fn a_key_is_changed_field_by_field() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    let id = made(&world.db, ada, "ci").await.unwrap();
    let all = Change {
        name: Some("build".into()),
        label: Some("the build".into()),
        expires_at: Setting::To(Timestamp(5)),
        allowed_ips: Some(vec!["10.0.0.0/8".into()]),
        plan: Setting::To("small".into()),
    };
    named::update(&world.db, (ada, id), &all, &entry("key.update")).await.unwrap();
    named::update(&world.db, (ada, id), &Change::default(), &entry("key.update")).await.unwrap();
    let key = named::by_id(&world.db, ada, id).await.unwrap().unwrap();
    assert_eq!(
        (key.name.as_str(), key.label.as_str(), key.expires_at),
        ("build", "the build", Some(Timestamp(5)))
    );
    let holder = keys::holder(&world.db, &digest("ci")).await.unwrap().unwrap();
    assert_eq!(
        (holder.key_allowed_ips, holder.key_plan.as_deref()),
        (vec!["10.0.0.0/8".into()], Some("small"))
    );
    let cleared = Change { expires_at: Setting::Clear, plan: Setting::Clear, ..Change::default() };
    named::update(&world.db, (ada, id), &cleared, &entry("key.update")).await.unwrap();
    let key = named::by_id(&world.db, ada, id).await.unwrap().unwrap();
    assert_eq!((key.expires_at, key.plan, key.allowed_ips.len()), (None, None, 1));
}

#[tokio::test]
async fn two_secrets_at_most_lead_to_a_key() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    let id = made(&world.db, ada, "one").await.unwrap();
    let rotate = async |to: &str, until| {
        named::rotate(&world.db, (ada, id), &new_key(to), until, &entry("key.rotate")).await.unwrap();
    };
    rotate("two", Some(Timestamp(9))).await;
    assert_eq!(leads_to(&world.db, "one").await, Some((id, Some(Timestamp(9)))));
    assert_eq!(leads_to(&world.db, "two").await, Some((id, None)));
    rotate("three", Some(Timestamp(10))).await;
    assert_eq!(leads_to(&world.db, "one").await, None);
    assert_eq!(leads_to(&world.db, "two").await, Some((id, Some(Timestamp(10)))));
    rotate("four", None).await;
    assert_eq!(
        (leads_to(&world.db, "three").await, leads_to(&world.db, "four").await),
        (None, Some((id, None)))
    );
    rotate("five", Some(Timestamp(11))).await;
    named::revoke(&world.db, (ada, id), NOW, &entry("key.revoke")).await.unwrap();
    assert_eq!((leads_to(&world.db, "four").await, leads_to(&world.db, "five").await), (None, None));
    let again = named::revoke(&world.db, (ada, id), NOW, &entry("key.revoke")).await;
    assert!(matches!(again, Err(KeyError::NotFound)), "{again:?}");
}

#[tokio::test]
async fn of_many_at_once_no_name_is_given_twice_and_the_bound_holds() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    let same =
        join_all((0..8).map(|n| {
            let (db, secret) = (&world.db, format!("same-{n}"));
            async move {
                named::create(db, ada, (&new_key(&secret), &rules("same")), NOW, &entry("key.create")).await
            }
        }))
        .await;
    assert_eq!(same.iter().filter(|made| made.is_ok()).count(), 1);
    assert!(same.iter().all(|made| matches!(made, Ok(_) | Err(KeyError::NameTaken))), "{same:?}");
    let names: Vec<String> = (0..MOST + 3).map(|n| format!("key-{n}")).collect();
    let many = join_all(names.iter().map(|name| made(&world.db, ada, name))).await;
    let refused = many.iter().filter(|made| matches!(made, Err(KeyError::TooMany))).count();
    assert_eq!((refused, named::list(&world.db, ada).await.unwrap().len()), (5, 100));
    assert!(made(&world.db, UserId(404), "x").await.is_err());
}
