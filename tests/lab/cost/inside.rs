//! What one conversation costs inside the gate: the calls that count it and keep it, made as a worker
//! makes them, with the CPU time of the thread that makes them and, apart from it, of those behind.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use tollgate::background::Background;
use tollgate::chatlog::{self, Answer, Begin, Chatlog, End, Ending, Scribe};
use tollgate::clock::Clock;
use tollgate::config::{Config, Vars};
use tollgate::dialect::{Call, Framing};
use tollgate::ids::{KeyId, RequestId, RunId, UserId};
use tollgate::plan::Allowance;
use tollgate::quota::{self, Quota, Verdict};
use tollgate::spool::{self, Spool};
use tollgate::store::exchanges::Verdict as Noted;
use tollgate::store::runs::{self, Run};
use tollgate::store::{Db, users};
use tollgate::telemetry::Metrics;

use super::super::proof::gate::{Gate, Plan};
use super::super::proof::people::register;
use super::super::proof::report::Report;
use super::{Size, spread};

/// The floors below the proxy, on a database and a spool of their own.
struct House {
    quota: Quota,
    chatlog: Chatlog,
    scribe: Scribe,
    clock: Clock,
    user: UserId,
    allowance: Allowance,
    asked: Vec<u8>,
    answered: Vec<u8>,
    /// Two threads, as behind a gate.
    behind: Option<Runtime>,
    _gate: Gate,
}

/// What a measurement does for each conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// A unit in hand is taken and put back.
    InHand,
    /// A unit is taken and charged; a statement of SQL for each 32.
    Counted,
    /// Its beginning and its end are appended.
    Kept,
    /// Both, as the proxy does it.
    Both,
}

/// CPU time until now.
#[derive(Clone, Copy, Debug)]
struct Cpu {
    /// Of this thread.
    here: Duration,
    /// Of all threads of this process.
    all: Duration,
}

/// CPU of one measurement, in µs a conversation.
struct Cost {
    here: f64,
    /// Of the threads behind, with what they were still to do.
    behind: f64,
}

/// What the drain took, in µs a row and in rows a second.
struct Drained {
    cpu: f64,
    rate: f64,
}

/// The longest day there is.
const DAY: u32 = 1_000_000;
/// Bytes of what is asked, and of what is answered.
const BODY: usize = 2048;
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Rows wait until they are asked for, and what is behind rests before it is measured.
const LOG: &str = "
[message_log]
batch_interval = \"1h\"
batch_size = 100000
memory_threshold = \"2GiB\"
";
const REST: Duration = Duration::from_millis(300);

/// Measures; figures for the report.
pub(super) async fn inside(plan: &Plan, size: Size, report: &mut Report) {
    let most = u32::try_from(size.rounds + 1).unwrap() * 2 * size.requests;
    assert!(most < DAY / 2, "a day has no {most} conversations that are far from its end");
    let house = House::build(plan).await;
    let works = [Work::InHand, Work::Counted, Work::Kept, Work::Both];
    let mut costs: Vec<Vec<Cost>> = works.iter().map(|_| Vec::new()).collect();
    let mut drained = Vec::new();
    house.measure(Work::Both, size.requests).await;
    house.drain().await;
    for _ in 0..size.rounds {
        for (work, costs) in works.iter().zip(&mut costs) {
            costs.push(house.measure(*work, size.requests).await);
            if house.chatlog.waiting() > 0 {
                drained.push(house.drain().await);
            }
        }
    }
    for (work, costs) in works.iter().zip(&costs) {
        let name = work.name();
        report.figure(format!("inside: {name}: CPU µs"), spread(costs.iter().map(|cost| cost.here)));
        report.figure(format!("inside: {name}: behind"), spread(costs.iter().map(|cost| cost.behind)));
    }
    report.figure("inside: drain: CPU µs a row", spread(drained.iter().map(|drained| drained.cpu)));
    report.figure("inside: drain: rows a second", spread(drained.iter().map(|drained| drained.rate)));
    house.close().await;
}

// === impl House ===

impl House {
    /// What the binary sets up and leaves, with one user whose day is long.
    async fn build(plan: &Plan) -> Self {
        let plan = Plan { server: None, ..plan.clone() }.saying(LOG);
        let mut gate = Gate::new(&plan, "http://127.0.0.1:9").await;
        gate.start().await;
        let person = register(&gate, 0, &[i64::from(DAY)]).await.remove(0);
        assert!(gate.stop().await.success());
        let text = std::fs::read_to_string(gate.folder.path().join("gateway.toml")).unwrap();
        let vars = Vars::from_iter(Vec::<(String, String)>::new());
        let config = Config::from_toml(&text, gate.folder.path(), &vars).unwrap();

        let behind = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let background = Background::new(behind.handle().clone());
        let (metrics, clock) = (Arc::new(Metrics::new()), Clock::system());
        let database = config.database.clone();
        let db = background.run(async move { Db::connect(&database).await }).await.unwrap().unwrap();
        let id = RunId::generate();
        let (node, boot) = ("lab".to_owned(), "lab".to_owned());
        let run = Run { id, node, boot, started_at: clock.now(), folder: None };
        runs::begin(&db, &run).await.unwrap();
        let user = users::by_username(&db, &person.username).await.unwrap().unwrap().id;
        let folder: PathBuf = config.server.data_dir.join("spool");
        let poison = folder.join("poison");
        let (spool, reader) = Spool::open(spool::Options::new(folder, id), &background, &metrics).unwrap();
        let quota = Quota::start(quota::Sources {
            db: db.clone(),
            background: background.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            run,
            earlier: Vec::new(),
            alone: false,
            heartbeat: Duration::from_secs(3),
            renamed: Box::new(|_| {}),
            max_lease: config.limits.max_lease.into(),
        });
        let (decided, alive) = tokio::sync::oneshot::channel();
        let _ = decided.send(Vec::new());
        let sources = chatlog::Sources { db, spool, reader, alive, poison, is_told: false };
        let chatlog = Chatlog::start(&config.message_log, sources, &background, &clock, metrics);
        let said = |words: usize| "word ".repeat(words);
        let asked = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{}"}}]}}"#, said(397));
        let answered = format!(
            r#"{{"id":"c","object":"chat.completion","model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":3,"completion_tokens":370,"total_tokens":373}}}}"#,
            said(369)
        );
        assert!(asked.len().abs_diff(BODY) < 32 && answered.len().abs_diff(BODY) < 32);
        Self {
            quota,
            scribe: chatlog.scribe(),
            chatlog,
            clock,
            user,
            allowance: Allowance { per_day: i64::from(DAY), zone: chrono_tz::Tz::UTC },
            asked: asked.into_bytes(),
            answered: answered.into_bytes(),
            behind: Some(behind),
            _gate: gate,
        }
    }

