//! The log from its writers to its rows, on a real spool and a real database.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::record::tests::{answer, begin, end};
use super::{Backlog, Begin, Budget, Chatlog, End, Ending, Level, Scribe, Sources, place};
use crate::background::Background;
use crate::config::{self, MessageLog};
use crate::ids::{ExchangeId, RunId, UserId};
use crate::spool::{Options, Reader, Spool};
use crate::store::exchanges::{Exchange, Filter, Verdict, by_id, list};
use crate::store::tests::{Fresh, exchange, fresh, user};
use crate::telemetry::Metrics;

/// A scribe whose records nobody drains.
pub(crate) struct Bench {
    pub(crate) scribe: Scribe,
    pub(crate) reader: Reader,
    pub(crate) budget: Budget,
    _folder: TempDir,
    _nobody: mpsc::Receiver<std::convert::Infallible>,
}

pub(crate) fn bench(max_memory: u64) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let background = Background::new(tokio::runtime::Handle::current());
    let metrics = Arc::new(Metrics::new());
    let (spool, reader) = open(&folder, RunId::generate(), &background, &metrics);
    let budget = Budget::new(max_memory, Arc::clone(&metrics));
    let backlog = Backlog::new(500, 1 << 30, budget.clone(), metrics);
    let (open, nobody) = mpsc::channel(1);
    let writer = spool.writer();
    let desk = Arc::new(place::Desk { backlog, spool, strict: false, _open: open });
    Bench { scribe: Scribe { desk, writer }, reader, budget, _folder: folder, _nobody: nobody }
}

fn open(folder: &TempDir, run: RunId, background: &Background, metrics: &Arc<Metrics>) -> (Spool, Reader) {
    let options = Options { min_free: 0, ..Options::new(folder.path().join("spool"), run) };
    Spool::open(options, background, metrics).unwrap()
}

/// A log over a folder and a database that outlive it.
struct Run {
    log: Chatlog,
    background: Background,
    metrics: Arc<Metrics>,
    id: RunId,
}

struct Place {
    folder: TempDir,
    database: Fresh,
    ann: UserId,
}

const NEVER: Duration = Duration::from_hours(1);

impl Place {
    async fn new() -> Self {
        let database = fresh().await;
        let ann = user(&database.db, "ann").await;
        Self { folder: tempfile::tempdir().unwrap(), database, ann }
    }

    fn run(&self) -> Run {
        self.run_with(|_| {})
    }

    fn run_with(&self, change: impl FnOnce(&mut MessageLog)) -> Run {
        let mut config = MessageLog {
            batch_interval: NEVER,
            batch_size: 500,
            memory_threshold: 100 << 20,
            sync: config::Sync::Interval,
            content_retention: NEVER,
            metadata_retention: NEVER,
            capture: config::Capture::Full,
            max_answer_size: 8 << 20,
            max_memory: 256 << 20,
        };
        change(&mut config);
        let (background, metrics) =
            (Background::new(tokio::runtime::Handle::current()), Arc::new(Metrics::new()));
        let id = RunId::generate();
        let (spool, reader) = open(&self.folder, id, &background, &metrics);
        let poison = self.folder.path().join("spool/poison");
        let db = self.database.db.clone();
        let sources = Sources { db, spool, reader, run: id, poison, is_told: false };
        let log = Chatlog::start(&config, sources, &background, Arc::clone(&metrics));
        Run { log, background, metrics, id }
    }

    fn begin(&self) -> Begin<'static> {
        Begin { user: self.ann, ledger: None, ..begin() }
    }

    async fn rows(&self) -> Vec<Exchange> {
        let filter = Filter { limit: 2000, ..Filter::default() };
        list(&self.database.db, &filter).await.unwrap().rows
    }

    async fn row(&self, id: ExchangeId) -> Option<Exchange> {
        by_id(&self.database.db, id).await.unwrap()
    }
}

impl Run {
    /// As when the gateway stops in order.
    async fn stop(self) {
        drop(self.log);
        self.background.finish().await;
    }
}

fn free() -> End {
    End { verdict: Verdict::Free, ..end() }
}

