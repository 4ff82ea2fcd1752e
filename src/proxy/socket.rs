//! WebSockets: frames pass as they came, and what is said on them is paid for, recorded, and held to what its
//! user may do.
//!
//! Where a message costs or may not be said, it is held back until that is decided; where the opening of the
//! socket was all that costs, nothing is. What we end ourselves ends with the dialect's error event and a
//! frame that closes (RFC 6455 §7.4.1).

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

mod frame;
mod line;
mod turn;
mod turns;

pub(super) use line::{Line, Unit};

use frame::Reader;
use turns::Turns;

use super::ask::AskError;
use super::capture::Kept;
use super::collected::Collected;
use super::ending::Meter;
use super::refusal::Refusal;
use super::running::{Cut, Denied};
use crate::chatlog::{Ending, Waited};
use crate::dialect::Dialect;
use crate::ids::RequestId;

type From = ReadHalf<TokioIo<Upgraded>>;
type To = WriteHalf<TokioIo<Upgraded>>;

/// A socket about to be carried.
pub(super) struct Socket {
    pub(super) line: Line,
    pub(super) dialect: Dialect,
    /// Longest time that it may be open.
    pub(super) total: Duration,
    /// Most bytes of a message that is held back.
    pub(super) max_message: u64,
}

/// Why a socket ends.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// Both sides said so.
    Closed,
    ClientLeft,
    UpstreamLeft,
    Refused(Refusal),
    Malformed,
    TimedOut,
    Cut(Cut),
}

/// What a socket that we end ourselves ends with.
struct Words {
    event: Vec<u8>,
    code: u16,
    reason: &'static str,
}

/// One direction.
struct Pipe {
    reader: Reader,
    input: BytesMut,
    /// What may be passed on, and is not yet.
    out: BytesMut,
    /// Nothing is understood any more, so all is passed on as it comes.
    is_blind: bool,
}

/// What both directions share.
struct Between {
    turns: Mutex<Turns>,
    /// Whether one of the sides has said that it closes.
    is_closing: Cell<bool>,
    /// Whether messages of the client are held back, and most bytes of one.
    holds: bool,
    max_message: u64,
}

/// Bytes read at a time.
const PIECE: usize = 16 * 1024;
/// Most bytes of a server's event that are looked at, and of a plain app's message that are kept.
const MOST_OF_EVENT: usize = 8 << 20;
const MOST_OF_TEXT: usize = 64 * 1024;
/// How long the end of a frame is waited for, and how long both sides are let to say that they close.
const FRAME_END: Duration = Duration::from_millis(300);
const GOODBYE: Duration = Duration::from_secs(1);
const CLOSING: Duration = Duration::from_secs(5);

/// Carries both directions until one of them, or the gateway, ends it.
pub(super) async fn carry(socket: Socket, client: OnUpgrade, upstream: OnUpgrade, meter: Meter) {
    let Socket { line, dialect, total, max_message } = socket;
    let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
    let (mut from_client, mut to_client) = split(TokioIo::new(client));
    let (mut from_upstream, mut to_upstream) = split(TokioIo::new(upstream));
    let (request_id, watched) = (line.request_id.clone(), line.watched.clone());
    let holds = line.unit != Unit::Connection;
    let most = if holds { usize::try_from(max_message).unwrap_or(usize::MAX) } else { MOST_OF_TEXT };
    let most_heard = if line.unit == Unit::Response { MOST_OF_EVENT } else { MOST_OF_TEXT };
    let (mut up, mut down) = (Pipe::new(Reader::of_client(most)), Pipe::new(Reader::of_server(most_heard)));
    let mut meter = Some(meter);
    let turns = Mutex::new(Turns::begin(line, &mut meter));
    let between = Between { turns, is_closing: Cell::new(false), holds, max_message };
    let stop = {
        let upward = pin!(up.carry_up(&mut from_client, &mut to_upstream, &between));
        let downward = pin!(down.carry_down(&mut from_upstream, &mut to_client, &between));
        tokio::select! {
            biased;
            cut = watched.cut_off() => Stop::Cut(cut),
            stop = downward => stop,
            stop = upward => stop,
            () = between.keep_time(total) => Stop::TimedOut,
        }
    };
    let mut turns = between.turns.into_inner();
    turns.end(stop.ending()).await;
    if let Some(mut meter) = meter {
        meter.end(stop.ending(), &Kept::default());
    }
    let words = stop.words(dialect, &request_id);
    let is_over = words.is_none();
    let _ = timeout(GOODBYE, down.take_leave(words, &mut from_upstream, &mut to_client)).await;
    let _ = timeout(GOODBYE, up.leave(&mut to_upstream, is_over)).await;
    if !is_over {
        // Else what the client still sends would reset the connection, and take the last words with it.
        let _ = timeout(GOODBYE, discard(&mut from_client)).await;
    }
}

