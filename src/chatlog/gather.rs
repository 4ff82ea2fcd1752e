//! From records to rows: which conversations have ended, and what was said in them. Blocks on the disk.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::aside::Aside;
use super::build::{self, Texts};
use super::handling::Handling;
use super::record::{Begin, End, Unreadable};
use super::{Backlog, Ending, Share};
use crate::ids::{ExchangeId, RunId};
use crate::spool::{Entry, Kind, Location, Reader};
use crate::store::exchanges::{Exchange, Verdict};

/// What the drain knows of the spool. Of conversations it keeps where they stand, and no bytes.
pub(super) struct Gatherer {
    pub(super) reader: Reader,
    backlog: Backlog,
    /// Begun, and not ended yet as far as was read.
    pub(super) open: HashMap<ExchangeId, Found>,
    /// Ended, and without a row.
    ended: VecDeque<Found>,
    /// The last ones that ended, with a row or without: a copy of a record may come late.
    known: Known,
    /// Whether what killed runs left unfinished was taken for ended.
    is_recovered: bool,
    pub(super) aside: Aside,
    handling: Handling,
}

/// One conversation's records.
pub(super) struct Found {
    pub(super) id: ExchangeId,
    /// Whose unit it used: the run that wrote its first record.
    run: RunId,
    /// Whether it was begun before this start.
    is_old: bool,
    pub(super) begin: Option<Location>,
    pub(super) parts: Vec<Location>,
    /// Its `End`, or its `Whole`.
    pub(super) end: Option<(Kind, Location)>,
    /// Of records that were written again because they might not have been durable.
    copies: Vec<Location>,
}

/// The names of the last conversations that ended.
#[derive(Default)]
struct Known {
    names: HashSet<ExchangeId>,
    in_order: VecDeque<ExchangeId>,
}

/// What goes into one transaction.
pub(super) struct Batch {
    pub(super) run: RunId,
    pub(super) rows: Vec<Exchange>,
    /// Conversations, those that gave no row as well.
    pub(super) names: Vec<ExchangeId>,
    /// Their records.
    pub(super) records: Vec<Location>,
    /// The memory that it takes until it is written.
    share: Share,
}

/// Why a conversation gives no row.
#[derive(Debug, Error)]
pub(super) enum Lost {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("the beginning of a conversation is missing")]
    NoBeginning,
}

/// Rows of one transaction. Few, because with SQLite whoever needs a lease waits for it.
const BATCH_ROWS: usize = 100;
/// Bytes of text after which a transaction takes no further row.
const BATCH_BYTES: usize = 1 << 20;
/// Conversations remembered as ended; the others stay unread until these have their rows.
const MOST_ENDED: usize = 20_000;
/// A record of this size takes memory that is counted: four times its bytes, which is what building its row and
/// writing it take at most.
const HEAVY: u64 = 64 << 10;
const MOST_TIMES: u64 = 4;
/// After so many ends of the process while it handled a record, the texts of it are quarantined.
const MOST_DEATHS: u32 = 2;
/// Names remembered of those that ended.
const MOST_KNOWN: usize = 2 * MOST_ENDED;

// === impl Gatherer ===

impl Gatherer {
    pub(super) fn new(reader: Reader, backlog: Backlog, poison: PathBuf) -> Self {
        Self {
            reader,
            backlog,
            open: HashMap::new(),
            ended: VecDeque::new(),
            known: Known::default(),
            is_recovered: false,
            handling: Handling::open(poison.with_file_name("handling")),
            aside: Aside::new(poison),
        }
    }

    /// Reads on to the end, or until enough has ended; whether there is more.
    pub(super) fn scan(&mut self) -> bool {
        while self.ended.len() < MOST_ENDED {
            let Some(entry) = self.reader.next() else {
                self.finish_old_runs();
                return false;
            };
            if !self.is_recovered && !entry.at.is_old() {
                self.finish_old_runs();
            }
            self.note(&entry);
        }
        true
    }

    /// Whether everything of earlier runs has its row.
    pub(super) fn has_recovered(&self) -> bool {
        self.is_recovered && !self.ended.iter().any(|found| found.is_old)
    }

