//! What is in the way of a start, found before it makes anything: sockets, TLS files and folders.

use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{Access, access};

use super::listeners::bind;
use crate::config::{Config, DatabaseLocation};
use crate::listen::TlsKeys;

/// Checks that everything a start needs from outside can be had. Nothing is made or changed.
///
/// # Errors
///
/// What is in the way, naming the configuration path that is at fault.
pub fn preflight(config: &Config) -> anyhow::Result<()> {
    let server = &config.server;
    // The sockets are closed again: no client is accepted before there is someone to answer.
    drop(bind("server.listen", &server.listen, 1)?);
    drop(bind("server.admin_listen", &server.admin_listen, 1)?);
    if let Some(files) = &server.tls {
        drop(TlsKeys::load(files)?);
    }
    folders(config)
}

/// Checks that the folders of the data and of the database are there, or can be made, and can be written.
///
/// # Errors
///
/// Which one cannot, and why.
pub fn folders(config: &Config) -> anyhow::Result<()> {
    unwritable(config).map_or(Ok(()), |(setting, error)| Err(error.context(setting)))
}

/// The first setting whose folder or file cannot be used, and why.
pub(super) fn unwritable(config: &Config) -> Option<(&'static str, anyhow::Error)> {
    let data_dir = &config.server.data_dir;
    let inside = ["spool", "node", "secret_key", "encryption_key"].map(|name| data_dir.join(name));
    let present = inside.iter().filter(|path| path.exists()).map(|path| ("server.data_dir", path.as_path()));
    let mut needed = vec![("server.data_dir", data_dir.as_path())];
    needed.extend(present);
    if let DatabaseLocation::Sqlite(file) = &config.database.location {
        needed.push(("database.url", parent(file)));
        needed.extend(file.exists().then_some(("database.url", file.as_path())));
    }
    needed.into_iter().find_map(|(setting, path)| Some((setting, writable(path).err()?)))
}

/// A folder or file that is there can be read and written; one that is not can be made.
fn writable(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    if path.is_dir() {
        return access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .with_context(|| format!("the folder {shown} cannot be read and written"));
    }
    if path.exists() {
        return access(path, Access::READ_OK).with_context(|| format!("the file {shown} cannot be read"));
    }
    let above = path.ancestors().skip(1).map(non_empty).find(|above| above.exists());
    let above = above.unwrap_or(Path::new("/"));
    if !above.is_dir() {
        bail!("{shown} cannot be made: {} is not a folder", above.display());
    }
    access(above, Access::WRITE_OK | Access::EXEC_OK)
        .with_context(|| format!("{shown} cannot be made: the folder {} cannot be written", above.display()))
}

fn parent(file: &Path) -> &Path {
    non_empty(file.parent().unwrap_or(Path::new("")))
}

fn non_empty(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{preflight, writable};
    use crate::config::{Config, Options, Secrets, Vars};

    #[test]
    fn what_cannot_be_made_is_named_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(writable(&folder.path().join("new/folder")).is_ok());
        let told = format!("{:#}", writable(&file.join("data")).unwrap_err());
        assert!(told.contains("file is not a folder"), "{told}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_port_in_use_is_found_before_anything_is_made() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let text = format!("[server]\nlisten = [\"{}\"]", held.local_addr().unwrap());
        fs::write(folder.path().join("gateway.toml"), text).unwrap();
        let options = Options { base_dir: folder.path().to_owned(), secrets: Secrets::ReadOnly };
        let config = Config::load(None, &Vars::default(), &options).unwrap();
        let told = format!("{:#}", preflight(&config).unwrap_err());
        assert!(told.contains("server.listen"), "{told}");
        drop(held);
        preflight(&config).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
