//! The walk of a request through the gate, and nothing else.
//!
//! Route, key, subject, address, rate, what is asked, entitlement, a place in the log, a reservation,
//! forwarding, the answer. Each step is a file; each early exit a `Refusal`.

use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod ask;
mod capture;
mod collected;
mod ending;
mod entitled;
mod form_fields;
mod headers;
mod location;
mod outgoing;
mod presented;
mod refusal;
mod roots;
mod route;
mod running;
mod send;
mod socket;
mod sockets;
mod tee;
mod upgrade;
mod upstream;

pub use tee::{BrokeOff, TeeBody};

use ask::{Bounds, Reading};
use capture::Capture;
use ending::{Admitted, Meter};
use entitled::Claim;
use presented::NoKey;
use refusal::Refusal;
use route::{Route, Routes};
use running::{Cut, Running, Watch};
use send::Reply;
use socket::{Line, Socket};
use sockets::Sockets;
use tee::{LastWords, Over, Patience};
use upgrade::Offer;
use upstream::Upstream;

use crate::chatlog::{Chatlog, Scribe};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::dialect::error::{ErrorText, error_event};
use crate::dialect::{Call, Dialect, Framing};
use crate::identity::{Directory, Subject};
use crate::ids::RequestId;
use crate::limits::{Limits, Slot};
use crate::listen::{self, ClientIps, Conn, RequestBody};
use crate::quota::{Quota, Reservation};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Answer, Source};

/// What the walks of all workers share.
pub struct Shared {
    /// Who.
    pub directory: Directory,
    /// From where.
    pub client_ips: Arc<ClientIps>,
    /// How fast.
    pub limits: Arc<Limits>,
    /// How much.
    pub quota: Quota,
    /// What was said.
    pub chatlog: Chatlog,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Permits for connections to upstreams.
    pub sockets: Arc<Semaphore>,
    /// Time.
    pub clock: Clock,
    /// Cancelled when running answers can be waited for no longer.
    pub cut: CancellationToken,
}

/// One worker's gate.
pub struct Proxy {
    shared: Arc<Shared>,
    scribe: Scribe,
    routes: Routes,
    upstreams: Vec<Rc<Upstream>>,
    bounds: Bounds,
    max_answer: u64,
    running: Rc<Running>,
    tunnels: TaskTracker,
}

/// A body of ours, or an upstream's.
pub type ProxyBody = Either<Full<Bytes>, TeeBody>;

/// What is known of a request before it is looked at, for whatever answers it.
struct Arrival<'a> {
    conn: &'a Conn,
    id: &'a RequestId,
    since: Duration,
    uri: Uri,
    dialect: Dialect,
    call: Call,
}

/// Somebody who may ask something, before anybody looked at what.
struct Admission<'a> {
    route: &'a Arc<Route>,
    offer: Option<Offer>,
    ip: IpAddr,
    subject: Arc<Subject>,
    watch: Watch,
    slot: Slot,
}

// === impl Proxy ===

impl Proxy {
    /// A gate for one worker; to be made on its thread.
    ///
    /// # Errors
    ///
    /// When an upstream's CA bundle cannot be used.
    pub fn new(config: &Config, shared: Arc<Shared>) -> anyhow::Result<Self> {
        let bounds = Bounds {
            max_body: config.limits.max_body_size,
            max_upload: config.limits.max_upload_size,
            pace: config.server.connections.clone(),
        };
        let sockets = Sockets::new(Arc::clone(&shared.sockets));
        let upstreams = config.upstreams.iter().cloned();
        let upstreams = upstreams.map(|upstream| Upstream::new(upstream, Rc::clone(&sockets)));
        let scribe = shared.chatlog.scribe();
        Ok(Self {
            running: Running::start(&shared),
            shared,
            scribe,
            routes: Routes::new(&config.routes),
            upstreams: upstreams.collect::<anyhow::Result<_>>()?,
            bounds,
            max_answer: config.message_log.max_answer_size,
            tunnels: TaskTracker::new(),
        })
    }

    /// Answers one request. The future, or the body, is dropped when the client leaves.
    pub async fn answer(&self, conn: &Conn, req: Request<Incoming>, id: &RequestId) -> Response<ProxyBody> {
        let arrival = self.arrival(conn, &req, id);
        let (mut response, source) = match self.walk(&arrival, req).await {
            Ok(response) => (response, Source::Upstream),
            Err(refusal) => (self.refuse(refusal, &arrival), Source::Gateway),
        };
        headers::name_request(response.headers_mut(), id);
        headers::blame(&mut response, source);
        self.count(&arrival, response.status(), source);
        response
    }

