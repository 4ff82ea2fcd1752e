//! Deleting, restoring, erasing.

use serde_json::json;

use super::{NOW, RUN, digest, entry, exchange, fresh, new_key, take, user};
use crate::clock::Timestamp;
use crate::ids::{StaffId, UserId};
use crate::store::SlowRead;
use crate::store::audit::{self, Actor, Entry};
use crate::store::deleted::{self, RestoreUser, Return};
use crate::store::exchanges::{self, Exchange, Filter, Verdict};
use crate::store::users::UserChange;
use crate::store::{Db, carried, keys, quota, takeover, users};

/// Tables with a column that says of whom a row is, which are no belongings of a user.
const NOT_OF_A_LIVING_USER: [&str; 4] = ["deleted_users", "exchanges", "usage_daily", "webhook_queue"];

const OF_SOMEBODY_SQLITE: &str =
    "SELECT DISTINCT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c
    WHERE m.type = 'table' AND c.name IN ('user_id', 'subject')";
const OF_SOMEBODY_POSTGRES: &str = "SELECT DISTINCT table_name::text FROM information_schema.columns
    WHERE table_schema = 'public' AND column_name IN ('user_id', 'subject')";

fn back(key: &str) -> Return {
    Return { username: None, email: None, password_hash: "$2b$12$new".into(), key: new_key(key) }
}

#[tokio::test]
async fn everything_of_a_user_goes_with_them() {
    let world = fresh().await;
    let tables: Vec<String> = match &world.db {
        Db::Sqlite { readers, .. } => {
            sqlx::query_scalar(OF_SOMEBODY_SQLITE).fetch_all(readers).await.unwrap()
        }
        Db::Postgres(pool) => sqlx::query_scalar(OF_SOMEBODY_POSTGRES).fetch_all(pool).await.unwrap(),
    };
    for table in tables.iter().filter(|table| !NOT_OF_A_LIVING_USER.contains(&table.as_str())) {
        let emptied =
            deleted::BELONGINGS.iter().any(|text| text.starts_with(&format!("DELETE FROM {table} ")));
        assert!(emptied, "{table} keeps rows of deleted users: name it in BELONGINGS");
    }
}

#[tokio::test]
async fn who_is_deleted_leaves_no_key_and_no_quota_and_comes_back_as_they_were() {
    let world = fresh().await;
    let id = user(&world.db, "ada").await;
    take(&world.db, id, 100, 10, 3).await.unwrap();
    let before = users::by_id(&world.db, id).await.unwrap().unwrap();
    let by = Entry { actor: Actor::Staff(StaffId(3)), actor_name: "tom".into(), ..entry("user.delete") };
    assert!(deleted::delete(&world.db, id, &carried::Names::default(), &by).await.unwrap());
    assert!(!deleted::delete(&world.db, id, &carried::Names::default(), &by).await.unwrap());
    assert!(users::by_id(&world.db, id).await.unwrap().is_none());
    assert!(keys::holder(&world.db, &digest("ada")).await.unwrap().is_none());
    assert!(take(&world.db, id, 100, 10, 1).await.is_none());
    let kept = deleted::by_id(&world.db, id).await.unwrap().unwrap();
    assert_eq!(
        (kept.deleted_by.as_str(), kept.deleted_at, kept.username.as_str()),
        ("staff:tom", NOW, "ada")
    );

    deleted::restore(&world.db, &kept, &back("k2"), &entry("user.restore")).await.unwrap();
    let after = users::by_id(&world.db, id).await.unwrap().unwrap();
    let expected = users::User {
        password_hash: "$2b$12$new".into(),
        token_version: before.token_version + 1,
        quota_epoch: before.quota_epoch + 1,
        ..before
    };
    assert!(after == expected);
    assert_eq!(keys::holder(&world.db, &digest("k2")).await.unwrap().unwrap().user, id);
    assert_eq!(quota::left(&world.db, id, 100, 10).await.unwrap().unwrap().left, 10);
    let twice = deleted::restore(&world.db, &kept, &back("k3"), &entry("x")).await;
    assert!(matches!(twice, Err(RestoreUser::NotFound)), "{twice:?}");
    // A new user never gets a number that was somebody's.
    assert!(user(&world.db, "eve").await > id);
}