#[tokio::test]
async fn what_was_said_is_put_together_from_its_records() {
    let place = Place::new().await;
    let run = place.run();
    let mut here = run.log.scribe().place().unwrap();
    let id = here.id();
    here.begin(&place.begin(), br#"{"messages":[{"role":"user","content":"Hi"}]}"#).unwrap();
    assert!(here.answer(
        Some(&answer()),
        &[b"data: {\"choices\":[{\"index\":0,\"del", b"ta\":{\"content\":\"Hel\"}}]}\n\n"]
    ));
    assert!(here.answer(None, &[b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"}}]}\n\n"]));
    assert_eq!(run.log.waiting(), 0, "it has not ended");
    let rest = b"data: [DONE]\n\n";
    assert!(here.end(&End { rest: rest.len() as u64, ..free() }, rest, &[]).is_none());
    assert_eq!(run.log.waiting(), 1);
    run.log.flush().await;
    assert_eq!(run.log.waiting(), 0);
    let row = place.row(id).await.unwrap();
    assert!(row.messages.unwrap().contains("Hi"));
    assert_eq!(row.answer.as_deref(), Some(r#"[{"content":"Hello","role":"assistant"}]"#));
    assert_eq!((row.outcome.as_str(), row.truncated, row.status), ("complete", false, Some(200)));
    run.stop().await;
}

#[tokio::test]
async fn what_was_never_forwarded_and_what_others_tell_are_rows_too() {
    let place = Place::new().await;
    let run = place.run();
    let here = run.log.scribe().place().unwrap();
    let unreachable = End { ending: Ending::Unreachable, answer: None, ..free() };
    here.end_unbegun(&place.begin(), br#"{"messages":[]}"#, &unreachable);
    let told = exchange(7);
    run.log.log(&told).await.unwrap();
    run.log.flush().await;
    assert_eq!(place.row(told.id).await, Some(told));
    let outcomes: Vec<String> = place.rows().await.into_iter().map(|row| row.outcome).collect();
    assert!(outcomes.contains(&"upstream_error".to_owned()), "{outcomes:?}");
    run.stop().await;
}

#[tokio::test]
async fn many_rows_are_written_by_number_and_when_the_gateway_stops() {
    let place = Place::new().await;
    let run = place.run_with(|log| log.batch_size = 30);
    for _ in 0..30 {
        run.log.log(&exchange(7)).await.unwrap();
    }
    let written = async {
        while run.log.waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.expect("the number makes a batch");
    for _ in 0..350 {
        run.log.log(&exchange(7)).await.unwrap();
    }
    run.stop().await;
    assert_eq!(place.rows().await.len(), 380);
}

#[tokio::test]
async fn readers_who_ask_at_once_share_a_pass() {
    let place = Place::new().await;
    let run = place.run();
    run.log.log(&exchange(7)).await.unwrap();
    let readers = (0..200).map(|_| run.log.flush());
    futures_util::future::join_all(readers).await;
    assert_eq!(place.rows().await.len(), 1);
    run.stop().await;
}

#[tokio::test]
async fn a_row_the_database_refuses_is_set_aside_and_the_rest_goes_on() {
    let place = Place::new().await;
    place.database.db.refuse_model("poison").await;
    let run = place.run();
    let poison = Exchange { model: "poison".into(), ..exchange(1) };
    for row in [exchange(0), poison.clone(), exchange(2)] {
        run.log.log(&row).await.unwrap();
    }
    run.log.flush().await;
    assert_eq!((place.rows().await.len(), run.log.waiting(), run.metrics.log_set_aside.get()), (2, 0, 1));
    let kept = place.folder.path().join(format!("spool/poison/{}.row.json", poison.id));
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!(kept["model"], "poison");
    run.stop().await;
}

#[tokio::test]
async fn a_full_memory_takes_no_conversation() {
    let bench = bench(1000);
    let mut all = bench.budget.share();
    assert!(all.grow(1000));
    assert_eq!(bench.budget.level(), Level::Full);
    assert!(bench.scribe.place().is_err());
    drop(all);
    assert!(bench.scribe.place().is_ok());
}
