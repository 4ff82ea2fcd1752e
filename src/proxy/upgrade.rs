//! WebSocket: a tunnel, opened only where the route allows it, only for a known key, and only after
//! the upstream's own 101 (RFC 9110 §7.8; RFC 6455 §4).

use http::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio_util::task::TaskTracker;

use super::ask::Ask;
use super::ending::Meter;
use super::refusal::Refusal;
use super::route::Route;
use super::send::Reply;
use super::socket::{self, Socket, Unit};
use crate::config::{Capture, SocketCharge};
use crate::dialect::{Call, Dialect};
use crate::identity::Subject;
use crate::path::Path;

/// Whether a request asks to become a WebSocket, and nothing else.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// A client's half of a socket, and on which terms it may be joined.
pub(super) struct Offer {
    pub(super) client: OnUpgrade,
    pub(super) call: Call,
    pub(super) unit: Unit,
    pub(super) is_charged: bool,
    /// The models that the request's query names.
    pub(super) models: Vec<String>,
}

/// Whether a request asks for a socket on which no event is read, so that it must name its model itself.
pub(super) fn is_unread<B>(req: &Request<B>, route: &Route) -> bool {
    is_wanted(req.headers()) && terms(req, route).1 != Unit::Response
}

/// Which of OpenAI's calls a socket is, what a conversation on it is, and whether it costs one. The path is read in
/// its canonical form, so that no spelling makes another socket of one that is charged by response.
fn terms<B>(req: &Request<B>, route: &Route) -> (Option<Call>, Unit, bool) {
    let path = Path::new(req.uri().path());
    let known = match route.config.dialect {
        None | Some(Dialect::OpenAi) => Call::of_socket(path.canonical()),
        Some(_) => None,
    };
    let usual = if known.is_some() { Unit::Response } else { Unit::Connection };
    let is_given = route.config.charge.is_empty() || route.config.gives_away(req.method(), &path);
    let (unit, is_charged) = match route.config.websocket_charge {
        Some(SocketCharge::Response) => (Unit::Response, true),
        Some(SocketCharge::Message) => (Unit::Message, true),
        Some(SocketCharge::Connection) => (Unit::Connection, true),
        Some(SocketCharge::Nothing) => (usual, false),
        None => (usual, !is_given),
    };
    (known, unit, is_charged)
}

/// The client's half of the socket, where one is wanted. Other upgrades (`h2c`) are not refused but
/// ignored, as a server may: the field is dropped on the way. Extensions are not offered to the upstream, which
/// might compress what has to be read.
pub(super) fn offered<B>(req: &mut Request<B>, route: &Route) -> Result<Option<Offer>, Refusal> {
    if !is_wanted(req.headers()) {
        return Ok(None);
    }
    if !route.config.websocket {
        return Err(Refusal::UpgradeNotAllowed);
    }
    req.headers_mut().remove(SEC_WEBSOCKET_EXTENSIONS);
    let (known, unit, is_charged) = terms(req, route);
    let models = req.uri().query().map(models_of).unwrap_or_default();
    let call = match unit {
        Unit::Response => known.unwrap_or(Call::Realtime),
        _ => Call::Other,
    };
    let client = hyper::upgrade::on(req);
    Ok(Some(Offer { client, call, unit, is_charged, models }))
}

/// The values of `model` and `deployment`.
fn models_of(query: &str) -> Vec<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let named = pairs
        .filter(|(name, _)| ["model", "deployment"].iter().any(|asked| name.eq_ignore_ascii_case(asked)));
    named.map(|(_, value)| decoded(value)).collect()
}

/// A value of a query, without its escapes.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = after.get(..2).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok().filter(|_| *first == b'%')?;
            u8::from_str_radix(digits, 16).ok()
        });
        bytes.push(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

// === impl Offer ===

impl Offer {
    /// Whether anything on it costs a conversation.
    pub(super) fn costs(&self) -> bool {
        self.is_charged
    }

    /// Holds the models that its request names against the plan.
    pub(super) fn check(&self, subject: &Subject) -> Result<(), Refusal> {
        let is_open = |model: &String| subject.plan.models.permits(model);
        if self.models.iter().all(is_open) { Ok(()) } else { Err(Refusal::Model) }
    }

    /// What the opening itself costs, and whether it gets a row.
    pub(super) fn terms(&self, ask: &mut Ask, route: &Route) {
        let is_unit = self.unit == Unit::Connection;
        ask.charged = self.is_charged && is_unit;
        ask.recorded = is_unit && (self.is_charged || route.config.capture != Capture::Off);
    }
}

/// Joins both halves and answers 101.
pub(super) fn join<B: Default>(
    reply: Reply,
    (socket, client): (Socket, OnUpgrade),
    meter: Meter,
    tunnels: &TaskTracker,
) -> Response<B> {
    let Reply { mut response, lent, .. } = reply;
    let upstream = hyper::upgrade::on(&mut response);
    lent.hand_over();
    tunnels.spawn_local(socket::carry(socket, client, upstream, meter));
    let mut headers = std::mem::take(response.headers_mut());
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let mut switching = Response::new(B::default());
    *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switching.headers_mut() = headers;
    switching
}
