//! A mail server, as far as RFC 5321 makes it one: it takes letters over a real socket and reads them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// One mail server, and the letters it has taken.
pub(crate) struct PostOffice {
    pub(crate) addr: SocketAddr,
    letters: mpsc::UnboundedReceiver<Letter>,
    busy: Arc<AtomicUsize>,
    /// Closes when it is dropped.
    _open: oneshot::Sender<()>,
}

/// One letter, its text decoded.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    /// Of the envelope.
    pub(crate) from: String,
    /// Of the envelope.
    pub(crate) to: String,
    /// `username password`, as it was told to us.
    pub(crate) account: String,
    pub(crate) head: String,
    pub(crate) text: String,
}

/// How long a letter may be on its way.
const PATIENCE: Duration = Duration::from_secs(20);

// === impl PostOffice ===

impl PostOffice {
    /// On a thread of its own, so that it is open while a story waits for its gateway to stop.
    pub(crate) fn open() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let (taken, letters) = mpsc::unbounded_channel();
        let busy = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&busy);
        let (open, closed) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let work = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(take(stream, taken.clone(), Arc::clone(&counter)));
                    }
                };
                tokio::select! { () = work => {}, _ = closed => {} }
            });
        });
        Self { addr, letters, busy, _open: open }
    }

    /// `[mail]` of a gateway that brings its letters here.
    pub(crate) fn config(&self) -> String {
        format!(
            "[mail]\nhost = \"127.0.0.1\"\nport = {}\nencryption = \"none\"\nfrom = \"Gate <gate@example.org>\"\n\
             username = \"gate\"\npassword = \"the-post-masters-word\"",
            self.addr.port()
        )
    }

    /// The next so many letters are put off (451).
    pub(crate) fn put_off(&self, letters: usize) {
        self.busy.store(letters, Ordering::SeqCst);
    }

    /// The next letter.
    pub(crate) async fn letter(&mut self) -> Letter {
        let letter = tokio::time::timeout(PATIENCE, self.letters.recv()).await;
        letter.expect("no letter came").expect("the post office is open")
    }

    /// Whether a letter has come that nobody has read.
    pub(crate) fn has_one(&mut self) -> bool {
        !self.letters.is_empty()
    }
}

// === impl Letter ===

impl Letter {
    /// The only line that stands by itself, indented.
    pub(crate) fn token(&self) -> String {
        let mut lines = self.text.lines().filter(|line| line.starts_with("    "));
        let token = lines.next().unwrap_or_else(|| panic!("no token: {}", self.text)).trim().to_owned();
        assert!(lines.next().is_none(), "{}", self.text);
        token
    }
}

async fn take(stream: TcpStream, taken: mpsc::UnboundedSender<Letter>, busy: Arc<AtomicUsize>) {
    let (reading, mut writing) = stream.into_split();
    let mut lines = BufReader::new(reading).lines();
    let (mut from, mut to, mut account) = (String::new(), String::new(), String::new());
    writing.write_all(b"220 post.test\r\n").await.unwrap();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match line.split([' ', ':']).next().unwrap().to_ascii_uppercase().as_str() {
            "EHLO" => "250-post.test\r\n250-8BITMIME\r\n250 AUTH PLAIN",
            "AUTH" => {
                let plain = STANDARD.decode(line.rsplit(' ').next().unwrap()).unwrap();
                account = String::from_utf8(plain).unwrap().trim_matches('\0').replace('\0', " ");
                "235 welcome"
            }
            "MAIL" if busy.load(Ordering::SeqCst) > 0 => {
                busy.fetch_sub(1, Ordering::SeqCst);
                "451 come back later"
            }
            "MAIL" => {
                from = within_brackets(&line);
                "250 fine"
            }
            "RCPT" => {
                to = within_brackets(&line);
                "250 fine"
            }
            "DATA" => {
                writing.write_all(b"354 go on\r\n").await.unwrap();
                let mut message = String::new();
                while let Some(line) = lines.next_line().await.unwrap() {
                    if line == "." {
                        break;
                    }
                    message += line.strip_prefix('.').unwrap_or(&line);
                    message += "\n";
                }
                let (head, body) = message.split_once("\n\n").expect("a head and a body");
                let (head, text) = (head.to_owned(), decoded(head, body));
                let _ = taken.send(Letter {
                    from: from.clone(),
                    to: to.clone(),
                    account: account.clone(),
                    head,
                    text,
                });
                "250 taken"
            }
            "QUIT" => "221 good bye",
            _ => "250 fine",
        };
        if writing.write_all(format!("{answer}\r\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

fn within_brackets(line: &str) -> String {
    line.split(['<', '>']).nth(1).expect("an address in brackets").to_owned()
}

/// RFC 2045, section 6: what is in use for plain text.
fn decoded(head: &str, body: &str) -> String {
    let encoding = head.lines().find_map(|line| line.strip_prefix("Content-Transfer-Encoding: "));
    match encoding.unwrap_or("7bit").trim() {
        "7bit" | "8bit" => body.to_owned(),
        "quoted-printable" => {
            let mut bytes = Vec::new();
            for part in body.replace("=\n", "").split('=').enumerate() {
                match part {
                    (0, text) => bytes.extend(text.bytes()),
                    (_, text) => {
                        let (code, rest) = text.split_at(2);
                        bytes.push(u8::from_str_radix(code, 16).unwrap());
                        bytes.extend(rest.bytes());
                    }
                }
            }
            String::from_utf8(bytes).unwrap()
        }
        "base64" => String::from_utf8(STANDARD.decode(body.replace('\n', "")).unwrap()).unwrap(),
        other => panic!("encoding {other}"),
    }
}
