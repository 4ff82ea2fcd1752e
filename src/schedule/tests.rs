//! Once, caught up with, never twice at a time: on the clock of the test.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono_tz::Tz;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::{Job, NotRun, Reach, Schedule, When};
use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::store::Db;
use crate::store::tests::{Fresh, fresh};

/// 2026-10-01T10:00:00Z
const TEN: Timestamp = Timestamp(1_790_848_800_000);
const DAY: Duration = Duration::from_hours(24);

/// Counts its runs; each waits for a permit before it ends.
#[derive(Clone)]
struct Counter {
    begun: Arc<AtomicUsize>,
    may_end: Arc<Semaphore>,
}

impl Counter {
    fn new(permits: usize) -> Self {
        Self { begun: Arc::default(), may_end: Arc::new(Semaphore::new(permits)) }
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn schedule(&self, db: &Db, clock: &Clock, reach: Reach) -> Schedule {
        let counter = self.clone();
        let work = move || {
            let counter = counter.clone();
            let run: super::BoxFuture<'static, _> = Box::pin(async move {
                counter.begun.fetch_add(1, Ordering::SeqCst);
                counter.may_end.acquire().await?.forget();
                Ok("done".to_owned())
            });
            run
        };
        let job = Job {
            name: "count",
            about: "counts",
            when: When::cron("0 1 * * *").unwrap(),
            reach,
            work: Box::new(work),
        };
        let background = Background::new(Handle::current());
        Schedule::new(db.clone(), &background, clock.clone(), Tz::UTC, vec![job])
    }
}

/// Ticks until every run that a tick began has ended.
async fn settle(schedule: &Schedule) {
    schedule.tick().await;
    schedule.tick().await;
    while schedule.0.entries[0].state().running {
        tokio::task::yield_now().await;
    }
}

async fn world() -> (Fresh, Clock) {
    (fresh().await, Clock::manual(TEN))
}

#[tokio::test]
async fn what_was_missed_happens_at_start_once_and_then_it_waits_for_its_hour() {
    let (world, clock) = world().await;
    let counter = Counter::new(100);
    let schedule = counter.schedule(&world.db, &clock, Reach::Fleet);
    settle(&schedule).await;
    settle(&schedule).await;
    assert_eq!(counter.begun(), 1);
    let standing = schedule.standing().await.unwrap().remove(0);
    let run = standing.last_run.unwrap();
    assert_eq!((run.due_at.to_string().as_str(), run.ok), ("2026-10-01T01:00:00Z", Some(true)));
    assert_eq!((run.result.as_deref(), run.by_hand), (Some("done"), false));
    assert_eq!(standing.next_run.to_string(), "2026-10-02T01:00:00Z");
    clock.set(Timestamp(standing.next_run.0 - 1));
    settle(&schedule).await;
    assert_eq!(counter.begun(), 1);
    clock.advance(Duration::from_secs(11));
    settle(&schedule).await;
    assert_eq!(counter.begun(), 2);
}

#[tokio::test]
async fn several_days_asleep_are_one_run_and_a_new_start_knows_of_it() {
    let (world, clock) = world().await;
    let counter = Counter::new(100);
    let schedule = counter.schedule(&world.db, &clock, Reach::Fleet);
    settle(&schedule).await;
    clock.advance(DAY * 5);
    for _ in 0..3 {
        settle(&schedule).await;
    }
    assert_eq!(counter.begun(), 2);
    let again = counter.schedule(&world.db, &clock, Reach::Fleet);
    settle(&again).await;
    assert_eq!(counter.begun(), 2);
    clock.advance(DAY * 5);
    let later = counter.schedule(&world.db, &clock, Reach::Fleet);
    settle(&later).await;
    settle(&later).await;
    assert_eq!(counter.begun(), 3);
}

