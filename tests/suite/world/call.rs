//! A request and its answer, with as few words as a story needs.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use super::promised;

/// A request being put together.
pub(crate) struct Call(pub(super) reqwest::RequestBuilder);

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
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Adds a header; one of the same name stays.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        Self(self.0.header("content-type", "application/json").body(body.to_string()))
    }

    pub(crate) fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    /// Sends it and reads the whole answer.
    pub(crate) async fn send(self) -> Reply {
        let mut response = self.begin().await;
        let (status, version) = (response.status().as_u16(), response.version());
        let headers = std::mem::take(response.headers_mut());
        Reply { status, version, headers, body: response.bytes().await.unwrap() }
    }

    /// Sends it and reads the head; the body is the story's to read.
    pub(crate) async fn begin(self) -> reqwest::Response {
        let (client, request) = self.0.build_split();
        let request = request.unwrap();
        let asked = (request.method().to_string(), request.url().path().to_owned());
        let response = client.execute(request).await.unwrap();
        promised::hold(&asked, &response);
        response
    }

    /// Sends it; a connection that ends early is an error, not a failure of the test.
    pub(crate) async fn attempt(self) -> reqwest::Result<Bytes> {
        self.0.send().await?.bytes().await
    }
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
