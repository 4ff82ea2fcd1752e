//! `tollgate serve` and `tollgate demo`: until told to stop.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;
use tollgate::app::App;
use tollgate::clock::Clock;
use tollgate::config::{Config, Options, Vars};
use tollgate::demo::{self, DemoOptions};
use tollgate::telemetry;

/// Serves until told to stop.
pub(crate) fn serve(file: Option<&Path>) -> anyhow::Result<()> {
    let config = Config::load(file, &Vars::from_process(), &Options::default())?;
    telemetry::init(config.server.debug, std::io::stderr().is_terminal());
    Runtime::new()?.block_on(async {
        let app = App::start(config, Clock::system()).await?;
        app.run_until_signal().await
    })
}

/// Serves the built-in chat app until told to stop.
pub(crate) fn demo(listen: SocketAddr, data: Option<PathBuf>) -> anyhow::Result<()> {
    telemetry::init(false, std::io::stderr().is_terminal());
    Runtime::new()?.block_on(demo::run(DemoOptions { listen, data }))
}
