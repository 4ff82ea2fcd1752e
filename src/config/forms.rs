//! The forms a value may have: from what is written to what is meant. A complaint says what to write
//! and never repeats the value, which may hold a secret.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use chrono_tz::Tz;
use http::Uri;
use http::header::HeaderName;
use http::uri::{Authority, Scheme};
use ipnet::{IpNet, Ipv4Net};
use lettre::message::Mailbox;
use secrecy::SecretString;

use super::tree::Given;
use super::{Charge, DatabaseLocation, Grant, units};

/// Where an upstream is.
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// "" or `/base`, without a slash at the end.
    pub(super) base_path: String,
}

/// Paths the gateway answers itself.
const RESERVED: [&str; 10] = [
    "/api/v1",
    "/health",
    "/healthz",
    "/livez",
    "/readyz",
    "/metrics",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/console",
];

/// Headers whose value is the gateway's own business on the way to an upstream.
const NO_CREDENTIALS: [&str; 8] =
    ["host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "content-type"];

// === scalars ===

/// A string that may be empty.
pub(super) fn any_text(given: &Given) -> Result<String, String> {
    match given {
        Given::Text(text) | Given::Variable(text) => Ok(text.clone()),
        Given::Number(_) | Given::Switch(_) | Given::Other => {
            Err("must be a string: put it in quotes".into())
        }
    }
}

/// A string with something in it.
pub(super) fn text(given: &Given) -> Result<String, String> {
    let text = any_text(given)?;
    if text.trim().is_empty() { Err("is empty: remove the key, or give it a value".into()) } else { Ok(text) }
}

/// A duration, such as `"30s"`.
pub(super) fn duration(given: &Given) -> Result<Duration, String> {
    units::duration(&quantity(given))
}

/// A duration, or `"0s"` for none.
pub(super) fn duration_or_zero(given: &Given) -> Result<Duration, String> {
    units::duration_or_zero(&quantity(given))
}

/// A size in bytes, such as `"10MiB"`.
pub(super) fn size(given: &Given) -> Result<u64, String> {
    units::size(&quantity(given))
}

/// A size that memory must hold.
pub(super) fn memory_size(given: &Given) -> Result<usize, String> {
    usize::try_from(size(given)?).map_err(|_| "is too large".into())
}

/// A whole number within a range.
pub(super) fn whole<T: TryFrom<i64>>(range: RangeInclusive<i64>) -> impl Fn(&Given) -> Result<T, String> {
    move |given| {
        let number = match given {
            Given::Number(number) => Some(*number),
            Given::Variable(text) => text.trim().parse().ok(),
            Given::Text(_) | Given::Switch(_) | Given::Other => None,
        };
        let fitting =
            number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        fitting.ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
    }
}

/// `true` or `false`; in a variable also 1, 0, yes, no, on, off.
pub(super) fn switch(given: &Given) -> Result<bool, String> {
    let word = match given {
        Given::Switch(switch) => return Ok(*switch),
        Given::Variable(text) => text.trim().to_ascii_lowercase(),
        Given::Text(_) | Given::Number(_) | Given::Other => String::new(),
    };
    match word.as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false, without quotes".into()),
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy, const N: usize>(
    words: [(&'static str, T); N],
) -> impl Fn(&Given) -> Result<T, String> {
    move |given| {
        let text = any_text(given)?;
        let found = words.iter().find(|(word, _)| *word == text.trim());
        let known = || words.map(|(word, _)| format!("\"{word}\"")).join(", ");
        found.map(|(_, meaning)| *meaning).ok_or_else(|| format!("must be one of {}", known()))
    }
}

// === addresses and time ===

/// An address to listen on.
pub(super) fn listen_address(given: &Given) -> Result<SocketAddr, String> {
    let way_out = "write an address with its port, such as \"127.0.0.1:8080\" or \"[::]:8080\"";
    text(given)?.trim().parse().map_err(|_| way_out.to_owned())
}

/// Networks in CIDR. A bare address is a network of one; `localhost` is both loopback addresses.
pub(super) fn networks(given: &Given) -> Result<Vec<IpNet>, String> {
    let text = text(given)?;
    let text = text.trim();
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(loopback());
    }
    let network = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>());
    let way_out = "write an address or a network in CIDR, such as \"203.0.113.0/24\" or \"2001:db8::/48\"; \
                   names are not looked up";
    network.map(|network| vec![canonical(network)]).map_err(|_| way_out.to_owned())
}

/// This machine, in both families.
pub(super) fn loopback() -> Vec<IpNet> {
    vec![IpNet::from(IpAddr::V4(Ipv4Addr::LOCALHOST)), IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST))]
}

