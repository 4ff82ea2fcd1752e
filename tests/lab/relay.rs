//! A wire that can be cut: everything a database server and its client say to each other goes through
//! here, until it is told not to.

use std::net::SocketAddr;

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

/// A relay in front of a server, for as long as it is kept.
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    wire: watch::Sender<Wire>,
}

// === impl Relay ===

impl Relay {
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (wire, state) = watch::channel(Wire::Whole);
        let tasks = TaskTracker::new();
        let connections = tasks.clone();
        tasks.spawn(async move {
            let mut over = state.clone();
            let accept = async {
                while let Ok((stream, _)) = listener.accept().await {
                    // As the two ends have it: else a question in several pieces waits 40 ms for nothing.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(carry(stream, server, state.clone()));
                }
            };
            tokio::select! {
                () = accept => {}
                // The sender is gone.
                () = async { while over.changed().await.is_ok() {} } => {}
            }
        });
        Self { addr, wire }
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, mut state: watch::Receiver<Wire>) {
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
                    _ = tokio::io::copy_bidirectional(&mut client, upstream) => return,
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
