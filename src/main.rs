//! Arguments to commands, and their ends to exit codes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod commands;

/// The gate in front of your chat models: keys, address rules, rates, exact daily limits.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Stand in front of the upstreams of a configuration file.
    Serve(ConfigFile),
    /// Start in front of a small chat app of its own, with a user to try it.
    Demo {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Where to keep data: a folder of an earlier demo, or an empty one. A fresh one when not given.
        #[arg(long)]
        data: Option<PathBuf>,
    },
    /// Print every mistake of a configuration file.
    Check(ConfigFile),
    /// Bring the database up to date, and stop.
    Migrate(ConfigFile),
    /// Ask a running gateway whether it is ready, for container checks.
    Health(ConfigFile),
}

#[derive(clap::Args)]
struct ConfigFile {
    /// The file; else $GATEWAY_CONFIG, ./gateway.toml, /etc/tollgate/gateway.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print data as JSON.
    #[arg(long)]
    json: bool,
}

/// The configuration is wrong (`EX_CONFIG` of sysexits.h).
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Serve(ConfigFile { config, .. }) => commands::serve(config.as_deref()),
        Command::Demo { listen, data } => commands::demo(listen, data),
        Command::Check(ConfigFile { config, json }) => commands::check(config.as_deref(), json),
        Command::Migrate(ConfigFile { config, json }) => commands::migrate(config.as_deref(), json),
        Command::Health(ConfigFile { config, json }) => commands::health(config.as_deref(), json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            commands::tell(&error);
            if error.is::<tollgate::config::ConfigError>() {
                ExitCode::from(EX_CONFIG)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