#[tokio::test]
async fn a_taken_name_and_a_taken_address_keep_somebody_from_coming_back() {
    let world = fresh().await;
    let id = user(&world.db, "ada").await;
    deleted::delete(&world.db, id, &carried::Names::default(), &entry("user.delete")).await.unwrap();
    user(&world.db, "Ada").await;
    let kept = deleted::by_id(&world.db, id).await.unwrap().unwrap();
    let taken = deleted::restore(&world.db, &kept, &back("k2"), &entry("x")).await;
    assert!(matches!(taken, Err(RestoreUser::UsernameTaken | RestoreUser::EmailTaken)), "{taken:?}");
    let renamed = Return { username: Some("ada2".into()), ..back("k2") };
    let taken = deleted::restore(&world.db, &kept, &renamed, &entry("x")).await;
    assert!(matches!(taken, Err(RestoreUser::EmailTaken)), "{taken:?}");
    assert!(deleted::by_id(&world.db, id).await.unwrap() == Some(kept.clone()), "nothing was touched");
    let renamed = Return { email: Some("ADA2@example.com".into()), ..renamed };
    deleted::restore(&world.db, &kept, &renamed, &entry("user.restore")).await.unwrap();
    let ada2 = users::by_email(&world.db, "ada2@example.com").await.unwrap().unwrap();
    assert_eq!((ada2.id, ada2.username.as_str()), (id, "ada2"));
}

#[tokio::test]
async fn an_erased_user_is_nowhere_and_the_ledger_stands() {
    let world = fresh().await;
    let (ada, bob) = (user(&world.db, "ada").await, user(&world.db, "bob").await);
    let charged = |user: UserId, n: i64| Exchange {
        user_id: Some(user),
        verdict: Verdict::Charged,
        quota_day: Some(100),
        quota_epoch: Some(0),
        ..exchange(n)
    };
    let rows: Vec<Exchange> =
        (0..1200).map(|n| charged(ada, n)).chain((0..3).map(|n| charged(bob, n))).collect();
    exchanges::append(&world.db, RUN, &rows).await.unwrap();
    assert_eq!(deleted::erase(&world.db, ada, 2, "p", &entry("x")).await.unwrap(), None, "still here");
    assert!(deleted::is_here(&world.db, ada).await.unwrap());
    deleted::delete(&world.db, ada, &carried::Names::default(), &entry("user.delete")).await.unwrap();
    assert!(!deleted::is_here(&world.db, ada).await.unwrap());
    let mut names = deleted::names(&world.db, ada).await.unwrap();
    names.sort();
    assert_eq!(names, ["ada", "ada", "ada@Example.com", "ada@example.com"]);
    assert_eq!(deleted::erase(&world.db, ada, 2, "p", &entry("user.erase")).await.unwrap(), Some(1200));
    assert_eq!(deleted::erase(&world.db, ada, 0, "p", &entry("x")).await.unwrap(), None);
    let listed = exchanges::list(&SlowRead::alone(&world.db), &Filter { limit: 2000, ..Filter::default() })
        .await
        .unwrap()
        .rows;
    let (theirs, others): (Vec<_>, Vec<_>) = listed.iter().partition(|row| row.username == "erased");
    assert_eq!((theirs.len(), others.len()), (1200, 3));
    for row in &theirs {
        assert_eq!(
            (row.user_id, row.key_id, row.email.as_str(), row.client_ip.as_str()),
            (None, None, "", "")
        );
        assert_eq!(
            (&row.messages, &row.answer, row.verdict, row.quota_day),
            (&None, &None, Verdict::Charged, Some(100))
        );
    }
    assert!(others.iter().all(|row| row.user_id == Some(bob) && row.messages.is_some()));
    let proofs: Vec<(String, i64, i64)> = on!(&world.db, read pool =>
        sqlx::query_as("SELECT proof, exchanges, files FROM erasures").fetch_all(pool).await)
    .unwrap();
    assert_eq!(proofs, [("p".to_owned(), 1200, 2)]);
    // What stopped half-way goes on.
    exchanges::append(&world.db, RUN, &[charged(ada, 5)]).await.unwrap();
    assert_eq!(deleted::erase(&world.db, ada, 2, "p", &entry("user.erase")).await.unwrap(), Some(1));
}

