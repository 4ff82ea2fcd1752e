//! `tollgate openapi`: the description of the REST API, as `/openapi.json` serves it.

use std::io::Write;

/// Prints the document.
pub(crate) fn openapi() -> anyhow::Result<()> {
    let document = tollgate::control::openapi_json()?;
    std::io::stdout().write_all(document.as_bytes())?;
    Ok(())
}
