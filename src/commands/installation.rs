//! Which installation a command means, and whether there is one. Only `serve`, `demo`, `migrate` and `user
//! add` make one; every other command refuses a folder without, and changes nothing there.

use std::path::Path;

use tollgate::app;
use tollgate::config::{Config, DatabaseLocation, Options, Secrets, Vars};

use super::{ConfigFile, warn};

/// Whether a command may make what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Folders, secrets and the database are made.
    Made,
    /// The command is refused.
    Refused,
}

/// There is no installation where a command looked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoInstallation(String);

// === impl NoInstallation ===

impl NoInstallation {
    /// The database is there, and has no tables of ours.
    pub(super) fn in_database(config: &Config) -> Self {
        Self(format!(
            "there is no installation here: the database {} has no tables of Tollgate (configuration: {}); change to \
             the installation's folder, or name its file by --config",
            config.database.location,
            config.source()
        ))
    }
}

/// Reads the configuration, and finds the installation or what may be missing of it.
///
/// # Errors
/// Mistakes of the configuration; [`NoInstallation`]; what keeps one from being made.
pub(super) fn configuration(at: &ConfigFile, missing: Missing) -> anyhow::Result<Config> {
    let file = at.config.as_deref();
    let config = read_only(file)?;
    if missing == Missing::Made {
        app::folders(&config)?;
        if !at.json && (!config.notes.is_empty() || found(&config).is_err()) {
            let (source, database) = (config.source(), &config.database.location);
            warn(&format!("making an installation: configuration: {source}; database: {database}"));
        }
        return Ok(Config::load(file, &Vars::from_process(), &Options::default())?);
    }
    found(&config)?;
    Ok(config)
}

/// The configuration of a command that makes no secrets.
///
/// # Errors
/// Mistakes of the configuration.
pub(super) fn read_only(file: Option<&Path>) -> anyhow::Result<Config> {
    let options = Options { secrets: Secrets::ReadOnly, ..Options::default() };
    Ok(Config::load(file, &Vars::from_process(), &options)?)
}

fn found(config: &Config) -> Result<(), NoInstallation> {
    let file = config.source();
    if let DatabaseLocation::Sqlite(path) = &config.database.location
        && !path.is_file()
    {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        return Err(NoInstallation(format!(
            "there is no installation here: the database {} does not exist (configuration: {file}); change to the \
             installation's folder, or name its file by --config",
            path.display()
        )));
    }
    Ok(())
}

/// Checks that an installation whose database is there has its secrets too.
///
/// # Errors
/// [`NoInstallation`] names the first one that a start would make.
pub(super) fn whole(config: &Config) -> Result<(), NoInstallation> {
    let Some(note) = config.notes.first() else { return Ok(()) };
    let file = note.message.split(" will be made").next().unwrap_or_default();
    Err(NoInstallation(format!(
        "a secret of the installation is missing: {} is to be in {file} (configuration: {}); put it back, change to the \
         installation's folder, or name its file by --config",
        note.path,
        config.source()
    )))
}
