//! What a configuration allows and hardly anyone means: warnings of `check` and of a start.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use crate::clock::Timestamp;
use crate::config::{Config, Finding, Tls, Upstream};
use crate::listen::{self, EXPIRES_SOON_DAYS, Validity};

use super::preflight;

/// Looks at the configuration and at the machine; nothing is made. A host name of an upstream is looked up,
/// which may take as long as the resolver does.
#[must_use]
pub fn weaknesses(config: &Config, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut warn = |path: String, message: String| found.push(Finding { path, message });
    if config.file.is_none() {
        let message = "there is none: gateway.toml is not in this folder, nor /etc/tollgate/gateway.toml; defaults and \
             the environment are used. Name the file by --config or GATEWAY_CONFIG";
        warn("configuration".to_owned(), message.to_owned());
    }
    if config.routes.is_empty() {
        let message = "there is none, so no request is forwarded: add [[upstreams]] and [[routes]]";
        warn("routes".to_owned(), message.to_owned());
    }
    for (at, upstream) in config.upstreams.iter().enumerate() {
        if let Some(address) = own_address(config, upstream) {
            let message = format!("is the gate itself, which listens on {address}: name the model's address");
            warn(format!("upstreams[{at}].url"), message);
        }
    }
    for (at, route) in config.routes.iter().enumerate() {
        let has_credential =
            config.upstreams.get(route.upstream).is_some_and(|upstream| upstream.credential.is_some());
        let opened = if has_credential { route.opens_of_the_account() } else { Vec::new() };
        if !opened.is_empty() {
            let message = format!(
                "opens to every user what belongs to the account of the upstream's credential: {}; leave it out, or name calls \
                 one by one",
                opened.join("; ")
            );
            warn(format!("routes[{at}].allow"), message);
        }
    }
    if let Some(message) = config.server.tls.as_ref().and_then(|files| certificate(files, now)) {
        warn("server.tls.certificate".to_owned(), message);
    }
    if let Some((setting, error)) = preflight::unwritable(config) {
        warn(setting.to_owned(), format!("{error:#}"));
    }
    if !config.authz.charge.is_empty() && config.server.trusted_proxies.is_empty() {
        let message = "answers 403 to every proxy that asks while server.trusted_proxies is empty, since only a trusted \
             proxy may say what a request is: name your proxy's network there";
        warn("authz.charge".to_owned(), message.to_owned());
    }
    found
}

/// What is wrong with the certificate of a listener.
fn certificate(files: &Tls, now: Timestamp) -> Option<String> {
    let validity = match listen::inspect_tls(files) {
        Err(error) => return Some(error.to_string()),
        Ok(validity) => validity?,
    };
    let Validity { not_before, not_after } = validity;
    if not_after <= now {
        return Some(format!("has expired at {not_after}, and clients refuse it: renew it"));
    }
    if not_before > now {
        return Some(format!("is not valid before {not_before}, and clients refuse it: is the clock right?"));
    }
    let days = validity.days_left(now);
    (days < EXPIRES_SOON_DAYS).then(|| format!("expires at {not_after}, in {days} days: renew it"))
}

/// The address on which the gate would meet its own requests.
fn own_address(config: &Config, upstream: &Upstream) -> Option<SocketAddr> {
    let authority = &upstream.authority;
    let default = if upstream.scheme == http::uri::Scheme::HTTPS { 443 } else { 80 };
    let port = authority.port_u16().unwrap_or(default);
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let listen: Vec<SocketAddr> =
        config.server.listen.iter().chain(&config.server.admin_listen).copied().collect();
    if port == 0 || listen.iter().all(|address| address.port() != port) {
        return None;
    }
    let found: BTreeSet<IpAddr> =
        (host, port).to_socket_addrs().into_iter().flatten().map(|address| address.ip()).collect();
    listen.into_iter().find(|own| own.port() == port && found.iter().any(|ip| meets(*ip, own.ip())))
}

/// Whether a connection to `target` is accepted by a socket on `own`, on the same port.
fn meets(target: IpAddr, own: IpAddr) -> bool {
    let target = match target {
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or(target, IpAddr::V4),
        IpAddr::V4(_) => target,
    };
    // Connecting to the address of any interface reaches this machine.
    let target = match target {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        other => other,
    };
    target == own || own.is_unspecified() && own.is_ipv4() == target.is_ipv4() && is_of_this_machine(target)
}

