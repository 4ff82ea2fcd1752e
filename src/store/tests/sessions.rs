//! Sessions as rows: how many there may be, and what goes when.

use std::time::Duration;

use secrecy::SecretString;

use super::{NOW, entry, fresh, user};
use crate::clock::Timestamp;
use crate::credential::ticket::{Ticket, TicketDigest, TicketKey};
use crate::credential::token::Audience;
use crate::ids::{SessionId, StaffId};
use crate::store::audit::Entry;
use crate::store::sessions::{self, NewSession, Owner, Renewal};
use crate::store::{Db, mail_tokens};

const DAY: Duration = Duration::from_hours(24);

fn digest() -> TicketDigest {
    Ticket::refresh().digest(&TicketKey::of_sessions(&SecretString::from("a secret of these tests")))
}

async fn begin(db: &Db, owner: Owner, began_at: Timestamp) -> (SessionId, TicketDigest) {
    let (id, refresh) = (SessionId::generate(), digest());
    let expires_at = began_at.plus(DAY);
    let (client_ip, user_agent) = (None, None);
    let new = NewSession { id, owner, version: 0, refresh, began_at, expires_at, client_ip, user_agent };
    sessions::begin(db, &new).await.unwrap();
    (id, refresh)
}

#[tokio::test]
async fn the_hundred_newest_sessions_of_an_owner_stand() {
    let world = fresh().await;
    let (owner, other) = (Owner::staff(StaffId(1)), Owner::staff(StaffId(2)));
    let (kept, _) = begin(&world.db, other, NOW).await;
    let mut begun = Vec::new();
    for n in 0..103 {
        begun.push(begin(&world.db, owner, NOW.plus(Duration::from_secs(n))).await.0);
    }
    let later = NOW.plus(Duration::from_mins(10));
    let mut standing = Vec::new();
    for id in &begun {
        standing.push(sessions::standing(&world.db, *id, later).await.unwrap().is_some());
    }
    assert_eq!(standing.iter().filter(|stands| **stands).count(), 100);
    assert!(standing[..3].iter().all(|stands| !stands), "the oldest made room");
    assert!(sessions::standing(&world.db, kept, later).await.unwrap().is_some(), "each owner for themselves");
}

#[tokio::test]
async fn a_refresh_token_is_its_audiences_and_its_sessions() {
    let world = fresh().await;
    let owner = Owner::staff(StaffId(7));
    let (id, first) = begin(&world.db, owner, NOW).await;
    let reuse = entry("session.reuse");
    let shown = async |audience, token: &TicketDigest, next: &TicketDigest| {
        sessions::renew(&world.db, audience, token, next, &reuse).await.unwrap()
    };
    assert_eq!(shown(Audience::Admin, &first, &digest()).await, Renewal::Unknown);
    let second = digest();
    let Renewal::Renewed(session) = shown(Audience::Staff, &first, &second).await else {
        panic!("not renewed")
    };
    assert_eq!((session.id, session.owner, session.began_at), (id, owner, NOW));
    assert_eq!(shown(Audience::Staff, &first, &digest()).await, Renewal::Reused(owner));
    assert_eq!(shown(Audience::Staff, &second, &digest()).await, Renewal::Unknown, "the family is gone");
    assert_eq!(shown(Audience::Staff, &first, &digest()).await, Renewal::Unknown);
    let late = Entry { at: NOW.plus(DAY), ..reuse.clone() };
    let (_, token) = begin(&world.db, owner, NOW).await;
    let renewal = sessions::renew(&world.db, Audience::Staff, &token, &digest(), &late).await.unwrap();
    assert_eq!(renewal, Renewal::Unknown, "its time is over");
}

#[tokio::test]
async fn what_is_over_is_swept_and_nothing_else() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    let (old, _) = begin(&world.db, Owner::user(ada), NOW).await;
    let (new, _) = begin(&world.db, Owner::staff(StaffId(1)), NOW.plus(DAY)).await;
    let purpose = mail_tokens::Purpose::ResetPassword;
    mail_tokens::keep(&world.db, ada, purpose, ("ada@example.com", &digest()), NOW).await.unwrap();
    assert_eq!(sessions::sweep(&world.db, NOW.plus(DAY)).await.unwrap(), 2);
    assert_eq!(sessions::sweep(&world.db, NOW.plus(DAY)).await.unwrap(), 0, "nobody's tokens stay");
    assert!(sessions::standing(&world.db, old, NOW).await.unwrap().is_none());
    assert!(sessions::standing(&world.db, new, NOW).await.unwrap().is_some());
}
