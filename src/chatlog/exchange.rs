//! One conversation as the data plane hands it over: who, what, when, and the bytes kept.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Share;
use crate::clock::Timestamp;
use crate::dialect::{Call, Framing};
use crate::ids::{ExchangeId, KeyId, RequestId, UserId};
use crate::store::exchanges::Verdict;

/// One conversation, ended. Its messages are still bytes; the drain reads them.
pub struct Exchange {
    /// Its name, also that of its reservation.
    pub id: ExchangeId,
    /// The name both sides saw.
    pub request_id: RequestId,
    /// Whose it was.
    pub user: UserId,
    /// With which key.
    pub key: KeyId,
    /// Their name at the time.
    pub username: String,
    /// Their address at the time.
    pub email: String,
    /// From where.
    pub client_ip: IpAddr,
    /// The route's prefix.
    pub route: Arc<str>,
    /// What was asked.
    pub asked: Asked,
    /// What was answered, if an answer began.
    pub answer: Option<Answer>,
    /// How it stopped.
    pub ending: Ending,
    /// What became of its unit.
    pub verdict: Verdict,
    /// Day and epoch of the quota row it was charged to.
    pub ledger: Option<(i64, i64)>,
    /// When its head had come in.
    pub started: Timestamp,
    /// From then to the end.
    pub took: Duration,
    /// What the kept bytes are counted in.
    pub share: Share,
}

/// What a request asked, as far as the gateway looked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which call.
    pub call: Call,
    /// The model, if one was named.
    pub model: Option<String>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Whether the row is marked `research_model`.
    pub research: bool,
    /// The body's bytes, as they were forwarded; empty where none are kept.
    pub body: Bytes,
    /// Whether the body should have been kept, and was not.
    pub cut: bool,
    /// Bytes that came in, kept or not.
    pub bytes: u64,
}

/// The bytes of an answer, as far as they were kept.
#[derive(Debug)]
pub struct Answer {
    /// The upstream's status.
    pub status: u16,
    /// How its bytes are framed.
    pub framing: Framing,
    /// Its `Content-Encoding`.
    pub encoding: Option<String>,
    /// Where a plain app's text stands (RFC 6901).
    pub pointer: Option<String>,
    /// The first bytes.
    pub head: Vec<u8>,
    /// The last bytes, where the middle is missing.
    pub tail: Vec<u8>,
    /// Whether bytes are missing.
    pub cut: bool,
    /// Bytes that went out, kept or not.
    pub bytes: u64,
    /// From the start to the answer's head.
    pub first_byte: Duration,
}

/// How a forwarded conversation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The answer came to its end.
    Complete,
    /// It ended because it was as long as it was allowed to be.
    Length,
    /// The client went away.
    ClientLeft,
    /// The upstream refused, with this status.
    UpstreamError(u16),
    /// The upstream could not be reached.
    Unreachable,
    /// The upstream ended in the middle.
    UpstreamCut,
    /// Somebody took too long.
    TimedOut(Waited),
    /// The gateway refused what the client went on to send.
    Refused,
    /// The gateway stopped.
    Cancelled,
}

/// What was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A connection to the upstream.
    Connect,
    /// The head of its answer.
    FirstByte,
    /// More of its answer.
    Idle,
    /// The end of its answer.
    Total,
}

// === impl Ending ===

impl Ending {
    /// The row's `outcome`.
    #[must_use]
    pub fn outcome(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Length => "length",
            Self::ClientLeft => "client_disconnect",
            Self::UpstreamError(_) | Self::Unreachable => "upstream_error",
            Self::UpstreamCut => "upstream_eof",
            Self::TimedOut(_) => "timeout",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled_by_operator",
        }
    }

    /// The row's `reason`: as the outcome, and where the outcome says too little, more.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::UpstreamError(408) => "upstream_timeout_status",
            Self::UpstreamError(429) => "upstream_rate_limit",
            Self::UpstreamError(status) if status >= 500 => "upstream_server_error",
            Self::UpstreamError(_) => "upstream_client_error",
            Self::Unreachable => "upstream_unreachable",
            Self::TimedOut(Waited::Connect) => "connect_timeout",
            Self::TimedOut(Waited::FirstByte) => "first_byte_timeout",
            Self::TimedOut(Waited::Idle) => "idle_timeout",
            Self::TimedOut(Waited::Total) => "total_timeout",
            other => other.outcome(),
        }
    }
}