#[tokio::test]
async fn of_several_nodes_one_runs_it_for_all() {
    let (world, clock) = world().await;
    let counter = Counter::new(100);
    let nodes: Vec<_> = (0..4).map(|_| counter.schedule(&world.db, &clock, Reach::Fleet)).collect();
    for day in 1..=5 {
        futures_util::future::join_all(nodes.iter().map(settle)).await;
        // A claim that met another's run is looked at again.
        clock.advance(Duration::from_mins(1));
        futures_util::future::join_all(nodes.iter().map(settle)).await;
        assert_eq!(counter.begun(), day);
        clock.advance(DAY);
    }
}

#[tokio::test]
async fn each_node_runs_its_own_and_misses_nothing_before_its_start() {
    let (world, clock) = world().await;
    let counter = Counter::new(100);
    let nodes: Vec<_> = (0..2).map(|_| counter.schedule(&world.db, &clock, Reach::Node)).collect();
    futures_util::future::join_all(nodes.iter().map(settle)).await;
    assert_eq!(counter.begun(), 0);
    clock.advance(DAY);
    futures_util::future::join_all(nodes.iter().map(settle)).await;
    assert_eq!(counter.begun(), 2);
    assert_eq!(nodes[0].standing().await.unwrap()[0].last_run.as_ref().unwrap().ok, Some(true));
}

#[tokio::test]
async fn a_run_that_takes_long_is_not_overtaken_by_hour_nor_by_hand_nor_by_another_node() {
    let (world, clock) = world().await;
    let counter = Counter::new(0);
    let (one, two) = (
        counter.schedule(&world.db, &clock, Reach::Fleet),
        counter.schedule(&world.db, &clock, Reach::Fleet),
    );
    one.tick().await;
    one.tick().await;
    while counter.begun() == 0 {
        tokio::task::yield_now().await;
    }
    settle(&two).await;
    assert!(matches!(one.run_by_hand("count").await, Err(NotRun::Running)));
    assert!(matches!(two.run_by_hand("count").await, Err(NotRun::Running)));
    let standing = two.standing().await.unwrap().remove(0);
    assert_eq!(standing.last_run.unwrap().finished_at, None);
    assert_eq!(counter.begun(), 1);
    counter.may_end.add_permits(10);
    settle(&one).await;
    assert!(one.run_by_hand("count").await.unwrap().by_hand);
    assert!(matches!(one.run_by_hand("nothing").await, Err(NotRun::Unknown)));
    assert_eq!(counter.begun(), 2);
}

#[tokio::test]
async fn a_run_whose_process_died_is_taken_over_when_it_was_silent_long_enough() {
    let (world, clock) = world().await;
    let dead = Counter::new(0);
    let gone = dead.schedule(&world.db, &clock, Reach::Fleet);
    gone.tick().await;
    gone.tick().await;
    while dead.begun() == 0 {
        tokio::task::yield_now().await;
    }
    let counter = Counter::new(100);
    let heir = counter.schedule(&world.db, &clock, Reach::Fleet);
    settle(&heir).await;
    assert_eq!(counter.begun(), 0, "it may still be alive");
    clock.advance(Duration::from_mins(4));
    settle(&heir).await;
    assert_eq!(counter.begun(), 1);
    let run = heir.standing().await.unwrap().remove(0).last_run.unwrap();
    assert_eq!((run.due_at.to_string().as_str(), run.ok), ("2026-10-01T01:00:00Z", Some(true)));
}

#[tokio::test]
async fn what_a_stop_interrupts_is_left_to_the_next_start() {
    let (world, clock) = world().await;
    let counter = Counter::new(0);
    let stopped = counter.schedule(&world.db, &clock, Reach::Fleet);
    stopped.tick().await;
    stopped.tick().await;
    while counter.begun() == 0 {
        tokio::task::yield_now().await;
    }
    stopped.stop();
    settle(&stopped).await;
    let counter = Counter::new(1);
    settle(&counter.schedule(&world.db, &clock, Reach::Fleet)).await;
    assert_eq!(counter.begun(), 1);
}
