//! A request and its answer, with as few words as a story needs.

use std::pin::pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use super::promised;
use crate::watch::Watch;

/// A request being put together, and who watches what becomes of its secrets.
pub(crate) struct Call {
    pub(super) request: reqwest::RequestBuilder,
    pub(super) watch: Arc<Watch>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) version: http::Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

// === impl Call ===

impl Call {
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.watch.remember(token);
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Adds a header; one of the same name stays.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value), ..self }
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.watch.learn(body);
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub(crate) fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self { request: self.request.body(body), ..self }
    }

    /// Sends it and reads the whole answer.
    pub(crate) async fn send(self) -> Reply {
        let watch = Arc::clone(&self.watch);
        let mut response = self.begin().await;
        let (status, version) = (response.status().as_u16(), response.version());
        let headers = std::mem::take(response.headers_mut());
        let reply = Reply { status, version, headers, body: response.bytes().await.unwrap() };
        watch.read(&reply);
        reply
    }

    /// Sends it and reads the head; the body is the story's to read.
    pub(crate) async fn begin(self) -> reqwest::Response {
        let (client, request) = self.request.build_split();
        let request = request.unwrap();
        let asked = (request.method().to_string(), request.url().path().to_owned());
        let response = aside(client.execute(request)).await.unwrap();
        promised::hold(&asked, &response);
        response
    }

    /// Sends it; a connection that ends early is an error, not a failure of the test.
    pub(crate) async fn attempt(self) -> reqwest::Result<Bytes> {
        aside(self.request.send()).await?.bytes().await
    }
}

/// Connections of stories, to the gateway and to its database, live on a runtime of their own. A world
/// ends in `Drop`, which holds up the story's: a connection there could not take its leave, and the
/// gateway would wait for it.
pub(super) async fn aside<F: Future>(call: F) -> F::Output {
    static ASIDE: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = ASIDE.get_or_init(|| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(1).enable_all().build().unwrap()
    });
    let mut call = pin!(call);
    std::future::poll_fn(|context| {
        let _aside = runtime.enter();
        call.as_mut().poll(context)
    })
    .await
}

// === impl Reply ===

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first value of a header, "" when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
