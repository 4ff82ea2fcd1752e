//! The log from its writers to its rows, on a real spool and a real database.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use super::free::FreeBytes;
use super::record::tests::{answer, begin, end};
use super::{Backlog, Begin, Budget, Chatlog, End, Ending, Level, Scribe, Sources, place};
use crate::background::Background;
use crate::clock::Clock;
use crate::config::{self, MessageLog};
use crate::ids::{ExchangeId, RunId, UserId};
use crate::spool::{Kind, Options, Reader, Spool};
use crate::store::SlowRead;
use crate::store::exchanges::{Exchange, Filter, Verdict, by_id, list};
use crate::store::tests::{Fresh, NOW, exchange, fresh, user};
use crate::telemetry::Metrics;

mod budgets;
mod deaths;
mod forgotten;
mod replayed;

/// A scribe whose records nobody drains.
pub(crate) struct Bench {
    pub(crate) scribe: Scribe,
    pub(crate) reader: Reader,
    pub(crate) budget: Budget,
    folder: TempDir,
    _nobody: mpsc::Receiver<std::convert::Infallible>,
}

pub(crate) fn bench(max_memory: u64) -> Bench {
    bench_in(tempfile::tempdir().unwrap(), max_memory, false).0
}

fn bench_in(folder: TempDir, max_memory: u64, strict: bool) -> (Bench, Background) {
    let background = Background::new(tokio::runtime::Handle::current());
    let metrics = Arc::new(Metrics::new());
    let (spool, reader) = open(&folder, RunId::generate(), &background, &metrics);
    let budget = Budget::new(max_memory, Arc::clone(&metrics));
    let backlog = Backlog::new(500, 1 << 30, budget.clone(), Arc::clone(&metrics));
    let (open, nobody) = mpsc::channel(1);
    let writer = spool.writer();
    let desk = Arc::new(place::Desk {
        backlog,
        spool,
        strict,
        clock: Clock::manual(NOW),
        free: Arc::new(FreeBytes::open(64 << 20, folder.path().join("free"), Arc::clone(&metrics))),
        _open: open,
    });
    let bench = Bench { scribe: Scribe { desk, writer }, reader, budget, folder, _nobody: nobody };
    (bench, background)
}

fn open(folder: &TempDir, run: RunId, background: &Background, metrics: &Arc<Metrics>) -> (Spool, Reader) {
    Spool::open(options(folder, run), background, metrics).unwrap()
}

fn options(folder: &TempDir, run: RunId) -> Options {
    Options { min_free: 0, ..Options::new(folder.path().join("spool"), run) }
}

/// A log over a folder and a database that outlive it.
pub(crate) struct Run {
    pub(crate) log: Chatlog,
    background: Background,
    metrics: Arc<Metrics>,
}

pub(crate) struct Place {
    folder: TempDir,
    pub(crate) database: Fresh,
    ann: UserId,
}

const NEVER: Duration = Duration::from_hours(1);

/// Nothing is written unless somebody asks.
pub(crate) fn config() -> MessageLog {
    MessageLog {
        batch_interval: NEVER,
        batch_size: 500,
        memory_threshold: 100 << 20,
        sync: config::Sync::Interval,
        content_retention: NEVER,
        metadata_retention: NEVER,
        capture: config::Capture::Full,
        max_answer_size: 8 << 20,
        max_memory: 256 << 20,
        max_free_per_user: 64 << 20,
        max_spool: 2 << 30,
        min_free_space: 0,
        sync_interval: Duration::from_millis(50),
    }
}

impl Place {
    pub(crate) async fn new() -> Self {
        let database = fresh().await;
        let ann = user(&database.db, "ann").await;
        Self { folder: tempfile::tempdir().unwrap(), database, ann }
    }

    pub(crate) fn run(&self) -> Run {
        self.run_with(|_| {})
    }

    fn run_with(&self, change: impl FnOnce(&mut MessageLog)) -> Run {
        self.run_in(u64::MAX, change)
    }

    /// With a spool of at most so many bytes.
    fn run_in(&self, max_bytes: u64, change: impl FnOnce(&mut MessageLog)) -> Run {
        let mut config = config();
        change(&mut config);
        let (background, metrics) =
            (Background::new(tokio::runtime::Handle::current()), Arc::new(Metrics::new()));
        let id = RunId::generate();
        let options = Options { max_bytes, ..options(&self.folder, id) };
        let (spool, reader) = Spool::open(options, &background, &metrics).unwrap();
        let poison = self.folder.path().join("spool/poison");
        let db = self.database.db.clone();
        let (decided, alive) = oneshot::channel();
        decided.send(Vec::new()).unwrap();
        let sources = Sources { db, spool, reader, alive, poison, is_told: false };
        let log = Chatlog::start(&config, sources, &background, &Clock::manual(NOW), Arc::clone(&metrics));
        Run { log, background, metrics }
    }

