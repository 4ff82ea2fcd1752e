//! Forwarding: one request, one connection, one head of an answer, or the reason why not.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use super::ask::AskError;
use super::ending::{Meter, Open};
use super::headers;
use super::location;
use super::outgoing::{Outgoing, Progress};
use super::refusal::Refusal;
use super::running::Denied;
use super::upgrade;
use super::upstream::{ConnectError, Lent, SendError, Upstream};
use crate::chatlog::{Answer, Ending, Waited};
use crate::dialect::Framing;
use crate::telemetry::metrics::{Metrics, UpstreamName};

/// The head of an answer, and the connection its body comes over.
pub(super) struct Reply {
    pub(super) response: Response<Incoming>,
    pub(super) lent: Lent,
    pub(super) framing: Framing,
    /// Whether the connection may serve another request afterwards.
    pub(super) reusable: bool,
}

/// Why there is no answer.
enum Failure {
    Connect(ConnectError),
    NotRecorded,
    NotSent,
    /// 101 to a request that asked for no upgrade, or something else to one that is open as an upgrade only.
    Unasked,
    NoAnswer(hyper::Error),
    TooLate,
    Body(AskError),
    CredentialRefused(StatusCode),
    /// The client lost its right meanwhile.
    Denied(Denied),
}

/// How often one request is sent at most.
const TRIES: usize = 3;

/// Sends a request on. It is sent again only if the upstream has provably not begun with it: not a byte was
/// written, or HTTP/2 says so (RFC 9113 §8.7). A conversation must not be held twice.
pub(super) async fn send(
    upstream: &Rc<Upstream>,
    req: Request<Outgoing>,
    tls: bool,
    meter: &mut Meter,
) -> Result<Reply, Refusal> {
    Metrics::observe(&meter.metrics.overhead, meter.elapsed());
    let Some(watched) = meter.watched().cloned() else { return Err(Refusal::Unreachable) };
    let sent = watched.unless_denied(pin!(forward(upstream, req, tls, meter))).await;
    let failure = match sent.unwrap_or_else(|denied| Err(Failure::Denied(denied))) {
        Ok(reply) => return Ok(reply),
        Err(failure) => failure,
    };
    failure.tell(upstream, meter);
    meter.end_unanswered(failure.ending());
    if let Some(synced) = meter.synced() {
        synced.await;
    }
    Err(failure.refusal())
}

async fn forward(
    upstream: &Rc<Upstream>,
    req: Request<Outgoing>,
    tls: bool,
    meter: &mut Meter,
) -> Result<Reply, Failure> {
    let tunnel = upgrade::is_wanted(req.headers());
    let Some(open) = meter.open() else { return Err(Failure::NotSent) };
    // A server that ignores the upgrade would serve a plain GET, which the route may not open.
    let must_switch = tunnel && !open.admitted.route.allows(req.method(), req.uri().path(), false);
    let req = address(req, upstream, open, tls);
    let patience = upstream.config.first_byte_timeout;
    let connect = async || if tunnel { upstream.connect_for_tunnel().await } else { upstream.lend().await };
    let lent = upstream.sockets.patiently(patience, connect).await.map_err(Failure::Connect)?;
    meter.dispatched().map_err(|_| Failure::NotRecorded)?;
    let sent_at = meter.elapsed();
    let (response, lent) = await_head(upstream, lent, req, meter).await?;
    meter.metrics.reached(&upstream.config.name, true);
    Metrics::observe(&meter.metrics.first_byte, meter.elapsed().saturating_sub(sent_at));
    let ours = upstream.config.credential.is_some();
    if ours && matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(Failure::CredentialRefused(response.status()));
    }
    let has_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if has_switched && !tunnel || must_switch && response.status().is_success() {
        return Err(Failure::Unasked);
    }
    Ok(receive(response, lent, meter))
}

