//! `tollgate completions` and `tollgate man`: what shells and people read about the command line,
//! made from the command line itself.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use clap_complete::Shell;

/// Prints the completions of one shell.
pub(crate) fn completions(mut command: clap::Command, shell: Shell) -> anyhow::Result<()> {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    // Not to standard output directly: clap panics where that fails.
    clap_complete::generate(shell, &mut command, name, &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

/// Prints the manual page, or writes one for each command into `folder`.
pub(crate) fn man(command: clap::Command, folder: Option<&Path>) -> anyhow::Result<()> {
    let Some(folder) = folder else {
        return Ok(clap_mangen::Man::new(command).render(&mut std::io::stdout())?);
    };
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    clap_mangen::generate_to(command, folder).with_context(|| folder.display().to_string())
}
