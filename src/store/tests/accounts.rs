//! Users, keys, staff, admins and the audit trail.

use serde_json::json;

use super::{NOW, digest, entry, fresh, new_key, new_user, user};
use crate::clock::Timestamp;
use crate::ids::{KeyId, UserId};
use crate::store::SlowRead;
use crate::store::accounts::{InsertAccount, UpdateAccount};
use crate::store::audit::{self, Actor, Entry};
use crate::store::staff::NewStaff;
use crate::store::users::UserChange;
use crate::store::{StoreError, admins, keys, staff, users};

#[tokio::test]
async fn a_user_is_found_as_given_in_whatever_case_they_are_asked_for() {
    let world = fresh().await;
    let id = user(&world.db, "Ada").await;
    let ada = users::by_id(&world.db, id).await.unwrap().unwrap();
    assert_eq!((ada.username.as_str(), ada.email.as_str()), ("Ada", "Ada@Example.com"));
    assert_eq!(
        (ada.name.as_str(), ada.access_rtype.as_slice()),
        ("Ada O'Brien", ["basic".to_owned()].as_slice())
    );
    assert_eq!((ada.credits_main, ada.credits_reset, ada.quota_reset, ada.quota_epoch), (5, 5, None, 0));
    assert_eq!(
        (ada.is_active, ada.allowed_ips.len(), ada.token_version, ada.time_created),
        (true, 0, 0, NOW)
    );
    assert!(users::by_username(&world.db, "aDA").await.unwrap() == Some(ada.clone()));
    assert!(users::by_email(&world.db, "ADA@example.COM").await.unwrap() == Some(ada));
    assert!(users::by_username(&world.db, "ada\0' OR 1=1 --").await.unwrap().is_none());
    assert!(users::by_id(&world.db, UserId(404)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_taken_name_and_a_taken_address_are_told_apart_and_leave_nothing_behind() {
    let world = fresh().await;
    user(&world.db, "ada").await;
    let same_name = users::NewUser { email: "other@example.com".into(), ..new_user("ADA") };
    let refused = users::insert(&world.db, &same_name, &new_key("k2"), NOW, &entry("x")).await;
    assert!(matches!(refused, Err(InsertAccount::UsernameTaken)), "{refused:?}");
    let same_email = users::NewUser { email: "ADA@EXAMPLE.COM".into(), ..new_user("bob") };
    let refused = users::insert(&world.db, &same_email, &new_key("k3"), NOW, &entry("x")).await;
    assert!(matches!(refused, Err(InsertAccount::EmailTaken)), "{refused:?}");

    let bob = user(&world.db, "bob").await;
    let change = UserChange { email: Some("Ada@example.com".into()), ..UserChange::default() };
    let refused = users::update(&world.db, bob, &change, NOW, &entry("x")).await;
    assert!(matches!(refused, Err(UpdateAccount::EmailTaken)), "{refused:?}");
    let refused = users::update(&world.db, UserId(404), &UserChange::default(), NOW, &entry("x")).await;
    assert!(matches!(refused, Err(UpdateAccount::NotFound(_))), "{refused:?}");

    let own = UserChange { email: Some("BOB@example.com".into()), ..UserChange::default() };
    users::update(&world.db, bob, &own, NOW, &entry("user.update")).await.unwrap();
    let actions: Vec<String> = audit::list(&SlowRead::alone(&world.db), 9, 0)
        .await
        .unwrap()
        .rows
        .into_iter()
        .map(|row| row.action)
        .collect();
    assert_eq!(actions, ["user.update", "user.register", "user.register"]);
}

#[tokio::test]
async fn an_update_changes_what_is_given_and_nothing_else() {
    let world = fresh().await;
    let id = user(&world.db, "ada").await;
    let before = users::by_id(&world.db, id).await.unwrap().unwrap();
    users::update(&world.db, id, &UserChange::default(), NOW, &entry("x")).await.unwrap();
    assert!(users::by_id(&world.db, id).await.unwrap() == Some(before.clone()));

    let one = UserChange { hobbies: Some("chess\0'; --".into()), ..UserChange::default() };
    users::update(&world.db, id, &one, NOW, &entry("x")).await.unwrap();
    let expected = users::User { hobbies: "chess\u{fffd}'; --".into(), ..before.clone() };
    assert!(users::by_id(&world.db, id).await.unwrap() == Some(expected));

    let all = UserChange {
        name: Some("N".into()),
        email: Some("New@example.com".into()),
        about_me: Some("A".into()),
        hobbies: Some("H".into()),
        kind: Some("Business".into()),
        subscription_plan: Some("pro".into()),
        credits_main: Some(1),
        credits_reset: Some(2),
        quota: None,
        access_rtype: Some(vec![]),
        level: Some("advanced".into()),
        additional_notes: Some("notes".into()),
        is_active: Some(false),
        allowed_ips: Some(vec!["10.0.0.0/8".into()]),
        password_hash: Some("other".into()),
        bump_token_version: true,
        kept_session: Some("a-session".into()),
        ..UserChange::default()
    };
    users::update(&world.db, id, &all, NOW, &entry("x")).await.unwrap();
    let expected = users::User {
        id,
        username: "ada".into(),
        name: "N".into(),
        email: "New@example.com".into(),
        password_hash: "other".into(),
        about_me: "A".into(),
        hobbies: "H".into(),
        kind: "Business".into(),
        time_created: NOW,
        subscription_plan: "pro".into(),
        credits_main: 1,
        credits_reset: 2,
        quota_reset: None,
        quota_epoch: 0,
        access_rtype: vec![],
        level: "advanced".into(),
        additional_notes: "notes".into(),
        is_active: false,
        allowed_ips: vec!["10.0.0.0/8".into()],
        token_version: 1,
        kept_session: Some("a-session".into()),
        takeover: None,
    };
    assert!(users::by_email(&world.db, "new@example.com").await.unwrap() == Some(expected));
    assert!(users::by_email(&world.db, "ada@example.com").await.unwrap().is_none());
}

#[tokio::test]
async fn a_rehash_never_undoes_a_change_of_password() {
    let world = fresh().await;
    let id = user(&world.db, "ada").await;
    users::update_password_hash(&world.db, id, "$2b$12$hash", "dearer", NOW).await.unwrap();
    users::update_password_hash(&world.db, id, "$2b$12$hash", "late", NOW).await.unwrap();
    assert_eq!(users::by_id(&world.db, id).await.unwrap().unwrap().password_hash, "dearer");
}

#[tokio::test]
async fn users_are_listed_in_pages() {
    let world = fresh().await;
    for name in ["ada", "bob", "cy"] {
        user(&world.db, name).await;
    }
    let page = users::list(&SlowRead::alone(&world.db), 2, 1).await.unwrap();
    let names: Vec<_> = page.rows.iter().map(|row| row.username.as_str()).collect();
    assert_eq!((names, page.total), (vec!["bob", "cy"], 3));
}

#[tokio::test]
async fn a_change_without_its_record_never_happened() {
    let world = fresh().await;
    let id = user(&world.db, "ada").await;
    let before = users::by_id(&world.db, id).await.unwrap().unwrap();
    on!(&world.db, write pool => sqlx::query("ALTER TABLE audit RENAME TO elsewhere").execute(pool).await.map(|_| ()))
        .unwrap();

    let change = UserChange { is_active: Some(false), ..UserChange::default() };
    let failed = users::update(&world.db, id, &change, Timestamp(NOW.0 + 1), &entry("x")).await;
    assert!(matches!(failed, Err(UpdateAccount::Store(StoreError::Unavailable(_)))), "{failed:?}");
    assert!(keys::replace(&world.db, id, &new_key("k2"), NOW, &entry("x")).await.is_err());
    assert!(users::insert(&world.db, &new_user("bob"), &new_key("k3"), NOW, &entry("x")).await.is_err());
    assert!(crate::store::quota::reset_all(&world.db, &entry("x")).await.is_err());

    assert!(users::by_id(&world.db, id).await.unwrap() == Some(before));
    assert!(keys::holder(&world.db, &digest("ada")).await.unwrap().is_some());
    assert_eq!(users::list(&SlowRead::alone(&world.db), 9, 0).await.unwrap().total, 1);
}

#[tokio::test]
async fn the_record_of_a_change_reads_as_it_was_made() {
    let world = fresh().await;
    let by_user = Entry { actor: Actor::User(UserId(7)), actor_name: "a\0b".into(), ..entry("limits.reset") };
    crate::store::quota::reset_all(&world.db, &by_user).await.unwrap();
    let page = audit::list(&SlowRead::alone(&world.db), 5, 0).await.unwrap();
    let row = &page.rows[0];
    assert_eq!((page.total, row.at, row.actor_kind.as_str(), row.actor_id), (1, NOW, "user", Some(7)));
    assert_eq!((row.actor_name.as_str(), row.action.as_str()), ("a\u{fffd}b", "limits.reset"));
    assert_eq!((&row.detail, row.client_ip.as_deref()), (&json!({"fields": ["name"]}), Some("203.0.113.9")));
}

#[tokio::test]
async fn a_key_leads_to_its_holder() {
    let world = fresh().await;
    let id = user(&world.db, "ada").await;
    let holder = keys::holder(&world.db, &digest("ada")).await.unwrap().unwrap();
    assert_eq!((holder.user, holder.username.as_str(), holder.is_active), (id, "ada", true));
    assert_eq!((holder.subscription_plan.as_str(), holder.level.as_str()), ("free", "medium"));
    assert_eq!(
        (holder.access_rtype, holder.quota_reset, holder.expires_at),
        (vec!["basic".into()], None, None)
    );
    assert!(keys::holder(&world.db, &digest("nobody")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_replaced_key_is_dead_and_unreadable() {
    let world = fresh().await;
    let id = user(&world.db, "ada").await;
    let old = keys::current(&world.db, id).await.unwrap().unwrap();
    let new = keys::replace(&world.db, id, &new_key("k2"), NOW, &entry("key.replace")).await.unwrap();
    assert!(keys::holder(&world.db, &digest("ada")).await.unwrap().is_none());
    assert_eq!(keys::holder(&world.db, &digest("k2")).await.unwrap().unwrap().key, new);
    let current = keys::current(&world.db, id).await.unwrap().unwrap();
    assert_eq!((current.id, current.sealed.as_str(), current.format), (new, "gAAAA-k2", 2));
    let left: String =
        on!(&world.db, read pool => sqlx::query_scalar("SELECT sealed FROM keys WHERE id = $1")
        .bind(old.id).fetch_one(pool).await)
        .unwrap();
    assert_eq!(left, "");
    assert!(keys::replace(&world.db, UserId(404), &new_key("k3"), NOW, &entry("x")).await.is_err());
}

#[tokio::test]
async fn of_many_replacements_at_once_one_key_lives() {
    let world = fresh().await;
    let id = user(&world.db, "ada").await;
    let names: Vec<String> = (0..12).map(|n| format!("new-{n}")).collect();
    let replaced = names.iter().map(async |name| {
        keys::replace(&world.db, id, &new_key(name), NOW, &entry("key.replace")).await.unwrap();
    });
    futures_util::future::join_all(replaced).await;
    let mut alive = 0;
    for name in names.iter().map(String::as_str).chain(["ada"]) {
        alive += usize::from(keys::holder(&world.db, &digest(name)).await.unwrap().is_some());
    }
    assert_eq!(alive, 1);
}

#[tokio::test]
async fn the_latest_use_of_a_key_is_kept() {
    let world = fresh().await;
    let id = user(&world.db, "ada").await;
    let key = keys::current(&world.db, id).await.unwrap().unwrap().id;
    keys::touch(&world.db, &[]).await.unwrap();
    keys::touch(&world.db, &[(key, Timestamp(50)), (KeyId(404), Timestamp(1)), (key, Timestamp(60_050))])
        .await
        .unwrap();
    keys::touch(&world.db, &[(key, Timestamp(60)), (key, Timestamp(120_049))]).await.unwrap();
    assert_eq!(keys::current(&world.db, id).await.unwrap().unwrap().last_used_at, Some(Timestamp(60_050)));
}

#[tokio::test]
async fn staff_are_a_world_of_their_own() {
    let world = fresh().await;
    user(&world.db, "ada").await;
    let ada = NewStaff {
        name: "Ada".into(),
        username: "Ada".into(),
        email: "ada@example.com".into(),
        password_hash: "hash".into(),
        staff_level: "support".into(),
    };
    let id = staff::insert(&world.db, &ada, NOW, &entry("staff.create")).await.unwrap();
    let found = staff::by_username(&world.db, "ADA").await.unwrap().unwrap();
    assert_eq!((found.id, found.staff_level.as_str(), found.is_active), (id, "support", true));
    assert!(staff::by_id(&world.db, id).await.unwrap() == Some(found));
    let refused = staff::insert(&world.db, &ada, NOW, &entry("x")).await;
    assert!(matches!(refused, Err(InsertAccount::UsernameTaken | InsertAccount::EmailTaken)), "{refused:?}");
    let same_email = NewStaff { username: "bob".into(), email: "ADA@example.com".into(), ..ada };
    let refused = staff::insert(&world.db, &same_email, NOW, &entry("x")).await;
    assert!(matches!(refused, Err(InsertAccount::EmailTaken)), "{refused:?}");
}

#[tokio::test]
async fn an_admin_is_made_once_and_a_new_password_ends_sessions() {
    let world = fresh().await;
    assert_eq!(admins::count(&world.db).await.unwrap(), 0);
    let id = admins::upsert(&world.db, "admin", "one", NOW).await.unwrap();
    let admin = admins::by_username(&world.db, "Admin").await.unwrap().unwrap();
    assert_eq!((admin.id, admin.password_hash.as_str(), admin.token_version), (id, "one", 0));
    assert_eq!(admins::upsert(&world.db, "ADMIN", "two", NOW).await.unwrap(), id);
    admins::set_password(&world.db, id, "three").await.unwrap();
    let admin = admins::by_id(&world.db, id).await.unwrap().unwrap();
    assert_eq!(
        (admin.username.as_str(), admin.password_hash.as_str(), admin.token_version),
        ("admin", "three", 2)
    );
    assert_eq!(admins::count(&world.db).await.unwrap(), 1);
}
