//! What is kept of calls that cost nothing has an end; their rows have none.

use super::{Place, Run, answer, end, free};
use crate::chatlog::{Begin, End};
use crate::ids::{ExchangeId, UserId};
use crate::store::exchanges::{Exchange, Verdict};
use crate::store::tests::exchange;

const BODY: &[u8] = br#"{"messages":[{"role":"user","content":"0123456789012345678901234567890123456789"}]}"#;

fn chat(run: &Run, begin: &Begin<'_>, end: &End) -> ExchangeId {
    let mut here = run.log.scribe().place().unwrap();
    let id = here.id();
    here.begin(begin, BODY).unwrap();
    let said = b"data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";
    here.end(
        &End { rest: said.len() as u64, head: said.len() as u64, answer: Some(answer()), ..end.clone() },
        said,
        &[],
    );
    id
}

/// Whether the question was kept, the answer, and whether the row says that it is cut.
async fn kept(place: &Place, id: ExchangeId) -> (bool, bool, bool) {
    let row = place.row(id).await.expect("there is always a row");
    (row.messages.is_some(), row.answer.is_some(), row.truncated)
}

#[tokio::test]
async fn beyond_a_users_budget_the_row_is_kept_and_says_that_it_is_cut() {
    let place = Place::new().await;
    let two = 2 * (BODY.len() as u64 + 60);
    let run = place.run_with(|log| log.max_free_per_user = two);
    let ann: Vec<_> = (0..4).map(|_| chat(&run, &place.begin(), &free())).collect();
    let bob = Begin { user: UserId(place.ann.0 + 1), ..place.begin() };
    let bobs = chat(&run, &bob, &free());
    run.log.flush().await;
    assert_eq!(kept(&place, ann[0]).await, (true, true, false));
    assert_eq!(kept(&place, ann[3]).await, (false, false, true));
    assert_eq!(kept(&place, bobs).await, (true, true, false));
    let told = Exchange { user_id: Some(place.ann), ..exchange(7) };
    run.log.log(&told).await.unwrap();
    run.stop().await;
    assert_eq!(place.row(told.id).await.unwrap(), Exchange { truncated: true, ..told.without_texts() });

    let run = place.run_with(|log| log.max_free_per_user = two);
    let after = chat(&run, &place.begin(), &free());
    let never_sent = run.log.scribe().place().unwrap();
    let unsent = never_sent.id();
    never_sent.end_unbegun(&place.begin(), BODY, &End { answer: None, ..free() });
    run.stop().await;
    assert_eq!(kept(&place, after).await, (false, false, true), "a restart goes on with it");
    assert_eq!(kept(&place, unsent).await, (false, false, true));
}

#[tokio::test]
async fn a_conversation_that_is_charged_is_kept_and_one_that_is_given_back_counts() {
    let place = Place::new().await;
    let run = place.run_with(|log| log.max_free_per_user = BODY.len() as u64 + 60);
    let begin = Begin { ledger: Some((20_727, 0)), ..place.begin() };
    let back = End { verdict: Verdict::Refunded, ..end() };
    let first = chat(&run, &begin, &back);
    let charged = chat(&run, &begin, &end());
    let second = chat(&run, &begin, &back);
    run.stop().await;
    assert_eq!(kept(&place, first).await, (true, true, false));
    assert_eq!(kept(&place, charged).await, (true, true, false));
    assert_eq!(kept(&place, second).await, (false, false, true));
    let row = place.row(second).await.unwrap();
    assert_eq!((row.verdict, row.status, place.files()), (Verdict::Refunded, Some(200), 0));
}
