//! What the demo prints: lines for scripts first, then lines for people to paste.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use secrecy::ExposeSecret;

use crate::demo::folder::Account;

/// Where a client on this machine reaches a gate that listens on `address`.
pub(super) fn base_url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(any) if any.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(any) if any.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        one => one,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// Prints the first steps and flushes, so that a script which reads a pipe gets them at once.
///
/// # Errors
/// When `out` cannot be written.
pub(super) fn print(out: &mut impl Write, url: &str, account: &Account, data: &Path) -> io::Result<()> {
    let key = account.api_key.expose_secret();
    let (admin, admin_password) = (&account.admin_username, account.admin_password.expose_secret());
    writeln!(out, "url={url}")?;
    writeln!(out, "api_key={key}")?;
    writeln!(out, "admin_username={admin}")?;
    writeln!(out, "admin_password={admin_password}")?;
    writeln!(out, "user_email={}", account.user_email)?;
    writeln!(out, "user_password={}", account.user_password.expose_secret())?;
    write!(
        out,
        r#"
# A conversation
curl -s {url}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{"model":"demo-chat","messages":[{{"role":"user","content":"Hello"}}]}}'

# The same, streamed
curl -sN {url}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{"model":"demo-chat","stream":true,"messages":[{{"role":"user","content":"Hello"}}]}}'

# openai-python
python3 -c 'from openai import OpenAI; print(OpenAI(base_url="{url}/v1", api_key="{key}").chat.completions.create(model="demo-chat", messages=[{{"role": "user", "content": "Hello"}}]).choices[0].message.content)'

# The admin's login
curl -s {url}/api/v1/admin/login -H 'Content-Type: application/json' -d '{{"username":"{admin}","password":"{admin_password}"}}'

Data is kept in {data}. Ctrl-C stops.
"#,
        data = data.display()
    )?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::demo::folder::Account;

    use super::{base_url, print};

    #[test]
    fn scripts_find_each_name_alone_on_its_line() {
        let account = Account {
            api_key: "pe-key".into(),
            admin_username: "admin".into(),
            admin_password: "one1".into(),
            user_email: "demo@example.com".into(),
            user_password: "two2".into(),
        };
        let mut out = Vec::new();
        print(&mut out, "http://127.0.0.1:8080", &account, Path::new("/tmp/demo")).unwrap();
        let text = String::from_utf8(out).unwrap();
        let first: Vec<&str> = text.lines().take(7).collect();
        let expected = [
            "url=http://127.0.0.1:8080",
            "api_key=pe-key",
            "admin_username=admin",
            "admin_password=one1",
            "user_email=demo@example.com",
            "user_password=two2",
            "",
        ];
        assert_eq!(first, expected);
        assert!(text.contains(r#"-d '{"username":"admin","password":"one1"}'"#));
    }

    #[test]
    fn a_gate_on_every_address_is_reached_on_the_loopback_one() {
        assert_eq!(base_url("0.0.0.0:80".parse().unwrap()), "http://127.0.0.1:80");
        assert_eq!(base_url("[::]:80".parse().unwrap()), "http://[::1]:80");
        assert_eq!(base_url("10.0.0.1:80".parse().unwrap()), "http://10.0.0.1:80");
    }
}
