//! Builds a row from the records of its conversation, with each byte of them in memory twice at most.

use std::borrow::Cow;

use super::gather::{Found, Lost};
use super::record::{self, Begin, End, Part, Piece, Unreadable, Whole};
use super::row::{self, Said};
use crate::ids::ExchangeId;
use crate::spool::{Kind, Location, Reader};
use crate::store::exchanges::Exchange;

/// What a row gets of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Texts {
    /// All that was recorded.
    Keep,
    /// Nothing; the row says that it is cut.
    Leave,
}

/// A part of a conversation, in its order.
struct Numbered {
    number: u32,
    is_answer: bool,
    bytes: usize,
    at: Location,
}

/// What the parts of a conversation hold together.
#[derive(Default)]
struct Pieces<'a> {
    asked: Cow<'a, [u8]>,
    head: Vec<u8>,
    answer: Option<super::Answer>,
    next: u32,
    /// Whether one is missing; what comes after it is not the beginning any more.
    is_gappy: bool,
}

pub(super) fn row(reader: &Reader, found: &Found, texts: Texts) -> Result<Exchange, Lost> {
    match (found.begin, found.end) {
        (_, Some((Kind::Whole, at))) => row_of_whole(found.id, &reader.payload(&at)?, texts),
        (Some(begin), end) => put_together(reader, found, (begin, end.map(|(_, at)| at)), texts),
        (None, _) => Err(Lost::NoBeginning),
    }
}

fn row_of_whole(id: ExchangeId, payload: &[u8], texts: Texts) -> Result<Exchange, Lost> {
    let leaves = texts == Texts::Leave;
    match Whole::read(payload)? {
        Whole::Row(mut row) => {
            if leaves {
                row.truncated |= row.messages.take().is_some() || row.answer.take().is_some();
                row.answer = None;
            }
            Ok(*row)
        }
        Whole::Conversation(both, body) => {
            let (mut begin, end) = *both;
            let body = if leaves { &[] } else { body };
            begin.cut |= (body.len() as u64) < begin.kept;
            Ok(row::of(Said { id, begin, body, end, head: Vec::new(), tail: &[] }))
        }
    }
}

fn put_together(
    reader: &Reader,
    found: &Found,
    (begin, end): (Location, Option<Location>),
    texts: Texts,
) -> Result<Exchange, Lost> {
    let payload = reader.payload(&begin)?;
    let (mut begin, body) = record::read::<Begin<'_>>(&payload)?;
    let ending = end.map(|at| reader.payload(&at)).transpose()?;
    let (mut end, later) = match &ending {
        Some(payload) => record::read::<End>(payload)?,
        None => (End::unseen(&begin), &[][..]),
    };
    if texts == Texts::Leave {
        begin.cut |= begin.kept > 0;
        end.cut |= end.head > 0;
        return Ok(row::of(Said { id: found.id, begin, body: &[], end, head: Vec::new(), tail: &[] }));
    }
    let (rest, tail) = later.split_at_checked(usize::try_from(end.rest).unwrap_or(0)).unwrap_or((later, &[]));
    let mut pieces = Pieces { asked: Cow::Borrowed(body), ..Pieces::default() };
    pieces.read(reader, found, rest.len())?;
    pieces.head.extend_from_slice(rest);
    begin.cut |= (pieces.asked.len() as u64) < begin.kept;
    end.cut |= pieces.is_gappy || (pieces.head.len() as u64) < end.head;
    if ending.is_none() {
        end.answer = pieces.answer.take();
        end.bytes = pieces.head.len() as u64;
    }
    let Pieces { asked, head, .. } = pieces;
    Ok(row::of(Said { id: found.id, begin, body: &asked, end, head, tail }))
}

/// The parts in their order, each once.
fn in_order(reader: &Reader, found: &Found) -> Result<Vec<Numbered>, Lost> {
    let mut parts = Vec::with_capacity(found.parts.len());
    for at in &found.parts {
        let payload = reader.payload(at)?;
        let (part, bytes) = record::read::<Part>(&payload)?;
        let is_answer = matches!(part.of, Piece::Answered(_));
        parts.push(Numbered { number: part.number, is_answer, bytes: bytes.len(), at: *at });
    }
    parts.sort_by_key(|part| part.number);
    parts.dedup_by_key(|part| part.number);
    Ok(parts)
}

// === impl Pieces ===

impl Pieces<'_> {
    /// Reads the parts one by one into what has room for all of them, and for `rest` more of the answer.
    fn read(&mut self, reader: &Reader, found: &Found, rest: usize) -> Result<(), Lost> {
        let parts = in_order(reader, found)?;
        let bytes = |of_answer: bool| {
            parts.iter().filter(|part| part.is_answer == of_answer).map(|part| part.bytes).sum::<usize>()
        };
        self.head.reserve_exact(bytes(true) + rest);
        let asked = bytes(false);
        if asked > 0 {
            let mut whole = Vec::with_capacity(self.asked.len() + asked);
            whole.extend_from_slice(&self.asked);
            self.asked = Cow::Owned(whole);
        }
        for part in parts {
            self.is_gappy |= part.number != self.next;
            if self.is_gappy {
                return Ok(());
            }
            self.next += 1;
            self.add(&reader.payload(&part.at)?)?;
        }
        Ok(())
    }

    fn add(&mut self, payload: &[u8]) -> Result<(), Unreadable> {
        let (part, bytes) = record::read::<Part>(payload)?;
        match part.of {
            Piece::Asked => self.asked.to_mut().extend_from_slice(bytes),
            Piece::Answered(answer) => {
                self.answer = self.answer.take().or(answer);
                self.head.extend_from_slice(bytes);
            }
        }
        Ok(())
    }
}
