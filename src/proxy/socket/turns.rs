//! Conversations on one socket: what each costs, and its row.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use super::frame::Said;
use super::line::{Line, Unit};
use super::turn::Turn;
use crate::chatlog::{Ending, Synced};
use crate::dialect::scan::ScanError;
use crate::dialect::socket::{Told, from_client, from_server};
use crate::proxy::ask::AskError;
use crate::proxy::collected::Collected;
use crate::proxy::ending::Meter;
use crate::proxy::refusal::Refusal;

/// The conversations of a socket.
pub(super) struct Turns {
    line: Line,
    /// Asked for, and not begun by the server.
    waiting: VecDeque<Turn>,
    running: Vec<Turn>,
    /// Responses that ended lately; what still comes of them begins nothing.
    ended: VecDeque<String>,
    /// What was added to the conversation since the last response was asked for, as JSON.
    items: Vec<String>,
    kept: usize,
}

/// Responses of one socket that are asked for or run at a time.
const MOST_AT_A_TIME: usize = 32;
const MOST_ENDED: usize = 32;
/// Bytes kept of what was added to a conversation, until it is answered.
const MOST_OF_ITEMS: usize = 256 * 1024;

// === impl Turns ===

impl Turns {
    /// The conversations of a socket whose opening is `meter`.
    pub(super) fn begin(line: Line, meter: &mut Option<Meter>) -> Self {
        let mut turns = Self {
            line,
            waiting: VecDeque::new(),
            running: Vec::new(),
            ended: VecDeque::new(),
            items: Vec::new(),
            kept: 0,
        };
        if turns.line.unit == Unit::Connection {
            turns.running.extend(meter.take().map(|meter| turns.line.turn(meter)));
        }
        turns
    }

    /// Where a message is held back until it is judged; its bytes are counted with those of request bodies.
    pub(super) fn holder(&self) -> Collected {
        self.line.holder()
    }

    /// Whether no response is asked for or runs. Messages of plain apps have no end of their own.
    pub(super) fn is_idle(&self) -> bool {
        self.line.unit != Unit::Response || self.running.is_empty() && self.waiting.is_empty()
    }

    /// What the client says; not before this is answered may it be passed on.
    pub(super) async fn hear_client(&mut self, said: Said) -> Result<(), Refusal> {
        match self.line.unit {
            Unit::Connection => {
                if let Some(turn) = self.running.first_mut().filter(|_| said.is_text) {
                    turn.ask(&said.bytes, self.line.most);
                }
                Ok(())
            }
            Unit::Message => {
                self.end_running(Ending::Complete).await;
                let body = if said.is_text { Bytes::from(said.bytes) } else { Bytes::new() };
                let turn = self.line.begin(body, None).await?;
                self.running.push(turn);
                Ok(())
            }
            Unit::Response => self.hear_event(said).await,
        }
    }

    async fn hear_event(&mut self, said: Said) -> Result<(), Refusal> {
        let event = match from_client(&said.bytes) {
            Ok(event) => event,
            // Sound may come as it is; what may be JSON to somebody may not.
            Err(_) if !said.is_text && !may_be_json(&said.bytes) => return Ok(()),
            Err(ScanError::Duplicate { .. }) => return Err(Refusal::Ask(AskError::Duplicate("type"))),
            Err(ScanError::TooDeep) => return Err(Refusal::Ask(AskError::TooDeep)),
            Err(_) => return Err(Refusal::Ask(AskError::NotJson)),
        };
        self.line.check(&event, &said.bytes)?;
        if event.is_session && !event.models.is_empty() {
            self.line.models.clone_from(&event.models);
        }
        if let Some(item) = event.item {
            self.add(item);
        }
        if !event.asks {
            return Ok(());
        }
        if self.waiting.len() + self.running.len() >= MOST_AT_A_TIME {
            return Err(Refusal::Overloaded);
        }
        let model = event.models.first().cloned();
        let body = if event.has_input { said.bytes.into() } else { self.added(said.bytes.into()) };
        let turn = self.line.begin(body, model).await?;
        self.waiting.push_back(turn);
        Ok(())
    }

    /// What the server says; not before this is answered may its last bytes be passed on.
    pub(super) async fn hear_server(&mut self, said: Said) -> Result<(), Refusal> {
        if self.line.unit != Unit::Response {
            if let Some(turn) = self.running.last_mut().filter(|_| said.is_text) {
                turn.keep(&self.line, &[&said.bytes, b"\n"]);
            }
            return Ok(());
        }
        let event = from_server(&said.bytes);
        let is_new = match event.told {
            Told::Begins | Told::Ends => true,
            Told::Piece | Told::Media => self.running.is_empty() && event.response.is_none(),
            Told::Error(status) => {
                self.fail(&said, status).await;
                return Ok(());
            }
            Told::Heard(item) => {
                self.add(item);
                return Ok(());
            }
            Told::Other => return Ok(()),
        };
        let Some(at) = self.find(event.response.as_deref(), is_new).await? else { return Ok(()) };
        let Some(turn) = self.running.get_mut(at) else { return Ok(()) };
        if event.told != Told::Media {
            turn.keep(&self.line, &[b"data: ", &said.bytes, b"\n\n"]);
        }
        if event.told == Told::Ends {
            let turn = self.running.swap_remove(at);
            if self.ended.len() >= MOST_ENDED {
                self.ended.pop_front();
            }
            self.ended.extend(event.response);
            settle(turn.end(Ending::Complete)).await;
        }
        Ok(())
    }

