//! A record over which the process died does not keep the next one from starting.

use std::fs;

use super::{HEL, HI, Place, end};
use crate::chatlog::{Begin, End};
use crate::store::exchanges::Verdict;
use crate::store::tests::{balances, take};

#[tokio::test]
async fn after_two_deaths_its_row_and_charge_are_written_and_its_texts_are_quarantined() {
    for (deaths, keeps) in [(0, true), (1, false), (7, false)] {
        let place = Place::new().await;
        take(&place.database.db, place.ann, 20_727, 9, 2).await.unwrap();
        let mut names = Vec::new();
        let place = place
            .killed(|place, scribe| {
                for _ in 0..2 {
                    let mut here = scribe.place().unwrap();
                    names.push(here.id());
                    here.begin(&Begin { ledger: Some((20_727, 0)), ..place.begin() }, HI).unwrap();
                    let head = HEL.len() as u64;
                    here.end(&End { rest: head, head, ..end() }, HEL, &[]);
                }
            })
            .await;
        // As the process leaves it that is killed while it handles the record: this is another death.
        let handling = place.folder.path().join("spool/handling");
        fs::write(&handling, format!("handled {deaths} {}\n", names[0])).unwrap();
        let run = place.run();
        assert!(run.log.recovered().await);
        run.stop().await;
        let row = place.row(names[0]).await.unwrap();
        assert_eq!((row.verdict, row.status, row.truncated), (Verdict::Charged, Some(200), !keeps));
        assert_eq!((row.messages.is_some(), row.answer.is_some()), (keeps, keeps));
        let other = place.row(names[1]).await.unwrap();
        assert!(other.messages.is_some() && other.answer.is_some() && !other.truncated);
        assert_eq!((balances(&place.database.db).await[0].charged, place.files()), (2, 0));
        let quarantined = place.folder.path().join(format!("spool/poison/{}.records", names[0]));
        let texts = fs::read(quarantined).unwrap_or_default();
        let has = |text: &[u8]| texts.windows(text.len()).any(|found| found == text);
        assert_eq!((has(HI), has(HEL)), (!keeps, !keeps));
        assert_eq!(fs::read(handling).unwrap(), b"", "it is over");
    }
}
