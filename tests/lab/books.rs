//! The independent books: who had how many conversations, computed from what clients heard and what
//! the origin saw. Of the product they know the promise, not the code; what it says of itself comes in
//! at the end, to be compared ([`Told`]).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::canary::Canary;
use super::told::{Row, Told};

/// What one user may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Conversations of the day.
    pub(crate) limit: i64,
    /// How many failures of the upstream give one back.
    pub(crate) refunds: i64,
}

/// One request as the origin saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The gate's name for it.
    pub(crate) request_id: String,
    pub(crate) ended: Ended,
    /// Seconds of 1970 when it came, and when it was answered.
    pub(crate) came_at: f64,
    pub(crate) ended_at: f64,
}

/// Now, in seconds of 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the laboratory lives in real time, and is no part of the product"
)]
pub(crate) fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// How far the origin came with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Open,
    Failed,
    Answered,
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Chat,
    VerifyKey,
    LogMessage,
}

/// What a client heard.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) canary: Canary,
    pub(crate) call: Call,
    /// 0: no head came.
    pub(crate) status: u16,
    pub(crate) request_id: String,
    /// Whether the last byte came.
    pub(crate) whole: bool,
    /// What is left, by the answer's header.
    pub(crate) remaining: Option<i64>,
    /// Seconds of 1970 when it was heard.
    pub(crate) at: f64,
    /// How long that took.
    pub(crate) took: Duration,
}

/// What may have happened to the gate meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Nothing: every balance is exact.
    Exact,
    /// It was killed: what was under way may have been charged without being seen.
    Killed,
    /// The power went: what was not synced may be lost, and then its conversation is forfeited.
    PowerLost,
    /// Records were destroyed: besides, of conversations whose ends nobody knows any more it is told how
    /// many are charged, not which.
    Damaged,
}

/// Everything that was observed.
pub(crate) struct Books {
    pub(crate) users: Vec<(String, Terms)>,
    pub(crate) heard: Vec<Heard>,
    pub(crate) seen: HashMap<Canary, Seen>,
    /// Users whose day was asked for to its end, at rest.
    pub(crate) exhausted: HashSet<u32>,
    pub(crate) strictness: Strictness,
}

/// The balances, and what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) broken: Vec<String>,
    pub(crate) over_admitted: i64,
    pub(crate) under_admitted: i64,
    pub(crate) double_refunds: i64,
    pub(crate) lost_finished: i64,
    pub(crate) lost_notes: i64,
    /// Reached the origin and are in no log.
    pub(crate) unrecorded: i64,
    /// Charged, and never reached the origin: under way when the gate was killed.
    pub(crate) charged_unseen: i64,
    pub(crate) rows: usize,
}

/// One user's side of the books.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    seen: i64,
    failed: i64,
    verified: i64,
    charged_rows: i64,
    refunded_rows: i64,
}

// === impl Terms ===

impl Terms {
    /// A day has refunds for half of its conversations, at least five.
    pub(crate) fn of(limit: i64) -> Self {
        Self { limit, refunds: (limit / 2).max(5) }
    }
}

// === impl Strictness ===

impl Strictness {
    /// Whether what was answered may be in no log.
    fn forgets(self) -> bool {
        matches!(self, Self::PowerLost | Self::Damaged)
    }
}

// === impl Books ===

impl Books {
    /// Holds what was observed against itself and against what the product says.
    pub(crate) fn audit(&self, told: &Told) -> Findings {
        let mut found = Findings { rows: told.rows.len(), ..Findings::default() };
        let mut accounts = self.observed();
        self.check_rows(told, &mut accounts, &mut found);
        self.check_answers(told, &mut found);
        self.check_swaps(told, &mut found);
        for (number, (name, terms)) in self.users.iter().enumerate() {
            let account = accounts.get(&(number as u32)).copied().unwrap_or_default();
            let exhausted = self.exhausted.contains(&(number as u32));
            self.check_balance((name, *terms), account, exhausted, &mut found);
            if self.strictness.forgets() {
                check_forfeited(name, *terms, account, told, &mut found);
            }
            check_product((name, *terms), account, told, &mut found);
        }
        found
    }

