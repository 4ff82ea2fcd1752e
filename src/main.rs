//! Arguments to commands, and their ends to exit codes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// jemalloc, for SQLite too: what one large request or answer took goes back to the system within ten seconds,
/// and threads reserve no address space for heaps of their own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

mod commands;

use commands::{
    AdminCommand, AuditCommand, ClockCommand, ConfigFile, LedgerCommand, StaffCommand, UserCommand,
};

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
    Serve {
        /// The file; else $GATEWAY_CONFIG, ./gateway.toml, /etc/tollgate/gateway.toml.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Start although the database knows other secrets, which are lost: what was made with them no longer
        /// works. The start says what that is, and the audit trail keeps it.
        #[arg(long)]
        accept_lost_keys: bool,
    },
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
    /// Open, show and change accounts of users.
    #[command(subcommand)]
    User(UserCommand),
    /// Take on and let go who looks after users.
    #[command(subcommand)]
    Staff(StaffCommand),
    /// List, make, disable and delete admins, and reset their passwords.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Look whether the audit trail holds.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Look whether every conversation is accounted for.
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Show whether this machine's clock is trusted, or accept it.
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Print the OpenAPI document of the REST API.
    Openapi,
    /// Print what a shell completes this command line with.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man {
        /// Write a page for each command into this folder.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

/// The configuration is wrong, or there is no installation (`EX_CONFIG` of sysexits.h).
const EX_CONFIG: u8 = 78;
/// What was to be verified cannot be read, so nobody knows.
const UNREADABLE: u8 = 2;

/// How long the last words may take to reach a standard error that is slow, or takes none.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Writes what was logged when dropped, also after a panic of the main thread.
struct FlushLog;

// === impl FlushLog ===

impl Drop for FlushLog {
    fn drop(&mut self) {
        tollgate::telemetry::flush(LAST_WORDS);
    }
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let _flush = FlushLog;
    let done = match command {
        Command::Serve { config, accept_lost_keys } => commands::serve(config.as_deref(), accept_lost_keys),
        Command::Demo { listen, data } => commands::demo(listen, data),
        Command::Check(ConfigFile { config, json }) => commands::check(config.as_deref(), json),
        Command::Migrate(ConfigFile { config, json }) => commands::migrate(config.as_deref(), json),
        Command::Health(ConfigFile { config, json }) => commands::health(config.as_deref(), json),
        Command::User(command) => command.run(),
        Command::Staff(command) => command.run(),
        Command::Admin(command) => command.run(),
        Command::Audit(command) => command.run(),
        Command::Ledger(command) => command.run(),
        Command::Clock(command) => command.run(),
        Command::Openapi => commands::openapi(),
        Command::Completions { shell } => commands::completions(Arguments::command(), shell),
        Command::Man { dir } => commands::man(Arguments::command(), dir.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            commands::tell(&error);
            if error.is::<tollgate::config::ConfigError>() || error.is::<commands::NoInstallation>() {
                ExitCode::from(EX_CONFIG)
            } else if error.is::<commands::Unreadable>() {
                ExitCode::from(UNREADABLE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
