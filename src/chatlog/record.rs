//! What stands in the payloads of the spool: facts in postcard's form (fields by position), then bytes
//! as they came.
//!
//! These shapes belong to the spool's format: changing one means a new format number there. A payload
//! that cannot be read is set aside, and the rest goes on.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Answer, Ending};
use crate::clock::Timestamp;
use crate::dialect::Call;
use crate::ids::{KeyId, UserId};
use crate::store::exchanges::{Exchange, Verdict};

/// What is known when a conversation is about to be forwarded. The bytes of what was asked follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin<'a> {
    /// The name both sides saw.
    pub request_id: &'a str,
    /// Whose it is.
    pub user: UserId,
    /// With which key.
    pub key: KeyId,
    /// Their name at the time.
    pub username: &'a str,
    /// Their address at the time.
    pub email: &'a str,
    /// From where.
    pub client_ip: IpAddr,
    /// The route's prefix.
    pub route: &'a str,
    /// Which call.
    pub call: Call,
    /// The model, if one was named.
    #[serde(borrow)]
    pub model: Option<&'a str>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Whether the row is marked `research_model`.
    pub research: bool,
    /// Whether the body should have been kept, and was not.
    pub cut: bool,
    /// Bytes of the body that came in, kept or not.
    pub bytes: u64,
    /// Of them, those that are kept.
    pub kept: u64,
    /// Day and epoch of the quota row its unit is of, where it costs one.
    pub ledger: Option<(i64, i64)>,
    /// When its head had come in.
    pub started: Timestamp,
}

/// What is known at a conversation's end. What was not yet written of the answer follows: the rest of
/// its beginning, then its last bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How it stopped.
    pub ending: Ending,
    /// What became of its unit.
    pub verdict: Verdict,
    /// What was answered, if an answer began.
    pub answer: Option<Answer>,
    /// Bytes that follow and belong to the beginning; the others are the last ones.
    pub rest: u64,
    /// Bytes of the beginning, those of earlier parts included.
    pub head: u64,
    /// Whether bytes of the answer are missing.
    pub cut: bool,
    /// Bytes that went out, kept or not.
    pub bytes: u64,
    /// From the request's head to the end.
    pub took: Duration,
}

/// A piece of a conversation, between its beginning and its end. Its bytes follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// The how-manyth of its conversation, from 0.
    pub(super) number: u32,
    pub(super) of: Piece,
}

/// Of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Piece {
    /// What was asked, where a record cannot hold it all.
    Asked,
    /// What was answered; the first piece says how.
    Answered(Option<Answer>),
}

/// All of it in one record.
#[derive(Debug)]
pub(super) enum Whole<'a> {
    /// A conversation that was never dispatched, and what it asked.
    Conversation(Box<(Begin<'a>, End)>, &'a [u8]),
    /// A row as it is.
    Row(Box<Exchange>),
}

/// A payload that is none of ours, or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a record of the spool cannot be read")]
pub(super) struct Unreadable;

/// Most bytes of one piece, well below what a record of the spool may hold.
pub(super) const PIECE: usize = 8 << 20;

const CONVERSATION: u8 = 0;
const ROW: u8 = 1;

/// The facts as bytes.
pub(super) fn facts(of: &impl Serialize) -> Vec<u8> {
    // Only sequences of unknown length cannot be written, and there is none.
    postcard::to_extend(of, Vec::with_capacity(256)).unwrap_or_default()
}

/// The facts, and the bytes that follow them.
pub(super) fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<(T, &'a [u8]), Unreadable> {
    postcard::take_from_bytes(payload).map_err(|_| Unreadable)
}

// === impl Whole ===

impl<'a> Whole<'a> {
    /// The facts of a conversation; what it asked follows.
    pub(super) fn conversation(begin: &Begin<'_>, end: &End) -> Vec<u8> {
        facts(&(CONVERSATION, begin, end))
    }

    /// A row.
    pub(super) fn row(row: &Exchange) -> Vec<u8> {
        facts(&(ROW, row))
    }

    pub(super) fn read(payload: &'a [u8]) -> Result<Self, Unreadable> {
        match payload.split_first() {
            Some((&CONVERSATION, facts)) => {
                let (both, body) = read::<(Begin<'a>, End)>(facts)?;
                Ok(Self::Conversation(Box::new(both), body))
            }
            Some((&ROW, facts)) => Ok(Self::Row(Box::new(read::<Exchange>(facts)?.0))),
            _ => Err(Unreadable),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::{Begin, End, Part, Piece, Unreadable, Whole, facts, read};
    use crate::chatlog::{Answer, Ending, Waited};
    use crate::clock::Timestamp;
    use crate::dialect::{Call, Framing};
    use crate::ids::{KeyId, UserId};
    use crate::store::exchanges::Verdict;
    use crate::store::tests::exchange;

    pub(in crate::chatlog) fn begin() -> Begin<'static> {
        Begin {
            request_id: "req_1",
            user: UserId(7),
            key: KeyId(8),
            username: "ann",
            email: "ann@example.com",
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            route: "/v1",
            call: Call::ChatCompletions,
            model: Some("m"),
            stream: true,
            research: false,
            cut: false,
            bytes: 2,
            kept: 2,
            ledger: Some((20_727, 0)),
            started: Timestamp(1_790_848_800_000),
        }
    }

    pub(in crate::chatlog) fn answer() -> Answer {
        Answer {
            status: 200,
            framing: Framing::Sse,
            encoding: None,
            pointer: None,
            first_byte: Duration::from_millis(3),
        }
    }

    pub(in crate::chatlog) fn end() -> End {
        End {
            ending: Ending::Complete,
            verdict: Verdict::Charged,
            answer: Some(answer()),
            rest: 0,
            head: 0,
            cut: false,
            bytes: 0,
            took: Duration::from_millis(9),
        }
    }

    #[test]
    fn what_is_written_is_read_and_the_bytes_follow() {
        let payload = [&facts(&begin())[..], b"{}"].concat();
        assert_eq!(read::<Begin<'_>>(&payload), Ok((begin(), &b"{}"[..])));
        let stopped = End { ending: Ending::TimedOut(Waited::Idle), rest: 3, ..end() };
        let payload = [&facts(&stopped)[..], b"abcdef"].concat();
        assert_eq!(read::<End>(&payload), Ok((stopped, &b"abcdef"[..])));
        let part = Part { number: 70_000, of: Piece::Answered(Some(answer())) };
        assert_eq!(read::<Part>(&facts(&part)), Ok((part, &b""[..])));
    }

    #[test]
    fn a_record_that_holds_all_is_a_conversation_or_a_row() {
        let payload = [&Whole::conversation(&begin(), &end())[..], b"{}"].concat();
        assert!(matches!(
            Whole::read(&payload),
            Ok(Whole::Conversation(read, b"{}")) if *read == (begin(), end())
        ));
        let row = exchange(5);
        assert!(matches!(Whole::read(&Whole::row(&row)), Ok(Whole::Row(read)) if *read == row));
    }

    #[test]
    fn what_is_none_of_ours_is_refused_and_never_panics() {
        for payload in [&b""[..], b"\x02", b"\xff\xff\xff\xff", b"\x01{\"a\":1}"] {
            assert!(Whole::read(payload).is_err(), "{payload:?}");
        }
        let whole = facts(&begin());
        for cut in 0..whole.len() {
            assert_eq!(read::<Begin<'_>>(&whole[..cut]).err(), Some(Unreadable));
        }
    }
}
