//! What each command does.

use std::io::{IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Runtime;
use tollgate::app::App;
use tollgate::clock::Clock;
use tollgate::config::{Config, Finding, Options, Secrets, Vars};
use tollgate::demo::{self, DemoOptions};
use tollgate::store::Db;
use tollgate::telemetry;

/// How long a running gateway may take to say how it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until told to stop.
pub(super) fn serve(file: Option<&Path>) -> anyhow::Result<()> {
    let config = Config::load(file, &Vars::from_process(), &Options::default())?;
    telemetry::init(config.server.debug, std::io::stderr().is_terminal());
    Runtime::new()?.block_on(async {
        let app = App::start(config, Clock::system()).await?;
        app.run_until_signal().await
    })
}

/// Serves the built-in chat app until told to stop.
pub(super) fn demo(listen: SocketAddr, data: Option<PathBuf>) -> anyhow::Result<()> {
    telemetry::init(false, std::io::stderr().is_terminal());
    Runtime::new()?.block_on(demo::run(DemoOptions { listen, data }))
}

/// Prints what is weak and what the next start will do; mistakes are the error.
pub(super) fn check(file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let options = Options { secrets: Secrets::ReadOnly, ..Options::default() };
    let config = match Config::load(file, &Vars::from_process(), &options) {
        Ok(config) => config,
        Err(error) if json => {
            print_json(&serde_json::json!({ "ok": false, "mistakes": listed(error.findings()) }))?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    if json {
        let (warnings, notes) = (listed(&config.warnings), listed(&config.notes));
        return print_json(&serde_json::json!({ "ok": true, "warnings": warnings, "notes": notes }));
    }
    let mut out = std::io::stdout().lock();
    for warning in &config.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for note in &config.notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(out, "The configuration is good.")?;
    Ok(())
}

/// Opens the database, which brings it up to date.
pub(super) fn migrate(file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let config = Config::load(file, &Vars::from_process(), &Options::default())?;
    Runtime::new()?.block_on(async {
        let db = Db::connect(&config.database).await?;
        db.close().await;
        anyhow::Ok(())
    })?;
    if json {
        return print_json(&serde_json::json!({ "ok": true }));
    }
    writeln!(std::io::stdout(), "The database is up to date.")?;
    Ok(())
}

/// Asks `/readyz` of the gateway that this configuration describes.
pub(super) fn health(file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let options = Options { secrets: Secrets::ReadOnly, ..Options::default() };
    let config = Config::load(file, &Vars::from_process(), &options)?;
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
    let ready = if tls { accepts(address) } else { ask(address) };
    if json {
        let error = ready.as_ref().err().map(|error| format!("{error:#}"));
        print_json(&serde_json::json!({ "ok": ready.is_ok(), "error": error }))?;
    }
    ready
}

/// Tells a person what went wrong, and why.
pub(super) fn tell(error: &anyhow::Error) {
    // With nobody to tell, the exit code says it.
    let _ = writeln!(std::io::stderr(), "{error:#}");
}

fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = connect(address)?;
    stream.write_all(
        format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).context("no answer")?;
    let status = String::from_utf8_lossy(&head);
    anyhow::ensure!(status.ends_with(" 200"), "not ready: {status}");
    Ok(())
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

fn listed(findings: &[Finding]) -> Vec<serde_json::Value> {
    findings.iter().map(|f| serde_json::json!({ "path": f.path, "message": f.message })).collect()
}

fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{value}")?;
    Ok(())
}
