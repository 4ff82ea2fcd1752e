//! The way of a conversation into the spool: its place, its beginning, its parts, its end.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::budget::Level;
use super::free::FreeBytes;
use super::record::{self, Begin, End, PIECE, Part, Piece, Whole};
use super::unwritten::Last;
use super::{Answer, Backlog, Share};
use crate::clock::Clock;
use crate::ids::{ExchangeId, UserId};
use crate::spool::{AppendError, Kind, Spool, Writer};
use crate::store::exchanges::{Exchange, Verdict};

/// What everyone who writes shares. While one is left, the drain runs.
pub(super) struct Desk {
    pub(super) backlog: Backlog,
    pub(super) spool: Spool,
    /// By which conversations are named.
    pub(super) clock: Clock,
    /// Whether an answer's last byte waits for the disk.
    pub(super) strict: bool,
    pub(super) free: Arc<FreeBytes>,
    pub(super) _open: mpsc::Sender<Infallible>,
}

/// Writes conversations to a file of its own. Each worker has one, and the control plane has one.
#[derive(Clone)]
pub struct Scribe {
    pub(super) desk: Arc<Desk>,
    pub(super) writer: Writer,
}

/// Room for one conversation, and the way to write it. Dropped before it was begun it leaves nothing
/// behind; once begun it must be ended.
pub struct Place {
    id: ExchangeId,
    scribe: Scribe,
    share: Share,
    parts: u32,
    is_begun: bool,
    cost: Cost,
}

/// What a conversation costs, which says how much of it is kept.
enum Cost {
    /// Not known yet.
    Open,
    /// Nothing: what is kept of it is taken from this user's budget.
    Nothing(UserId),
    /// A unit, unless it is given back. The facts of its beginning, and the bytes that are with the log.
    Unit { facts: Vec<u8>, kept: usize },
}

/// As much of the end of an answer is kept for its counts, when nothing else may be.
const LAST_WORDS: usize = 4096;

/// Done when what was recorded is on the disk.
pub type Synced = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The disk, or memory, takes no conversation now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the message log is full")]
pub struct LogFull;

// === impl Desk ===

impl Desk {
    /// Takes bytes of what may be kept of a user's calls that cost nothing.
    fn takes(&self, user: UserId, bytes: usize) -> bool {
        self.free.take(user, bytes as u64, self.clock.now())
    }
}

// === impl Scribe ===

impl Scribe {
    /// Room for a request that is about to be forwarded.
    ///
    /// # Errors
    ///
    /// [`LogFull`]: no conversation goes unrecorded, so a request without room is refused.
    pub fn place(&self) -> Result<Place, LogFull> {
        if !self.has_room() {
            return Err(LogFull);
        }
        let (id, share) = (ExchangeId(self.desk.clock.uuid()), self.desk.backlog.0.budget.share());
        Ok(Place { id, scribe: self.clone(), share, parts: 0, is_begun: false, cost: Cost::Open })
    }

    pub(super) fn has_room(&self) -> bool {
        self.desk.backlog.0.budget.level() < Level::Full && self.desk.spool.has_room()
    }

    /// The row without its texts, where it costs nothing and they are beyond the user's budget.
    fn cut(&self, row: &Exchange) -> Option<Exchange> {
        let bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let bytes = bytes(&row.messages) + bytes(&row.answer);
        let user = row.user_id.filter(|_| row.verdict != Verdict::Charged)?;
        if self.desk.takes(user, bytes) {
            return None;
        }
        Some(Exchange { truncated: true, ..row.without_texts() })
    }

    /// Records a call that ends here, as the row it will be. Once it is recorded it survives the end of
    /// this process; what is given then is done, in strict mode, when it survives the machine's too.
    ///
    /// # Errors
    ///
    /// [`LogFull`]: nothing was recorded.
    pub fn record(&self, row: &Exchange) -> Result<Option<Synced>, LogFull> {
        let facts = match self.cut(row) {
            Some(cut) => Whole::row(&cut),
            None => Whole::row(row),
        };
        let mark = self.writer.append(Kind::Whole, row.id, &[&facts])?;
        self.desk.backlog.appended(facts.len());
        self.desk.backlog.ended();
        Ok(self.desk.strict.then(|| Box::pin(self.writer.synced(mark)) as Synced))
    }
}

// === impl Place ===

impl Place {
    /// The conversation's name.
    #[must_use]
    pub fn id(&self) -> ExchangeId {
        self.id
    }

    /// What is kept of it in memory.
    pub fn share(&mut self) -> &mut Share {
        &mut self.share
    }

    /// Whether [`Place::begin`] succeeded.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Records that the conversation is about to be forwarded, and what it asks; neither need be kept in
    /// memory any longer.
    ///
    /// # Errors
    ///
    /// [`LogFull`]: it must not be forwarded.
    pub fn begin(&mut self, begin: &Begin<'_>, body: &[u8]) -> Result<(), LogFull> {
        let is_free = begin.ledger.is_none();
        let is_cut = is_free && !self.scribe.desk.takes(begin.user, body.len());
        let cut = Begin { cut: true, kept: 0, ..begin.clone() };
        let (begin, body) = if is_cut { (&cut, &[][..]) } else { (begin, body) };
        let facts = record::facts(begin);
        let (first, later) = body.split_at(body.len().min(PIECE));
        self.append(Kind::Begin, &[&facts, first])?;
        self.is_begun = true;
        self.cost = if is_free { Cost::Nothing(begin.user) } else { Cost::Unit { facts, kept: body.len() } };
        self.share.release();
        for piece in later.chunks(PIECE) {
            // What is missing is seen from the length that the facts tell.
            self.part(Piece::Asked, &[piece]);
        }
        Ok(())
    }