/// Clients are compared in canonical form, so IPv4-mapped networks become IPv4 ones.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network.trunc() };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    let v4 = mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    v4.map_or(network, IpNet::V4).trunc()
}

/// An IANA time zone.
pub(super) fn zone(given: &Given) -> Result<Tz, String> {
    let way_out = "unknown time zone: write an IANA name such as \"UTC\" or \"Europe/Berlin\"";
    text(given)?.trim().parse().map_err(|_| way_out.to_owned())
}

// === HTTP ===

/// Where an upstream is: `http` or `https`, host, port, and perhaps a base path.
pub(super) fn origin(given: &Given) -> Result<Origin, String> {
    let text = text(given)?;
    let uri: Uri =
        text.trim().parse().map_err(|_| "write a URL such as \"https://api.example.org\"".to_owned())?;
    let parts = uri.into_parts();
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
        return Err("write the whole URL, with http:// or https:// before the host".into());
    };
    if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
        return Err("must begin with http:// or https://".into());
    }
    if authority.as_str().contains('@') {
        return Err("must not hold a user or password: use `credential`".into());
    }
    let has_query = parts.path_and_query.as_ref().is_some_and(|path| path.query().is_some());
    if has_query || text.contains('#') {
        return Err("must not have a query or a fragment: remove what follows \"?\" or \"#\"".into());
    }
    let port_is_sound = match authority.as_str().rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => authority.port_u16().is_some_and(|port| port > 0),
        _ => true,
    };
    if authority.host().is_empty() || !port_is_sound {
        return Err("must name a host, and a port from 1 to 65535 where there is one".into());
    }
    let base_path = parts.path_and_query.map_or(String::new(), |path| path.path().to_owned());
    if base_path.contains("//") || base_path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("its path must not have \"//\", \".\" or \"..\"".into());
    }
    Ok(Origin { scheme, authority, base_path: base_path.trim_end_matches('/').to_owned() })
}

/// Where webhooks go: `http` or `https`, a host, whatever follows.
pub(super) fn webhook_url(given: &Given) -> Result<Uri, String> {
    let text = text(given)?;
    let way_out = || "write a URL such as \"https://app.example.org/hooks/tollgate\"".to_owned();
    let uri: Uri = text.trim().parse().map_err(|_| way_out())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = uri.host().unwrap_or_default();
    if !is_http || host.is_empty() || text.contains('#') {
        return Err(way_out());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("must not hold a user or password: messages are signed with `secret`".into());
    }
    Ok(uri)
}

/// The header that carries an upstream's credential.
pub(super) fn credential_header(given: &Given) -> Result<HeaderName, String> {
    let name = HeaderName::try_from(text(given)?.trim())
        .map_err(|_| "must be a header's name, such as \"authorization\" or \"x-api-key\"".to_owned())?;
    let is_ours = NO_CREDENTIALS.contains(&name.as_str()) || name.as_str().starts_with("x-tollgate-");
    if is_ours {
        Err("is a header the gateway sets itself: choose the one the upstream reads".into())
    } else {
        Ok(name)
    }
}

/// A route's prefix, without a slash at the end; "/" becomes "".
pub(super) fn prefix(given: &Given) -> Result<String, String> {
    let text = any_text(given)?;
    let prefix = text.trim_end_matches('/');
    if !text.starts_with('/') {
        return Err("must begin with \"/\"; \"/\" alone matches every path".into());
    }
    plain_path(prefix)?;
    let owner = RESERVED.iter().find(|reserved| lies_under(prefix, reserved));
    owner.map_or_else(
        || Ok(prefix.to_owned()),
        |reserved| {
            Err(format!("lies in {reserved}, which the gateway answers itself: choose another prefix"))
        },
    )
}

