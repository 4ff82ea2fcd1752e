//! `tollgate health`: whether a running gateway is ready.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::{installation, told};

/// How long a running gateway may take to say how it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes that are read of its answer.
const MOST_ANSWER: u64 = 64 * 1024;

/// Asks `/readyz` of the gateway that this configuration describes.
pub(crate) fn health(file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    told(json, is_ready(file))
}

fn is_ready(file: Option<&Path>) -> anyhow::Result<()> {
    let config = installation::read_only(file)?;
    let tls = config.server.tls.is_some();
    let listen = if tls && !config.server.admin_listen.is_empty() {
        &config.server.admin_listen
    } else {
        &config.server.listen
    };
    let mut address = *listen.first().context("server.listen: no address")?;
    if address.ip().is_unspecified() {
        let loopback =
            if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    let asked = if tls { accepts(address) } else { ask(address) };
    asked.with_context(|| format!("the gateway at {address} (configuration: {})", config.source()))
}

fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = connect(address)?;
    stream.write_all(
        format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(MOST_ANSWER).read_to_end(&mut answer).context("no answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.get(..12).unwrap_or_default();
    anyhow::ensure!(status.ends_with(" 200"), "not ready: {}", reason(body).as_deref().unwrap_or(status));
    Ok(())
}

/// The sentence of a gateway that is not ready.
fn reason(body: &str) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(problem.get("detail")?.as_str()?.to_owned())
}

/// With TLS, that somebody accepts is all that is asked: the certificate is not for this name.
fn accepts(address: SocketAddr) -> anyhow::Result<()> {
    connect(address).map(drop)
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, HEALTH_TIMEOUT)
        .with_context(|| format!("nobody at {address}"))?;
    stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
    Ok(stream)
}
