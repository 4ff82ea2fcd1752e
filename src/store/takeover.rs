//! What staff change of users, and the sign of an account being taken over: one member of staff who
//! gives a user another address and another password within a day.

use std::time::Duration;

use serde_json::{Value, json};

use super::accounts::UpdateAccount;
use super::text::{Json, storable};
use super::users::{self, UserChange};
use super::{Db, Tx, audit};
use crate::clock::Timestamp;
use crate::ids::UserId;

pub mod mark;

/// Address and password changed within this time by one person look like a takeover.
pub const WITHIN: Duration = Duration::from_hours(24);

/// Changes a user as [`users::update`] does, on behalf of staff. When with this change one and the
/// same person has changed both address and password, the record is marked `takeover_suspected`,
/// and the answer is `true`.
///
/// # Errors
/// [`UpdateAccount`]; then nothing was changed.
pub async fn update_by_staff(
    db: &Db,
    id: UserId,
    change: &UserChange,
    mut entry: audit::Entry,
) -> Result<bool, UpdateAccount> {
    let mut tx = db.begin().await?;
    // The user's row is held from here on, so that of two changes at once the later sees the earlier.
    let revoked = users::apply(&mut tx, id, change, entry.at).await?;
    entry.note_revoked(revoked);
    let (mut email, mut password) = (change.email.is_some(), change.password_hash.is_some());
    if email != password {
        for earlier in lately(&mut tx, &entry).await? {
            email |= earlier.email;
            password |= earlier.password;
        }
    }
    let suspected = email && password;
    if suspected && let Value::Object(detail) = &mut entry.detail {
        detail.insert("takeover_suspected".to_owned(), json!(true));
    }
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(suspected)
}

/// What of the two one recorded change was of.
struct Earlier {
    email: bool,
    password: bool,
}

const LATELY: &str = "SELECT detail FROM audit
    WHERE target = $1 AND at > $2 AND actor_kind = $3 AND actor_id = $4 AND action = $5";

/// What the same person changed of the same user lately, by what was recorded.
async fn lately(tx: &mut Tx, entry: &audit::Entry) -> Result<Vec<Earlier>, sqlx::Error> {
    let (kind, id) = entry.actor.columns();
    let since: Timestamp = entry.at.minus(WITHIN);
    let details: Vec<(Json<Value>,)> = on!(tx, within conn => sqlx::query_as(LATELY)
        .bind(storable(&entry.target))
        .bind(since)
        .bind(kind)
        .bind(id)
        .bind(entry.action)
        .fetch_all(conn)
        .await)?;
    let named = |detail: &Value, name: &str| {
        let fields = detail.get("fields").and_then(Value::as_array);
        fields.is_some_and(|fields| fields.iter().any(|field| field == name))
    };
    let read = |(Json(detail),): (Json<Value>,)| Earlier {
        email: named(&detail, "email"),
        password: named(&detail, "password"),
    };
    Ok(details.into_iter().map(read).collect())
}
