//! The end of a conversation: settled once, recorded once, whatever ended it.
//!
//! hyper drops a request's future, or its body, when the client leaves. So a [`Meter`] goes along
//! with the conversation, and what remains to be done is done when it is dropped.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::capture::Kept;
use super::route::Route;
use crate::chatlog::{Answer, Asked, Ending, Exchange, Place, Share, Waited};
use crate::clock::{Clock, Timestamp};
use crate::identity::Subject;
use crate::ids::{ExchangeId, RequestId};
use crate::limits::Slot;
use crate::quota::{Reservation, Verdict};
use crate::store::exchanges;
use crate::telemetry::Metrics;

/// A conversation under way: what it has reserved, and what its row will say.
pub(super) struct Meter {
    /// `None` only after the end.
    open: Option<Open>,
    pub(super) metrics: Arc<Metrics>,
}

/// What a request holds once it is let in.
pub(super) struct Admitted {
    pub(super) subject: Arc<Subject>,
    pub(super) route: Arc<Route>,
    pub(super) ip: IpAddr,
    pub(super) slot: Slot,
    /// Room for its row, where it gets one.
    pub(super) place: Option<Place>,
    /// Its conversation, where it costs one.
    pub(super) reservation: Option<Reservation>,
}

/// What a [`Meter`] watches.
pub(super) struct Open {
    pub(super) admitted: Admitted,
    pub(super) request_id: RequestId,
    pub(super) asked: Asked,
    pub(super) share: Share,
    pub(super) clock: Clock,
    pub(super) started: Timestamp,
    pub(super) since: Duration,
    pub(super) answer: Option<Answer>,
    pub(super) ending: Ending,
}

/// How the day stands after this request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Day {
    pub(super) limit: i64,
    pub(super) left: i64,
    pub(super) resets_at: Timestamp,
    pub(super) length: Duration,
}

// === impl Meter ===

impl Meter {
    /// Until told otherwise, the conversation ends because the client leaves.
    pub(super) fn new(open: Open, metrics: Arc<Metrics>) -> Self {
        metrics.in_flight.inc();
        Self { open: Some(open), metrics }
    }

    /// What is watched; `None` after the end.
    pub(super) fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    /// What kept bytes are counted in; `None` after the end.
    pub(super) fn share(&mut self) -> Option<&mut Share> {
        self.open.as_mut().map(|open| &mut open.share)
    }

    /// From now on the upstream may be working: a client who leaves is charged.
    pub(super) fn dispatched(&mut self) {
        if let Some(reservation) = self.open.as_mut().and_then(|open| open.admitted.reservation.as_mut()) {
            reservation.dispatched();
        }
    }

    /// The head of an answer came: from now on this row has a status.
    pub(super) fn answered(&mut self, answer: Answer) {
        if let Some(open) = &mut self.open {
            if answer.status >= 400 {
                open.ending = Ending::UpstreamError(answer.status);
            }
            open.answer = Some(answer);
        }
    }

    /// Since the request's head came in.
    pub(super) fn elapsed(&self) -> Duration {
        self.open.as_ref().map_or(Duration::ZERO, |open| open.clock.elapsed().saturating_sub(open.since))
    }

    /// Ends the conversation with what was kept of its answer.
    pub(super) fn end(&mut self, ending: Ending, kept: Kept) {
        let Some(mut open) = self.open.take() else { return };
        if let Some(answer) = &mut open.answer {
            kept.put_into(answer);
        }
        open.ending = match open.ending {
            // An error that came whole, or not: what counts is that the upstream refused.
            refused @ Ending::UpstreamError(_) => refused,
            _ => ending,
        };
        self.close(open);
    }

    /// Ends it before any answer came.
    pub(super) fn end_unanswered(&mut self, ending: Ending) {
        self.end(ending, Kept::default());
    }

    fn close(&self, open: Open) {
        self.metrics.in_flight.dec();
        let Admitted { subject, route, ip, slot: _slot, place, reservation } = open.admitted;
        let ledger = reservation.as_ref().map(Reservation::ledger);
        let forgiving = route.config.refund_client_errors;
        let wanted = wanted(open.ending, open.answer.is_some(), forgiving);
        let verdict = match reservation.map(|reservation| reservation.settle(wanted)) {
            None => exchanges::Verdict::Free,
            Some(Verdict::Charged) => exchanges::Verdict::Charged,
            Some(Verdict::Refunded) => {
                self.metrics.refund(open.ending.reason());
                exchanges::Verdict::Refunded
            }
        };
        let Some(place) = place else { return };
        place.record(Exchange {
            id: ExchangeId::generate(),
            request_id: open.request_id,
            user: subject.user,
            key: subject.key,
            username: subject.username.clone(),
            email: subject.email.clone(),
            client_ip: ip,
            route: Arc::clone(&route.name),
            asked: open.asked,
            answer: open.answer,
            ending: open.ending,
            verdict,
            ledger,
            started: open.started,
            took: open.clock.elapsed().saturating_sub(open.since),
            share: open.share,
        });
    }
}

// === impl Admitted ===

impl Admitted {
    /// How the user's day stands after this request.
    pub(super) fn day(&self) -> Option<Day> {
        let reservation = self.reservation.as_ref()?;
        let (limit, left) = (reservation.limit(), reservation.left());
        Some(Day { limit, left, resets_at: reservation.resets_at(), length: reservation.day_length() })
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            self.close(open);
        }
    }
}

/// What a conversation that ended so should cost. It goes back when the upstream refused, or when
/// nothing of an answer could be passed on and the client had not left; the client's own mistakes go
/// back too, where the route is `forgiving`.
fn wanted(ending: Ending, answered: bool, forgiving: bool) -> Verdict {
    let refused = match ending {
        Ending::UpstreamError(401 | 403 | 408 | 429 | 500..) => true,
        Ending::UpstreamError(400 | 404 | 422) => forgiving,
        _ => false,
    };
    let nothing_came = !answered
        && matches!(
            ending,
            Ending::Unreachable
                | Ending::UpstreamCut
                | Ending::UpstreamError(_)
                | Ending::Refused
                | Ending::Cancelled
                | Ending::TimedOut(Waited::Connect | Waited::FirstByte)
        );
    if refused || nothing_came { Verdict::Refunded } else { Verdict::Charged }
}
