//! WebSocket: a tunnel, opened only where the route allows it, only for a known key, and only after
//! the upstream's own 101 (RFC 9110 §7.8; RFC 6455 §4).

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::capture::Kept;
use super::ending::Meter;
use super::refusal::Refusal;
use super::route::Route;
use super::send::Reply;
use super::tee::Patience;
use crate::chatlog::{Ending, Waited};

/// Whether a request asks to become a WebSocket, and nothing else.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The client's half of the tunnel, where one is wanted. Other upgrades (`h2c`) are not refused but
/// ignored, as a server may: the field is dropped on the way.
pub(super) fn offered<B>(req: &mut Request<B>, route: &Route) -> Result<Option<OnUpgrade>, Refusal> {
    if !is_wanted(req.headers()) {
        return Ok(None);
    }
    if !route.config.websocket {
        return Err(Refusal::UpgradeNotAllowed);
    }
    Ok(Some(hyper::upgrade::on(req)))
}

/// Joins both halves and answers 101.
pub(super) fn join<B: Default>(
    reply: Reply,
    client: OnUpgrade,
    meter: Meter,
    patience: Patience,
    tunnels: &TaskTracker,
) -> Response<B> {
    let Reply { mut response, lent, .. } = reply;
    let upstream = hyper::upgrade::on(&mut response);
    lent.hand_over();
    tunnels.spawn_local(tunnel(client, upstream, meter, patience));
    let mut headers = std::mem::take(response.headers_mut());
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let mut switching = Response::new(B::default());
    *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switching.headers_mut() = headers;
    switching
}

async fn tunnel(client: OnUpgrade, upstream: OnUpgrade, mut meter: Meter, patience: Patience) {
    let carry = async {
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return Ending::ClientLeft };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        match copy_bidirectional(&mut client, &mut upstream).await {
            Ok(_) => Ending::Complete,
            Err(_) => Ending::ClientLeft,
        }
    };
    let Some(watched) = meter.watched().cloned() else { return };
    let ending = tokio::select! {
        ended = timeout(patience.total, carry) => ended.unwrap_or(Ending::TimedOut(Waited::Total)),
        cut = watched.cut_off() => cut.ending(),
    };
    meter.end(ending, &Kept::default());
}
