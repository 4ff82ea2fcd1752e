//! A server on a duplex stream, for the tests of connections.

#![cfg(test)]

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::rt::Executor;
use tokio::sync::Notify;

use crate::config::Connections;
use crate::listen::Conn;

pub(crate) type TestBody = UnsyncBoxBody<Bytes, Infallible>;

type Answer = Pin<Box<dyn Future<Output = Response<TestBody>>>>;

/// The defaults of the product.
pub(crate) fn limits() -> Connections {
    Connections {
        max: 20_000,
        max_per_address: 256,
        tls_handshake_timeout: Duration::from_secs(10),
        head_timeout: Duration::from_secs(10),
        keep_alive_timeout: Duration::from_mins(1),
        body_idle_timeout: Duration::from_secs(15),
        body_min_rate: 1024,
        body_timeout: Duration::from_mins(5),
        upload_timeout: Duration::from_hours(1),
        write_stall_timeout: Duration::from_secs(20),
        write_min_rate: 1024,
        max_head_size: 32 * 1024,
        max_headers: 64,
        max_uri_length: 8 * 1024,
        h2_max_streams: 100,
    }
}

/// What the test and its service both hold.
#[derive(Clone, Default)]
pub(crate) struct Stage {
    /// Lets `/wait` answer.
    pub(crate) go: Rc<Notify>,
    /// Requests that reached the service and were not answered, or dropped, yet.
    pub(crate) inside: Rc<Cell<u32>>,
}

struct Inside(Rc<Cell<u32>>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Stage {
    /// `/wait` answers when told to, `/late` after five minutes, `/endless` never stops,
    /// `/tunnel` upgrades and echoes; everything else is `hello`.
    pub(crate) fn service(&self) -> impl Fn(Rc<Conn>, Request<Incoming>) -> Answer + 'static {
        let stage = self.clone();
        move |_conn, request| {
            let stage = stage.clone();
            stage.inside.set(stage.inside.get() + 1);
            let inside = Inside(Rc::clone(&stage.inside));
            Box::pin(async move {
                let _inside = inside;
                match request.uri().path() {
                    "/wait" => stage.go.notified().await,
                    "/late" => tokio::time::sleep(Duration::from_mins(5)).await,
                    "/endless" => return Response::new(endless()),
                    "/tunnel" => return tunnel(request),
                    _ => {}
                }
                Response::new(Full::new(Bytes::from_static(b"hello")).boxed_unsync())
            })
        }
    }
}

fn endless() -> TestBody {
    let frames = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b'x'; 4096]))));
    StreamBody::new(frames).boxed_unsync()
}

fn tunnel(request: Request<Incoming>) -> Response<TestBody> {
    drop(tokio::task::spawn_local(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let (mut from, mut to) = tokio::io::split(hyper_util::rt::TokioIo::new(upgraded));
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    }));
    let switching = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
    switching.body(Full::default().boxed_unsync()).unwrap()
}

/// hyper's client, on this thread.
#[derive(Clone)]
pub(crate) struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}