    /// A run that writes this and is killed.
    async fn killed(mut self, write: impl FnOnce(&Self, &Scribe)) -> Self {
        let (bench, background) = bench_in(self.folder, 1 << 30, false);
        self.folder = tempfile::tempdir().unwrap();
        write(&self, &bench.scribe);
        let Bench { scribe, reader, folder, .. } = bench;
        drop((scribe, reader));
        background.finish().await;
        Self { folder, ..self }
    }

    fn files(&self) -> usize {
        let files = std::fs::read_dir(self.folder.path().join("spool")).unwrap();
        files
            .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "seg"))
            .count()
    }

    fn begin(&self) -> Begin<'static> {
        Begin { user: self.ann, ledger: None, ..begin() }
    }

    pub(crate) async fn rows(&self) -> Vec<Exchange> {
        let filter = Filter { limit: 2000, ..Filter::default() };
        list(&SlowRead::alone(&self.database.db), &filter).await.unwrap().rows
    }

    async fn row(&self, id: ExchangeId) -> Option<Exchange> {
        by_id(&self.database.db, id).await.unwrap()
    }
}

impl Run {
    /// As when the gateway stops in order.
    pub(crate) async fn stop(self) {
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
async fn rows_are_written_by_time() {
    let place = Place::new().await;
    let run = place.run_with(|log| log.batch_interval = Duration::from_millis(50));
    run.log.log(&exchange(7)).await.unwrap();
    let written = async {
        while run.log.waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.expect("its time comes");
    run.stop().await;
}

#[tokio::test]
async fn a_spool_without_room_is_emptied_at_once_though_no_rows_are_due() {
    let place = Place::new().await;
    let run = place.run_in(20_000, |_| {});
    let mut taken = 0;
    while run.log.log(&exchange(7)).await.is_ok() {
        taken += 1;
    }
    assert!(taken < 500, "a batch by number");
    let room = async {
        while run.log.log(&exchange(7)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), room).await.expect("what is written goes");
    run.stop().await;
    assert_eq!(place.rows().await.len(), taken + 1);
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

const HEL: &[u8] = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n";
const HI: &[u8] = br#"{"messages":[{"role":"user","content":"Hi"}]}"#;

#[tokio::test]
async fn what_a_killed_run_left_is_written_once_and_the_unfinished_is_charged() {
    let mut names = Vec::new();
    let place = Place::new().await;
    let place = place
        .killed(|place, scribe| {
            for _ in 0..3 {
                let mut here = scribe.place().unwrap();
                names.push(here.id());
                here.begin(&place.begin(), HI).unwrap();
                here.answer(Some(&answer()), &[HEL]);
                here.end(&free(), &[], &[]);
            }
            let mut running = scribe.place().unwrap();
            names.push(running.id());
            running.begin(&Begin { ledger: Some((20_727, 0)), ..place.begin() }, HI).unwrap();
            running.answer(Some(&answer()), &[HEL]);
            let mut silent = scribe.place().unwrap();
            names.push(silent.id());
            silent.begin(&place.begin(), HI).unwrap();
        })
        .await;
    for _ in 0..2 {
        let run = place.run();
        assert!(run.log.recovered().await);
        assert_eq!((place.rows().await.len(), run.log.waiting()), (5, 0));
        run.stop().await;
        assert_eq!(place.files(), 0);
    }
    let running = place.row(names[3]).await.unwrap();
    assert_eq!((running.outcome.as_str(), running.reason.as_str()), ("gateway_stopped", "gateway_stopped"));
    assert_eq!((running.verdict, running.truncated, running.status), (Verdict::Charged, true, Some(200)));
    assert!(running.answer.unwrap().contains("Hel") && running.messages.unwrap().contains("Hi"));
    let silent = place.row(names[4]).await.unwrap();
    assert_eq!((silent.verdict, silent.status, silent.answer), (Verdict::Free, None, None));
}

#[tokio::test]
async fn a_record_that_stands_twice_or_cannot_be_read_holds_nothing_up() {
    let place = Place::new().await;
    let run = place.run();
    let scribe = run.log.scribe();
    let told = exchange(7);
    scribe.record(&told).unwrap();
    run.log.flush().await;
    scribe.record(&told).unwrap();
    run.log.backlog().settled(1);
    scribe.writer.append(Kind::Whole, ExchangeId::generate(), &[b"\x09 none of ours"]).unwrap();
    run.log.backlog().ended();
    scribe.record(&exchange(8)).unwrap();
    run.log.flush().await;
    assert_eq!((place.rows().await.len(), run.log.waiting(), run.metrics.log_set_aside.get()), (2, 0, 1));
    drop(scribe);
    run.stop().await;
    assert_eq!(place.files(), 0);
}

#[tokio::test]
async fn in_strict_mode_the_end_waits_for_the_disk() {
    let (bench, _) = bench_in(tempfile::tempdir().unwrap(), 1 << 30, true);
    let mut here = bench.scribe.place().unwrap();
    here.begin(&begin(), HI).unwrap();
    let mut synced = here.end(&free(), &[], &[]).expect("there is something to wait for");
    assert!(futures_util::poll!(&mut synced).is_pending(), "nobody has synced yet");
    tokio::time::timeout(Duration::from_secs(20), synced).await.expect("then it is on the disk");
}
