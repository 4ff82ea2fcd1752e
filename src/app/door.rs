//! One door for both planes: reserved paths go to the control plane, on the runtime behind; all
//! others through the gate, on the worker itself.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::Either;
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::background::Background;
use crate::config::{Config, Connections};
use crate::control;
use crate::ids::RequestId;
use crate::limits::Limits;
use crate::listen::{ClientIp, ClientIps, Conn, FromTrustedProxy, Lingering, Paced, Rest};
use crate::proxy::{self, Proxy, ProxyBody};

/// What answers the requests of one worker.
pub(super) struct Door {
    hallway: Hallway,
    proxy: Option<Proxy>,
}

/// The way to the control plane.
#[derive(Clone)]
pub(super) struct Hallway {
    pub(super) control: Router,
    pub(super) background: Background,
    pub(super) client_ips: Arc<ClientIps>,
    /// How slowly a request's body may come.
    pub(super) pace: Connections,
    /// Where the bytes of bodies are counted.
    pub(super) limits: Arc<Limits>,
    /// Whether a route takes `/`.
    pub(super) claims_root: bool,
}

/// Either plane's body.
pub(super) type DoorBody = Either<ProxyBody, Body>;

/// Makes one door for each worker, on the worker's own thread.
pub(super) type Doors = Arc<dyn Fn() -> anyhow::Result<Door> + Send + Sync>;

const RESERVED: [&str; 6] = ["/health", "/healthz", "/livez", "/readyz", "/metrics", "/openapi.json"];
const RESERVED_TREES: [&str; 4] = ["/api/v1", "/docs", "/redoc", "/console"];

// === impl Door ===

impl Door {
    /// Doors with a gate in them.
    pub(super) fn proxying(hallway: Hallway, config: Config, shared: Arc<proxy::Shared>) -> Doors {
        Arc::new(move || {
            let proxy = Proxy::new(&config, Arc::clone(&shared))?;
            Ok(Self { hallway: hallway.clone(), proxy: Some(proxy) })
        })
    }

    /// Doors to the control plane only.
    pub(super) fn controlling(hallway: Hallway) -> Doors {
        Arc::new(move || Ok(Self { hallway: hallway.clone(), proxy: None }))
    }

    pub(super) async fn answer(&self, conn: Rc<Conn>, req: Request<Incoming>) -> Response<DoorBody> {
        match &self.proxy {
            Some(proxy) if !self.hallway.leads(req.uri().path()) => {
                let id = self.hallway.name(&conn, req.headers(), false);
                proxy.answer(&conn, req, &id).await.map(Either::Left)
            }
            _ => self.hallway.control(&conn, req).await.map(Either::Right),
        }
    }

    /// Waits until what outlives its request has ended.
    pub(super) async fn finish(&self) {
        if let Some(proxy) = &self.proxy {
            proxy.finish().await;
        }
    }
}

// === impl Hallway ===

impl Hallway {
    /// Whether a path is the control plane's.
    fn leads(&self, path: &str) -> bool {
        let within = |tree: &&str| {
            path.strip_prefix(*tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        RESERVED.contains(&path) || RESERVED_TREES.iter().any(within) || (path == "/" && !self.claims_root)
    }

    /// A request's name: on the control plane anybody may give it, on the data plane a trusted proxy.
    fn name(&self, conn: &Conn, headers: &HeaderMap, anybody: bool) -> RequestId {
        let given = headers.get("x-request-id").and_then(|id| id.to_str().ok()).and_then(RequestId::parse);
        let named = if self.client_ips.trusts(conn.peer.ip()) {
            given
        } else {
            given.filter(|_| anybody).map(RequestId::chosen_by_client)
        };
        named.unwrap_or_else(RequestId::generate)
    }

    /// The request with its body held to pace and memory.
    fn bounded(&self, req: Request<Incoming>, ip: IpAddr) -> Request<Body> {
        let (version, background) = (req.version(), self.background.clone());
        let read_rest = move |rest: Rest<Incoming>| drop(background.spawn(rest.discard()));
        req.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            let body =
                Paced::new(Lingering::new(body, version, read_rest), &self.pace, self.pace.body_timeout);
            Body::new(control::Counted::new(body, self.limits.control_body(ip)))
        })
    }

    async fn control(&self, conn: &Conn, mut req: Request<Incoming>) -> Response<Body> {
        let id = self.name(conn, req.headers(), true);
        let resolved = self.client_ips.resolve(conn.peer.ip(), req.headers());
        match resolved {
            Ok(ip) => drop(req.extensions_mut().insert::<ClientIp>(ip)),
            Err(unreadable) => drop(req.extensions_mut().insert(unreadable)),
        }
        req.extensions_mut().insert(id);
        if self.client_ips.trusts(conn.peer.ip()) {
            req.extensions_mut().insert(FromTrustedProxy);
        }
        let answer =
            self.control.clone().oneshot(self.bounded(req, resolved.map_or(conn.peer.ip(), |ip| ip.0)));
        match self.background.run(answer).await {
            Ok(Ok(response)) => response,
            Err(_) => given_up(),
        }
    }
}

/// What words the answers panicked itself, or the runtime is gone: nobody is left who could.
fn given_up() -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::new()));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;

    use super::Hallway;
    use crate::background::Background;
    use crate::clock::Clock;
    use crate::config::{Config, Vars};
    use crate::limits::Limits;
    use crate::listen::ClientIps;

    #[tokio::test]
    async fn reserved_paths_are_the_control_planes_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::from_toml("", folder.path(), &Vars::default()).unwrap();
        let mut hallway = Hallway {
            control: Router::new(),
            background: Background::new(tokio::runtime::Handle::current()),
            client_ips: Arc::new(ClientIps::new(vec![])),
            pace: config.server.connections.clone(),
            limits: Arc::new(Limits::new(&config.limits, &config.plans, &Clock::system())),
            claims_root: false,
        };
        for ours in ["/", "/health", "/api/v1", "/api/v1/auth/login", "/metrics", "/docs/x", "/readyz"] {
            assert!(hallway.leads(ours), "{ours}");
        }
        for theirs in ["/v1/models", "/api/chat", "/api/v10", "/healthy", "/health/x", "//api/v1", "/API/V1"]
        {
            assert!(!hallway.leads(theirs), "{theirs}");
        }
        hallway.claims_root = true;
        assert!(!hallway.leads("/"));
    }
}
