//! A wire that can be cut: everything a database server and its client say to each other goes through
//! here, until it is told not to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// How the wire is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Whole,
    /// Nothing comes through, and nobody is told: as when the server is stopped in its tracks.
    Silent,
    /// Connections are closed, new ones at once: as when the server is down.
    Cut,
}

/// What becomes of one message of the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not arrive, and the client is told that the server refuses it.
    Refused,
    /// It does not arrive, and the connection is cut.
    Unsent,
    /// It arrives, and the connection is cut before the answer.
    Unanswered,
}

/// Which message meets which fault, and how many have passed.
#[derive(Debug, Default)]
struct Aim {
    fault: Option<(u64, Fault)>,
    passed: u64,
}

/// A relay in front of a server, for as long as it is kept.
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    wire: watch::Sender<Wire>,
    aim: Arc<Mutex<Aim>>,
}

// === impl Relay ===

impl Relay {
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (wire, state) = watch::channel(Wire::Whole);
        let tasks = TaskTracker::new();
        let connections = tasks.clone();
        let aim = Arc::<Mutex<Aim>>::default();
        let aimed = Arc::clone(&aim);
        tasks.spawn(async move {
            let mut over = state.clone();
            let accept = async {
                while let Ok((stream, _)) = listener.accept().await {
                    // As the two ends have it: else a question in several pieces waits 40 ms for nothing.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(carry(stream, server, state.clone(), Arc::clone(&aimed)));
                }
            };
            tokio::select! {
                () = accept => {}
                // The sender is gone.
                () = async { while over.changed().await.is_ok() {} } => {}
            }
        });
        Self { addr, wire, aim }
    }

    /// The `n`-th message from now on meets `fault`, and none after it.
    pub(crate) fn arm(&self, n: u64, fault: Fault) {
        *self.aim.lock().unwrap() = Aim { fault: Some((n, fault)), passed: 0 };
    }

    pub(crate) fn disarm(&self) {
        *self.aim.lock().unwrap() = Aim::default();
    }

    /// Whether the fault was met.
    pub(crate) fn met(&self) -> bool {
        let aim = self.aim.lock().unwrap();
        aim.fault.is_some_and(|(n, _)| aim.passed >= n)
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

async fn carry(
    mut client: TcpStream,
    server: SocketAddr,
    mut state: watch::Receiver<Wire>,
    aim: Arc<Mutex<Aim>>,
) {
    let mut upstream = None;
    loop {
        let wire = *state.borrow_and_update();
        match wire {
            Wire::Cut => return,
            Wire::Silent => {}
            Wire::Whole => {
                if upstream.is_none() {
                    upstream = TcpStream::connect(server).await.ok();
                    let _ = upstream.as_ref().map(|upstream| upstream.set_nodelay(true));
                }
                let Some(upstream) = &mut upstream else { return };
                tokio::select! {
                    () = converse(&mut client, upstream, &aim) => return,
                    // What is on its way in the other half may be lost with it: then it is cut as well.
                    changed = state.changed() => match changed {
                        Ok(()) if *state.borrow() == Wire::Silent => {}
                        _ => return,
                    },
                }
                // A connection that was silenced stays silent until it is cut.
                while *state.borrow_and_update() == Wire::Silent {
                    if state.changed().await.is_err() {
                        return;
                    }
                }
                return;
            }
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Passes on what both say, until one ends or a message meets its fault.
async fn converse(client: &mut TcpStream, server: &mut TcpStream, aim: &Mutex<Aim>) {
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let written = tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(length @ 1..) => {
                    let asked = &asked[..length];
                    let fault = aim.lock().unwrap().meet(asked);
                    match fault {
                        None => server.write_all(asked).await,
                        Some(Fault::Refused) => client.write_all(&refusal(asked)).await,
                        Some(Fault::Unsent) => return,
                        Some(Fault::Unanswered) => {
                            let _ = server.write_all(asked).await;
                            // The server has it, and has answered, when something comes back.
                            let _ = server.read(&mut answered).await;
                            return;
                        }
                    }
                }
                _ => return,
            },
            read = server.read(&mut answered) => match read {
                Ok(length @ 1..) => client.write_all(&answered[..length]).await,
                _ => return,
            },
        };
        if written.is_err() {
            return;
        }
    }
}

/// What PostgreSQL says when it ends a statement: for each message that asks for an answer, that it is
/// ready again.
fn refusal(asked: &[u8]) -> Vec<u8> {
    let fields = b"SERROR\0VERROR\0C57014\0Mcanceling statement due to a fault\0\0";
    let length = u32::try_from(fields.len() + 4).unwrap();
    let mut said = [&b"E"[..], &length.to_be_bytes(), fields].concat();
    for _ in kinds(asked).filter(|kind| matches!(kind, b'Q' | b'S')) {
        said.extend(b"Z\0\0\0\x05I");
    }
    said
}

/// The kinds of a client's messages.
fn kinds(mut asked: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (kind, rest) = asked.split_first()?;
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().unwrap()) as usize;
        asked = rest.get(length..).unwrap_or_default();
        Some(*kind)
    })
}

// === impl Aim ===

impl Aim {
    /// The fault that this message meets. What opens or closes a connection is none.
    fn meet(&mut self, asked: &[u8]) -> Option<Fault> {
        if asked.first().is_none_or(|kind| matches!(kind, 0 | b'p' | b'X')) {
            return None;
        }
        let (n, fault) = self.fault?;
        self.passed += 1;
        (self.passed == n).then_some(fault)
    }
}