    /// Records more of what is asked, of a conversation that was begun; whether that was possible.
    pub fn ask(&mut self, bytes: &[u8]) -> bool {
        match &mut self.cost {
            Cost::Nothing(user) if !self.scribe.desk.takes(*user, bytes.len()) => return false,
            Cost::Unit { kept, .. } => *kept += bytes.len(),
            _ => {}
        }
        self.part(Piece::Asked, &[bytes])
    }

    /// Records the next bytes of the answer; whether that was possible. The first piece says how it is
    /// to be read.
    pub fn answer(&mut self, answer: Option<&Answer>, bytes: &[&[u8]]) -> bool {
        let length = bytes.iter().map(|piece| piece.len()).sum();
        match &mut self.cost {
            Cost::Nothing(user) if !self.scribe.desk.takes(*user, length) => return false,
            Cost::Unit { kept, .. } => *kept += length,
            _ => {}
        }
        self.part(Piece::Answered(answer.cloned()), bytes)
    }

    /// Records the end of a conversation that was begun. When the disk does not take it, it is kept in
    /// memory and tried again. In strict mode, what is to be waited for before the client may have its
    /// last byte.
    pub fn end(self, end: &End, rest: &[u8], tail: &[u8]) -> Option<Synced> {
        let length = rest.len() + tail.len();
        let last = if tail.is_empty() { rest } else { tail };
        let last = last.get(last.len().saturating_sub(LAST_WORDS)..).unwrap_or_default();
        let desk = &self.scribe.desk;
        match &self.cost {
            Cost::Nothing(user) if !desk.takes(*user, length) => {
                let end = End { rest: 0, cut: true, ..end.clone() };
                self.close(Kind::End, &[&record::facts(&end), last])
            }
            Cost::Unit { facts, kept } if end.verdict == Verdict::Refunded => {
                // What it said is with the log already, and its row goes without.
                match record::read::<Begin<'_>>(facts) {
                    Ok((begin, _)) if !desk.takes(begin.user, kept + length) => {
                        let begin = Begin { cut: true, kept: 0, ..begin };
                        let end = End { rest: 0, cut: true, ..end.clone() };
                        let whole = Whole::conversation(&begin, &end);
                        self.close(Kind::Whole, &[&whole])
                    }
                    _ => self.close(Kind::End, &[&record::facts(end), rest, tail]),
                }
            }
            _ => self.close(Kind::End, &[&record::facts(end), rest, tail]),
        }
    }

    /// Records, all at once, a conversation that was never forwarded.
    pub fn end_unbegun(self, begin: &Begin<'_>, body: &[u8], end: &End) -> Option<Synced> {
        let kept = body.get(..PIECE).unwrap_or(body);
        let is_free = end.verdict != Verdict::Charged;
        let kept = if is_free && !self.scribe.desk.takes(begin.user, kept.len()) { &[] } else { kept };
        let begin =
            Begin { cut: begin.cut || kept.len() < body.len(), kept: kept.len() as u64, ..begin.clone() };
        self.close(Kind::Whole, &[&Whole::conversation(&begin, end), kept])
    }

    fn part(&mut self, of: Piece, bytes: &[&[u8]]) -> bool {
        let facts = record::facts(&Part { number: self.parts, of });
        let pieces: Vec<&[u8]> = std::iter::once(&facts[..]).chain(bytes.iter().copied()).collect();
        let appended = self.append(Kind::Part, &pieces);
        if appended.is_ok() {
            self.parts += 1;
        }
        appended.is_ok()
    }

    fn append(&self, kind: Kind, payload: &[&[u8]]) -> Result<(), AppendError> {
        self.scribe.writer.append(kind, self.id, payload)?;
        self.scribe.desk.backlog.appended(payload.iter().map(|piece| piece.len()).sum());
        Ok(())
    }

    fn close(&self, kind: Kind, payload: &[&[u8]]) -> Option<Synced> {
        let Scribe { desk, writer } = &self.scribe;
        let backlog = &desk.backlog;
        backlog.ended();
        backlog.appended(payload.iter().map(|piece| piece.len()).sum());
        match writer.append(kind, self.id, payload) {
            Ok(mark) => desk.strict.then(|| Box::pin(writer.synced(mark)) as Synced),
            Err(error) => {
                tracing::warn!(%error, id = %self.id, "the end of a conversation waits for the disk");
                let (written, mark) = oneshot::channel();
                let written = desk.strict.then_some(written);
                let (payload, id) = (payload.concat(), self.id);
                backlog.keep(Last { kind, id, payload, writer: writer.clone(), written });
                let writer = writer.clone();
                desk.strict.then(|| {
                    Box::pin(async move {
                        if let Ok(mark) = mark.await {
                            writer.synced(mark).await;
                        }
                    }) as Synced
                })
            }
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("id", &self.id)
            .field("is_begun", &self.is_begun)
            .finish_non_exhaustive()
    }
}

// === impl LogFull ===

impl From<AppendError> for LogFull {
    fn from(error: AppendError) -> Self {
        tracing::debug!(%error, "a conversation is refused");
        Self
    }
}
