//! What no key shows by itself: names that must be found, files that must be there, settings that must
//! agree.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::header::HeaderValue;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret;

use super::file::{AccessDraft, DatabaseDraft, UpstreamDraft};
use super::security::SecurityDraft;
use super::tree::Tree;
use super::{
    Credential, Database, DatabaseLocation, Delivery, Limits, Mail, MessageLog, Server, Tls, Upstream, forms,
    secrets,
};
use crate::plan::AddressRules;

/// Sockets, TLS files and the data folder.
pub(super) fn server(tree: &Tree<'_>, server: &Server) {
    if server.listen.is_empty() {
        tree.missing("server.listen", "is empty: name at least one address, such as \"0.0.0.0:8080\"");
    }
    let addresses = server.listen.iter().chain(&server.admin_listen).copied().enumerate().collect::<Vec<_>>();
    for (position, address) in &addresses {
        let earlier = addresses.iter().take(*position).any(|(_, other)| overlap(*address, *other));
        if earlier {
            let (key, index) = match position.checked_sub(server.listen.len()) {
                Some(index) => ("admin_listen", index),
                None => ("listen", *position),
            };
            let path = format!("server.{key}[{index}]");
            tree.mistake(&path, format!("{address} overlaps an address before it: choose another port"));
        }
    }
    if server.trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
        let message =
            "trusts everyone, so any client can pretend any address: name your proxies' own networks";
        tree.weakness("server.trusted_proxies", message);
    }
    if fs::metadata(&server.data_dir).is_ok_and(|metadata| !metadata.is_dir()) {
        tree.mistake("server.data_dir", format!("{} is not a folder", server.data_dir.display()));
    }
    if let Some(files) = &server.tls {
        tls(tree, files);
    }
}

/// The weaknesses of `[security]` that are no secrets.
pub(super) fn bcrypt(tree: &Tree<'_>, rounds: u32) {
    if rounds < 10 {
        tree.weakness("security.bcrypt_rounds", "is quickly guessed through: at least 10, better 12");
    }
}

/// Settings of sessions that must agree with others.
pub(super) fn sessions(tree: &Tree<'_>, security: &SecurityDraft, mail: &Mail) {
    if security.refresh_token_ttl < security.access_token_ttl {
        let message = "is shorter than access_token_ttl: raise this one, or lower that";
        tree.mistake("security.refresh_token_ttl", message);
    }
    if security.require_verified_email && matches!(mail.delivery, Delivery::Off) {
        let message = "would lock everybody out, since no mail is sent: set mail.host too";
        tree.mistake("security.require_verified_email", message);
    }
    if security.registration_by_mail && matches!(mail.delivery, Delivery::Off) {
        let message = "opens no account, since no mail is sent: set mail.host too";
        tree.mistake("security.registration_by_mail", message);
    }
}

/// Who may use keys at all.
pub(super) fn access(tree: &Tree<'_>, access: AccessDraft) -> AddressRules {
    if !access.enabled {
        return AddressRules::Anywhere;
    }
    if access.networks.is_empty() {
        tree.warning(
            "access.whitelisted_ips",
            "is empty and enforced: nobody is admitted; add your networks",
        );
    }
    AddressRules::Only(access.networks)
}

/// Limits and log settings that must agree with each other.
pub(super) fn sizes(tree: &Tree<'_>, limits: &Limits, log: &MessageLog) {
    if limits.max_body_size > limits.max_upload_size {
        tree.mistake(
            "limits.max_body_size",
            "is larger than limits.max_upload_size: raise that one, or lower this",
        );
    }
    for (key, given) in [
        ("limits.max_body_memory", limits.max_body_memory),
        ("limits.max_body_memory_per_user", limits.max_body_memory_per_user),
    ] {
        if given < limits.max_body_size {
            tree.mistake(key, "has no room for one body of limits.max_body_size: raise this, or lower that");
        }
    }
    if log.content_retention > log.metadata_retention {
        let message =
            "is longer than metadata_retention, which removes the whole row: raise that one, or lower this";
        tree.mistake("message_log.content_retention", message);
    }
    if log.max_answer_size > log.max_memory {
        tree.mistake(
            "message_log.max_answer_size",
            "is larger than max_memory: raise that one, or lower this",
        );
    }
    if log.memory_threshold > log.max_memory {
        let message =
            "is larger than max_memory, so it would never be reached: raise that one, or lower this";
        tree.mistake("message_log.memory_threshold", message);
    }
    spool(tree, log);
}

fn spool(tree: &Tree<'_>, log: &MessageLog) {
    if log.max_spool < log.max_answer_size.saturating_mul(2) {
        let message = "has no room for two answers of max_answer_size: raise this, or lower that one";
        tree.mistake("message_log.max_spool", message);
    }
    if log.sync_interval > Duration::from_mins(1) {
        let message = "is longer than \"1m\": a loss of power would cost all that was said since";
        tree.mistake("message_log.sync_interval", message);
    }
}