    /// Waits until every tunnel is closed.
    pub async fn finish(&self) {
        self.tunnels.close();
        self.tunnels.wait().await;
        self.running.finish();
    }

    async fn walk(
        &self,
        arrival: &Arrival<'_>,
        req: Request<Incoming>,
    ) -> Result<Response<ProxyBody>, Refusal> {
        let version = req.version();
        let mut req = req.map(|body| listen::on_worker(body, version));
        let Admission { route, offer, ip, subject, watch, mut slot } = self.admit(arrival, &mut req).await?;
        let room = self.shared.limits.body(subject.user);
        let watched = watch.watched();
        let reading = Reading { route, bounds: &self.bounds, models: &subject.plan.models };
        let (req, mut ask) = watched.unless_denied(pin!(ask::read(req, &reading, room))).await??;
        if let Some(offer) = &offer {
            offer.check(&subject)?;
            offer.terms(&mut ask, route);
        }
        let claim = Claim::of(route, &req, &ask);
        claim.check(&subject)?;
        watched.claim(claim);
        self.shared.limits.enter(&mut slot)?;
        let place = if ask.recorded { Some(self.scribe.place()?) } else { None };
        let reservation = if ask.charged { Some(self.reserve(&subject).await?) } else { None };
        let (watch, slot) = (Some(watch), Some(slot));
        let admitted = Admitted { subject, route: Arc::clone(route), ip, watch, slot, place, reservation };
        let mut meter = Meter::of(&self.shared, (arrival.id, arrival.since), admitted, ask.asked);
        let upstream = self.upstream(route)?;
        let reply = send::send(upstream, req, arrival.conn.tls, &mut meter).await?;
        let mut response = self.pass(arrival, reply, offer, meter);
        if let Either::Right(body) = response.body_mut() {
            body.settled().await;
        }
        Ok(response)
    }

