//! From records to rows: which conversations have ended, and what was said in them. Blocks on the disk.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::aside::Aside;
use super::record::{self, Begin, End, Part, Piece, Unreadable, Whole};
use super::row::{self, Said};
use super::{Backlog, Ending};
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
}

/// One conversation's records.
pub(super) struct Found {
    id: ExchangeId,
    /// Whose unit it used: the run that wrote its first record.
    run: RunId,
    /// Whether it was begun before this start.
    is_old: bool,
    pub(super) begin: Option<Location>,
    pub(super) parts: Vec<Location>,
    /// Its `End`, or its `Whole`.
    end: Option<(Kind, Location)>,
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
    pub(super) conversations: u64,
    /// Their records.
    pub(super) records: Vec<Location>,
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
        let mut batch = Batch { run, rows: Vec::new(), conversations: 0, records: Vec::new() };
        let mut bytes = 0;
        while batch.rows.len() < BATCH_ROWS
            && bytes < BATCH_BYTES
            && let Some(found) = self.ended.pop_front_if(|found| found.run == run)
        {
            batch.conversations += 1;
            match self.row(&found) {
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

    /// Their rows are in the database, or never will be: their files may go.
    pub(super) fn done(&mut self, batch: &Batch) {
        for record in &batch.records {
            self.reader.done(record);
        }
        self.backlog.settled(batch.conversations);
    }

    /// Sets a row aside that the database does not take.
    pub(super) fn set_aside(&mut self, row: &Exchange) {
        self.backlog.0.metrics.log_set_aside.inc();
        let text = serde_json::to_vec(row).unwrap_or_default();
        self.aside.keep(row.id, "row.json", &text);
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

    fn row(&self, found: &Found) -> Result<Exchange, Lost> {
        match (found.begin, found.end) {
            (_, Some((Kind::Whole, at))) => Self::row_of_whole(found.id, &self.reader.payload(&at)?),
            (Some(begin), end) => self.put_together(found, &begin, end.map(|(_, at)| at)),
            (None, _) => Err(Lost::NoBeginning),
        }
    }

    fn row_of_whole(id: ExchangeId, payload: &[u8]) -> Result<Exchange, Lost> {
        match Whole::read(payload)? {
            Whole::Row(row) => Ok(*row),
            Whole::Conversation(both, body) => {
                let (begin, end) = *both;
                Ok(row::of(Said { id, begin, body, end, head: &[], tail: &[] }))
            }
        }
    }

    fn put_together(&self, found: &Found, begin: &Location, end: Option<Location>) -> Result<Exchange, Lost> {
        let payload = self.reader.payload(begin)?;
        let (mut begin, body) = record::read::<Begin<'_>>(&payload)?;
        let mut pieces = Pieces { asked: body.to_vec(), ..Pieces::default() };
        for part in self.parts(found)? {
            pieces.add(&part)?;
        }
        let ending = end.map(|at| self.reader.payload(&at)).transpose()?;
        let (mut end, later) = match &ending {
            Some(payload) => record::read::<End>(payload)?,
            None => (End::unseen(&begin), &[][..]),
        };
        let (rest, tail) =
            later.split_at_checked(usize::try_from(end.rest).unwrap_or(0)).unwrap_or((later, &[]));
        pieces.head.extend_from_slice(rest);
        begin.cut |= (pieces.asked.len() as u64) < begin.kept;
        end.cut |= pieces.is_gappy || (pieces.head.len() as u64) < end.head;
        if ending.is_none() {
            end.answer = pieces.answer.take();
            end.bytes = pieces.head.len() as u64;
        }
        let Pieces { asked, head, .. } = &pieces;
        Ok(row::of(Said { id: found.id, begin, body: asked, end, head, tail }))
    }

    /// The parts in their order, each once.
    fn parts(&self, found: &Found) -> Result<Vec<(u32, Vec<u8>)>, Lost> {
        let mut parts = Vec::with_capacity(found.parts.len());
        for at in &found.parts {
            let payload = self.reader.payload(at)?;
            let number = record::read::<Part>(&payload)?.0.number;
            parts.push((number, payload));
        }
        parts.sort_by_key(|(number, _)| *number);
        parts.dedup_by_key(|(number, _)| *number);
        Ok(parts)
    }

    /// What cannot be read is kept beside, as far as it goes.
    fn lose(&mut self, found: &Found, lost: &Lost) {
        tracing::error!(error = %lost, id = %found.id, "a conversation cannot be put together and is set aside");
        self.backlog.0.metrics.log_set_aside.inc();
        let payloads = found.records().filter_map(|at| self.reader.payload(&at).ok());
        let bytes: Vec<u8> = payloads.flatten().collect();
        self.aside.keep(found.id, "records", &bytes);
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
    fn unseen(begin: &Begin<'_>) -> Self {
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

/// What the parts of a conversation hold together.
#[derive(Default)]
struct Pieces {
    asked: Vec<u8>,
    head: Vec<u8>,
    answer: Option<super::Answer>,
    next: u32,
    /// Whether one is missing; what comes after it is not the beginning any more.
    is_gappy: bool,
}

// === impl Pieces ===

impl Pieces {
    fn add(&mut self, (number, payload): &(u32, Vec<u8>)) -> Result<(), Unreadable> {
        self.is_gappy |= *number != self.next;
        if self.is_gappy {
            return Ok(());
        }
        self.next += 1;
        let (part, bytes) = record::read::<Part>(payload)?;
        match part.of {
            Piece::Asked => self.asked.extend_from_slice(bytes),
            Piece::Answered(answer) => {
                self.answer = self.answer.take().or(answer);
                self.head.extend_from_slice(bytes);
            }
        }
        Ok(())
    }
}

/// Whether asking again can give nothing else.
fn is_final(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData)
}

fn text_bytes(row: &Exchange) -> usize {
    row.messages.as_ref().map_or(0, String::len) + row.answer.as_ref().map_or(0, String::len)
}