async fn discard(from: &mut From) {
    let mut rest = BytesMut::with_capacity(PIECE);
    while from.read_buf(&mut rest).await.is_ok_and(|read| read > 0) {
        rest.clear();
    }
}

// === impl Between ===

impl Between {
    /// Waits for what is paid for.
    async fn idle(&self) {
        while !self.turns.lock().await.is_idle() {
            sleep(FRAME_END).await;
        }
    }

    /// Hands to the log what has waited, until the time is over.
    async fn keep_time(&self, total: Duration) {
        let end = Instant::now() + total;
        while Instant::now() < end {
            sleep_until(end.min(Instant::now() + Duration::from_secs(1))).await;
            self.turns.lock().await.hand_over();
        }
    }
}

// === impl Pipe ===

impl Pipe {
    fn new(reader: Reader) -> Self {
        Self { reader, input: BytesMut::new(), out: BytesMut::new(), is_blind: false }
    }

    async fn carry_up(&mut self, from: &mut From, to: &mut To, between: &Between) -> Stop {
        let mut held: Option<Collected> = None;
        loop {
            if self.read(from).await == 0 {
                let _ = to.shutdown().await;
                if !between.is_closing.get() {
                    return Stop::ClientLeft;
                }
                // The server has the last word.
                sleep(CLOSING).await;
                return Stop::Closed;
            }
            let understood = self.understand_client(&mut held, between).await;
            // What came before a refusal is paid for.
            if to.write_all_buf(&mut self.out).await.is_err() || to.flush().await.is_err() {
                return Stop::UpstreamLeft;
            }
            if let Err(stop) = understood {
                if matches!(stop, Stop::Refused(Refusal::UsedUp { .. } | Refusal::Limit(_))) {
                    between.idle().await;
                }
                return stop;
            }
        }
    }

    async fn understand_client(
        &mut self,
        held: &mut Option<Collected>,
        between: &Between,
    ) -> Result<(), Stop> {
        while let Some(step) = self.step(between.holds)? {
            if step.is_control || !between.holds {
                self.out.extend_from_slice(&step.bytes);
            } else {
                let held = match held {
                    Some(held) => held,
                    None => held.insert(between.turns.lock().await.holder()),
                };
                held.push(step.bytes).map_err(|full| Stop::Refused(full.into()))?;
                if held.len() as u64 > between.max_message {
                    let too_large = AskError::TooLarge { max: between.max_message };
                    return Err(Stop::Refused(Refusal::Ask(too_large)));
                }
            }
            if step.closes {
                between.is_closing.set(true);
            }
            if let Some(said) = step.said {
                between.turns.lock().await.hear_client(said).await.map_err(Stop::Refused)?;
                if let Some(held) = held.take() {
                    self.out.extend_from_slice(&held.into_bytes());
                }
            }
        }
        Ok(())
    }

    async fn carry_down(&mut self, from: &mut From, to: &mut To, between: &Between) -> Stop {
        loop {
            if self.read(from).await == 0 {
                return if between.is_closing.get() { Stop::Closed } else { Stop::UpstreamLeft };
            }
            let understood = self.understand_server(between).await;
            if to.write_all_buf(&mut self.out).await.is_err() || to.flush().await.is_err() {
                return Stop::ClientLeft;
            }
            if let Err(stop) = understood {
                return stop;
            }
        }
    }