/// The request as this upstream knows it: its path, its host, its header.
fn address(req: Request<Outgoing>, upstream: &Upstream, open: &Open, tls: bool) -> Request<Outgoing> {
    let (mut parts, body) = req.into_parts();
    let tunnel = upgrade::is_wanted(&parts.headers);
    let config = &upstream.config;
    headers::toward_upstream(&mut parts, config, open, tls);
    let path = format!("{}{}", config.base_path, open.admitted.route.upstream_path(parts.uri.path()));
    let path = if path.is_empty() { "/".to_owned() } else { path };
    let target = match parts.uri.query().map(without_keys) {
        Some(query) if !query.is_empty() => format!("{path}?{query}"),
        _ => path,
    };
    if tunnel {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    // By concatenation, never by resolving: a client's path cannot lead to another host.
    parts.uri = Uri::try_from(target).unwrap_or_default();
    Request::from_parts(parts, body)
}

/// A key of ours that came in the query is not accepted there, and goes no further.
fn without_keys(query: &str) -> String {
    let ours = |pair: &&str| pair.split_once('=').is_some_and(|(_, value)| value.starts_with("pe-"));
    query.split('&').filter(|pair| !ours(pair)).collect::<Vec<_>>().join("&")
}

/// Sends it, and again where the upstream has provably not begun with it: at most [`TRIES`] times in all.
async fn await_head(
    upstream: &Rc<Upstream>,
    mut lent: Lent,
    mut req: Request<Outgoing>,
    meter: &mut Meter,
) -> Result<(Response<Incoming>, Lent), Failure> {
    let progress = req.body().progress();
    for _ in 1..TRIES {
        let copy = if lent.is_http2() { copy(&req) } else { None };
        req = match attempt(upstream, &mut lent, req, &progress).await? {
            Ok(response) => return Ok((response, lent)),
            Err(SendError::NotSent(back)) if lent.used => *back,
            Err(SendError::Unprocessed) => copy.ok_or(Failure::NotSent)?,
            Err(_) => return Err(Failure::NotSent),
        };
        meter.returned();
        drop(lent);
        let patience = upstream.config.first_byte_timeout;
        let connected = upstream.sockets.patiently(patience, || upstream.connect()).await;
        lent = connected.map_err(Failure::Connect)?;
        meter.sent_again();
    }
    match attempt(upstream, &mut lent, req, &progress).await? {
        Ok(response) => Ok((response, lent)),
        Err(_) => Err(Failure::NotSent),
    }
}

/// One attempt: its answer, or an error after which another one is harmless.
async fn attempt(
    upstream: &Rc<Upstream>,
    lent: &mut Lent,
    req: Request<Outgoing>,
    progress: &Progress,
) -> Result<Result<Response<Incoming>, SendError>, Failure> {
    let request = fit(req, lent, upstream);
    match in_time(upstream, lent.send(request), progress).await? {
        Err(SendError::Sent(error)) => Err(progress.fault().map_or(Failure::NoAnswer(error), Failure::Body)),
        other => Ok(other),
    }
}

/// A request that can be sent once more, where its body is all here.
fn copy(req: &Request<Outgoing>) -> Option<Request<Outgoing>> {
    let mut copy = Request::new(req.body().again()?);
    *copy.method_mut() = req.method().clone();
    *copy.uri_mut() = req.uri().clone();
    *copy.version_mut() = req.version();
    *copy.headers_mut() = req.headers().clone();
    Some(copy)
}

/// HTTP/2 wants the whole URI and no `Host` (RFC 9113 §8.3.1), HTTP/1.1 the path and `Host`.
fn fit(mut req: Request<Outgoing>, lent: &Lent, upstream: &Upstream) -> Request<Outgoing> {
    let config = &upstream.config;
    let mut parts = std::mem::take(req.uri_mut()).into_parts();
    let is_http2 = lent.is_http2();
    parts.scheme = is_http2.then(|| config.scheme.clone());
    parts.authority = is_http2.then(|| config.authority.clone());
    *req.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *req.version_mut() = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    if is_http2 {
        req.headers_mut().remove(HOST);
    } else if let Ok(host) = HeaderValue::from_str(config.authority.as_str()) {
        req.headers_mut().insert(HOST, host);
    }
    req
}

/// The time for the first byte runs from the last byte the upstream got.
async fn in_time<T>(
    upstream: &Upstream,
    sending: impl Future<Output = T>,
    progress: &Progress,
) -> Result<T, Failure> {
    let patience = upstream.config.first_byte_timeout;
    let mut sending = std::pin::pin!(sending);
    if let Ok(sent) = timeout(patience, sending.as_mut()).await {
        return Ok(sent);
    }
    loop {
        let deadline = progress.last() + patience;
        if deadline <= Instant::now() {
            return Err(Failure::TooLate);
        }
        if let Ok(sent) = timeout_at(deadline, sending.as_mut()).await {
            return Ok(sent);
        }
    }
}

/// The answer's head, as the client will get it.
fn receive(mut response: Response<Incoming>, mut lent: Lent, meter: &mut Meter) -> Reply {
    if let Some(time) = headers::kept_for(response.headers()) {
        lent.keep_for(time);
    }
    let route = meter.open().map(|open| Arc::clone(&open.admitted.route));
    let route = route.as_ref().map(|route| &route.config);
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let framing = Framing::of(text(CONTENT_TYPE));
    meter.answered(Answer {
        status: response.status().as_u16(),
        framing,
        encoding: text(CONTENT_ENCODING).map(str::to_owned),
        pointer: route.and_then(|route| route.answer.clone()),
        first_byte: meter.elapsed(),
    });
    let keep = route.is_some_and(|route| route.keep_upstream_headers);
    let doubtful = headers::from_upstream(response.headers_mut(), keep);
    if let Some(route) = route {
        location::rewrite(response.headers_mut(), lent.config(), route);
    }
    headers::mark_stream(response.headers_mut(), framing);
    // Each hop names its own version (RFC 9110 §2.5); the listener fits ours to the client's.
    *response.version_mut() = Version::HTTP_11;
    Reply { response, lent, framing, reusable: !doubtful }
}

// === impl Failure ===

impl Failure {
    fn ending(&self) -> Ending {
        match self {
            Self::Connect(ConnectError::TimedOut(_)) => Ending::TimedOut(Waited::Connect),
            Self::Connect(ConnectError::NoDescriptor) => Ending::Refused,
            Self::Connect(_) | Self::NotSent => Ending::Unreachable,
            Self::NoAnswer(_) | Self::Unasked => Ending::UpstreamCut,
            Self::TooLate => Ending::TimedOut(Waited::FirstByte),
            Self::Body(AskError::Broken) => Ending::ClientLeft,
            Self::Body(_) | Self::NotRecorded => Ending::Refused,
            Self::CredentialRefused(status) => Ending::UpstreamError(status.as_u16()),
            Self::Denied(denied) => Ending::AccessEnded(denied.access),
        }
    }

    fn refusal(&self) -> Refusal {
        match self {
            Self::Connect(ConnectError::TimedOut(_)) | Self::TooLate => Refusal::UpstreamTimeout,
            Self::Connect(ConnectError::NoDescriptor) => Refusal::Overloaded,
            Self::Connect(_) | Self::NotSent => Refusal::Unreachable,
            Self::NoAnswer(_) | Self::Unasked => Refusal::UpstreamBroke,
            Self::Body(error) => Refusal::Ask(*error),
            Self::NotRecorded => Refusal::LogFull,
            Self::CredentialRefused(_) => Refusal::CredentialRefused,
            Self::Denied(denied) => denied.refusal,
        }
    }

    /// What our log says; the client hears less.
    fn tell(&self, upstream: &Upstream, meter: &Meter) {
        let name = upstream.config.name.as_str();
        match self {
            Self::Connect(error @ ConnectError::NoDescriptor) => {
                tracing::warn!(upstream = name, %error, "request refused");
            }
            Self::Connect(error) => {
                meter.metrics.reached(name, false);
                tracing::warn!(upstream = name, %error, "the upstream cannot be reached");
            }
            Self::Unasked => tracing::warn!(
                upstream = name,
                "the upstream switched protocols unasked, or not although asked"
            ),
            Self::NotSent => tracing::warn!(upstream = name, "the upstream took no request"),
            Self::NoAnswer(error) => tracing::warn!(upstream = name, %error, "the upstream gave no answer"),
            Self::TooLate => tracing::warn!(upstream = name, "the upstream did not answer in time"),
            Self::Body(_) | Self::NotRecorded | Self::Denied(_) => {}
            Self::CredentialRefused(status) => {
                let label = UpstreamName { upstream: name.to_owned() };
                meter.metrics.credential_refused.get_or_create(&label).inc();
                let status = status.as_u16();
                tracing::error!(upstream = name, status, "the upstream refuses our own credential");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::without_keys;

    #[test]
    fn a_key_in_the_query_goes_no_further() {
        assert_eq!(without_keys("a=1&key=pe-0123&b=2"), "a=1&b=2");
        assert_eq!(without_keys("api_key=pe-0123"), "");
        assert_eq!(without_keys("beta=true&x"), "beta=true&x");
    }
}