/// Whether `path` is `prefix` or below it.
pub(super) fn lies_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path without anything that a client and an upstream could read differently.
fn plain_path(path: &str) -> Result<(), String> {
    let plain = |b: u8| {
        b.is_ascii_graphic() && !matches!(b, b'%' | b'?' | b'#' | b'\\' | b';' | b'*' | b'"' | b'<' | b'>')
    };
    if !path.bytes().all(plain) {
        return Err("must be a plain path: no blanks, no \"%\", \"?\", \"#\", \";\", \"*\" or \"\\\"".into());
    }
    if path.contains("//") || path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("must not have \"//\", \".\" or \"..\"".into());
    }
    Ok(())
}

/// A host name that clients send, in lower case.
pub(super) fn host(given: &Given) -> Result<String, String> {
    let text = text(given)?.trim().to_ascii_lowercase();
    let is_name = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let is_address_6 = text.starts_with('[') && text.ends_with(']');
    if is_name || is_address_6 {
        return Ok(text);
    }
    Err("must be a host alone, such as \"api.example.org\": no scheme, port, path or \"*\"".into())
}

/// `METHOD /path`, with `*` at the end for the rest.
pub(super) fn charge(given: &Given) -> Result<Charge, String> {
    let way_out = || "write a method and a path, such as \"POST /v1/chat/completions\"".to_owned();
    let text = text(given)?;
    let (method, path) = text.trim().split_once(' ').ok_or_else(way_out)?;
    let path = path.trim_start();
    let is_method = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase());
    if !is_method || !path.starts_with('/') {
        return Err(way_out());
    }
    plain_path(path.strip_suffix('*').unwrap_or(path)).map_err(|_| {
        "its path must be plain: no blanks, \"%\", \"?\", \"#\", \";\", \"//\" or \"..\"; \"*\" only at its end"
            .to_owned()
    })?;
    let method = http::Method::try_from(method).map_err(|_| way_out())?;
    Ok(Charge { method, path: path.to_owned() })
}

/// An entry of `allow` or `free`, see [`Grant`].
pub(super) fn grant(given: &Given) -> Result<Grant, String> {
    Grant::parse(&text(given)?, |path| plain_path(path).is_ok())
}

/// A JSON pointer (RFC 6901).
pub(super) fn pointer(given: &Given) -> Result<String, String> {
    let text = text(given)?;
    let escapes_are_sound = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if text.starts_with('/') && escapes_are_sound {
        return Ok(text);
    }
    Err("must be a JSON pointer, such as \"/reply\" or \"/choices/0/text\"".into())
}

/// A name that logs, metrics and scopes carry.
pub(super) fn name(given: &Given) -> Result<String, String> {
    let text = text(given)?;
    let fits = text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fits { Ok(text) } else { Err("must be at most 64 letters, digits, \"-\", \"_\" and \".\"".into()) }
}

/// A pattern of names: `*` at its beginning or its end, nowhere else.
pub(super) fn pattern(given: &Given) -> Result<String, String> {
    let text = text(given)?;
    let stars = text.matches('*').count();
    let at_an_end = text.starts_with('*') || text.ends_with('*');
    if stars == 0 || (stars == 1 && at_an_end) {
        return Ok(text);
    }
    Err("may have one \"*\", at its beginning or its end".into())
}

/// Who a letter is from: `name@host`, or `Name <name@host>`.
pub(super) fn mailbox(given: &Given) -> Result<String, String> {
    let text = text(given)?;
    let way_out = "write an address, such as \"Tollgate <tollgate@example.org>\"";
    text.parse::<Mailbox>().map(|_| text).map_err(|_| way_out.to_owned())
}

// === database ===

/// A database URL: `sqlite:` in SQLAlchemy's and sqlx's forms, `postgres:` or `postgresql:`, with or
/// without SQLAlchemy's `+driver`. SQLite paths are as written; relative ones are not yet joined.
pub(super) fn database_url(url: &str) -> Result<DatabaseLocation, String> {
    let way_out =
        || "write \"sqlite://data/tollgate.db\" or \"postgres://user:password@host/database\"".to_owned();
    let (scheme, rest) = url.trim().split_once(':').ok_or_else(way_out)?;
    match scheme.split('+').next().unwrap_or_default() {
        "sqlite" => sqlite_path(rest),
        "postgres" | "postgresql" => {
            let host = rest.strip_prefix("//").ok_or_else(way_out)?;
            if host.is_empty() || host.contains(char::is_whitespace) {
                return Err(way_out());
            }
            Ok(DatabaseLocation::Postgres(SecretString::from(format!("postgres:{rest}"))))
        }
        _ => Err(way_out()),
    }
}

