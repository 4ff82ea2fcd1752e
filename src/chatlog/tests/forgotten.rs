//! Somebody is forgotten: in the spool, and in what was set aside.

use super::{HEL, HI, Place, free};
use crate::chatlog::Begin;
use crate::chatlog::record::tests::answer;
use crate::ids::UserId;
use crate::store::exchanges::Exchange;
use crate::store::tests::exchange;

#[tokio::test]
async fn somebody_is_forgotten_though_others_go_on() {
    let place = Place::new().await;
    let run = place.run();
    let mut other = run.log.scribe().place().unwrap();
    let name = other.id();
    other.begin(&Begin { user: UserId(99), ..place.begin() }, HI).unwrap();
    other.answer(Some(&answer()), &[HEL]);
    let mut here = run.log.scribe().place().unwrap();
    here.begin(&place.begin(), b"what she said").unwrap();
    assert!(run.log.forget(place.ann).await.is_err(), "she is still speaking");
    here.end(&free(), &[], &[]);
    run.log.forget(place.ann).await.unwrap();
    let spool = std::fs::read_dir(place.folder.path().join("spool")).unwrap();
    for file in spool.map(|file| file.unwrap().path()).filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("what she said"), "{}", file.display());
    }
    other.end(&free(), &[], &[]);
    run.log.flush().await;
    let row = place.row(name).await.unwrap();
    assert!(row.answer.unwrap().contains("Hel") && !row.truncated);
    run.stop().await;
    assert_eq!(place.files(), 0);
}

#[tokio::test]
async fn who_is_forgotten_takes_along_what_was_set_aside() {
    let mut names = Vec::new();
    let place = Place::new().await.killed(|place, scribe| {
        let of_bob = Begin { user: UserId(99), username: "bob", email: "bob@example.com", ..place.begin() };
        for (begin, said) in [(&of_bob, "what he said"), (&place.begin(), "what she said"), (&of_bob, "more")]
        {
            let mut here = scribe.place().unwrap();
            names.push(here.id());
            here.begin(begin, said.as_bytes()).unwrap();
        }
    });
    let place = place.await;
    let spool = place.folder.path().join("spool");
    let mut files = std::fs::read_dir(&spool).unwrap().map(|file| file.unwrap().path());
    let file = files.find(|path| path.extension().is_some_and(|kind| kind == "seg")).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    for said in [&b"what he said"[..], b"what she said"] {
        let at = bytes.windows(said.len()).position(|window| window == said).unwrap();
        bytes[at] ^= 1;
    }
    std::fs::write(&file, bytes).unwrap();
    let run = place.run();
    assert!(run.log.recovered().await);
    run.log.flush().await;
    let damaged = || std::fs::read_dir(spool.join("damaged")).unwrap().map(|file| file.unwrap().path());
    assert_eq!(damaged().count(), 1, "two that stand together are one piece");
    assert!(place.row(names[2]).await.is_some());
    assert_eq!(run.log.forget(UserId(404)).await, Ok(0));
    assert_eq!(damaged().count(), 1);
    run.log.log(&Exchange { user_id: Some(place.ann), ..exchange(3) }).await.unwrap();
    assert_eq!(run.log.forget(place.ann).await, Ok(1));
    assert_eq!(damaged().count(), 0);
    run.stop().await;
}
