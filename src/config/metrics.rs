//! `[metrics]`: who may read `/metrics` on a listener that clients reach.

use std::fmt;
use std::path::Path;

use ipnet::IpNet;
use secrecy::SecretString;

use super::file::{SecretSource, secret};
use super::tree::{Section, Tree};
use super::{forms, secrets};
use crate::credential::strength::weakness;

/// `[metrics]`
#[derive(Clone, Default)]
pub struct MetricsAccess {
    /// Networks that may read them, besides this machine.
    pub allowed_ips: Vec<IpNet>,
    /// A bearer token with which anyone may.
    pub token: Option<SecretString>,
}

/// `[metrics]` before its token is read.
pub(super) struct MetricsDraft {
    allowed_ips: Vec<IpNet>,
    token: SecretSource,
}

/// Reads the section; mistakes go to the tree.
pub(super) fn read(mut s: Section<'_>, base: &Path) -> MetricsDraft {
    let draft = MetricsDraft {
        allowed_ips: s.list("allowed_ips", forms::networks).unwrap_or_default().concat(),
        token: secret(&mut s, "token", "token_file", base),
    };
    s.finish();
    draft
}

/// The section with its token; a token that can be guessed is a weakness.
pub(super) fn check(tree: &Tree<'_>, draft: MetricsDraft) -> MetricsAccess {
    let token = secrets::given(tree, &draft.token);
    if let Some(reason) = token.as_ref().and_then(weakness) {
        tree.weakness("metrics.token", reason.to_string());
    }
    if draft.allowed_ips.iter().any(|network| network.prefix_len() == 0) {
        tree.warning(
            "metrics.allowed_ips",
            "lets everyone read the metrics: name the network of your monitoring",
        );
    }
    MetricsAccess { allowed_ips: draft.allowed_ips, token }
}

// === impl MetricsAccess ===

impl MetricsAccess {
    /// Whether only this machine may read the metrics.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.allowed_ips.is_empty() && self.token.is_none()
    }
}

impl fmt::Debug for MetricsAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsAccess").field("allowed_ips", &self.allowed_ips).finish_non_exhaustive()
    }
}
