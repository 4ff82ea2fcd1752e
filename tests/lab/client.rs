//! A client that notes what it heard, byte for byte to the last. One line is one HTTP/2 connection.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::books::{Call, Heard, now};
use super::canary::{Act, Canary};
use super::people::Person;

/// One connection. Closed when dropped.
pub(crate) struct Line {
    sender: http2::SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
    addr: SocketAddr,
}

// === impl Line ===

impl Line {
    /// Connects, and asks for something small, so that both sides know each other's settings.
    pub(crate) async fn open(addr: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(addr).await.ok()?;
        let _ = stream.set_nodelay(true);
        let builder = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.ok()?;
        #[expect(clippy::disallowed_methods, reason = "its handle is kept and ended with the line")]
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        let mut line = Self { sender, task, addr };
        let hello = Request::get(format!("http://{addr}/livez")).body(Full::default()).unwrap();
        let answer = line.sender.send_request(hello).await.ok()?;
        answer.into_body().collect().await.ok()?;
        Some(line)
    }

    /// One conversation. The request is queued at once; requests queued before the next `await` leave
    /// in one write.
    pub(crate) fn chat(
        &mut self,
        person: &Person,
        canary: Canary,
        act: Act,
    ) -> impl Future<Output = Heard> + use<> {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{}"}}]}}"#, canary.says(act));
        self.ask(person, canary, Call::Chat, body)
    }

    /// An app's question whether a key is good, which costs a conversation.
    pub(crate) fn verify_key(
        &mut self,
        person: &Person,
        canary: Canary,
    ) -> impl Future<Output = Heard> + use<> {
        self.ask(person, canary, Call::VerifyKey, String::new())
    }

    /// An app's note of what was said, which costs nothing.
    pub(crate) fn log_message(
        &mut self,
        person: &Person,
        canary: Canary,
        padding: usize,
    ) -> impl Future<Output = Heard> + use<> {
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"{} {}"}}],"research_model":false}}"#,
            canary.says(Act::Quick),
            "x".repeat(padding)
        );
        self.ask(person, canary, Call::LogMessage, body)
    }

    fn ask(
        &mut self,
        person: &Person,
        canary: Canary,
        call: Call,
        body: String,
    ) -> impl Future<Output = Heard> + use<> {
        let path = match call {
            Call::Chat => "/v1/chat/completions",
            Call::VerifyKey => "/api/v1/auth/verify-key",
            Call::LogMessage => "/api/v1/auth/log-message",
        };
        let request = Request::post(format!("http://{}{path}", self.addr))
            .header("authorization", format!("Bearer {}", person.key))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let answer = self.sender.send_request(request);
        async move {
            let mut heard = Heard {
                canary,
                call,
                status: 0,
                request_id: String::new(),
                whole: false,
                remaining: None,
                at: 0.0,
                took: Duration::ZERO,
            };
            let begun = Instant::now();
            let Ok(response) = answer.await else { return heard };
            heard.status = response.status().as_u16();
            heard.request_id = word(response.headers(), "x-request-id").to_owned();
            heard.remaining = word(response.headers(), "x-ratelimit-remaining-requests").parse().ok();
            let body = response.into_body().collect().await;
            (heard.at, heard.took) = (now(), begun.elapsed());
            heard.whole = body.is_ok();
            heard
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn word<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