    /// The next conversations to be written, all of one run. `None`: none has ended.
    pub(super) fn batch(&mut self) -> Option<Batch> {
        let run = self.ended.front()?.run;
        let share = self.backlog.0.budget.share();
        let mut batch = Batch { run, rows: Vec::new(), names: Vec::new(), records: Vec::new(), share };
        let mut bytes = 0;
        let mut is_alone = false;
        while batch.rows.len() < BATCH_ROWS
            && bytes < BATCH_BYTES
            && !is_alone
            && let Some(found) = self.next(run, batch.names.is_empty(), &mut batch.share)
        {
            is_alone = self.handling.deaths(found.id) > 0;
            batch.names.push(found.id);
            self.handling.begin(&batch.names);
            let is_first = batch.names.len() == 1;
            let texts = self.texts(&found, is_first, &mut batch.share);
            match build::row(&self.reader, &found, texts) {
                Ok(row) => {
                    bytes += text_bytes(&row);
                    batch.rows.push(row);
                }
                // The disk may give it back another time: it stays, for the next start.
                Err(Lost::Io(error)) if !is_final(&error) => {
                    tracing::error!(%error, id = %found.id, "a conversation cannot be read and stays in the spool");
                    continue;
                }
                Err(lost) => self.lose(&found, &lost),
            }
            batch.records.extend(found.records());
        }
        Some(batch)
    }

    /// The next one of this run; one whose handling the process did not survive comes alone, and one that
    /// memory does not allow for beside those before it comes in the next batch.
    fn next(&mut self, run: RunId, is_first: bool, share: &mut Share) -> Option<Found> {
        let handling = &self.handling;
        self.ended.pop_front_if(|found| {
            found.run == run && (is_first || handling.deaths(found.id) == 0 && found.claim(share))
        })
    }

    /// Their rows are in the database, or never will be: their files may go.
    pub(super) fn done(&mut self, batch: &Batch) {
        for record in &batch.records {
            self.reader.done(record);
        }
        self.backlog.settled(batch.names.len() as u64);
        self.handling.end(&batch.names);
    }

    /// Sets a row aside that the database does not take.
    pub(super) fn set_aside(&mut self, row: &Exchange) {
        self.backlog.0.metrics.log_set_aside.inc();
        let text = serde_json::to_vec(row).unwrap_or_default();
        self.aside.keep(row.id, "row.json", &text);
    }

    /// Sets a row aside whose day the log no longer has.
    pub(super) fn set_aside_late(&mut self, row: &Exchange) {
        let text = serde_json::to_vec(row).unwrap_or_default();
        self.aside.keep(row.id, "late.row.json", &text);
    }

    fn note(&mut self, entry: &Entry) {
        let Entry { kind, id, run, at } = *entry;
        if !self.open.contains_key(&id) && self.known.names.contains(&id) {
            return self.note_copy(entry);
        }
        let found = self.open.entry(id).or_insert_with(|| Found::new(id, run, at.is_old()));
        match kind {
            Kind::Begin if found.begin.is_none() => found.begin = Some(at),
            Kind::Part => found.parts.push(at),
            Kind::End | Kind::Whole if found.end.is_none() => found.end = Some((kind, at)),
            Kind::Begin | Kind::End | Kind::Whole => found.copies.push(at),
        }
        if !found.is_complete() {
            return;
        }
        if let Some(found) = self.open.remove(&id) {
            if at.is_old() {
                self.backlog.found(1);
            }
            self.known.add(id);
            self.ended.push_back(found);
        }
    }

    /// A record that was written again stays as long as its conversation has no row.
    fn note_copy(&mut self, entry: &Entry) {
        match self.ended.iter_mut().find(|found| found.id == entry.id) {
            Some(found) if entry.kind == Kind::Part => found.parts.push(entry.at),
            Some(found) => found.copies.push(entry.at),
            None => self.reader.done(&entry.at),
        }
    }