    fn observed(&self) -> HashMap<u32, Account> {
        let mut accounts: HashMap<u32, Account> = HashMap::new();
        for (canary, seen) in &self.seen {
            let account = accounts.entry(canary.user).or_default();
            account.seen += 1;
            account.failed += i64::from(seen.ended == Ended::Failed);
        }
        for heard in self.heard.iter().filter(|heard| heard.call == Call::VerifyKey && heard.status == 200) {
            accounts.entry(heard.canary.user).or_default().verified += 1;
        }
        accounts
    }

    /// One row for each conversation, with the verdict its story asks for.
    fn check_rows(&self, told: &Told, accounts: &mut HashMap<u32, Account>, found: &mut Findings) {
        let mut entered: HashMap<Canary, &Row> = HashMap::new();
        let numbers: HashMap<&str, u32> =
            self.users.iter().enumerate().map(|(n, (name, _))| (name.as_str(), n as u32)).collect();
        for row in &told.rows {
            let Some(number) = numbers.get(row.username.as_str()) else { continue };
            let account = accounts.entry(*number).or_default();
            account.charged_rows += i64::from(row.verdict == "charged");
            account.refunded_rows += i64::from(row.verdict == "refunded");
            let Some(canary) = row.canary.filter(|_| row.call == "chat.completions") else { continue };
            if entered.insert(canary, row).is_some() {
                found.broken.push(format!("{canary} has two rows"));
                found.double_refunds += i64::from(row.verdict == "refunded");
            }
            self.check_row(canary, row, found);
        }
        let missing = self.seen.keys().filter(|canary| !entered.contains_key(canary));
        for canary in missing.filter(|_| !self.strictness.forgets()) {
            found.unrecorded += 1;
            found.broken.push(format!("{canary} reached the origin and has no row"));
        }
    }

    fn check_row(&self, canary: Canary, row: &Row, found: &mut Findings) {
        let Some(seen) = self.seen.get(&canary) else {
            found.charged_unseen += i64::from(row.verdict == "charged");
            if self.strictness == Strictness::Exact {
                found.broken.push(format!("{canary} has a {} row and never reached the origin", row.verdict));
            }
            return;
        };
        if seen.request_id != row.request_id {
            found.broken.push(format!(
                "{canary} is {} in the log, {} at the origin",
                row.request_id, seen.request_id
            ));
        }
        if seen.ended == Ended::Answered && row.verdict != "charged" && !self.is_taken_for_another(row) {
            found.broken.push(format!("{canary} was answered and is {} ({})", row.verdict, row.reason));
        }
    }

    /// Whether it is not charged only because another one is, of which nobody knows that it failed.
    fn is_taken_for_another(&self, row: &Row) -> bool {
        self.strictness == Strictness::Damaged
            && (row.verdict.as_str(), row.reason.as_str()) == ("refunded", "gateway_stopped")
    }

    /// As many are charged as should be, of those whose ends nobody knows.
    fn check_swaps(&self, told: &Told, found: &mut Findings) {
        let mut swapped: HashMap<&str, i64> = HashMap::new();
        for row in told.rows.iter().filter(|row| row.reason == "gateway_stopped") {
            let ended = row.canary.and_then(|canary| self.seen.get(&canary)).map(|seen| seen.ended);
            let balance = swapped.entry(&row.username).or_default();
            match (ended, row.verdict.as_str()) {
                (Some(Ended::Answered), "refunded") => *balance += 1,
                (Some(Ended::Failed), "charged") => *balance -= 1,
                _ => {}
            }
        }
        for (name, more) in swapped.into_iter().filter(|(_, more)| *more > 0) {
            found.broken.push(format!("{name} was answered {more} more than is charged"));
        }
    }

