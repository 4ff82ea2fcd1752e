//! Takes up a renewed certificate, and warns of one that is about to expire.
//!
//! The files are read again each time, which is cheap, instead of comparing times and sizes: so every way
//! of replacing them is noticed (in place, by rename, by a symlink as Kubernetes does), a failed read is
//! tried again by itself, and so is a pair whose second half is still to come.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Files, TlsError, TlsKeys, Validity};
use crate::clock::{Clock, Timestamp};
use crate::telemetry::Metrics;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// From so many days on the end of the certificate is warned of.
pub const EXPIRES_SOON_DAYS: i64 = 21;
/// How often it is.
const WARN_EVERY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// Looks at the certificate's files now and then.
pub struct TlsWatch {
    keys: Arc<TlsKeys>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// The error of the last look, as it was logged.
    failing: Option<String>,
    warned_at: Option<Timestamp>,
}

// === impl TlsWatch ===

impl TlsWatch {
    /// Watches the files of `keys`; warns at once where the certificate expires soon.
    #[must_use]
    pub fn new(keys: Arc<TlsKeys>, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let mut watch = Self { keys, clock, metrics, failing: None, warned_at: None };
        watch.judge_expiry();
        watch
    }

    /// Takes up new files within some seconds, for handshakes from then on, until `shutdown`. Files that
    /// cannot be used change nothing; they are logged once, and looked at again until they can.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let files = self.keys.files.clone();
            let read = tokio::task::spawn_blocking(move || Files::read_again(&files));
            // It fails only when the runtime ends.
            let Ok(read) = read.await else { return };
            self.look(read);
            self.judge_expiry();
        }
    }

    fn look(&mut self, read: Result<Files, TlsError>) {
        match read.and_then(|files| self.keys.take_up(&files)) {
            Ok(is_new) => {
                if is_new {
                    self.warned_at = None;
                    tracing::info!("TLS certificate reloaded");
                } else if self.failing.is_some() {
                    tracing::info!("TLS certificate files are readable again and hold the one in use");
                }
                self.failing = None;
            }
            Err(error) => {
                self.metrics.tls_reload_errors.inc();
                let error = error.to_string();
                if self.failing.as_ref() != Some(&error) {
                    tracing::error!(%error, "TLS certificate reload failed; keeping the one in use and trying again");
                    self.failing = Some(error);
                }
            }
        }
    }

    fn judge_expiry(&mut self) {
        let Some(validity) = self.keys.validity() else { return };
        let now = self.clock.now();
        let days = validity.days_left(now);
        self.metrics.set_certificate_days("server.tls.certificate", days);
        let is_due = self.warned_at.is_none_or(|at| now.0.abs_diff(at.0) >= WARN_EVERY_MILLIS.unsigned_abs());
        if is_due && warn_of_expiry(validity, now, days) {
            self.warned_at = Some(now);
        }
    }
}

/// Whether there was something to warn of.
fn warn_of_expiry(validity: Validity, now: Timestamp, days: i64) -> bool {
    let (not_before, not_after) = (validity.not_before, validity.not_after);
    if now > not_after {
        tracing::error!(%not_after, "TLS certificate has expired: clients refuse to connect");
    } else if now < not_before {
        tracing::error!(%not_before, "TLS certificate is not valid yet: clients refuse to connect");
    } else if days <= EXPIRES_SOON_DAYS {
        tracing::warn!(days, %not_after, "TLS certificate expires soon");
    } else {
        return false;
    }
    true
}
