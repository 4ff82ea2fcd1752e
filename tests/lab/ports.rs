//! Ports for processes that open them themselves, later and again after a restart.

use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that the system gives to outgoing connections and to listeners on port 0, as Linux sets
/// them up by default: neither takes a port of these while no process listens on it.
const PORTS: Range<u16> = 12_000..32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port of 127.0.0.1 on which nothing listens. A process gives none of them twice (gateways share their
/// ports, so two of them on one port would both start); runs beside each other begin at different ports.
pub(crate) fn free_port() -> SocketAddr {
    let first = u16::try_from(std::process::id() * 997 % u32::from(PORTS.end - PORTS.start)).unwrap();
    for _ in PORTS {
        let nth = (NEXT.fetch_add(1, Ordering::Relaxed) + first) % (PORTS.end - PORTS.start);
        let addr = SocketAddr::from(([127, 0, 0, 1], PORTS.start + nth));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
    panic!("no port is free");
}
