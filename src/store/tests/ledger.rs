//! The ledger: it holds whatever the gateway does, and what somebody else does shows.

use sqlx::AssertSqlSafe;

use super::{NOW, fresh, user};
use crate::ids::UserId;
use crate::store::Db;
use crate::store::SlowRead;
use crate::store::ledger::{MOST_TOLD, Question, Verified, verify};

mod explained;
mod plans;
mod removed;
mod repaired;
mod tampered;
mod under_way;

const DAY: i64 = 24 * 60 * 60 * 1000;
/// The day of [`NOW`].
const TODAY: i64 = NOW.0 / DAY;
/// Two runs of the gateway.
const RUNS: [&str; 2] = ["01890000000070008000000000000001", "01890000000070008000000000000002"];

/// Whose balance, and what its row says: allowance, granted, charged, refunded, forfeited.
type Row = (UserId, i64, i64, [i64; 5]);

async fn sql(db: &Db, text: &str) -> u64 {
    on!(db, write pool => sqlx::query(AssertSqlSafe(text.to_owned())).execute(pool).await.unwrap().rows_affected())
}

/// A name of 16 bytes, as this engine writes one.
fn uuid(db: &Db, hex: &str) -> String {
    match db {
        Db::Sqlite { .. } => format!("x'{hex}'"),
        Db::Postgres(_) => format!("'{hex}'"),
    }
}

/// An expression for the name of a row that began at `time`.
fn id_at(db: &Db, time: &str) -> String {
    match db {
        Db::Sqlite { .. } => format!("unhex(printf('%012x', {time}) || hex(randomblob(10)))"),
        Db::Postgres(_) => {
            let random = "substr(md5(random()::text), 1, 20)";
            format!("(lpad(to_hex(CAST({time} AS BIGINT)), 12, '0') || {random})::uuid")
        }
    }
}

/// Writes a balance, the rows of the log it is made of, and leases of `held` units.
async fn keep(db: &Db, (user, day, epoch, columns): Row, held: &[i64]) {
    let [allowance, granted, charged, refunded, forfeited] = columns;
    sql(
        db,
        &format!(
            "INSERT INTO quota (user_id, day, epoch, allowance, granted, charged, refunded, forfeited)
             VALUES ({user}, {day}, {epoch}, {allowance}, {granted}, {charged}, {refunded}, {forfeited})"
        ),
    )
    .await;
    log(db, (user, day, epoch), "charged", charged).await;
    log(db, (user, day, epoch), "refunded", refunded).await;
    for (run, units) in RUNS.iter().zip(held) {
        let run = uuid(db, run);
        let columns = "run_id, user_id, day, epoch, units";
        let lease = format!("INSERT INTO leases ({columns}) VALUES ({run}, {user}, {day}, {epoch}, {units})");
        sql(db, &lease).await;
    }
}

/// Conversations of a day, one each second from ten in the morning on.
async fn log(db: &Db, (user, day, epoch): (UserId, i64, i64), verdict: &str, count: i64) {
    let ten = day * DAY + 10 * DAY / 24;
    let id = id_at(db, &format!("({ten} + i * 1000)"));
    sql(
        db,
        &format!(
            "INSERT INTO exchanges (id, user_id, username, email, request_id, route, call, model,
                research_model, time, status, stream, outcome, verdict, reason, quota_day, quota_epoch,
                latency_ms, bytes_in, bytes_out, usage_source, truncated, client_ip)
             SELECT {id}, {user}, 'ada', 'ada@example.com', 'req_1', '/v1', 'chat', 'm', FALSE, {ten} + i * 1000,
                200, FALSE, 'complete', '{verdict}', 'complete', {day}, {epoch}, 1, 1, 1, 'none', FALSE, ''
             FROM (WITH RECURSIVE n (i) AS
                (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {count})
                SELECT i FROM n) AS numbers WHERE i <= {count}"
        ),
    )
    .await;
}

async fn verified(db: &Db) -> Verified {
    let all = Question { only: None, after: None, patience: None, now: NOW };
    verify(&SlowRead::alone(db), &all).await.unwrap()
}

