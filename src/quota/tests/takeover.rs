//! Runs that another process ends, and copies of a node's folder.

use std::time::Duration;

use futures_util::future::join_all;

use super::{BOOT, Day, Node, balances, is_used_up, row};
use crate::quota::{Reservation, Verdict};
use crate::store::exchanges;
use crate::store::runs::{self, Fate};

/// As another process ends a run whose heartbeat has stopped.
async fn end_of(node: &Node) {
    loop {
        let pulses = runs::pulses(&node.db).await.unwrap();
        let pulse = pulses.iter().find(|pulse| pulse.id == node.run.id).unwrap();
        if runs::fence(&node.db, pulse, node.run.started_at).await.unwrap() {
            break;
        }
    }
    runs::close(&node.db, node.run.id, Fate::Forfeited).await.unwrap();
}

async fn all_that_pass(day: &Day, node: &Node) -> Vec<Reservation> {
    let mut kept = Vec::new();
    while let Ok(reservation) = node.quota.reserve(day.user, &day.allowance).await {
        kept.push(reservation);
    }
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_run_was_ended_spends_none_of_its_units_and_goes_on_under_a_new_run() {
    let mut day = Day::of(40).await;
    for _ in 0..6 {
        day.converse(Verdict::Charged).await.unwrap();
    }
    let open = join_all((0..3).map(|_| day.reserve())).await;
    let before = balances(&day.database.db).await.remove(0);
    assert!(before.held > 9, "6 used, 3 in use, some in hand: {before:?}");
    let rows = std::mem::take(&mut day.node.rows);
    // The process is suspended; another one takes its leases over; it wakes.
    end_of(&day.node).await;
    day.clock.advance(Duration::from_secs(30));
    exchanges::append(&day.database.db, day.node.run.id, &rows).await.unwrap();

    let kept = all_that_pass(&day, &day.node).await;
    assert_eq!(i64::try_from(kept.len()).unwrap(), 40 - before.granted);
    // What it had in use then goes back to no one.
    drop(open);
    assert!(is_used_up(&day.reserve().await));
    let after = balances(&day.database.db).await.remove(0);
    assert_eq!((after.granted, after.charged), (40, 6));
    assert_eq!(after.forfeited, before.granted - 6);
    assert_ne!(day.node.quota.run(), day.node.run.id);
    // Under the new run everything is as usual.
    drop(kept);
    day.clock.advance(Duration::from_secs(6));
    day.node.tidy().await;
    assert_eq!(balances(&day.database.db).await[0].granted, before.granted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_live_nodes_folder_takes_nothing_from_it() {
    let day = Day::of(200).await;
    let mut kept: Vec<Reservation> = Vec::new();
    for _ in 0..20 {
        kept.push(day.reserve().await.unwrap());
    }
    let copy = Node::start_in_folder(&day.database.db, &day.clock, ("node", BOOT), "a copy").await;
    let watched = copy.quota.look_at_earlier().await;
    assert_eq!(watched.len(), 1, "the run may be alive");
    // Both go on meanwhile: nothing is refused to users.
    kept.push(copy.quota.reserve(day.user, &day.allowance).await.unwrap());
    assert_eq!(copy.quota.watch_earlier(watched).await, [day.node.run.id]);
    copy.quota.recover().await;
    for node in [&day.node, &copy] {
        kept.extend(all_that_pass(&day, node).await);
        day.clock.advance(Duration::from_secs(6));
        node.tidy().await;
    }
    kept.extend(all_that_pass(&day, &day.node).await);
    assert_eq!(kept.len(), 200);
    let row = balances(&day.database.db).await.remove(0);
    assert_eq!((row.granted, row.held, row.forfeited), (200, 200, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_on_another_folder_is_taken_over_when_its_heartbeat_is_stale_and_its_units_are_forfeited() {
    let mut day = Day::of(100).await;
    for _ in 0..6 {
        day.converse(Verdict::Charged).await.unwrap();
    }
    let rows = std::mem::take(&mut day.node.rows);
    let (killed, held) = (day.node.run.id, balances(&day.database.db).await[0].held);
    day.node = Node::start_in_folder(&day.database.db, &day.clock, ("node", BOOT), "a copy").await;
    let watched = day.node.quota.look_at_earlier().await;
    assert_eq!(watched.len(), 1);
    assert_eq!(day.node.quota.watch_earlier(watched).await, []);
    exchanges::append(&day.database.db, killed, &rows).await.unwrap();
    day.node.quota.recover().await;
    let row = balances(&day.database.db).await.remove(0);
    assert_eq!((row.charged, row.forfeited, row.held), (6, held - 6, 0));
}

#[tokio::test]
async fn a_run_on_this_very_folder_is_taken_over_at_once() {
    let mut day = Day::of(100).await;
    day.reserve().await.unwrap();
    day.node = Node::start_in_front_of_recovery(&day.database.db, &day.clock, "node", BOOT).await;
    assert!(day.node.quota.look_at_earlier().await.is_empty());
    day.node.quota.recover().await;
    let row = balances(&day.database.db).await.remove(0);
    assert_eq!((row.granted, row.forfeited, row.held), (0, 0, 0));
}

#[tokio::test]
async fn a_row_of_a_killed_run_that_another_process_has_ended_is_charged_all_the_same() {
    let day = Day::of(10).await;
    let mut open = day.reserve().await.unwrap();
    open.dispatched();
    let row = row(day.user, open.ledger(), Verdict::Charged);
    end_of(&day.node).await;
    exchanges::append(&day.database.db, day.node.run.id, &[row]).await.unwrap();
    let day = balances(&day.database.db).await.remove(0);
    assert_eq!(day.charged, 1);
}
