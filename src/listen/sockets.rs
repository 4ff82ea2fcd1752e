//! Listening sockets, one per worker and address, among which the kernel spreads new connections.

use std::io;
use std::net::{SocketAddr, TcpListener};

#[cfg(any(target_os = "android", target_os = "linux"))]
use socket2::SockRef;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel keeps for us while a worker is busy.
const BACKLOG: i32 = 1024;
/// Bytes of one connection that the kernel keeps beyond what is on its way to the client.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT: u32 = 64 * 1024;

/// The sockets of one worker, one for each address, listening.
#[derive(Debug)]
pub struct WorkerSockets {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

/// Opens every address once for each worker; the result is as long as `workers`.
///
/// Port 0 asks the kernel for one, which all workers then share. An IPv6 socket takes IPv6 only, so
/// `0.0.0.0` and `[::]` may both be listed.
///
/// # Errors
/// When an address cannot be had, named in the error: used by another program (another gateway
/// too), not of this machine, or a port that asks for privileges.
pub fn bind(addresses: &[SocketAddr], workers: usize) -> io::Result<Vec<WorkerSockets>> {
    let mut sets: Vec<WorkerSockets> =
        (0..workers).map(|_| WorkerSockets { listeners: Vec::new(), addresses: Vec::new() }).collect();
    for &wanted in addresses {
        open_for_all(wanted, &mut sets)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {wanted}: {error}")))?;
    }
    Ok(sets)
}

fn open_for_all(wanted: SocketAddr, sets: &mut [WorkerSockets]) -> io::Result<()> {
    if wanted.port() != 0 {
        // SO_REUSEPORT would let a second gateway share the port in silence; without it the kernel
        // says that the port is taken.
        socket(wanted)?.bind(&wanted.into())?;
    }
    let mut address = wanted;
    for set in sets {
        let listener = open(address)?;
        address = listener.local_addr()?;
        set.listeners.push(listener);
        set.addresses.push(address);
    }
    Ok(())
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restart need not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Keeps the kernel from taking much more than the client reads. A client that reads little is seen to do so
/// in small steps, and pins little memory.
pub(super) fn bound_unsent(stream: &tokio::net::TcpStream) {
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = stream;
}

// === impl WorkerSockets ===

impl WorkerSockets {
    /// Where this worker listens, in the order asked for, with the ports the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The sockets, non-blocking.
    pub(super) fn into_listeners(self) -> impl Iterator<Item = TcpListener> {
        self.listeners.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::bind;

    #[test]
    fn workers_share_the_port_that_the_first_was_given() {
        let sets = bind(&["127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()], 3).unwrap();
        assert_eq!(sets.len(), 3);
        assert!(sets.iter().all(|set| set.addresses() == sets[0].addresses()));
        assert_ne!(sets[0].addresses()[0], sets[0].addresses()[1]);
        assert_ne!(sets[0].addresses()[0].port(), 0);
    }

    #[test]
    fn a_port_that_another_gateway_holds_is_refused_by_name() {
        let held = bind(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
        let address = held[0].addresses()[0];
        let error = bind(&[address], 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        drop(held);
        assert!(bind(&[address], 2).is_ok());
    }
}