/// Where the database is; a file in the data folder when not given.
pub(super) fn database(
    tree: &Tree<'_>,
    draft: &DatabaseDraft,
    data_dir: &Path,
    base: &Path,
) -> Option<Database> {
    let url = secrets::given(tree, &draft.url);
    let path = if draft.url.value.is_some() { &draft.url.value_path } else { &draft.url.file_path };
    let location = match url {
        None if draft.url.value.is_some() || draft.url.file.is_some() => return None,
        None => DatabaseLocation::Sqlite(data_dir.join("tollgate.db")),
        Some(url) => {
            let url = url.expose_secret();
            warn_of_three_slashes(tree, path, url);
            let location = forms::database_url(url).map_err(|message| tree.mistake(path, message)).ok()?;
            match location {
                DatabaseLocation::Sqlite(file) => DatabaseLocation::Sqlite(base.join(file)),
                postgres @ DatabaseLocation::Postgres(_) => postgres,
            }
        }
    };
    Some(Database {
        location,
        max_connections: draft.max_connections,
        acquire_timeout: draft.acquire_timeout,
        statement_timeout: draft.statement_timeout,
        max_slow_reads: draft.max_slow_reads,
        slow_read_timeout: draft.slow_read_timeout,
    })
}

/// The upstreams with their credentials; `None` when one of them is not sound.
pub(super) fn upstreams(tree: &Tree<'_>, drafts: &[UpstreamDraft]) -> Option<Vec<Upstream>> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let mut upstreams = Vec::with_capacity(drafts.len());
    for draft in drafts {
        if let Some(name) = &draft.name
            && let Some(first) = seen.insert(name, &draft.path)
        {
            let message = format!("\"{name}\" is the name of {first} already: choose another");
            tree.mistake(&format!("{}.name", draft.path), message);
        }
        let ca_file = draft.ready.as_ref().and_then(|upstream| upstream.ca_file.as_deref());
        if let Some(file) = ca_file {
            certificates(tree, &format!("{}.ca_file", draft.path), file);
        }
        let credential = credential(tree, draft);
        upstreams.push(draft.ready.clone().map(|upstream| Upstream { credential, ..upstream }));
    }
    upstreams.into_iter().collect()
}

fn credential(tree: &Tree<'_>, draft: &UpstreamDraft) -> Option<Credential> {
    let (header, source) = draft.credential.as_ref()?;
    if source.value.is_none() && source.file.is_none() {
        let message = "is missing: add value = \"Bearer ${NAME}\", or value_file = \"…\"";
        tree.missing(&source.value_path, message);
        return None;
    }
    let secret = secrets::given(tree, source)?;
    let Ok(mut value) = HeaderValue::from_str(secret.expose_secret().trim()) else {
        let path = if source.value.is_some() { &source.value_path } else { &source.file_path };
        tree.mistake(path, "cannot stand in a header: only visible ASCII in one line");
        return None;
    };
    value.set_sensitive(true);
    Some(Credential { header: header.clone()?, value })
}

fn tls(tree: &Tree<'_>, files: &Tls) {
    certificates(tree, "server.tls.certificate", &files.certificate);
    let path = "server.tls.private_key";
    match fs::read(&files.private_key) {
        Err(error) => tree.mistake(path, format!("cannot read {}: {error}", files.private_key.display())),
        Ok(pem) if PrivateKeyDer::from_pem_slice(&pem).is_err() => {
            tree.mistake(path, format!("{} holds no private key in PEM", files.private_key.display()));
        }
        Ok(_) => secrets::judge_permissions(tree, path, &files.private_key),
    }
}

fn certificates(tree: &Tree<'_>, path: &str, file: &Path) {
    match fs::read(file) {
        Err(error) => tree.mistake(path, format!("cannot read {}: {error}", file.display())),
        Ok(pem) => {
            let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
            if found.map_or(true, |certificates| certificates.is_empty()) {
                tree.mistake(path, format!("{} holds no certificate in PEM", file.display()));
            }
        }
    }
}

/// Whether two sockets cannot both be open. Port 0 is a free port each time; IPv4 and IPv6 sockets stand
/// beside each other.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.is_ipv4() == other.is_ipv4() && (one.ip().is_unspecified() || other.ip().is_unspecified());
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || any)
}

/// SQLAlchemy's three slashes are a relative path, sqlx's an absolute one; ours are SQLAlchemy's.
fn warn_of_three_slashes(tree: &Tree<'_>, path: &str, url: &str) {
    let file = url.trim().split_once(":///").filter(|(scheme, _)| scheme.starts_with("sqlite"));
    if file.is_some_and(|(_, file)| !file.starts_with(['.', '/'])) {
        let message = "three slashes begin a relative path: write \"sqlite:///./…\" if you mean it, four for an absolute one";
        tree.warning(path, message);
    }
}