/// What does not add up: whose, of which day and epoch, what, what it should be, what it is.
type Told = (i64, Option<i64>, Option<i64>, &'static str, i64, i64);

fn told(found: &Verified) -> Vec<Told> {
    let one = |of: &crate::store::ledger::Difference| {
        (of.user.0, of.day, of.epoch, of.what.as_str(), of.expected, of.found)
    };
    found.differences.iter().map(one).collect()
}

/// Two users with three balances that hold: in use, forfeited, given back, over.
async fn balanced(db: &Db, ada: UserId, bob: UserId) {
    for table in ["leases", "quota", "exchanges"] {
        sql(db, &format!("DELETE FROM {table}")).await;
    }
    sql(db, "UPDATE users SET quota_epoch = 1").await;
    keep(db, (ada, TODAY, 1, [10, 8, 3, 2, 1]), &[1, 3]).await;
    keep(db, (ada, TODAY - 1, 0, [10, 1, 1, 0, 0]), &[]).await;
    keep(db, (bob, TODAY, 1, [5, 5, 5, 0, 0]), &[0]).await;
}

#[tokio::test]
async fn an_empty_ledger_holds_and_so_does_one_that_adds_up() {
    let world = fresh().await;
    assert!(verified(&world.db).await.holds());
    let (ada, bob) = (user(&world.db, "ada").await, user(&world.db, "bob").await);
    balanced(&world.db, ada, bob).await;
    let found = verified(&world.db).await;
    assert_eq!(told(&found), []);
    assert_eq!((found.users, found.balances, found.conversations), (2, 3, 11));
    assert_eq!((found.out_of_reach, found.first_day, found.stopped_after), (0, None, None));
}

/// 2,000 users of 100 conversations each.
async fn crowd(db: &Db) {
    const USERS: i64 = 2000;
    user(db, "first").await;
    sql(
        db,
        &format!(
            "INSERT INTO users (username, username_key, name, email, email_key, password_hash, about_me, hobbies,
                kind, time_created, subscription_plan, credits_main, credits_reset, access_rtype, level,
                additional_notes, is_active, allowed_ips, updated_at)
             SELECT 'u' || i, 'u' || i, '', 'u' || i, 'u' || i, '', '', '', 'Personal', 0, 'free', 0, 0, '[]', '',
                '', TRUE, '[]', 0
             FROM (WITH RECURSIVE n (i) AS
                (SELECT CAST(2 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {USERS})
                SELECT i FROM n) AS numbers"
        ),
    )
    .await;
    sql(
        db,
        &format!(
            "INSERT INTO quota (user_id, day, epoch, allowance, granted, charged, refunded, forfeited)
             SELECT id, {TODAY}, 0, 100, 90, 90, 10, 0 FROM users"
        ),
    )
    .await;
    log(db, (UserId(1), TODAY, 0), "charged", 90).await;
    log(db, (UserId(1), TODAY, 0), "refunded", 10).await;
    let id = id_at(db, "e.time");
    let columns = "username, email, request_id, route, call, model, research_model, time, status, stream, outcome,
        verdict, reason, quota_day, quota_epoch, latency_ms, bytes_in, bytes_out, usage_source, truncated, client_ip";
    let of_each =
        columns.split(',').map(|column| format!("e.{}", column.trim())).collect::<Vec<_>>().join(", ");
    let copied = sql(
        db,
        &format!(
            "INSERT INTO exchanges (id, user_id, {columns})
             SELECT {id}, u.id, {of_each} FROM exchanges e CROSS JOIN users u WHERE u.id > 1"
        ),
    )
    .await;
    assert_eq!(copied, 199_900);
}

#[tokio::test]
async fn two_hundred_thousand_rows_are_walked_at_once_and_in_parts() {
    let world = fresh().await;
    crowd(&world.db).await;
    let whole = verified(&world.db).await;
    assert!(whole.holds(), "{:?}", told(&whole));
    assert_eq!((whole.users, whole.conversations), (2000, 200_000));

    sql(&world.db, "UPDATE quota SET refunded = 11 WHERE user_id % 4 <> 0").await;
    let wrong = verified(&world.db).await;
    assert_eq!((wrong.total, wrong.differences.len()), (1500, MOST_TOLD));
    assert_eq!(told(&wrong)[0], (1, Some(TODAY), Some(0), "refunded", 10, 11));

    let mut question =
        Question { only: None, after: None, patience: Some(std::time::Duration::from_mins(1)), now: NOW };
    let whole = verify(&SlowRead::alone(&world.db), &question).await.unwrap();
    assert_eq!((whole.total, whole.stopped_after), (1500, None));
    // Out of patience after each page, the walk goes on where it stopped and misses nobody.
    let (mut users, mut total, mut parts) = (0, 0, 0);
    question.patience = Some(std::time::Duration::ZERO);
    loop {
        let part = verify(&SlowRead::alone(&world.db), &question).await.unwrap();
        (users, total, parts) = (users + part.users, total + part.total, parts + 1);
        question.after = part.stopped_after;
        if question.after.is_none() {
            break;
        }
    }
    assert_eq!((users, total), (2000, 1500));
    assert!(parts > 10, "{parts}");
}

#[tokio::test]
async fn one_user_is_looked_at_alone() {
    let world = fresh().await;
    let (ada, bob) = (user(&world.db, "ada").await, user(&world.db, "bob").await);
    balanced(&world.db, ada, bob).await;
    sql(&world.db, &format!("UPDATE quota SET charged = 4 WHERE user_id = {bob}")).await;
    let of = async |user| {
        let question = Question { only: Some(user), after: None, patience: None, now: NOW };
        verify(&SlowRead::alone(&world.db), &question).await.unwrap()
    };
    let (found, other) = (of(ada).await, of(bob).await);
    assert_eq!((found.users, found.balances, found.total), (1, 2, 0));
    assert_eq!((other.users, other.balances, other.total), (1, 1, 2));
    assert_eq!(of(UserId(404)).await.users, 0);
}
