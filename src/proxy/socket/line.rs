//! What all conversations of a socket share, and how one is admitted.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::turn::Turn;
use crate::chatlog::{Answer, Asked, Scribe};
use crate::dialect::socket::FromClient;
use crate::dialect::{Call, Framing};
use crate::ids::RequestId;
use crate::proxy::Shared;
use crate::proxy::capture::Capture;
use crate::proxy::collected::Collected;
use crate::proxy::ending::{Admitted, Meter};
use crate::proxy::entitled;
use crate::proxy::refusal::Refusal;
use crate::proxy::route::Route;
use crate::proxy::running::Watched;

/// What one conversation on a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Unit {
    /// A response, also one that the server starts by itself.
    Response,
    /// A message of the client, and what is said until the next.
    Message,
    /// All that is said on it.
    Connection,
}

/// What all conversations of a socket share.
pub(in crate::proxy) struct Line {
    pub(in crate::proxy) shared: Arc<Shared>,
    pub(in crate::proxy) scribe: Scribe,
    pub(in crate::proxy) route: Arc<Route>,
    pub(in crate::proxy) ip: IpAddr,
    pub(in crate::proxy) watched: Rc<Watched>,
    pub(in crate::proxy) request_id: RequestId,
    pub(in crate::proxy) call: Call,
    pub(in crate::proxy) unit: Unit,
    /// Whether a conversation costs one.
    pub(in crate::proxy) is_charged: bool,
    /// Whether what is said is kept, and how much of it.
    pub(in crate::proxy) keeps: bool,
    pub(in crate::proxy) most: u64,
    /// The models that the request named.
    pub(in crate::proxy) models: Vec<String>,
}

// === impl Line ===

impl Line {
    /// Where a message is held back.
    pub(super) fn holder(&self) -> Collected {
        Collected::new(None, self.shared.limits.body(self.watched.subject().user))
    }

    /// Holds a client's event against what its plan includes.
    pub(super) fn check(&self, event: &FromClient, bytes: &[u8]) -> Result<(), Refusal> {
        let subject = self.watched.subject();
        let open = &subject.plan.models;
        entitled::event(open, bytes)?;
        if event.models.iter().any(|model| !open.permits_model(model)) {
            return Err(Refusal::Model);
        }
        // The session's own was judged when it was named, and the plan may be another by now.
        let named = if event.models.is_empty() { &self.models } else { &event.models };
        match named.iter().find(|model| !open.permits_model(model)) {
            Some(_) if event.asks => Err(Refusal::Model),
            None if event.asks && named.is_empty() && !open.is_open() => Err(Refusal::ModelMissing),
            _ => Ok(()),
        }
    }

    /// Admits a conversation, as a request for it would be, and records that it begins.
    pub(super) async fn begin(&self, body: Bytes, model: Option<String>) -> Result<Turn, Refusal> {
        let (shared, subject) = (&self.shared, self.watched.subject());
        shared.limits.spend(&subject.pace())?;
        let place = self.scribe.place()?;
        let reservation = if self.is_charged {
            Some(shared.quota.reserve(subject.user, &subject.allowance).await?)
        } else {
            None
        };
        let asked = Asked {
            call: self.call,
            model: model.or_else(|| self.models.first().cloned()),
            stream: true,
            research: false,
            bytes: body.len() as u64,
            body: if self.keeps { body } else { Bytes::new() },
            cut: false,
        };
        let admitted = Admitted {
            subject,
            route: Arc::clone(&self.route),
            ip: self.ip,
            watch: None,
            slot: None,
            place: Some(place),
            reservation,
        };
        let mut meter = Meter::of(shared, (&self.request_id, shared.clock.elapsed()), admitted, asked);
        meter.dispatched()?;
        Ok(self.turn(meter))
    }

    pub(super) fn turn(&self, meter: Meter) -> Turn {
        let keeps = self.keeps && meter.open().is_some_and(|open| open.admitted.place.is_some());
        let capture = Capture::new(if keeps { self.most } else { 0 });
        Turn::new(meter, capture)
    }

    pub(super) fn answer(&self, first_byte: Duration) -> Answer {
        let framing = if self.unit == Unit::Response { Framing::Sse } else { Framing::Other };
        let pointer = self.route.config.answer.clone().filter(|_| self.unit != Unit::Response);
        Answer { status: 200, framing, encoding: None, pointer, first_byte }
    }
}