#[tokio::test]
async fn a_deletion_without_its_record_never_happened() {
    let world = fresh().await;
    let id = user(&world.db, "ada").await;
    let gone = user(&world.db, "bob").await;
    deleted::delete(&world.db, gone, &carried::Names::default(), &entry("user.delete")).await.unwrap();
    let kept = deleted::by_id(&world.db, gone).await.unwrap().unwrap();
    on!(&world.db, write pool => sqlx::query("ALTER TABLE audit RENAME TO elsewhere").execute(pool).await.map(|_| ()))
        .unwrap();
    assert!(deleted::delete(&world.db, id, &carried::Names::default(), &entry("x")).await.is_err());
    assert!(deleted::restore(&world.db, &kept, &back("k2"), &entry("x")).await.is_err());
    assert!(deleted::erase(&world.db, gone, 2, "p", &entry("x")).await.is_err());
    assert!(deleted::purge(&world.db, Timestamp(NOW.0 + 1), NOW).await.is_err());
    assert!(users::by_id(&world.db, id).await.unwrap().is_some());
    assert!(keys::holder(&world.db, &digest("ada")).await.unwrap().is_some());
    assert_eq!(deleted::list(&SlowRead::alone(&world.db), 9, 0).await.unwrap().rows, [kept]);
}

#[tokio::test]
async fn deleting_and_spending_at_once_end_in_order() {
    let world = fresh().await;
    for round in 0..10 {
        let id = user(&world.db, &format!("ada{round}")).await;
        let spending = (0..8).map(|_| take(&world.db, id, 100, 10, 1));
        let entry = entry("user.delete");
        let names = carried::Names::default();
        let deleting = deleted::delete(&world.db, id, &names, &entry);
        let (gone, _) = futures_util::join!(deleting, futures_util::future::join_all(spending));
        assert!(gone.unwrap(), "round {round}");
        assert!(users::by_id(&world.db, id).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_takeover_is_one_person_two_changes_and_one_day() {
    let world = fresh().await;
    let id = user(&world.db, "ada").await;
    let address = |to: &str| UserChange { email: Some(to.into()), ..UserChange::default() };
    let password = UserChange { password_hash: Some("$2b$".into()), ..UserChange::default() };
    let change = async |change: &UserChange, fields: &str, staff: i64, at: i64| {
        let actor = Actor::Staff(StaffId(staff));
        let detail = json!({ "fields": [fields] });
        let entry = Entry { actor, detail, target: "ada".into(), at: Timestamp(at), ..entry("user.update") };
        takeover::update_by_staff(&world.db, id, change, entry).await.unwrap()
    };
    let day = i64::try_from(takeover::WITHIN.as_millis()).unwrap();
    assert!(!change(&address("a@example.com"), "email", 1, 0).await);
    assert!(!change(&password, "password", 2, 1).await);
    assert!(!change(&password, "password", 1, day).await);
    assert!(change(&address("b@example.com"), "email", 1, day + 1).await);
    let row = audit::list(&SlowRead::alone(&world.db), 1, 0).await.unwrap().rows.remove(0);
    assert_eq!(row.detail, json!({"fields": ["email"], "takeover_suspected": true}));
}

#[tokio::test]
async fn a_day_is_carried_to_the_next_account_of_a_name_and_no_further() {
    let world = fresh().await;
    let names = |digests: &[&str]| carried::Names {
        digests: digests.iter().map(ToString::to_string).collect(),
        since: 100,
    };
    let beginning = |one: &str, two: &str| {
        Some(carried::Beginning { digests: [one.into(), two.into()], day: 100, allowance: 10 })
    };
    let ada = user(&world.db, "ada").await;
    for (day, units) in [(99, 5), (100, 3)] {
        take(&world.db, ada, day, 50, units).await.unwrap();
    }
    assert!(deleted::delete(&world.db, ada, &names(&["ada", "ada@"]), &entry("user.delete")).await.unwrap());
    let cases = [("ada", "new@", 7), ("new", "ada@", 7), ("new", "new@", 10)];
    for (number, (username, email, left)) in cases.into_iter().enumerate() {
        let name = format!("next{number}");
        let new = users::NewUser { beginning: beginning(username, email), ..super::new_user(&name) };
        let id = users::insert(&world.db, &new, &new_key(&name), NOW, &entry("user.register")).await.unwrap();
        assert_eq!(
            quota::left(&world.db, id, 100, 10).await.unwrap().unwrap().left,
            left,
            "{username} {email}"
        );
        assert_eq!(quota::left(&world.db, id, 101, 10).await.unwrap().unwrap().left, 10, "tomorrow");
    }
    super::balances(&world.db).await;
    assert_eq!(carried::prune(&world.db, 100).await.unwrap(), 0);
    assert_eq!(carried::prune(&world.db, 101).await.unwrap(), 2);
}