    /// Who heard the last byte finds their row.
    fn check_answers(&self, told: &Told, found: &mut Findings) {
        let known: HashMap<&str, &Row> = told.rows.iter().map(|row| (row.request_id.as_str(), row)).collect();
        for heard in self.heard.iter().filter(|heard| heard.whole && heard.status == 200) {
            let row = known.get(heard.request_id.as_str());
            let right = row.is_some_and(|row| match heard.call {
                Call::Chat => {
                    (row.verdict == "charged" || self.is_taken_for_another(row))
                        && row.canary == Some(heard.canary)
                        && row.call == "chat.completions"
                }
                Call::VerifyKey => row.verdict == "charged" && row.call == "verify-key",
                Call::LogMessage => row.verdict == "free" && row.canary == Some(heard.canary),
            });
            if right {
                continue;
            }
            let lost =
                if heard.call == Call::LogMessage { &mut found.lost_notes } else { &mut found.lost_finished };
            *lost += 1;
            let (canary, call, id) = (heard.canary, heard.call, &heard.request_id);
            found
                .broken
                .push(format!("{canary} ({call:?}) was answered 200 to its last byte; row of {id}: {row:?}"));
        }
    }

    /// What was had against what may be had.
    fn check_balance(
        &self,
        (name, terms): (&str, Terms),
        account: Account,
        exhausted: bool,
        found: &mut Findings,
    ) {
        let had = account.seen + account.verified - account.failed.min(terms.refunds);
        if had > terms.limit {
            found.over_admitted += had - terms.limit;
            found.broken.push(format!("{name} had {had} conversations of {}", terms.limit));
        }
        if account.refunded_rows > account.failed.min(terms.refunds) {
            let twice = account.refunded_rows - account.failed.min(terms.refunds);
            found.double_refunds += twice;
            found.broken.push(format!("{name} was given back {twice} more than failed"));
        }
        if self.strictness == Strictness::Exact && account.refunded_rows < account.failed.min(terms.refunds) {
            let (given, failed) = (account.refunded_rows, account.failed);
            found.broken.push(format!("{name} was given back {given} of {failed} that failed"));
        }
        if exhausted && account.charged_rows < terms.limit {
            found.under_admitted += terms.limit - account.charged_rows;
            found.broken.push(format!(
                "{name} was told that the day is used up after {} of {}",
                account.charged_rows, terms.limit
            ));
        }
    }
}

/// What was had before the power went is never to be had again.
fn check_forfeited(name: &str, terms: Terms, account: Account, told: &Told, found: &mut Findings) {
    let had = account.seen + account.verified - account.failed.min(terms.refunds);
    let granted = told.balances.get(name).map_or(0, |balance| balance.granted);
    if granted < had {
        found.over_admitted += had - granted;
        found
            .broken
            .push(format!("{name} had {had} before the power went, and {granted} are gone ({account:?})"));
    }
}