/// Only an address of this machine can be bound.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::weaknesses;
    use crate::clock::Timestamp;
    use crate::config::{Config, Options, Secrets, Vars};

    /// 2026-09-21
    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    /// Where warnings are given, of a file in a folder of its own.
    fn warned(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
        let options = Options { base_dir: folder.path().to_owned(), secrets: Secrets::ReadOnly };
        let config = Config::load(None, &Vars::default(), &options).unwrap();
        let found = weaknesses(&config, NOW);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was made");
        found.into_iter().map(|finding| finding.path).collect()
    }

    fn gate(listen: &str, upstream: &str) -> String {
        format!(
            "[server]\nlisten = [\"{listen}\"]\n[[upstreams]]\nname = \"app\"\nurl = \"{upstream}\"\n\
             [[routes]]\nprefix = \"/v1\"\nupstream = \"app\"\n"
        )
    }

    #[test]
    fn an_upstream_that_is_the_gate_is_found_by_each_of_its_names() {
        let itself = [
            ("127.0.0.1:18080", "http://127.0.0.1:18080"),
            ("127.0.0.1:18080", "http://localhost:18080/base"),
            ("0.0.0.0:18080", "http://localhost:18080"),
            ("0.0.0.0:18080", "http://127.0.0.9:18080"),
            ("0.0.0.0:18080", "http://0.0.0.0:18080"),
            ("127.0.0.1:18080", "http://0.0.0.0:18080"),
            ("[::1]:18080", "http://[::1]:18080"),
            ("[::]:18080", "https://[::1]:18080"),
            ("0.0.0.0:18080", "http://[::ffff:127.0.0.1]:18080"),
            ("0.0.0.0:80", "http://localhost"),
        ];
        for (listen, upstream) in itself {
            assert_eq!(warned(&gate(listen, upstream)), ["upstreams[0].url"], "{listen} {upstream}");
        }
        let others = [
            ("127.0.0.1:18080", "http://127.0.0.1:18081"),
            ("127.0.0.1:18080", "http://127.0.0.2:18080"),
            ("0.0.0.0:18080", "http://192.0.2.7:18080"),
            ("[::]:18080", "http://127.0.0.1:18080"),
            ("0.0.0.0:18080", "https://localhost"),
        ];
        for (listen, upstream) in others {
            assert!(warned(&gate(listen, upstream)).is_empty(), "{listen} {upstream}");
        }
        // The address by which this machine is known in its network, where it has one.
        let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
        if probe.connect("192.0.2.1:9").is_ok() {
            let ip = probe.local_addr().unwrap().ip();
            assert_eq!(warned(&gate("0.0.0.0:18080", &format!("http://{ip}:18080"))), ["upstreams[0].url"]);
        }
    }

    #[test]
    fn a_certificate_that_clients_refuse_or_soon_will_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let pair = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (one, other) = (pair(), pair());
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let certificate = file("cert.pem", one.cert.pem());
        let app = gate("127.0.0.1:18080", "http://192.0.2.7");
        for (key, paths) in [(&one, &[][..]), (&other, &["server.tls.certificate"])] {
            let key = file("key.pem", key.signing_key.serialize_pem());
            let tls =
                format!("{app}[server.tls]\ncertificate = \"{certificate}\"\nprivate_key = \"{key}\"\n");
            assert_eq!(warned(&tls), paths);
        }
        let periods = [
            ((2026, 1, 1), (2027, 1, 1), false),
            ((2025, 1, 1), (2026, 9, 20), true),
            ((2026, 9, 25), (2027, 1, 1), true),
            ((2026, 1, 1), (2026, 10, 5), true),
        ];
        for ((year, month, day), end, is_warned) in periods {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(year, month, day);
            params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = file("dated.pem", params.self_signed(&key).unwrap().pem());
            let key = file("dated.key", key.serialize_pem());
            let tls =
                format!("{app}[server.tls]\ncertificate = \"{certificate}\"\nprivate_key = \"{key}\"\n");
            assert_eq!(!warned(&tls).is_empty(), is_warned, "until {end:?}");
        }
    }

    #[test]
    fn what_hardly_anyone_means_is_warned_of() {
        assert_eq!(warned(""), ["routes"]);
        let app = gate("127.0.0.1:18080", "http://192.0.2.7");
        assert!(warned(&app).is_empty());
        let charge = format!("{app}[authz]\ncharge = [\"POST /v1/x\"]\n");
        assert_eq!(warned(&charge), ["authz.charge"]);
        let trusting = charge.replace("[server]\n", "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n");
        assert!(warned(&trusting).is_empty());
        let data =
            app.replace("[server]\n", "[server]\n[database]\nurl = \"sqlite:////dev/null/x/tollgate.db\"\n");
        let data = data.replacen("listen = ", "#", 1);
        assert_eq!(warned(&data), ["database.url"]);

        let folder = tempfile::tempdir().unwrap();
        let options = Options { base_dir: folder.path().to_owned(), secrets: Secrets::ReadOnly };
        let none = Config::load(None, &Vars::default(), &options).unwrap();
        if none.file.is_none() {
            let paths: Vec<String> = weaknesses(&none, NOW).into_iter().map(|finding| finding.path).collect();
            assert_eq!(paths, ["configuration", "routes"]);
        }
    }
}
