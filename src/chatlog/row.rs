//! From kept bytes to a row: what was asked and answered, put together.

use std::time::Duration;

use serde_json::Value;

use super::{Answer, Asked, Ending, Exchange};
use crate::dialect::decode::decode;
use crate::dialect::ending::ending;
use crate::dialect::message::{asked, omit_media};
use crate::dialect::{Answered, Call, assembler};
use crate::store::exchanges;

/// A compressed answer may not unfold to more than this.
const MAX_DECODED: usize = 32 * 1024 * 1024;

/// The row of an exchange. Lets go of its bytes.
pub(super) fn of(exchange: Exchange) -> exchanges::Exchange {
    let (asked, answer) = (&exchange.asked, &exchange.answer);
    let answered = answer.as_ref().map(|answer| read(asked.call, answer));
    let said = answered.as_ref().map(|read| &read.answered);
    let usage = said.and_then(|said| said.usage);
    let count = |tokens: Option<u64>| tokens.and_then(|tokens| i64::try_from(tokens).ok());
    let ended = outcome(exchange.ending, said);
    exchanges::Exchange {
        id: exchange.id,
        user_id: Some(exchange.user),
        key_id: Some(exchange.key),
        username: exchange.username,
        email: exchange.email,
        request_id: exchange.request_id.to_string(),
        route: exchange.route.to_string(),
        call: asked.call.name().to_owned(),
        model: asked.model.clone().or(said.and_then(|said| said.model.clone())).unwrap_or_default(),
        messages: messages(asked),
        answer: said
            .map(|said| Value::Array(said.messages.clone()).to_string())
            .filter(|_| keeps(answer.as_ref())),
        research_model: asked.research,
        time: exchange.started,
        status: answer.as_ref().map(|answer| i64::from(answer.status)),
        stream: asked.stream,
        outcome: ended.outcome().to_owned(),
        verdict: exchange.verdict,
        reason: ended.reason().to_owned(),
        quota_day: exchange.ledger.map(|(day, _)| day),
        quota_epoch: exchange.ledger.map(|(_, epoch)| epoch),
        first_byte_ms: answer.as_ref().map(|answer| millis(answer.first_byte)),
        latency_ms: millis(exchange.took),
        bytes_in: i64::try_from(asked.bytes).unwrap_or(i64::MAX),
        bytes_out: answer.as_ref().map_or(0, |answer| i64::try_from(answer.bytes).unwrap_or(i64::MAX)),
        prompt_tokens: count(usage.and_then(|usage| usage.prompt)),
        completion_tokens: count(usage.and_then(|usage| usage.completion)),
        total_tokens: count(usage.and_then(|usage| usage.total)),
        cached_tokens: count(usage.and_then(|usage| usage.cached)),
        reasoning_tokens: count(usage.and_then(|usage| usage.reasoning)),
        usage_source: if usage.is_some() { "reported" } else { "none" }.to_owned(),
        finish_reason: said.and_then(|said| said.finish_reason.clone()),
        truncated: asked.cut || answered.as_ref().is_some_and(|read| read.cut),
        client_ip: exchange.client_ip.to_string(),
    }
}

/// An answer, and whether some of it is missing.
struct Read {
    answered: Answered,
    cut: bool,
}

fn read(call: Call, answer: &Answer) -> Read {
    let decoded = decode(answer.encoding.as_deref(), &answer.head, MAX_DECODED);
    let mut assembler = assembler(call, answer.framing, answer.pointer.as_deref());
    assembler.feed(&decoded.bytes);
    let mut answered = assembler.finish();
    if answer.cut && answer.encoding.is_none() {
        answered.complete(ending(call, answer.framing, &answer.tail));
    }
    answered.messages.iter_mut().for_each(omit_media);
    let cut = answer.cut || decoded.cut || answered.cut > 0;
    Read { answered, cut }
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

fn messages(asked_for: &Asked) -> Option<String> {
    if asked_for.body.is_empty() {
        return None;
    }
    Some(Value::Array(asked(asked_for.call, &asked_for.body)).to_string())
}

fn keeps(answer: Option<&Answer>) -> bool {
    answer.is_some_and(|answer| !answer.head.is_empty())
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
