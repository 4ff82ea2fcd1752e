//! `tollgate migrate`: the database, brought up to date.

use std::path::Path;

use tokio::runtime::Runtime;
use tollgate::app;
use tollgate::clock::Clock;
use tollgate::config::{Config, Options, Vars};
use tollgate::secrets;
use tollgate::store::Db;

use super::{installation, print, told, warn};

/// Opens the database, which brings it up to date.
pub(crate) fn migrate(file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    told(json, bring_up_to_date(file, json))?;
    if !json {
        print("The database is up to date.")?;
    }
    Ok(())
}

fn bring_up_to_date(file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    app::folders(&installation::read_only(file)?)?;
    let mut config = Config::load(file, &Vars::from_process(), &Options::default())?;
    if !json {
        let (source, database) = (config.source(), &config.database.location);
        warn(&format!("configuration: {source}; database: {database}"));
    }
    Runtime::new()?.block_on(async {
        let db = Db::connect(&config.database).await?;
        let settled = secrets::settle(&db, &mut config.security, false, Clock::system().now()).await;
        db.close().await;
        Ok(settled?)
    })
}
