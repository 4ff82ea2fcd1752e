//! Letters: queued at once, sent behind, tried again when the mail server is away.
//!
//! A letter carries a token, so nothing of it but its subject is ever logged. The queue is bounded and
//! lives in memory: who does not get a letter asks for another. A shutdown waits for letters that are
//! on their way and does not wait between tries any more.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::fs::{DirBuilder, OpenOptions};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::background::Background;
use crate::config::{self, Delivery, Smtp, SmtpEncryption};

/// A text for one person.
#[derive(Clone)]
pub struct Letter {
    /// Their address.
    pub to: String,
    /// What it is about; never a secret.
    pub subject: &'static str,
    /// What it says, in plain text.
    pub text: String,
}

/// Takes letters. Clones share one queue.
#[derive(Clone)]
pub struct Mailer {
    queue: Option<mpsc::Sender<Letter>>,
}

/// Why a letter was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotTaken {
    /// This gateway sends no letters.
    #[error("mail is switched off")]
    Off,
    /// Too many are waiting.
    #[error("the queue for letters is full")]
    Full,
}

/// A configuration with which no letter could ever be sent.
#[derive(Debug, Error)]
pub enum Unusable {
    /// The sender is no mailbox.
    #[error("mail.from: {0}")]
    From(#[from] lettre::address::AddressError),
    /// TLS cannot be set up for this host.
    #[error("mail.host: {0}")]
    Tls(#[from] lettre::transport::smtp::Error),
}

/// Why a letter was not sent.
#[derive(Debug, Error)]
enum Unsent {
    #[error("the letter cannot be written: {0}")]
    Letter(#[from] lettre::error::Error),
    #[error("the address is none: {0}")]
    Address(#[from] lettre::address::AddressError),
    #[error("{0}")]
    Smtp(#[from] lettre::transport::smtp::Error),
    #[error("{0}")]
    Folder(#[from] std::io::Error),
}

struct Office {
    from: Mailbox,
    way: Way,
    draining: CancellationToken,
}

enum Way {
    Folder(PathBuf),
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
}

/// Letters that may wait.
const QUEUE: usize = 256;
/// Pauses before the second, third … try of one letter.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(30)];

// === impl Mailer ===

impl Mailer {
    /// Opens the office behind. It closes when every clone is gone and the last letter is sent; from
    /// `draining` on it does not wait between tries.
    ///
    /// # Errors
    ///
    /// [`Unusable`], naming the configuration path.
    pub fn start(
        mail: &config::Mail,
        background: &Background,
        draining: CancellationToken,
    ) -> Result<Self, Unusable> {
        let way = match &mail.delivery {
            Delivery::Off => return Ok(Self { queue: None }),
            Delivery::Folder(folder) => Way::Folder(folder.clone()),
            Delivery::Smtp(smtp) => Way::Smtp(transport(smtp)?),
        };
        let office = Office { from: mail.from.parse()?, way, draining };
        let (queue, letters) = mpsc::channel(QUEUE);
        background.keep("mail", office.run(letters));
        Ok(Self { queue: Some(queue) })
    }

    /// Whether letters are sent at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Takes a letter; returns before it is sent.
    ///
    /// # Errors
    ///
    /// [`NotTaken`]; then it is gone.
    pub fn send(&self, letter: Letter) -> Result<(), NotTaken> {
        let queue = self.queue.as_ref().ok_or(NotTaken::Off)?;
        queue.try_send(letter).map_err(|_| NotTaken::Full)
    }
}

// === impl Office ===

impl Office {
    async fn run(self, mut letters: mpsc::Receiver<Letter>) {
        while let Some(letter) = letters.recv().await {
            let subject = letter.subject;
            match self.deliver(letter).await {
                Ok(()) => tracing::info!(subject, "a letter was sent"),
                Err(error) => tracing::error!(%error, subject, "a letter could not be sent"),
            }
        }
    }

    /// Tries until it is sent, or refused for good, or has been tried often enough.
    async fn deliver(&self, letter: Letter) -> Result<(), Unsent> {
        let message = self.write(letter)?;
        for pause in PAUSES {
            let error = match self.post(&message).await {
                Err(error) if error.may_pass() && !self.draining.is_cancelled() => error,
                decided => return decided,
            };
            tracing::warn!(%error, "a letter waits for the mail server");
            tokio::select! { () = tokio::time::sleep(pause) => {}, () = self.draining.cancelled() => {} }
        }
        self.post(&message).await
    }

    fn write(&self, letter: Letter) -> Result<Message, Unsent> {
        let message = Message::builder().from(self.from.clone()).to(Mailbox::new(None, letter.to.parse()?));
        let message = message.subject(letter.subject).message_id(None);
        Ok(message.header(ContentType::TEXT_PLAIN).body(letter.text)?)
    }

    async fn post(&self, message: &Message) -> Result<(), Unsent> {
        match &self.way {
            Way::Folder(folder) => Ok(file(folder, &message.formatted()).await?),
            Way::Smtp(server) => Ok(server.send(message.clone()).await.map(|_| ())?),
        }
    }
}

fn transport(smtp: &Smtp) -> Result<AsyncSmtpTransport<Tokio1Executor>, Unusable> {
    let tls = match smtp.encryption {
        SmtpEncryption::Tls => Tls::Wrapper(TlsParameters::new(smtp.host.clone())?),
        SmtpEncryption::StartTls => Tls::Required(TlsParameters::new(smtp.host.clone())?),
        SmtpEncryption::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .tls(tls)
        .timeout(Some(smtp.timeout));
    if let Some((username, password)) = &smtp.account {
        builder =
            builder.credentials(Credentials::new(username.clone(), password.expose_secret().to_owned()));
    }
    Ok(builder.build())
}

/// One file for each letter, for its owner's eyes; the name sorts by time.
async fn file(folder: &Path, letter: &[u8]) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).await?;
    let path = folder.join(format!("{}.eml", Uuid::now_v7().simple()));
    let unfinished = path.with_extension("part");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).await?;
    file.write_all(letter).await?;
    file.flush().await?;
    tokio::fs::rename(&unfinished, &path).await
}

// === impl Unsent ===

impl Unsent {
    /// Whether another try may do better.
    fn may_pass(&self) -> bool {
        match self {
            Self::Letter(_) | Self::Address(_) => false,
            Self::Smtp(error) => !error.is_permanent() && !error.is_client(),
            Self::Folder(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::runtime::Handle;
    use tokio_util::sync::CancellationToken;

    use super::{Letter, Mailer, NotTaken};
    use crate::background::Background;
    use crate::config::{Delivery, Mail};

    fn letter(to: &str) -> Letter {
        Letter { to: to.into(), subject: "A token", text: "Grüße: 12345\n".into() }
    }

    #[tokio::test]
    async fn without_an_office_nothing_is_taken() {
        let background = Background::new(Handle::current());
        let mail = Mail { from: "a@b.c".into(), delivery: Delivery::Off };
        let mailer = Mailer::start(&mail, &background, CancellationToken::new()).unwrap();
        assert_eq!(mailer.send(letter("ann@example.com")), Err(NotTaken::Off));
        assert!(!mailer.is_on());
    }

    #[tokio::test]
    async fn the_last_letter_is_sent_before_the_office_closes_and_a_bad_one_holds_up_none() {
        let folder = tempfile::tempdir().unwrap();
        let background = Background::new(Handle::current());
        let mail =
            Mail { from: "Gate <g@b.c>".into(), delivery: Delivery::Folder(folder.path().join("mail")) };
        let mailer = Mailer::start(&mail, &background, CancellationToken::new()).unwrap();
        for to in ["ann@example.com", "no address", "bob@example.com"] {
            mailer.send(letter(to)).unwrap();
        }
        drop(mailer);
        background.finish().await;
        let mut letters: Vec<_> = std::fs::read_dir(folder.path().join("mail")).unwrap().flatten().collect();
        letters.sort_by_key(std::fs::DirEntry::file_name);
        let texts: Vec<_> =
            letters.iter().map(|file| std::fs::read_to_string(file.path()).unwrap()).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].contains("To: ann@example.com") && texts[1].contains("To: bob@example.com"));
        assert!(texts[0].contains("Subject: A token") && texts[0].contains("12345"));
        assert_eq!(letters[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_queue_that_is_full_takes_no_more() {
        let background = Background::new(Handle::current());
        let folder = tempfile::tempdir().unwrap();
        let mail = Mail { from: "a@b.c".into(), delivery: Delivery::Folder(folder.path().into()) };
        let mailer = Mailer::start(&mail, &background, CancellationToken::new()).unwrap();
        // Nothing is awaited here, so the office does not get a turn.
        let taken = (0..300).filter(|_| mailer.send(letter("ann@example.com")).is_ok()).count();
        assert_eq!(taken, super::QUEUE);
        drop(mailer);
        background.finish().await;
    }
}
