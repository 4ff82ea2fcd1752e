//! `[webhooks]` and `[authz]`: what others are told, and what others may ask.

use std::fmt;
use std::path::Path;

use http::Uri;
use secrecy::SecretString;

use super::file::{SecretSource, secret};
use super::tree::{Section, Tree};
use super::{Charge, forms, secrets};

/// `[webhooks]`, where a URL is given.
#[derive(Clone)]
pub struct Webhooks {
    /// Where events are posted: `http` or `https`, with a host.
    pub url: Uri,
    /// Signs them: `whsec_` and Base64 (Standard Webhooks), or any text.
    pub secret: SecretString,
    /// Which events.
    pub events: Vec<WebhookEvent>,
    /// Whether the receiver may be in a private network, or on this machine.
    pub allow_private_addresses: bool,
}

/// Something that happened and that others may be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WebhookEvent {
    /// A conversation is in the message log.
    MessageLogged,
    /// A user's last conversation of the day was charged.
    QuotaReached,
    /// A key has a new secret.
    KeyRegenerated,
    /// There is a new account.
    UserCreated,
}

/// `[authz]`
#[derive(Clone, Debug, Default)]
pub struct Authz {
    /// Which requests of the apps that ask cost a conversation, besides those that say so themselves.
    pub charge: Vec<Charge>,
    /// Where the asking proxy says what it is about to forward.
    pub headers: AskedIn,
}

/// The headers in which a proxy names the method and the path that it was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AskedIn {
    /// `X-Original-Method` and `X-Original-URI`, as nginx is told to send.
    #[default]
    Original,
    /// `X-Forwarded-Method` and `X-Forwarded-Uri`, as Traefik and Caddy send.
    Forwarded,
}

/// `[webhooks]` before its secret is read.
pub(super) struct WebhooksDraft {
    path: String,
    url: Option<Uri>,
    secret: SecretSource,
    events: Vec<WebhookEvent>,
    allow_private_addresses: bool,
}

// === impl WebhookEvent ===

impl WebhookEvent {
    /// Every event there is.
    pub const ALL: [Self; 4] =
        [Self::MessageLogged, Self::QuotaReached, Self::KeyRegenerated, Self::UserCreated];

    /// Its name, in the configuration and towards receivers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MessageLogged => "message_logged",
            Self::QuotaReached => "quota_reached",
            Self::KeyRegenerated => "key_regenerated",
            Self::UserCreated => "user_created",
        }
    }
}

// === impl Webhooks ===

impl Webhooks {
    /// Whether a row of the message log is an event, so that it may not wait for long.
    #[must_use]
    pub fn tells_of_rows(&self) -> bool {
        let of_rows = [WebhookEvent::MessageLogged, WebhookEvent::QuotaReached];
        self.events.iter().any(|event| of_rows.contains(event))
    }
}

/// The URL may hold a token of the receiver's, so only its host is shown.
impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks")
            .field("host", &self.url.host())
            .field("events", &self.events)
            .field("allow_private_addresses", &self.allow_private_addresses)
            .finish_non_exhaustive()
    }
}

pub(super) fn read(mut s: Section<'_>, base: &Path) -> WebhooksDraft {
    let known = WebhookEvent::ALL.map(|event| (event.as_str(), event));
    let draft = WebhooksDraft {
        path: s.path().to_owned(),
        url: s.value("url", forms::webhook_url),
        secret: secret(&mut s, "secret", "secret_file", base),
        events: s.list("events", forms::choice(known)).unwrap_or_else(|| WebhookEvent::ALL.to_vec()),
        allow_private_addresses: s.value_or("allow_private_addresses", forms::switch, false),
    };
    s.finish();
    draft
}

pub(super) fn read_authz(mut s: Section<'_>) -> Authz {
    let families = forms::choice([("x-original", AskedIn::Original), ("x-forwarded", AskedIn::Forwarded)]);
    let authz = Authz {
        charge: s.list("charge", forms::charge).unwrap_or_default(),
        headers: s.value_or("headers", families, AskedIn::default()),
    };
    s.finish();
    authz
}

/// Nothing without a URL, and no URL without a secret.
pub(super) fn check(tree: &Tree<'_>, draft: WebhooksDraft) -> Option<Webhooks> {
    let url = draft.url?;
    if draft.secret.value.is_none() && draft.secret.file.is_none() {
        tree.mistake(
            &format!("{}.secret", draft.path),
            "is missing: receivers tell by it that a message is ours; add secret = \"…\"",
        );
        return None;
    }
    if url.scheme_str() == Some("http") && !draft.allow_private_addresses {
        let message =
            "goes in the clear: write https://, or set allow_private_addresses for your own network";
        tree.weakness(&format!("{}.url", draft.path), message);
    }
    Some(Webhooks {
        url,
        secret: secrets::given(tree, &draft.secret)?,
        events: draft.events,
        allow_private_addresses: draft.allow_private_addresses,
    })
}
