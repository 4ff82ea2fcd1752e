//! `[mail]`: how letters leave the house, if they do.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::message::Mailbox;
use secrecy::SecretString;

use super::file::{SecretSource, secret};
use super::forms;
use super::secrets;
use super::tree::{Section, Tree};

/// `[mail]`
#[derive(Clone, Debug)]
pub struct Mail {
    /// Who letters are from: a mailbox (RFC 5322, section 3.4).
    pub from: String,
    /// How they leave.
    pub delivery: Delivery,
}

/// How letters leave the house.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// They do not.
    Off,
    /// As `.eml` files in this folder, made when absent: for development.
    Folder(PathBuf),
    /// To a mail server.
    Smtp(Smtp),
}

/// A mail server.
#[derive(Clone, Debug)]
pub struct Smtp {
    /// Its name, which its certificate must bear.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether strangers can read along.
    pub encryption: SmtpEncryption,
    /// The account there, with its password.
    pub account: Option<(String, SecretString)>,
    /// Longest wait for one answer of it.
    pub timeout: Duration,
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpEncryption {
    /// From the first byte.
    Tls,
    /// After a greeting; refused where the server cannot.
    StartTls,
    /// Not at all.
    None,
}

/// `[mail]` before its password is read.
pub(super) struct MailDraft {
    transport: Option<Transport>,
    from: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    username: Option<String>,
    password: SecretSource,
    encryption: Option<SmtpEncryption>,
    timeout: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Off,
    Smtp,
    File,
}

/// Submission with TLS from the first byte (RFC 8314); every other port begins in the clear.
const PORT_OF_TLS: u16 = 465;
const PORT_OF_STARTTLS: u16 = 587;
const FOLDER: &str = "mail";
const NOBODY: &str = "tollgate@localhost";

/// Reads the section; mistakes go to the tree.
pub(super) fn read(mut s: Section<'_>, base: &Path) -> MailDraft {
    let transports = [("off", Transport::Off), ("smtp", Transport::Smtp), ("file", Transport::File)];
    let encryptions = [
        ("starttls", SmtpEncryption::StartTls),
        ("tls", SmtpEncryption::Tls),
        ("none", SmtpEncryption::None),
    ];
    let draft = MailDraft {
        transport: s.value("transport", forms::choice(transports)),
        from: s.value("from", forms::mailbox),
        host: s.value("host", forms::host),
        port: s.value("port", forms::whole(1..=65_535)),
        username: s.value("username", forms::text),
        password: secret(&mut s, "password", "password_file", base),
        encryption: s.value("encryption", forms::choice(encryptions)),
        timeout: s.value_or("timeout", forms::duration, Duration::from_secs(10)),
    };
    s.finish();
    draft
}

/// How letters leave; nothing is sent where neither a transport nor a host is named.
pub(super) fn check(tree: &Tree<'_>, draft: &MailDraft, data_dir: &Path) -> Mail {
    let by_default = if draft.host.is_some() { Transport::Smtp } else { Transport::Off };
    let password = secrets::given(tree, &draft.password);
    let (from, delivery) = match draft.transport.unwrap_or(by_default) {
        Transport::Off => (None, Delivery::Off),
        Transport::File => (draft.from.clone(), folder(data_dir)),
        Transport::Smtp => {
            let Some(host) = draft.host.clone() else {
                tree.mistake(
                    "mail.host",
                    "is missing: add host = \"smtp.example.org\", or transport = \"off\"",
                );
                return Mail { from: String::new(), delivery: Delivery::Off };
            };
            (Some(sender(tree, draft, &host)), Delivery::Smtp(smtp(tree, draft, host, password)))
        }
    };
    Mail { from: from.unwrap_or_else(|| NOBODY.to_owned()), delivery }
}

fn folder(data_dir: &Path) -> Delivery {
    Delivery::Folder(PathBuf::from(data_dir).join(FOLDER))
}

/// Who letters are from where nobody says: the account at the mail server, or a name made up there.
fn sender(tree: &Tree<'_>, draft: &MailDraft, host: &str) -> String {
    let is_mailbox = |name: &String| name.parse::<Mailbox>().is_ok();
    if let Some(known) = draft.from.clone().or_else(|| draft.username.clone().filter(is_mailbox)) {
        return known;
    }
    let made_up = format!("tollgate@{host}");
    let made_up = if is_mailbox(&made_up) { made_up } else { NOBODY.to_owned() };
    tree.warning("mail.from", format!("is missing: letters will be from {made_up}"));
    made_up
}

fn smtp(tree: &Tree<'_>, draft: &MailDraft, host: String, password: Option<SecretString>) -> Smtp {
    let by_port =
        if draft.port == Some(PORT_OF_TLS) { SmtpEncryption::Tls } else { SmtpEncryption::StartTls };
    let encryption = draft.encryption.unwrap_or(by_port);
    let by_encryption = if encryption == SmtpEncryption::Tls { PORT_OF_TLS } else { PORT_OF_STARTTLS };
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if encryption == SmtpEncryption::None && !here {
        let message = "sends letters and the password in the clear: \"starttls\" or \"tls\"";
        tree.weakness("mail.encryption", message);
    }
    let account = match (draft.username.clone(), password) {
        (Some(username), Some(password)) => Some((username, password)),
        (Some(_), None) => {
            tree.mistake("mail.password", "is missing beside username: add it, or password_file");
            None
        }
        (None, Some(_)) => {
            tree.mistake("mail.username", "is missing beside the password: add it");
            None
        }
        (None, None) => None,
    };
    Smtp { host, port: draft.port.unwrap_or(by_encryption), encryption, account, timeout: draft.timeout }
}