    /// The response that an event belongs to. One that was not asked for is paid for as well.
    async fn find(&mut self, response: Option<&str>, is_new: bool) -> Result<Option<usize>, Refusal> {
        let last = self.running.len().checked_sub(1);
        let Some(id) = response else {
            return if last.is_some() || !is_new { Ok(last) } else { self.start(None).await.map(Some) };
        };
        let known = self.running.iter().position(|turn| turn.response.as_deref() == Some(id));
        if known.is_some() || !is_new || self.ended.iter().any(|ended| ended == id) {
            return Ok(known);
        }
        let unnamed = self.running.iter_mut().position(|turn| turn.response.is_none());
        if let Some(turn) = unnamed.and_then(|at| self.running.get_mut(at)) {
            turn.response = Some(id.to_owned());
            return Ok(unnamed);
        }
        self.start(Some(id)).await.map(Some)
    }

    async fn start(&mut self, response: Option<&str>) -> Result<usize, Refusal> {
        let mut turn = match self.waiting.pop_front() {
            Some(turn) => turn,
            None if self.running.len() >= MOST_AT_A_TIME => return Err(Refusal::Overloaded),
            None => {
                let body = self.added(Bytes::new());
                self.line.begin(body, None).await?
            }
        };
        turn.response = response.map(str::to_owned);
        self.running.push(turn);
        Ok(self.running.len() - 1)
    }

    /// An error ends the response that was asked for first, if none of them has begun.
    async fn fail(&mut self, said: &Said, status: u16) {
        if let Some(turn) = self.running.last_mut() {
            return turn.keep(&self.line, &[b"data: ", &said.bytes, b"\n\n"]);
        }
        if let Some(turn) = self.waiting.pop_front() {
            settle(turn.end(Ending::UpstreamError(status))).await;
        }
    }

    fn add(&mut self, item: String) {
        if self.line.keeps && self.kept + item.len() <= MOST_OF_ITEMS {
            self.kept += item.len();
            self.items.push(item);
        }
    }

    /// What was added, as a request would say it; `instead`, where nothing was.
    fn added(&mut self, instead: Bytes) -> Bytes {
        if self.items.is_empty() {
            return instead;
        }
        self.kept = 0;
        let items = std::mem::take(&mut self.items).join(",");
        Bytes::from(format!("{{\"input\":[{items}]}}"))
    }

    /// Hands what is kept to the log, where it has waited long enough.
    pub(super) fn hand_over(&mut self) {
        let now = Instant::now();
        for turn in self.running.iter_mut().chain(&mut self.waiting) {
            turn.hand_over(now);
        }
    }

    async fn end_running(&mut self, ending: Ending) {
        for turn in self.running.drain(..) {
            settle(turn.end(ending)).await;
        }
    }

    /// Ends all that is left.
    pub(super) async fn end(&mut self, ending: Ending) {
        self.end_running(ending).await;
        for turn in self.waiting.drain(..) {
            settle(turn.end(ending)).await;
        }
    }
}

/// Waits, in strict mode, for the disk.
async fn settle(synced: Option<Synced>) {
    if let Some(synced) = synced {
        synced.await;
    }
}

/// Whether a lenient parser might find an event in bytes that are not said to be text, in UTF-16 or -32 too.
fn may_be_json(bytes: &[u8]) -> bool {
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| !matches!(byte, 0 | 0xfe | 0xff)).collect();
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii();
    let is_closed = |open, close| text.first() == Some(&open) && text.last() == Some(&close);
    (is_closed(b'{', b'}') || is_closed(b'[', b']')) && std::str::from_utf8(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::may_be_json;

    #[test]
    fn an_event_is_no_sound_however_it_is_encoded() {
        let event = r#"{"type":"response.create"}"#;
        let utf16: Vec<u8> = event.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let with_bom = [b"\xff\xfe".as_slice(), &utf16].concat();
        let utf32: Vec<u8> = event.chars().flat_map(|char| u32::from(char).to_be_bytes()).collect();
        let bom = [b"\xef\xbb\xbf".as_slice(), event.as_bytes()].concat();
        for bytes in [event.as_bytes(), &utf16, &with_bom, &utf32, &bom, b" [1] "] {
            assert!(may_be_json(bytes), "{bytes:?}");
        }
        for sound in [&b""[..], &[0; 64], b"{\x80\x81}", b"{ and more"] {
            assert!(!may_be_json(sound), "{sound:?}");
        }
    }
}
