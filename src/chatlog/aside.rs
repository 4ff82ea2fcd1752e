//! What cannot become a row is kept beside the spool, for people to look at.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::ids::ExchangeId;

/// A folder of files that nothing reads. Bounded: what comes later is only counted.
pub(super) struct Aside {
    folder: PathBuf,
}

/// Most files.
const MOST_FILES: usize = 1000;

// === impl Aside ===

impl Aside {
    /// The folder is made with its first file.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps `bytes` as a file that only the gateway's own account can read.
    pub(super) fn keep(&self, id: ExchangeId, kind: &str, bytes: &[u8]) {
        let name = self.folder.join(format!("{id}.{kind}"));
        match self.write(&name, bytes) {
            Ok(true) => tracing::error!(file = %name.display(), "set aside"),
            Ok(false) => tracing::error!(%id, "not set aside: too much already is"),
            Err(error) => tracing::error!(%error, %id, "cannot be set aside"),
        }
    }

    fn write(&self, name: &PathBuf, bytes: &[u8]) -> io::Result<bool> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        if fs::read_dir(&self.folder)?.count() >= MOST_FILES {
            return Ok(false);
        }
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(name)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{Aside, MOST_FILES};
    use crate::ids::ExchangeId;

    #[test]
    fn what_is_set_aside_is_private_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let poison = folder.path().join("poison");
        let aside = Aside::new(poison.clone());
        let id = ExchangeId::generate();
        aside.keep(id, "records", b"what cannot be read");
        let file = poison.join(format!("{id}.records"));
        assert_eq!(fs::read(&file).unwrap(), b"what cannot be read");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&poison).unwrap().permissions().mode() & 0o777, 0o700);
        for number in 0..MOST_FILES {
            fs::write(poison.join(number.to_string()), "").unwrap();
        }
        aside.keep(ExchangeId::generate(), "records", b"one too many");
        assert_eq!(fs::read_dir(&poison).unwrap().count(), MOST_FILES + 1);
    }
}