    async fn understand_server(&mut self, between: &Between) -> Result<(), Stop> {
        while let Some(step) = self.step(between.holds)? {
            if let Some(said) = step.said {
                let heard = between.turns.lock().await.hear_server(said).await;
                self.out.extend_from_slice(&step.bytes);
                heard.map_err(Stop::Refused)?;
            } else {
                self.out.extend_from_slice(&step.bytes);
            }
            if step.closes {
                between.is_closing.set(true);
            }
        }
        Ok(())
    }

    async fn read(&mut self, from: &mut From) -> usize {
        self.input.reserve(PIECE);
        from.read_buf(&mut self.input).await.unwrap_or(0)
    }

    /// The next step of what came in. What is no WebSocket passes unread, unless something depends on it.
    fn step(&mut self, must_be_understood: bool) -> Result<Option<frame::Step>, Stop> {
        if !self.is_blind {
            match self.reader.next(&mut self.input) {
                Ok(step) => return Ok(step),
                Err(_) if must_be_understood => return Err(Stop::Malformed),
                Err(_) => self.is_blind = true,
            }
        }
        self.out.extend_from_slice(&self.input.split());
        Ok(None)
    }

    /// Ends the way to the client, with words where there are any and there is a place for them.
    async fn take_leave(&mut self, words: Option<Words>, from: &mut From, to: &mut To) {
        if let Some(words) = words
            && timeout(FRAME_END, self.end_frame(from, to)).await == Ok(true)
        {
            if self.reader.is_between_messages() {
                self.out.extend_from_slice(&frame::text(&words.event));
            }
            self.out.extend_from_slice(&frame::close(words.code, words.reason));
        }
        let _ = to.write_all_buf(&mut self.out).await;
        let _ = to.shutdown().await;
    }

    /// Passes on what is left of the frame that is under way; whether that was possible.
    async fn end_frame(&mut self, from: &mut From, to: &mut To) -> bool {
        while !self.is_blind && !self.reader.is_between_frames() {
            match self.reader.next(&mut self.input) {
                Ok(Some(step)) => self.out.extend_from_slice(&step.bytes),
                Ok(None) if self.read(from).await > 0 => {}
                _ => return false,
            }
            if to.write_all_buf(&mut self.out).await.is_err() {
                return false;
            }
        }
        !self.is_blind
    }

    /// Ends the way to the upstream.
    async fn leave(&mut self, to: &mut To, is_over: bool) {
        if !is_over && !self.is_blind && self.reader.is_between_frames() {
            self.out.extend_from_slice(&frame::close_of_client(1001));
        }
        let _ = to.write_all_buf(&mut self.out).await;
        let _ = to.shutdown().await;
    }
}

// === impl Stop ===

impl Stop {
    /// What the rows of conversations say that have not ended.
    fn ending(self) -> Ending {
        match self {
            Self::Closed => Ending::Complete,
            Self::ClientLeft => Ending::ClientLeft,
            Self::UpstreamLeft => Ending::UpstreamCut,
            Self::Refused(_) | Self::Malformed => Ending::Refused,
            Self::TimedOut => Ending::TimedOut(Waited::Total),
            Self::Cut(cut) => cut.ending(),
        }
    }

    /// What the client hears, where the end is ours.
    fn words(self, dialect: Dialect, id: &RequestId) -> Option<Words> {
        let refused = |refusal: Refusal| {
            let event = refusal.socket_event(dialect, id);
            Some(Words { event, code: 1008, reason: refusal.code() })
        };
        match self {
            Self::Closed | Self::ClientLeft | Self::UpstreamLeft => None,
            Self::Refused(refusal) | Self::Cut(Cut::Denied(Denied { refusal, .. })) => refused(refusal),
            Self::Malformed => refused(Refusal::Ask(AskError::Broken)),
            Self::TimedOut => refused(Refusal::UpstreamTimeout),
            Self::Cut(Cut::Shutdown) => {
                let words = refused(Refusal::ShuttingDown)?;
                Some(Words { code: 1001, ..words })
            }
        }
    }
}
