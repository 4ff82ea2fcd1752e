//! A connection may break between a commit and the word of it. Nothing is granted twice then, nothing is
//! given back twice, and nothing is out of reach.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::Uri;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::{BOOT, Clock, NOW, Node, Tz, Verdict, balances, fresh, user};
use crate::config::{Database, DatabaseLocation};
use crate::plan::Allowance;
use crate::store::Db;

/// A wire to a database server that loses an answer when told to.
struct Wire {
    addr: SocketAddr,
    /// After so many more questions it is cut, with the answer to the last one on its way. Below zero: not.
    left: Arc<AtomicI64>,
}

impl Wire {
    /// To the server of `database`; SQLite has none.
    async fn to(database: &Database) -> Option<(Self, Database)> {
        let DatabaseLocation::Postgres(url) = &database.location else { return None };
        let url = url.expose_secret();
        let server = url.parse::<Uri>().unwrap().authority().unwrap().as_str().to_owned();
        let server = server.rsplit('@').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Self { addr: listener.local_addr().unwrap(), left: Arc::new(AtomicI64::new(-1)) };
        let left = Arc::clone(&wire.left);
        let over = url.replace(&server, &wire.addr.to_string());
        let (tasks, more) = (TaskTracker::new(), TaskTracker::new());
        tasks.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = TcpStream::connect(&server).await.unwrap();
                more.spawn(carry(client, upstream, Arc::clone(&left)));
            }
        });
        let location = DatabaseLocation::Postgres(over.into());
        Some((wire, Database { location, max_connections: 1, ..database.clone() }))
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, left: Arc<AtomicI64>) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Some(n) = read.ok().filter(|n| *n > 0) else { return };
                if server.write_all(&asked[..n]).await.is_err() {
                    return;
                }
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    let _ = server.read(&mut answered).await;
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Some(n) = read.ok().filter(|n| *n > 0) else { return };
                if client.write_all(&answered[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Questions after which the answer is lost: one to see whether the connection is good, one for the work,
/// and more where a statement is prepared first.
const QUESTIONS: i64 = 6;

#[tokio::test]
async fn whichever_answer_is_lost_every_unit_is_there_again() {
    let database = fresh().await;
    let Some((wire, over)) = Wire::to(&database.settings).await else { return };
    let db = Db::connect_or_make(&over, &|_| ()).await.unwrap();
    let allowance = Allowance { per_day: 1000, zone: Tz::UTC };
    for (n, gives) in (1..=QUESTIONS).flat_map(|n| [(n, false), (n, true)]) {
        let clock = Clock::manual(NOW);
        let user = user(&database.db, &format!("user-{n}-{gives}")).await;
        let node = Node::start(&db, &clock, &format!("node-{n}-{gives}"), BOOT).await;
        let mut spent = 0;
        let mut converse = async |times: usize| {
            for _ in 0..times {
                if let Ok(mut one) = node.quota.reserve(user, &allowance).await {
                    one.settle(Verdict::Charged);
                    spent += 1;
                }
            }
            spent
        };
        // The statements are known to the connection, and some units are in hand.
        converse(1).await;
        clock.advance(Duration::from_secs(3));
        node.tidy().await;
        converse(6).await;

        wire.left.store(n, Ordering::Relaxed);
        if gives {
            clock.advance(Duration::from_secs(3));
            node.tidy().await;
        }
        let spent = converse(40).await;
        wire.left.store(-1, Ordering::Relaxed);
        let left = node.quota.left(user, &allowance).await.unwrap().left;
        assert_eq!(left, allowance.per_day - spent, "answer {n} is lost");
        clock.advance(Duration::from_secs(3));
        node.tidy().await;
        let days = balances(&database.db).await;
        let day = days.iter().find(|day| day.user_id == user).unwrap();
        assert_eq!(day.granted, spent, "answer {n} is lost");
    }
}
