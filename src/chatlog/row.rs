//! From kept bytes to a row: what was asked and answered, put together.

use std::borrow::Cow;
use std::time::Duration;

use super::record::{Begin, End};
use super::{Answer, Ending};
use crate::dialect::decode::decode;
use crate::dialect::ending::ending;
use crate::dialect::message::asked;
use crate::dialect::{Answered, Call, assembler};
use crate::ids::ExchangeId;
use crate::store::exchanges;

/// A conversation with all of its bytes.
pub(super) struct Said<'a> {
    pub(super) id: ExchangeId,
    pub(super) begin: Begin<'a>,
    /// What was asked, as it was forwarded; empty where nothing is kept.
    pub(super) body: &'a [u8],
    pub(super) end: End,
    /// The first bytes of the answer. They go as soon as they are read.
    pub(super) head: Vec<u8>,
    /// Its last bytes, where the middle is missing.
    pub(super) tail: &'a [u8],
}

/// A compressed answer may not unfold to more than this, nor to more than some 30 times its size, which text
/// does not reach: so a bomb stays small.
const MAX_DECODED: usize = 16 * 1024 * 1024;
const MOST_UNFOLDED: usize = 32;
const LEAST_DECODED: usize = 256 * 1024;

/// The row of a conversation.
pub(super) fn of(conversation: Said<'_>) -> exchanges::Exchange {
    let Said { id, begin, body, end, head, tail } = conversation;
    let answer = end.answer.as_ref();
    let asked = asked(begin.call, body);
    let has_head = !head.is_empty();
    let mut answered = answer.map(|answer| read(begin.call, answer, Bytes { head, tail, cut: end.cut }));
    let messages = answered.as_mut().map(|read| std::mem::take(&mut read.answered.messages));
    let said = answered.as_ref().map(|read| &read.answered);
    let usage = said.and_then(|said| said.usage);
    let count = |tokens: Option<u64>| tokens.and_then(|tokens| i64::try_from(tokens).ok());
    let ended = outcome(end.ending, said);
    exchanges::Exchange {
        id,
        user_id: Some(begin.user),
        key_id: Some(begin.key),
        username: begin.username.to_owned(),
        email: begin.email.to_owned(),
        request_id: begin.request_id.to_owned(),
        route: begin.route.to_owned(),
        call: begin.call.name().to_owned(),
        model: begin
            .model
            .map(str::to_owned)
            .or(said.and_then(|said| said.model.clone()))
            .unwrap_or_default(),
        messages: (!body.is_empty()).then(|| or_empty(asked.messages)),
        answer: messages.filter(|_| has_head).map(or_empty),
        research_model: begin.research,
        time: begin.started,
        status: answer.map(|answer| i64::from(answer.status)),
        stream: begin.stream,
        outcome: ended.outcome().to_owned(),
        verdict: end.verdict,
        reason: ended.reason().to_owned(),
        quota_day: begin.ledger.map(|(day, _)| day),
        quota_epoch: begin.ledger.map(|(_, epoch)| epoch),
        first_byte_ms: answer.map(|answer| millis(answer.first_byte)),
        latency_ms: millis(end.took),
        bytes_in: i64::try_from(begin.bytes).unwrap_or(i64::MAX),
        bytes_out: i64::try_from(end.bytes).unwrap_or(i64::MAX),
        prompt_tokens: count(usage.and_then(|usage| usage.prompt)),
        completion_tokens: count(usage.and_then(|usage| usage.completion)),
        total_tokens: count(usage.and_then(|usage| usage.total)),
        cached_tokens: count(usage.and_then(|usage| usage.cached)),
        reasoning_tokens: count(usage.and_then(|usage| usage.reasoning)),
        usage_source: if usage.is_some() { "reported" } else { "none" }.to_owned(),
        finish_reason: said.and_then(|said| said.finish_reason.clone()),
        truncated: begin.cut || end.cut || asked.cut || answered.as_ref().is_some_and(|read| read.cut),
        client_ip: begin.client_ip.to_string(),
    }
}

/// What is kept of an answer's body.
struct Bytes<'a> {
    head: Vec<u8>,
    tail: &'a [u8],
    cut: bool,
}

/// An answer, and whether some of it is missing.
struct Read {
    answered: Answered,
    cut: bool,
}

fn read(call: Call, answer: &Answer, kept: Bytes<'_>) -> Read {
    let Bytes { head, tail, cut } = kept;
    let (bytes, unfolded) = clear(answer.encoding.as_deref(), head);
    let assembler = assembler(call, answer.framing, answer.pointer.as_deref());
    let mut answered = assembler.finish_with(bytes);
    if cut && answer.encoding.is_none() {
        answered.complete(ending(call, answer.framing, tail));
    }
    let cut = cut || unfolded || answered.cut > 0;
    Read { answered, cut }
}

/// The bytes in the clear, and whether some of them are missing. The encoded ones go.
fn clear(encoding: Option<&str>, head: Vec<u8>) -> (Vec<u8>, bool) {
    let most = head.len().saturating_mul(MOST_UNFOLDED).clamp(LEAST_DECODED, MAX_DECODED);
    // What is not encoded is not limited here.
    let decoded = decode(encoding, &head, most.max(head.len()));
    let cut = decoded.cut;
    match decoded.bytes {
        Cow::Owned(bytes) => (bytes, cut),
        Cow::Borrowed(_) => (head, cut),
    }
}

/// A client that hangs up after the last event heard everything; an answer that stopped for want of
/// room is not complete.
fn outcome(ending: Ending, said: Option<&Answered>) -> Ending {
    let Some(said) = said else { return ending };
    match ending {
        Ending::ClientLeft | Ending::UpstreamCut if said.finished => Ending::Complete,
        ending => ending,
    }
    .lengthened(said)
}

/// An array without elements where there is nothing.
fn or_empty(messages: String) -> String {
    if messages.is_empty() { "[]".to_owned() } else { messages }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

// === impl Ending ===

impl Ending {
    fn lengthened(self, said: &Answered) -> Self {
        if self == Self::Complete && said.ran_out_of_length() { Self::Length } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::outcome;
    use crate::chatlog::Ending;
    use crate::dialect::Answered;

    #[test]
    fn the_end_mark_decides_what_a_hang_up_was() {
        let heard = Answered { finished: true, ..Answered::default() };
        let cut = Answered::default();
        let short = Answered { finish_reason: Some("length".into()), ..heard.clone() };
        assert_eq!(outcome(Ending::ClientLeft, Some(&heard)), Ending::Complete);
        assert_eq!(outcome(Ending::ClientLeft, Some(&cut)), Ending::ClientLeft);
        assert_eq!(outcome(Ending::Complete, Some(&short)), Ending::Length);
        assert_eq!(outcome(Ending::UpstreamCut, Some(&cut)), Ending::UpstreamCut);
        assert_eq!(outcome(Ending::UpstreamError(500), Some(&heard)), Ending::UpstreamError(500));
    }
}