    /// The steps that need no body: none is read for a stranger.
    async fn admit(
        &self,
        arrival: &Arrival<'_>,
        req: &mut Request<RequestBody>,
    ) -> Result<Admission<'_>, Refusal> {
        let shared = &self.shared;
        let route = self.routes.find(req)?;
        let offer = upgrade::offered(req, route)?;
        let ip = shared.client_ips.resolve(arrival.conn.peer.ip(), req.headers())?.0;
        // Before an unknown key is looked up: guesses must not reach the database unmetered.
        let key = presented::take(req);
        let is_known = key.as_ref().is_ok_and(|key| shared.directory.recalls(key, ip));
        let is_free = is_known || matches!(key, Err(NoKey::Missing)) && is_preflight(req);
        let loan = if is_free { None } else { shared.limits.lend(ip).await? };
        let (subject, shown) = shared.directory.admit(&key?).await?;
        subject.permits_address(ip)?;
        if let Some(loan) = loan {
            loan.give_back();
        }
        let slot = shared.limits.take(&subject.pace())?;
        subject.permits(&route.config.scope, ip)?;
        let path = req.uri().path();
        if !route.allows(req.method(), path, offer.is_some()) {
            return Err(Refusal::CallNotAllowed);
        }
        let is_charged = route.charges(req.method(), path, !req.body().is_end_stream());
        if is_charged || offer.as_ref().is_some_and(Offer::costs) {
            shared.quota.peek(subject.user, &subject.allowance).await?;
        }
        let watch = self.running.watch((&subject, shown), ip, route);
        Ok(Admission { route, offer, ip, subject, watch, slot })
    }

    fn arrival<'a>(&self, conn: &'a Conn, req: &Request<Incoming>, id: &'a RequestId) -> Arrival<'a> {
        let is_anthropic = req.headers().contains_key("anthropic-version");
        let dialect = self.routes.dialect_of(req.uri(), is_anthropic);
        let call = Call::of(req.method(), req.uri().path());
        Arrival { conn, id, since: self.shared.clock.elapsed(), uri: req.uri().clone(), dialect, call }
    }

    async fn reserve(&self, subject: &Subject) -> Result<Reservation, Refusal> {
        Ok(self.shared.quota.reserve(subject.user, &subject.allowance).await?)
    }

    fn upstream(&self, route: &Route) -> Result<&Rc<Upstream>, Refusal> {
        self.upstreams.get(route.config.upstream).ok_or(Refusal::Unreachable)
    }

    /// The upstream's answer, on its way.
    fn pass(
        &self,
        arrival: &Arrival<'_>,
        reply: Reply,
        offer: Option<Offer>,
        meter: Meter,
    ) -> Response<ProxyBody> {
        let standing = meter.open().map(|open| {
            let rate = open.admitted.slot.as_ref().and_then(Slot::standing);
            (rate, open.admitted.day())
        });
        let patience = Patience::with(reply.lent.config());
        let is_joined = reply.response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let joined = offer.filter(|_| is_joined).and_then(|offer| {
            let line = self.line(arrival, &meter, &offer)?;
            let (dialect, max_message) = (arrival.dialect, self.bounds.max_body);
            Some((Socket { line, dialect, total: patience.total, max_message }, offer.client))
        });
        let mut response = if let Some(joined) = joined {
            upgrade::join(reply, joined, meter, &self.tunnels).map(Either::Left)
        } else {
            let capture = self.capture(&meter);
            let words = last_words(arrival, reply.framing);
            tee::wrap(reply, meter, capture, patience, words).map(Either::Right)
        };
        if let Some((rate, day)) = standing {
            let now = self.shared.clock.now();
            headers::tell_standing(response.headers_mut(), arrival.dialect, rate, day, now);
        }
        response
    }

    /// What the conversations of a socket have in common with its opening.
    fn line(&self, arrival: &Arrival<'_>, meter: &Meter, offer: &Offer) -> Option<Line> {
        let open = meter.open()?;
        let route = &open.admitted.route;
        Some(Line {
            shared: Arc::clone(&self.shared),
            scribe: self.scribe.clone(),
            route: Arc::clone(route),
            ip: open.admitted.ip,
            watched: Rc::clone(meter.watched()?),
            request_id: arrival.id.clone(),
            call: offer.call,
            unit: offer.unit,
            is_charged: offer.is_charged,
            keeps: route.config.capture == config::Capture::Full,
            most: self.max_answer,
            models: offer.models.clone(),
        })
    }

    fn capture(&self, meter: &Meter) -> Capture {
        let keeps = meter.open().is_some_and(|open| {
            let admitted = &open.admitted;
            admitted.place.is_some() && admitted.route.config.capture == config::Capture::Full
        });
        Capture::new(if keeps { self.max_answer } else { 0 })
    }

    fn refuse(&self, refusal: Refusal, arrival: &Arrival<'_>) -> Response<ProxyBody> {
        let (code, status) = (refusal.code(), refusal.status().as_u16());
        self.shared.metrics.deny(code);
        tracing::debug!(code, status, reason = ?refusal, request_id = %arrival.id, "refused");
        let answer = refusal.answer(arrival.dialect, arrival.call, arrival.id, self.shared.clock.now());
        answer.map(|body| Either::Left(Full::new(body)))
    }

    fn count(&self, arrival: &Arrival<'_>, status: StatusCode, source: Source) {
        let route = self.routes.name_of(arrival.uri.path()).to_owned();
        let label = Answer { route, status: status.as_u16(), source };
        self.shared.metrics.requests.get_or_create(&label).inc();
    }
}

/// Whether a browser asks beforehand what it may ask (Fetch §3.2.2), which it does without credentials.
fn is_preflight<B>(req: &Request<B>) -> bool {
    req.method() == Method::OPTIONS && req.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What a stream that we end says last.
fn last_words(arrival: &Arrival<'_>, framing: Framing) -> LastWords {
    let (dialect, call, id) = (arrival.dialect, arrival.call, arrival.id.clone());
    Box::new(move |over| {
        let (message, code, anthropic_type) = match over {
            Over::TimedOut(_) => ("The upstream did not go on in time.", "upstream_timeout", "timeout_error"),
            Over::Cut(Cut::Shutdown) => {
                ("The gateway is shutting down.", "shutting_down", "overloaded_error")
            }
            Over::Cut(Cut::Denied(denied)) => {
                return Bytes::from(denied.refusal.event(dialect, call, framing, &id));
            }
        };
        let text = ErrorText {
            message,
            openai_type: "api_error",
            openai_code: Some(code),
            param: None,
            anthropic_type,
            request_id: id.as_str(),
        };
        Bytes::from(error_event(dialect, call, framing, &text))
    })
}