    async fn measure(&self, work: Work, conversations: u32) -> Cost {
        let before = Cpu::now();
        for _ in 0..conversations {
            match work {
                Work::InHand => self.take_and_put_back().await,
                Work::Counted => self.take_and_charge().await,
                Work::Kept => self.keep(),
                Work::Both => self.converse().await,
            }
        }
        let here = Cpu::now().here.saturating_sub(before.here);
        tokio::time::sleep(REST).await;
        let after = Cpu::now();
        let behind =
            after.all.saturating_sub(before.all).saturating_sub(after.here.saturating_sub(before.here));
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(conversations);
        Cost { here: each(here), behind: each(behind) }
    }

    async fn take_and_put_back(&self) {
        let mut reservation = self.quota.reserve(self.user, &self.allowance).await.unwrap();
        assert_eq!(reservation.settle(Verdict::Refunded), Verdict::Refunded);
    }

    async fn take_and_charge(&self) {
        let mut reservation = self.quota.reserve(self.user, &self.allowance).await.unwrap();
        reservation.dispatched();
        assert_eq!(reservation.settle(Verdict::Charged), Verdict::Charged);
    }

    fn keep(&self) {
        let mut place = self.scribe.place().unwrap();
        let request_id = RequestId::generate();
        place.begin(&self.begin(request_id.as_str(), None), &self.asked).unwrap();
        assert!(place.end(&self.end(Noted::Free), &self.answered, &[]).is_none());
    }

    /// In the order in which the proxy does it.
    async fn converse(&self) {
        let mut reservation = self.quota.reserve(self.user, &self.allowance).await.unwrap();
        let mut place = self.scribe.place().unwrap();
        let request_id = RequestId::generate();
        place.begin(&self.begin(request_id.as_str(), Some(reservation.ledger())), &self.asked).unwrap();
        reservation.dispatched();
        assert_eq!(reservation.settle(Verdict::Charged), Verdict::Charged);
        assert!(place.end(&self.end(Noted::Charged), &self.answered, &[]).is_none());
    }

    fn begin<'a>(&'a self, request_id: &'a str, ledger: Option<(i64, i64)>) -> Begin<'a> {
        Begin {
            request_id,
            user: self.user,
            key: KeyId(1),
            username: "user00000",
            email: "user00000@example.com",
            client_ip: ADDRESS,
            route: "/v1",
            call: Call::ChatCompletions,
            model: Some("m"),
            stream: false,
            research: false,
            cut: false,
            bytes: self.asked.len() as u64,
            kept: self.asked.len() as u64,
            ledger,
            started: self.clock.now(),
        }
    }

    fn end(&self, verdict: Noted) -> End {
        let bytes = self.answered.len() as u64;
        End {
            ending: Ending::Complete,
            verdict,
            answer: Some(Answer {
                status: 200,
                framing: Framing::Json,
                encoding: None,
                pointer: None,
                first_byte: Duration::from_millis(1),
            }),
            rest: bytes,
            head: bytes,
            cut: false,
            bytes,
            took: Duration::from_millis(2),
        }
    }

    /// Writes the rows that wait.
    async fn drain(&self) -> Drained {
        let (rows, before, begun) = (self.chatlog.waiting() as f64, Cpu::now(), Instant::now());
        while self.chatlog.waiting() > 0 {
            self.chatlog.flush().await;
        }
        let cpu = Cpu::now().all.saturating_sub(before.all).as_secs_f64() * 1e6 / rows;
        Drained { cpu, rate: rows / begun.elapsed().as_secs_f64() }
    }

    async fn close(mut self) {
        self.quota.close().await;
        if let Some(behind) = self.behind.take() {
            behind.shutdown_background();
        }
    }
}

// === impl Work ===

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::InHand => "reserve and settle, a unit in hand",
            Self::Counted => "reserve and settle, charged",
            Self::Kept => "begin and end in the spool",
            Self::Both => "reserve, begin, settle, end",
        }
    }
}

// === impl Cpu ===

impl Cpu {
    fn now() -> Self {
        let read = |clock| {
            let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
            Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_nsec).unwrap())
        };
        Self { here: read(ClockId::ThreadCPUTime), all: read(ClockId::ProcessCPUTime) }
    }
}