    /// Nobody will write the end of a conversation whose run is over. They come after all that ended, for
    /// only units that are left then are theirs.
    fn finish_old_runs(&mut self) {
        if self.is_recovered || !self.reader.old_runs_read() {
            return;
        }
        self.is_recovered = true;
        let old = self.open.extract_if(|_, found| found.is_old).map(|(_, found)| found);
        let mut unfinished: Vec<Found> = old.collect();
        unfinished.sort_by_key(|found| found.id);
        self.backlog.found(unfinished.len() as u64);
        if !unfinished.is_empty() {
            tracing::warn!(conversations = unfinished.len(), "the last run did not see their end");
        }
        for found in unfinished {
            self.known.add(found.id);
            self.ended.push_back(found);
        }
    }

    /// What cannot be read is kept beside, as far as it goes.
    fn lose(&mut self, found: &Found, lost: &Lost) {
        tracing::error!(error = %lost, id = %found.id, "a conversation cannot be put together and is set aside");
        self.backlog.0.metrics.log_set_aside.inc();
        self.keep_records(found);
    }

    fn keep_records(&mut self, found: &Found) {
        let reader = &self.reader;
        let payloads = found.records().filter_map(|at| reader.payload(&at).ok());
        self.aside.keep_pieces(found.id, "records", found.bytes(), payloads);
    }

    /// What is to be done with the texts of a conversation; memory for the first of a batch is not claimed yet.
    fn texts(&mut self, found: &Found, is_first: bool, share: &mut Share) -> Texts {
        if self.handling.deaths(found.id) >= MOST_DEATHS {
            tracing::error!(id = %found.id, "texts quarantined: the process died twice while it handled this record");
            self.backlog.0.metrics.drop_from_log("quarantined");
            self.keep_records(found);
            return Texts::Leave;
        }
        if is_first && !found.claim(share) {
            self.backlog.0.metrics.drop_from_log("memory");
            tracing::warn!(id = %found.id, bytes = found.bytes(), "texts not kept: message_log.max_memory does not allow for them");
            return Texts::Leave;
        }
        Texts::Keep
    }

    /// Nothing is handled for now: an end of the process has nothing to do with a record.
    pub(super) fn rest(&mut self) {
        self.handling.rest();
    }

    /// A batch is handled again.
    pub(super) fn resume(&mut self, names: &[ExchangeId]) {
        self.handling.begin(names);
    }
}

// === impl Found ===

impl Found {
    fn new(id: ExchangeId, run: RunId, is_old: bool) -> Self {
        Self { id, run, is_old, begin: None, parts: Vec::new(), end: None, copies: Vec::new() }
    }

    fn is_complete(&self) -> bool {
        match self.end {
            Some((Kind::Whole, _)) => true,
            Some(_) => self.begin.is_some(),
            None => false,
        }
    }

    /// Bytes of its records.
    fn bytes(&self) -> u64 {
        self.records().map(|at| at.bytes()).sum()
    }

    /// Takes the memory for it. Where that is short, with what it has: most records take less than four times
    /// their bytes.
    fn claim(&self, share: &mut Share) -> bool {
        let bytes = self.bytes();
        bytes < HEAVY || share.try_grow(bytes.saturating_mul(MOST_TIMES)) || share.try_grow(bytes)
    }

    fn records(&self) -> impl Iterator<Item = Location> + '_ {
        let facts = self.begin.into_iter().chain(self.end.map(|(_, at)| at));
        facts.chain(self.parts.iter().copied()).chain(self.copies.iter().copied())
    }
}

// === impl Known ===

impl Known {
    fn add(&mut self, id: ExchangeId) {
        self.names.insert(id);
        self.in_order.push_back(id);
        if self.in_order.len() > MOST_KNOWN
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.names.remove(&oldest);
        }
    }
}

// === impl End ===

impl End {
    /// The end of a conversation that nobody saw: the upstream was asked, so it is charged.
    pub(super) fn unseen(begin: &Begin<'_>) -> Self {
        Self {
            ending: Ending::GatewayStopped,
            verdict: if begin.ledger.is_some() { Verdict::Charged } else { Verdict::Free },
            answer: None,
            rest: 0,
            head: 0,
            cut: true,
            bytes: 0,
            took: std::time::Duration::ZERO,
        }
    }
}

/// Whether asking again can give nothing else.
fn is_final(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData)
}

fn text_bytes(row: &Exchange) -> usize {
    row.messages.as_ref().map_or(0, String::len) + row.answer.as_ref().map_or(0, String::len)
}
