//! Who the client is when proxies stand between: `X-Forwarded-For`, believed only from those we
//! were told to trust, and only as far as they vouch.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that rules and rates look at, IPv4-mapped IPv6 written as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientIp(pub IpAddr);

/// Beside a request whose socket peer is a proxy whose word is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FromTrustedProxy;

/// Finds the [`ClientIp`] of a request.
#[derive(Clone, Debug, Default)]
pub struct ClientIps {
    trusted: Vec<IpNet>,
    /// Whether a proxy that is not trusted was warned of, shared by all clones.
    warned: Arc<AtomicBool>,
}

/// A trusted proxy named a hop that is no address, so nobody knows who asks: to be denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trusted proxy sent an X-Forwarded-For that names no address")]
pub struct UnreadableAddress;

// === impl ClientIps ===

impl ClientIps {
    /// `trusted` are the proxies whose header is believed; with none, the socket's peer is the client.
    #[must_use]
    pub fn new(trusted: Vec<IpNet>) -> Self {
        Self { trusted, warned: Arc::default() }
    }

    /// Whether `peer` is a proxy whose word is taken.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|network| network.contains(&peer))
    }

    /// The client of a request that came from the socket peer `peer`.
    ///
    /// All `X-Forwarded-For` lines count as one list, walked from its end, where the nearest proxy
    /// wrote, to the first hop that is not trusted. What stands left of that hop anybody may have
    /// written. When every hop is trusted, the farthest is the client.
    ///
    /// # Errors
    /// When the walk reaches an entry that is no address.
    pub fn resolve(&self, peer: IpAddr, headers: &HeaderMap) -> Result<ClientIp, UnreadableAddress> {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            if headers.contains_key(X_FORWARDED_FOR) {
                self.warn_of(client);
            }
            return Ok(ClientIp(client));
        }
        let lines: Vec<&[u8]> = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(|&byte| byte == b',')) {
            client = parse_hop(hop).ok_or(UnreadableAddress)?;
            if !self.trusts(client) {
                break;
            }
        }
        Ok(ClientIp(client))
    }

    /// Tells once of a peer that looks like a proxy and is not trusted: all of its clients share one rate.
    fn warn_of(&self, peer: IpAddr) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %peer,
                setting = "server.trusted_proxies",
                "X-Forwarded-For ignored: its sender is not in server.trusted_proxies, so all clients behind it \
                 count as one IP address; add it there if it is your proxy"
            );
        }
    }
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(hop).ok()?.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(v6) => IpAddr::V6(v6.parse().ok()?),
        None => text.parse().or_else(|_| text.parse().map(|with_port: SocketAddr| with_port.ip())).ok()?,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::{HeaderMap, HeaderValue};
    use ipnet::IpNet;
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    use super::{ClientIp, ClientIps, UnreadableAddress};

    fn ips() -> ClientIps {
        ClientIps::new(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])
    }

    fn resolve(peer: &str, lines: &[&str]) -> Result<String, UnreadableAddress> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        ips().resolve(peer.parse().unwrap(), &headers).map(|ip| ip.0.to_string())
    }

    #[test]
    fn a_stranger_cannot_say_who_it_is() {
        assert_eq!(resolve("203.0.113.7", &["10.0.0.1"]).unwrap(), "203.0.113.7");
        assert_eq!(resolve("203.0.113.7", &["nonsense"]).unwrap(), "203.0.113.7");
        assert_eq!(resolve("::ffff:203.0.113.7", &[]).unwrap(), "203.0.113.7");
    }

    #[test]
    fn the_nearest_untrusted_hop_is_the_client_whatever_stands_left_of_it() {
        assert_eq!(resolve("10.0.0.1", &["198.51.100.9"]).unwrap(), "198.51.100.9");
        assert_eq!(resolve("10.0.0.1", &["127.0.0.1, 198.51.100.9"]).unwrap(), "198.51.100.9");
        assert_eq!(resolve("10.0.0.1", &["rubbish,198.51.100.9 , 10.2.2.2"]).unwrap(), "198.51.100.9");
        assert_eq!(resolve("10.0.0.1", &["1.1.1.1", "198.51.100.9", "10.9.9.9"]).unwrap(), "198.51.100.9");
    }

    #[test]
    fn without_an_untrusted_hop_the_farthest_is_the_client() {
        assert_eq!(resolve("10.0.0.1", &[]).unwrap(), "10.0.0.1");
        assert_eq!(resolve("10.0.0.1", &["10.3.3.3, 10.2.2.2"]).unwrap(), "10.3.3.3");
    }

    #[test]
    fn hops_are_read_in_every_form_that_proxies_write() {
        for hop in ["198.51.100.9:4711", "::ffff:198.51.100.9", "[::ffff:198.51.100.9]:1", "\t198.51.100.9 "]
        {
            assert_eq!(resolve("::ffff:10.0.0.1", &[hop]).unwrap(), "198.51.100.9", "{hop}");
        }
        for hop in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443", "2001:DB8:0::1"] {
            assert_eq!(resolve("fd00::5", &[hop]).unwrap(), "2001:db8::1", "{hop}");
        }
    }

    #[test]
    fn a_hop_that_cannot_be_read_is_denied_not_skipped() {
        for hop in ["unknown", "", "1.1.1.1, ", "1.1.1.1, 010.0.0.1", "300.1.1.1", "1.1.1.1;10.0.0.1", "_x"] {
            assert_eq!(resolve("10.0.0.1", &[hop]), Err(UnreadableAddress), "{hop:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(ips().resolve("10.0.0.1".parse().unwrap(), &headers), Err(UnreadableAddress));
    }

    /// The rule in its plainest words, to hold the real one against.
    fn reference(trusted: &[IpNet], peer: IpAddr, chain: &[&str]) -> Option<IpAddr> {
        let trusts = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
        let mut path: Vec<Option<IpAddr>> = chain.iter().map(|hop| hop.parse().ok()).collect();
        path.push(Some(peer));
        while path.len() > 1 {
            match path.last()? {
                Some(ip) if trusts(ip) => path.pop(),
                _ => break,
            };
        }
        path.pop()?
    }

    fn hop() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(|o| IpAddr::from(o).to_string()),
            any::<u8>().prop_map(|n| format!("10.0.0.{n}")),
            any::<u16>().prop_map(|n| format!("fd00::{n:x}")),
            Just("junk".to_owned()),
            Just(String::new()),
        ]
    }

    proptest! {
        #[test]
        fn the_walk_agrees_with_the_rule(
            peer in prop_oneof![Just("10.1.1.1"), Just("203.0.113.7"), Just("fd00::1")],
            lines in proptest::collection::vec(proptest::collection::vec(hop(), 1..4), 0..4),
        ) {
            let ips = ips();
            let peer: IpAddr = peer.parse().unwrap();
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append("x-forwarded-for", HeaderValue::from_str(&line.join(", ")).unwrap());
            }
            let chain: Vec<&str> = lines.iter().flatten().map(String::as_str).collect();
            let expected = reference(&ips.trusted, peer, &chain).map(ClientIp);
            assert_eq!(ips.resolve(peer, &headers).ok(), expected);
        }
    }
}
