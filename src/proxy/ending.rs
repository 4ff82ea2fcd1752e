//! The end of a conversation: settled once, recorded once, whatever ended it.
//!
//! hyper drops a request's future, or its body, when the client leaves. So a [`Meter`] goes along
//! with the conversation, and what remains to be done is done when it is dropped.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::Shared;
use super::capture::{Kept, Paper};
use super::route::Route;
use super::running::{Cut, Watch, Watched};
use crate::chatlog::{Answer, Asked, Begin, End, Ending, Level, LogFull, Place, Synced, Waited};
use crate::clock::{Clock, Timestamp};
use crate::identity::Subject;
use crate::ids::RequestId;
use crate::limits::Slot;
use crate::quota::{Reservation, Verdict};
use crate::store::exchanges;
use crate::telemetry::Metrics;

/// A conversation under way: what it has reserved, and what its row will say.
pub(super) struct Meter {
    /// `None` only after the end.
    open: Option<Open>,
    /// After the end, in strict mode: what the client's last byte waits for.
    synced: Option<Synced>,
    pub(super) metrics: Arc<Metrics>,
}

/// What a request holds once it is let in.
pub(super) struct Admitted {
    pub(super) subject: Arc<Subject>,
    pub(super) route: Arc<Route>,
    pub(super) ip: IpAddr,
    /// Its place among what runs on this worker.
    pub(super) watch: Option<Watch>,
    /// Its place among requests in flight. Conversations of a socket have both from the socket.
    pub(super) slot: Option<Slot>,
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
        Self { open: Some(open), synced: None, metrics }
    }

    /// [`Meter::new`] of a request that came so long ago, with what is kept of its body counted.
    pub(super) fn of(
        shared: &Shared,
        (request_id, since): (&RequestId, Duration),
        mut admitted: Admitted,
        mut asked: Asked,
    ) -> Self {
        let fits = admitted.place.as_mut().is_none_or(|place| {
            place.share().level() < Level::Bare && place.share().grow(asked.body.len() as u64)
        });
        if !fits {
            asked.body = Bytes::new();
            asked.cut = true;
        }
        let open = Open {
            admitted,
            request_id: request_id.clone(),
            asked,
            clock: shared.clock.clone(),
            started: shared.clock.now(),
            since,
            answer: None,
            ending: Ending::ClientLeft,
        };
        Self::new(open, Arc::clone(&shared.metrics))
    }

    /// What is watched; `None` after the end.
    pub(super) fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    /// The request as it is watched; `None` after the end.
    pub(super) fn watched(&self) -> Option<&Rc<Watched>> {
        Some(self.open.as_ref()?.admitted.watch.as_ref()?.watched())
    }

    /// Why it must end, if it must.
    pub(super) fn cut_now(&self) -> Option<Cut> {
        self.watched()?.cut_now()
    }

    /// Ready when it must end.
    pub(super) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<Cut> {
        self.watched().map_or(Poll::Pending, |watched| watched.poll_cut(cx))
    }

    /// Where the answer is copied to; `None` after the end, or where there is no row.
    pub(super) fn paper(&mut self) -> Option<Paper<'_>> {
        let open = self.open.as_mut()?;
        Some(Paper { place: open.admitted.place.as_mut()?, answer: open.answer.as_ref() })
    }

    /// From now on the upstream may be working: a client who leaves is charged. That it is so, and what
    /// was asked, is recorded first.
    ///
    /// # Errors
    ///
    /// [`LogFull`]: it must not be forwarded. Then it leaves no row.
    pub(super) fn dispatched(&mut self) -> Result<(), LogFull> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if let Some(mut place) = open.admitted.place.take() {
            if let Err(full) = place.begin(&open.begin(), &open.asked.body) {
                // Without a row there is nothing to settle: the unit was never used.
                open.admitted.reservation = None;
                return Err(full);
            }
            open.admitted.place = Some(place);
            open.asked.body = Bytes::new();
        }
        if let Some(reservation) = &mut open.admitted.reservation {
            reservation.dispatched();
        }
        Ok(())
    }

    /// The upstream has done nothing with the request: a client who leaves now is not charged.
    pub(super) fn returned(&mut self) {
        if let Some(open) = &mut self.open {
            open.ending = Ending::Unreachable;
        }
    }

    /// It is sent again: the upstream may be working once more.
    pub(super) fn sent_again(&mut self) {
        if let Some(open) = &mut self.open {
            open.ending = Ending::ClientLeft;
        }
    }

    /// The head of an answer came: from now on this row has a status.
    pub(super) fn answered(&mut self, answer: Answer) {
        if let Some(open) = &mut self.open {
            // A redirect is no answer either: the client is to ask again elsewhere.
            if answer.status >= 300 {
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
    pub(super) fn end(&mut self, ending: Ending, kept: &Kept) {
        let Some(mut open) = self.open.take() else { return };
        open.ending = match open.ending {
            // An error that came whole, or not: what counts is that the upstream refused.
            refused @ Ending::UpstreamError(_) => refused,
            _ => ending,
        };
        self.synced = self.close(open, kept);
    }

    /// After the end: what the client's last byte waits for, if it does.
    pub(super) fn synced(&mut self) -> Option<Synced> {
        self.synced.take()
    }

    /// Ends it before any answer came.
    pub(super) fn end_unanswered(&mut self, ending: Ending) {
        self.end(ending, &Kept::default());
    }

    fn close(&self, mut open: Open, kept: &Kept) -> Option<Synced> {
        self.metrics.in_flight.dec();
        let forgiving = open.admitted.route.config.refund_client_errors;
        let place = open.admitted.place.take();
        let wanted = match open.ending {
            // The upstream never heard of it.
            Ending::AccessEnded(_) if !place.as_ref().is_some_and(Place::is_begun) => Verdict::Refunded,
            ending => wanted(ending, open.answer.is_some(), forgiving),
        };
        // Its unit is nobody else's before the end is recorded below.
        let reservation = &mut open.admitted.reservation;
        let verdict = match reservation.as_mut().map(|reservation| reservation.settle(wanted)) {
            None => exchanges::Verdict::Free,
            Some(Verdict::Charged) => exchanges::Verdict::Charged,
            Some(Verdict::Refunded) => {
                self.metrics.refund(open.ending.reason());
                exchanges::Verdict::Refunded
            }
        };
        let place = place?;
        let end = End {
            ending: open.ending,
            verdict,
            answer: open.answer.take(),
            rest: kept.rest.len() as u64,
            head: kept.head,
            cut: kept.cut,
            bytes: kept.bytes,
            took: open.clock.elapsed().saturating_sub(open.since),
        };
        if place.is_begun() {
            return place.end(&end, &kept.rest, &kept.tail);
        }
        place.end_unbegun(&open.begin(), &open.asked.body, &end)
    }
}

// === impl Open ===

impl Open {
    /// What the log is told before the upstream is.
    fn begin(&self) -> Begin<'_> {
        let Admitted { subject, route, ip, .. } = &self.admitted;
        let asked = &self.asked;
        Begin {
            request_id: self.request_id.as_str(),
            user: subject.user,
            key: subject.key,
            username: &subject.username,
            email: &subject.email,
            client_ip: *ip,
            route: &route.name,
            call: asked.call,
            model: asked.model.as_deref(),
            stream: asked.stream,
            research: asked.research,
            cut: asked.cut,
            bytes: asked.bytes,
            kept: asked.body.len() as u64,
            ledger: self.admitted.ledger(),
            started: self.started,
        }
    }
}

// === impl Admitted ===

impl Admitted {
    /// Day and epoch of the quota row its unit is of.
    fn ledger(&self) -> Option<(i64, i64)> {
        self.reservation.as_ref().map(Reservation::ledger)
    }

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
            self.close(open, &Kept::default());
        }
    }
}

/// What a conversation that ended so should cost. It goes back when the upstream refused, or when
/// nothing of an answer could be passed on and the client had not left; redirects and
/// the client's own mistakes go back too, where the route is `forgiving`.
fn wanted(ending: Ending, answered: bool, forgiving: bool) -> Verdict {
    let refused = match ending {
        Ending::UpstreamError(401 | 403 | 408 | 429 | 500..) => true,
        Ending::UpstreamError(300..=399 | 400 | 404 | 422) => forgiving,
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
