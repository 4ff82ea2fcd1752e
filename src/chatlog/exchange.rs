//! One conversation as the data plane sees it: what was asked, what was answered, how it stopped.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::dialect::{Call, Framing};
use crate::store::exchanges::UNSEEN;

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

/// The head of an answer, as far as the log looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The upstream's status.
    pub status: u16,
    /// How its bytes are framed.
    pub framing: Framing,
    /// Its `Content-Encoding`.
    pub encoding: Option<String>,
    /// Where a plain app's text stands (RFC 6901).
    pub pointer: Option<String>,
    /// From the start to the answer's head.
    pub first_byte: Duration,
}

/// How a forwarded conversation stopped. Spool files hold it by position: new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The gateway stopped in order, and its answers could be waited for no longer.
    Cancelled,
    /// The gateway was killed, or its machine was; nobody saw the end.
    GatewayStopped,
    /// The user, or the key, lost the right to it while it ran.
    AccessEnded(Access),
}

/// The right that was lost while a conversation ran. Spool files hold it by position: new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// The key was revoked, or replaced.
    KeyRevoked,
    /// The key came to its end, or the former secret of a rotated one did.
    KeyExpired,
    /// The user was disabled.
    AccountDisabled,
    /// The user was deleted.
    AccountDeleted,
    /// The client's IP address is not allowed any more.
    Address,
    /// The plan does not open the route any more.
    Scope,
    /// The plan does not include the model any more.
    Model,
    /// The user may not ask for this `r_type` any more.
    RType,
}

/// What was waited for in vain. Spool files hold it by position: new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
            Self::GatewayStopped => UNSEEN,
            Self::AccessEnded(_) => "access_ended",
        }
    }

    /// The row's `reason`: as the outcome, and where the outcome says too little, more.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::UpstreamError(300..=399) => "upstream_redirect",
            Self::UpstreamError(408) => "upstream_timeout_status",
            Self::UpstreamError(429) => "upstream_rate_limit",
            Self::UpstreamError(status) if status >= 500 => "upstream_server_error",
            Self::UpstreamError(_) => "upstream_client_error",
            Self::Unreachable => "upstream_unreachable",
            Self::TimedOut(Waited::Connect) => "connect_timeout",
            Self::TimedOut(Waited::FirstByte) => "first_byte_timeout",
            Self::TimedOut(Waited::Idle) => "idle_timeout",
            Self::TimedOut(Waited::Total) => "total_timeout",
            Self::AccessEnded(access) => access.reason(),
            other => other.outcome(),
        }
    }
}

// === impl Access ===

impl Access {
    /// The word for it: the refusal's code, and more where that says too little.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::KeyRevoked => "key_revoked",
            Self::KeyExpired => "key_expired",
            Self::AccountDisabled => "account_disabled",
            Self::AccountDeleted => "account_deleted",
            Self::Address => "ip_not_allowed",
            Self::Scope => "route_not_allowed",
            Self::Model => "model_not_found",
            Self::RType => "r_type_not_allowed",
        }
    }
}