fn sqlite_path(rest: &str) -> Result<DatabaseLocation, String> {
    let path = rest.strip_prefix("///").or_else(|| rest.strip_prefix("//")).unwrap_or(rest);
    if path.is_empty() || path.ends_with('/') {
        return Err("must name a file, such as \"sqlite://data/tollgate.db\"".into());
    }
    if path.starts_with(":memory:") {
        return Err("must name a file: what is kept in memory would be lost at every stop".into());
    }
    if path.contains(['?', '#']) {
        return Err("takes no parameters: remove what follows \"?\"".into());
    }
    Ok(DatabaseLocation::Sqlite(path.into()))
}

fn quantity(given: &Given) -> String {
    match given {
        Given::Text(text) | Given::Variable(text) => text.clone(),
        Given::Number(_) | Given::Switch(_) | Given::Other => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{DatabaseLocation, Given, database_url, networks, origin, pointer, switch, whole};

    #[test]
    fn sqlite_is_found_in_the_forms_of_both_worlds() {
        let cases = [
            ("sqlite:///./user_management.db", "./user_management.db"),
            ("sqlite:///data/x.db", "data/x.db"),
            ("sqlite:////var/lib/x.db", "/var/lib/x.db"),
            ("sqlite+aiosqlite:///x.db", "x.db"),
            ("sqlite://data/x.db", "data/x.db"),
            ("sqlite:x.db", "x.db"),
            ("sqlite:/var/x.db", "/var/x.db"),
        ];
        for (url, path) in cases {
            let Ok(DatabaseLocation::Sqlite(found)) = database_url(url) else { panic!("{url}") };
            assert_eq!(found, Path::new(path), "{url}");
        }
        for url in
            ["sqlite://", "sqlite::memory:", "sqlite://x.db?mode=ro", "mysql://h/d", "x.db", "postgres:d"]
        {
            assert!(database_url(url).is_err(), "{url}");
        }
        assert!(matches!(database_url("postgresql+asyncpg://u:p@h/d"), Ok(DatabaseLocation::Postgres(_))));
    }

    #[test]
    fn networks_may_be_bare_addresses_and_are_canonical() {
        let read = |text: &str| {
            let found = networks(&Given::Text(text.into()))?;
            Ok::<_, String>(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(read("10.1.2.3").unwrap(), "10.1.2.3/32");
        assert_eq!(read("10.1.2.3/8").unwrap(), "10.0.0.0/8");
        assert_eq!(read("::1").unwrap(), "::1/128");
        assert_eq!(read("localhost").unwrap(), "127.0.0.1/32 ::1/128");
        assert_eq!(read("::ffff:10.0.0.0/104").unwrap(), "10.0.0.0/8");
        assert!(read("your.server.ip").is_err());
        assert!(read("10.0.0.0/33").is_err());
    }

    #[test]
    fn an_origin_is_only_scheme_host_port_and_base() {
        let read = |text: &str| origin(&Given::Text(text.into()));
        let base = read("http://localhost:11434/base/").unwrap();
        assert_eq!((base.authority.as_str(), base.base_path.as_str()), ("localhost:11434", "/base"));
        assert_eq!(read("https://[::1]:8443").unwrap().authority.port_u16(), Some(8443));
        assert!(read("https://[::1]").is_ok());
        let bad = [
            "ftp://h",
            "h:80",
            "/path",
            "https://u:p@h",
            "https://h?q=1",
            "https://h/#f",
            "http://h:99999",
            "http://h:",
            "http://h/a/../b",
            "http://h:0",
        ];
        for url in bad {
            assert!(read(url).is_err(), "{url}");
        }
    }

    #[test]
    fn numbers_and_switches_are_read_from_text_only_in_variables() {
        assert_eq!(whole::<u32>(0..=9)(&Given::Variable(" 7 ".into())), Ok(7));
        assert!(whole::<u32>(0..=9)(&Given::Text("7".into())).is_err());
        assert!(whole::<u32>(0..=9)(&Given::Number(10)).is_err());
        assert_eq!(switch(&Given::Variable("True".into())), Ok(true));
        assert!(switch(&Given::Text("true".into())).is_err());
        assert!(pointer(&Given::Text("/a~2".into())).is_err());
    }
}
