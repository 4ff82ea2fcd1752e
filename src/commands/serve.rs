//! `tollgate serve` and `tollgate demo`: until told to stop.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Runtime;
use tollgate::app::{self, App, Signals};
use tollgate::clock::Clock;
use tollgate::config::{Config, Options, Vars};
use tollgate::demo::{self, DemoOptions};
use tollgate::telemetry;

use super::installation;

/// Told to stop in the middle of a start that takes long; what shells say of SIGTERM.
const STOPPED_EARLY: i32 = 128 + 15;
/// A start that is told to stop may come to its end for so long: somebody may have been met already.
const LAST_STEPS: Duration = Duration::from_secs(2);

/// Serves until told to stop.
pub(crate) fn serve(file: Option<&Path>, accept_lost_keys: bool) -> anyhow::Result<()> {
    let config = installation::read_only(file)?;
    telemetry::init(config.server.debug, std::io::stderr().is_terminal());
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, configuration = config.source(), database = %config.database.location, "starting");
    app::preflight(&config)?;
    warn_beside(config);
    // Missing secrets are made once the database is open.
    let mut config = Config::load(file, &Vars::from_process(), &Options::default())?;
    config.security.accept_lost = accept_lost_keys;
    Runtime::new()?.block_on(async {
        // Caught before anybody is met: who sees that we are ready may tell us to stop in order.
        let mut signals = Signals::catch()?;
        // Never dropped halfway: what runs behind is not stopped by that.
        let mut starting = std::pin::pin!(App::start(config, Clock::system()));
        let early = tokio::select! {
            app = &mut starting => Some(app?),
            () = signals.next() => None,
        };
        if let Some(app) = early {
            app.run_until(signals).await;
            return Ok(());
        }
        let Ok(app) = tokio::time::timeout(LAST_STEPS, starting).await else {
            // As if they were not caught; the next start finds what it finds after a kill.
            telemetry::flush(LAST_STEPS);
            std::process::exit(STOPPED_EARLY)
        };
        app?.shutdown().await;
        Ok(())
    })
}

/// Warns of what the configuration allows, on a thread of its own: a resolver may be slow, and must not hold
/// up the start.
fn warn_beside(config: Config) {
    std::thread::spawn(move || {
        for weakness in app::weaknesses(&config, Clock::system().now()) {
            tracing::warn!("{weakness}");
        }
    });
}

/// Serves the built-in chat app until told to stop.
pub(crate) fn demo(listen: SocketAddr, data: Option<PathBuf>) -> anyhow::Result<()> {
    telemetry::init(false, std::io::stderr().is_terminal());
    Runtime::new()?.block_on(demo::run(DemoOptions { listen, data }))
}
