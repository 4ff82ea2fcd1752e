//! `tollgate serve` and `tollgate demo`: until told to stop.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;
use tollgate::app::{App, Signals};
use tollgate::clock::Clock;
use tollgate::config::{Config, Options, Vars};
use tollgate::demo::{self, DemoOptions};
use tollgate::telemetry;

/// Told to stop before anybody was met; what shells say of SIGTERM.
const STOPPED_EARLY: i32 = 128 + 15;

/// Serves until told to stop.
pub(crate) fn serve(file: Option<&Path>) -> anyhow::Result<()> {
    let config = Config::load(file, &Vars::from_process(), &Options::default())?;
    telemetry::init(config.server.debug, std::io::stderr().is_terminal());
    Runtime::new()?.block_on(async {
        // Caught before anybody is met: who sees that we are ready may tell us to stop in order.
        let mut signals = Signals::catch()?;
        let app = tokio::select! {
            app = App::start(config, Clock::system()) => app?,
            // As if they were not caught; the next start finds what it finds after a kill.
            () = signals.next() => std::process::exit(STOPPED_EARLY),
        };
        app.run_until(signals).await;
        Ok(())
    })
}

/// Serves the built-in chat app until told to stop.
pub(crate) fn demo(listen: SocketAddr, data: Option<PathBuf>) -> anyhow::Result<()> {
    telemetry::init(false, std::io::stderr().is_terminal());
    Runtime::new()?.block_on(demo::run(DemoOptions { listen, data }))
}
