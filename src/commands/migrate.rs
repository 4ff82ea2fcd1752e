//! `tollgate migrate`: the database, brought up to date.

use std::io::Write;
use std::path::Path;

use tokio::runtime::Runtime;
use tollgate::config::{Config, Options, Vars};
use tollgate::store::Db;

use super::told;

/// Opens the database, which brings it up to date.
pub(crate) fn migrate(file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    told(json, bring_up_to_date(file))?;
    if !json {
        writeln!(std::io::stdout(), "The database is up to date.")?;
    }
    Ok(())
}

fn bring_up_to_date(file: Option<&Path>) -> anyhow::Result<()> {
    let config = Config::load(file, &Vars::from_process(), &Options::default())?;
    Runtime::new()?.block_on(async {
        let db = Db::connect(&config.database).await?;
        db.close().await;
        Ok(())
    })
}
