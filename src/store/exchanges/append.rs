//! Writing rows, and with them what they used of the days: one transaction, and harmless twice.

use std::collections::{BTreeMap, HashSet};

use sqlx::QueryBuilder;

use super::{Exchange, Verdict, columns, said};
use crate::ids::{ExchangeId, RunId, UserId};
use crate::store::connections::{SILENCE_OF_BATCH, within};
use crate::store::leases::{Used, charge};
use crate::store::text::storable;
use crate::store::{Db, StoreError, Tx, webhooks};

/// Rows of one statement: 33 values each, where SQLite takes 32,766 and PostgreSQL 65,535.
const BATCH_ROWS: usize = 500;
/// Bytes of text after which a statement takes no further row, lest the writer be held for long.
const BATCH_BYTES: usize = 4 << 20;

/// What the rows of a batch say of one day.
#[derive(Default)]
struct Day<'a> {
    charged: i64,
    refunded: i64,
    /// Rows of conversations whose end nobody saw, charged if there is a unit for them.
    unseen: Vec<&'a Exchange>,
}

/// Writes `rows` of a run, a batch at a time, and moves what it used from its leases to what is charged.
/// Rows that were written before are passed over, so after an error everything may simply be given again.
/// Answers how many were new.
///
/// A charged row whose [end nobody saw](super::UNSEEN) is turned into a refunded one where the run holds
/// no unit for it: then its unit had been given back and was used again, and the record that said so is
/// lost. Such rows must come after all others of their run.
///
/// # Errors
/// [`StoreError`], when the database does not do it. Earlier batches may have been written.
pub async fn append(db: &Db, run: RunId, rows: &[Exchange]) -> Result<u64, StoreError> {
    let mut inserted = 0;
    let mut rest = rows;
    while let Some((batch, later)) =
        rest.split_at_checked(batch_len(rest)).filter(|(batch, _)| !batch.is_empty())
    {
        inserted += match db {
            Db::Sqlite { .. } => append_batch(db, run, batch).await?,
            Db::Postgres(_) => within(SILENCE_OF_BATCH, append_batch(db, run, batch)).await?,
        };
        rest = later;
    }
    Ok(inserted)
}

/// How many rows the next statement takes: one at least, while there are any.
fn batch_len(rows: &[Exchange]) -> usize {
    let mut bytes = 0;
    let fits = |row: &&Exchange| {
        let fits = bytes < BATCH_BYTES;
        bytes += said(row);
        fits
    };
    rows.iter().take(BATCH_ROWS).take_while(fits).count()
}

async fn append_batch(db: &Db, run: RunId, rows: &[Exchange]) -> Result<u64, StoreError> {
    let mut tx = db.begin().await?;
    let mut new: HashSet<ExchangeId> = insert(&mut tx, rows).await?.into_iter().collect();
    let inserted = new.len() as u64;
    let mut news = webhooks::News::open(&mut tx).await?;
    // Counted only when really inserted, and once though a batch may hold a row twice. In one order
    // everywhere, so that two nodes never wait for each other.
    let rows: Vec<&Exchange> = rows.iter().filter(|row| new.remove(&row.id)).collect();
    let mut returned = HashSet::new();
    for ((user, day, epoch), mut of) in days(&rows) {
        // Rather one that was answered than one that may have failed.
        of.unseen.sort_by_key(|row| row.status.is_none_or(|status| status >= 400));
        let unseen = i64::try_from(of.unseen.len()).unwrap_or(i64::MAX);
        let used = Used { charged: of.charged, unseen, refunded: of.refunded };
        let Some(charged) = charge(&mut tx, run, (user, day, epoch), used).await? else { continue };
        let covered = usize::try_from(charged.unseen).unwrap_or(0);
        returned.extend(of.unseen.into_iter().skip(covered).map(|row| row.id));
        let is_charged = |row: &&&Exchange| row.charges((user, day, epoch)) && !returned.contains(&row.id);
        // Only one charge of a day goes over its limit, so this is told once.
        if charged.is_used_up
            && let Some(row) = rows.iter().find(is_charged)
        {
            news.used_up(row, day, charged.allowance);
        }
    }
    for id in &returned {
        on!(&mut tx, within conn => sqlx::query(RETURNED).bind(id).execute(conn).await.map(|_| ()))?;
    }
    for row in rows {
        if returned.contains(&row.id) {
            news.logged(&Exchange { verdict: Verdict::Refunded, ..row.clone() });
        } else {
            news.logged(row);
        }
    }
    news.publish(&mut tx).await?;
    tx.commit().await?;
    Ok(inserted)
}

fn days<'a>(rows: &[&'a Exchange]) -> BTreeMap<(UserId, i64, i64), Day<'a>> {
    let mut days = BTreeMap::<_, Day<'a>>::new();
    for row in rows {
        let Some(day) = row.day() else { continue };
        let day = days.entry(day).or_default();
        match row.verdict {
            Verdict::Charged if row.is_unseen() => day.unseen.push(row),
            Verdict::Charged => day.charged += 1,
            Verdict::Refunded | Verdict::Free => day.refunded += 1,
        }
    }
    days
}

const RETURNED: &str = "UPDATE exchanges SET verdict = 'refunded' WHERE id = $1";
const INSERT: &str = concat!("INSERT INTO exchanges (", columns!(), ") ");

/// The names of those that were not there. Only placeholders are added to the text.
async fn insert(tx: &mut Tx, rows: &[Exchange]) -> Result<Vec<ExchangeId>, sqlx::Error> {
    on!(tx, within conn => {
        let mut query = QueryBuilder::new(INSERT);
        query.push_values(rows, |mut values, row| {
            values
                .push_bind(row.id)
                .push_bind(row.user_id)
                .push_bind(row.key_id)
                .push_bind(storable(&row.username))
                .push_bind(storable(&row.email))
                .push_bind(storable(&row.request_id))
                .push_bind(storable(&row.route))
                .push_bind(storable(&row.call))
                .push_bind(storable(&row.model))
                .push_bind(row.messages.as_deref().map(storable))
                .push_bind(row.answer.as_deref().map(storable))
                .push_bind(row.research_model)
                .push_bind(row.time)
                .push_bind(row.status)
                .push_bind(row.stream)
                .push_bind(storable(&row.outcome))
                .push_bind(row.verdict.as_str())
                .push_bind(storable(&row.reason))
                .push_bind(row.quota_day)
                .push_bind(row.quota_epoch)
                .push_bind(row.first_byte_ms)
                .push_bind(row.latency_ms)
                .push_bind(row.bytes_in)
                .push_bind(row.bytes_out)
                .push_bind(row.prompt_tokens)
                .push_bind(row.completion_tokens)
                .push_bind(row.total_tokens)
                .push_bind(row.cached_tokens)
                .push_bind(row.reasoning_tokens)
                .push_bind(storable(&row.usage_source))
                .push_bind(row.finish_reason.as_deref().map(storable))
                .push_bind(row.truncated)
                .push_bind(storable(&row.client_ip));
        });
        query.push(" ON CONFLICT (id) DO NOTHING RETURNING id");
        query.build_query_scalar().persistent(false).fetch_all(conn).await
    })
}
