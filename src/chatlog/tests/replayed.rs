//! A spool that is put back after its rows were removed.

use std::fs;
use std::path::PathBuf;

use super::{HI, Place, Run, answer, end};
use crate::chatlog::Begin;
use crate::clock::Timestamp;
use crate::store::SlowRead;
use crate::store::exchanges::forget;
use crate::store::ledger::{self, Question};
use crate::store::tests::{NOW, balances, take};

const DAY: i64 = 24 * 60 * 60 * 1000;

fn chat(place: &Place, run: &Run) {
    let mut here = run.log.scribe().place().unwrap();
    let begin = Begin { ledger: Some((NOW.0 / DAY, 0)), started: NOW, ..place.begin() };
    here.begin(&begin, HI).unwrap();
    here.answer(Some(&answer()), &[b"data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n"]);
    here.end(&end(), &[], &[]);
}

fn segments(place: &Place) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(place.folder.path().join("spool")).unwrap().map(|file| file.unwrap().path());
    let segments = files.filter(|path| path.extension().is_some_and(|kind| kind == "seg"));
    segments.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn its_conversations_are_not_charged_again_but_counted_late_and_quarantined() {
    let place = Place::new().await;
    let db = &place.database.db;
    take(db, place.ann, NOW.0 / DAY, 200, 5).await.unwrap();
    let run = place.run();
    for _ in 0..5 {
        chat(&place, &run);
    }
    let copies = segments(&place);
    run.stop().await;
    let charged = async || balances(db).await[0].charged;
    assert_eq!((charged().await, place.rows().await.len()), (5, 5));

    // With a retention of a second: nothing goes while their day may still get records.
    let second_later = Timestamp(NOW.0 + 1000);
    assert_eq!(forget(db, second_later, second_later, second_later).await.unwrap(), 0);
    let later = Timestamp(NOW.0 + 2 * DAY);
    assert_eq!(forget(db, later, later, later).await.unwrap(), 5);
    for _ in 0..2 {
        for (path, bytes) in &copies {
            fs::write(path, bytes).unwrap();
        }
        let run = place.run();
        assert!(run.log.recovered().await);
        assert_eq!((charged().await, place.rows().await.len(), run.metrics.log_late.get()), (5, 0, 5));
        run.stop().await;
        assert_eq!(place.files(), 0);
    }
    let quarantined = fs::read_dir(place.folder.path().join("spool/poison")).unwrap();
    let texts: Vec<String> =
        quarantined.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert!(
        texts.len() == 5 && texts.iter().all(|text| text.contains("Hello") && text.contains("ann")),
        "{texts:?}"
    );

    let all = Question { only: None, after: None, patience: None, now: later };
    let verified = ledger::verify(&SlowRead::alone(db), &all).await.unwrap();
    assert!(verified.holds(), "{verified:?}");
    assert_eq!((verified.balances, verified.out_of_reach, verified.conversations), (1, 1, 0));
    assert_eq!(verified.first_day, Some(NOW.0 / DAY + 2));
}
