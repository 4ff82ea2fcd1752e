//! `tollgate audit …`: whether the trail of changes is what was written.

use anyhow::bail;
use serde_json::json;
use tollgate::store::SlowRead;
use tollgate::store::audit::chain::{self, Link, Walked};

use super::ConfigFile;
use super::desk::{Desk, Told, at_the_desk};

/// The audit trail.
#[derive(clap::Subcommand)]
pub(crate) enum AuditCommand {
    /// Walk the whole trail; exit code 1 when a row was altered, added or removed.
    Verify {
        /// A link noted earlier, NUMBER:HASH, that must still be in it: a trail written anew from some
        /// row on, or cut off, shows only by this.
        #[arg(long, value_name = "LINK")]
        noted: Option<Link>,
        #[command(flatten)]
        at: ConfigFile,
    },
}

// === impl AuditCommand ===

impl AuditCommand {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Verify { noted, at } => {
                let mut sound = true;
                at_the_desk(&at, async |desk| {
                    let walked = verify(desk, noted.as_ref()).await?;
                    sound = walked.broken.is_none();
                    Ok(told(&walked))
                })?;
                if sound { Ok(()) } else { bail!("the audit trail does not hold") }
            }
        }
    }
}

async fn verify(desk: &Desk, noted: Option<&Link>) -> anyhow::Result<Walked> {
    Ok(chain::walk(&SlowRead::alone(&desk.db), noted).await?)
}

fn told(walked: &Walked) -> Told {
    let Walked { sound, unchained, head, broken } = walked;
    let json = json!({
        "ok": broken.is_none(),
        "rows": sound,
        "unchained": unchained,
        "head": head.to_string(),
        "broken": broken.as_ref().map(|at| json!({ "link": at.seq, "row": at.id, "why": at.why })),
    });
    let text = match broken {
        None => format!("{sound} rows hold, {unchained} are older than the chain.\nhead={head}"),
        Some(at) => {
            let row = at.id.map_or_else(String::new, |id| format!(", row {id}"));
            format!("{sound} rows hold. Link {}{row}: {}.", at.seq, at.why)
        }
    };
    Told { json, text }
}
