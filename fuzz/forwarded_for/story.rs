//! Arbitrary bytes as `X-Forwarded-For` lines: the walk ends at the nearest hop that is not trusted, and no one but
//! a trusted proxy is believed.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use tollgate::listen::{ClientIp, ClientIps};

const PIECES: [&str; 20] = [
    "10.0.0.1",
    "10.255.0.9",
    "203.0.113.7",
    "198.51.100.9:4711",
    "fd00::1",
    "2001:db8::1",
    "[2001:db8::1]",
    "[fd00::2]:443",
    "::ffff:10.0.0.3",
    "::ffff:203.0.113.9",
    ", ",
    ",",
    " ",
    "\t",
    "unknown",
    "010.0.0.1",
    "1",
    ":",
    "]",
    ";",
];
const PEERS: [&str; 5] = ["10.1.1.1", "203.0.113.7", "fd00::9", "::ffff:10.2.2.2", "2001:db8::7"];

/// One request; panics when a promise is broken.
pub(super) fn tell(data: &[u8]) {
    let Some(([mode, peer], rest)) = data.split_first_chunk::<2>() else { return };
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network")).to_vec();
    let ips = ClientIps::new(trusted);
    let peer: IpAddr = PEERS[usize::from(*peer) % PEERS.len()].parse().expect("an address");
    let mut headers = HeaderMap::new();
    let mut written: Vec<Vec<u8>> = Vec::new();
    for line in rest.split(|byte| *byte == 0) {
        let line = if mode % 2 == 1 {
            line.iter().flat_map(|piece| PIECES[usize::from(*piece) % PIECES.len()].bytes()).collect()
        } else {
            line.to_vec()
        };
        if let Ok(value) = HeaderValue::from_bytes(&line) {
            headers.append("x-forwarded-for", value);
            written.push(line);
        }
    }
    let found = ips.resolve(peer, &headers).ok();
    assert_eq!(found, rule(&ips, peer, &written).map(ClientIp), "{peer} {headers:?}");
}

/// The rule in its plainest words.
fn rule(ips: &ClientIps, peer: IpAddr, lines: &[Vec<u8>]) -> Option<IpAddr> {
    let mut client = peer.to_canonical();
    let whole = lines.join(&b","[..]);
    let mut hops: Vec<&[u8]> =
        if lines.is_empty() { Vec::new() } else { whole.split(|byte| *byte == b',').collect() };
    while ips.trusts(client) {
        let Some(hop) = hops.pop() else { break };
        client = address(std::str::from_utf8(hop).ok()?)?.to_canonical();
    }
    Some(client)
}

fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches([' ', '\t']);
    let port = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
    };
    if let Some((host, rest)) = hop.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_end = rest.is_empty() || rest.strip_prefix(':').is_some_and(port);
        return host.parse().ok().filter(|_| is_end).map(IpAddr::V6);
    }
    if let Ok(ip) = hop.parse() {
        return Some(ip);
    }
    let (host, after) = hop.rsplit_once(':')?;
    host.parse().ok().filter(|_| port(after)).map(IpAddr::V4)
}