/// The product's own numbers, against its rows.
fn check_product((name, terms): (&str, Terms), account: Account, told: &Told, found: &mut Findings) {
    let Some(balance) = told.balances.get(name) else {
        if account.charged_rows + account.refunded_rows > 0 {
            found.broken.push(format!("{name} has rows and no balance"));
        }
        return;
    };
    let mut wrong = |what: &str, is: i64, should: i64| {
        if is != should {
            found
                .broken
                .push(format!("{name}: {what} is {is}, should be {should} ({balance:?}, {account:?})"));
        }
    };
    wrong("charged", balance.charged, account.charged_rows);
    wrong("refunded", balance.refunded, account.refunded_rows);
    wrong("granted", balance.granted, balance.charged + balance.leased + balance.forfeited);
    wrong("granted beyond the day", balance.beyond, 0);
    if let Some(left) = told.left.get(name) {
        let should = terms.limit - account.charged_rows - balance.forfeited;
        wrong("what is left", *left, should);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::told::Balance;
    use super::{Books, Call, Canary, Ended, Findings, Heard, Row, Seen, Strictness, Terms, Told};

    /// Ann may have two; she had one, which was answered, and one that failed and was given back.
    fn ann() -> (Books, Told) {
        let canary = |number| Canary { user: 0, number };
        let heard = |number, status| Heard {
            canary: canary(number),
            call: Call::Chat,
            status,
            request_id: number.to_string(),
            whole: true,
            remaining: None,
            at: 0.0,
            took: Duration::ZERO,
        };
        let seen =
            |number: u32, ended| Seen { request_id: number.to_string(), ended, came_at: 0.0, ended_at: 0.0 };
        let row = |number: u32, verdict: &str| Row {
            username: "ann".to_owned(),
            request_id: number.to_string(),
            call: "chat.completions".to_owned(),
            verdict: verdict.to_owned(),
            reason: String::new(),
            canary: Some(canary(number)),
        };
        let books = Books {
            users: vec![("ann".to_owned(), Terms { limit: 2, refunds: 5 })],
            heard: vec![heard(1, 200), heard(2, 500)],
            seen: [(canary(1), seen(1, Ended::Answered)), (canary(2), seen(2, Ended::Failed))].into(),
            exhausted: [].into(),
            strictness: Strictness::Exact,
        };
        let balance = Balance { granted: 2, charged: 1, refunded: 1, forfeited: 0, leased: 1, beyond: 0 };
        let told = Told {
            rows: vec![row(1, "charged"), row(2, "refunded")],
            balances: [("ann".to_owned(), balance)].into(),
            left: [("ann".to_owned(), 1)].into(),
        };
        (books, told)
    }

    fn found(change: impl FnOnce(&mut Books, &mut Told)) -> Findings {
        let (mut books, mut told) = ann();
        change(&mut books, &mut told);
        books.audit(&told)
    }

    #[test]
    fn books_that_agree_have_nothing_to_say() {
        assert_eq!(found(|_, _| ()).broken, Vec::<String>::new());
    }

    #[test]
    fn each_broken_promise_is_found_and_named() {
        let over = found(|books, _| books.users[0].1.limit = 0);
        assert_eq!(over.over_admitted, 1, "{over:?}");
        let lost = found(|_, told| told.rows.retain(|row| row.request_id != "1"));
        assert_eq!((lost.lost_finished, lost.unrecorded), (1, 1), "{lost:?}");
        let twice = found(|_, told| {
            let again = Row { request_id: "3".to_owned(), canary: None, ..told.rows[1].clone() };
            told.rows.push(again);
        });
        assert_eq!(twice.double_refunds, 1, "{twice:?}");
        let noted = found(|books, _| {
            let note = Heard { call: Call::LogMessage, request_id: "9".to_owned(), ..books.heard[0].clone() };
            books.heard.push(note);
        });
        assert_eq!(noted.lost_notes, 1, "{noted:?}");
        let early = found(|books, _| books.exhausted = [0].into());
        assert_eq!(early.under_admitted, 1, "{early:?}");
        let beyond = found(|_, told| told.balances.get_mut("ann").unwrap().beyond = 1);
        assert_eq!(beyond.broken.len(), 1, "{beyond:?}");
        for (charged, leased, left) in [(2, 0, 1), (1, 0, 1), (1, 1, 2)] {
            let wrong = found(|_, told| {
                let balance = told.balances.get_mut("ann").unwrap();
                (balance.charged, balance.leased) = (charged, leased);
                told.left.insert("ann".to_owned(), left);
            });
            assert!(!wrong.broken.is_empty(), "{charged} {leased} {left}");
        }
    }

    #[test]
    fn of_two_whose_ends_nobody_knows_either_may_be_the_one_that_is_charged() {
        let swapped = |charged: bool| {
            let found = found(|books, told| {
                books.strictness = Strictness::Damaged;
                told.rows.iter_mut().for_each(|row| row.reason = "gateway_stopped".to_owned());
                told.rows[0].verdict = "refunded".to_owned();
                told.rows[1].verdict = if charged { "charged" } else { "refunded" }.to_owned();
                let balance = told.balances.get_mut("ann").unwrap();
                balance.charged = i64::from(charged);
                (balance.refunded, balance.leased) = (2 - balance.charged, 2 - balance.charged);
                told.left.insert("ann".to_owned(), 2 - i64::from(charged));
            });
            found.broken
        };
        assert_eq!(swapped(true), Vec::<String>::new());
        assert!(!swapped(false).is_empty());
    }
}
