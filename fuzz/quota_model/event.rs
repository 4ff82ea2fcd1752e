//! What may happen, made of bytes.

use arbitrary::{Arbitrary, Result, Unstructured};
use chrono_tz::Tz;

/// Something that happens. Nodes, reservations and who waits are taken modulo how many there are.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Somebody asks for conversations.
    Take { node: usize, times: u8 },
    /// The longest waiting, or another, leaves.
    Leave { which: usize },
    /// The upstream may be working on it.
    Dispatch { which: usize },
    /// A conversation ends with a verdict, which is recorded; its unit is let go now, or later.
    Settle { which: usize, refund: bool, later: bool },
    /// A conversation is let go, with a verdict or without.
    Drop { which: usize },
    /// The teller does the next thing.
    Step { node: usize, fault: Fault },
    /// The tellers do all there is to do.
    Quiet,
    /// Unused units are let go.
    Tidy { node: usize },
    /// Rows are written, and may be written again.
    Drain { node: usize, rows: u8, again: bool },
    /// An admin writes.
    Edit { edit: Edit, told: usize },
    /// Time passes.
    Pass { millis: i64 },
    /// Time passes until the day is nearly over, or just over.
    PassToMidnight { before: bool },
    /// Somebody sets the clock.
    Turn { millis: i64 },
    /// The plan's zone is another.
    Zone(Tz),
    /// A process is killed, and started again; with the power, what was not durable is lost.
    Kill { node: usize, power: bool, lost: u8, orderly: bool },
    /// What killed runs held is dealt with.
    Recover,
    /// A node was silent for days, and is not dead.
    Silent { node: usize },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Edit {
    Left(i64),
    Reset(i64),
    Plan(i64),
    ResetAll,
}

/// How the database fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// It says no, and nothing was done.
    Refused,
    /// The connection broke before it was done.
    Unknown,
    /// The connection broke after it was done.
    UnknownDone,
}

pub(super) const ZONES: [Tz; 9] = [
    Tz::UTC,
    Tz::Europe__Berlin,
    Tz::America__New_York,
    Tz::Australia__Lord_Howe,
    Tz::Asia__Beirut,
    Tz::Africa__Cairo,
    Tz::America__Sao_Paulo,
    Tz::Pacific__Apia,
    Tz::Pacific__Pago_Pago,
];
const HOUR: i64 = 3_600_000;
const SPANS: [i64; 12] =
    [1, 499, 1_999, 2_001, 4_999, 5_001, 30_000, 61_000, HOUR, 13 * HOUR, 24 * HOUR, 25 * HOUR];

impl<'a> Arbitrary<'a> for Event {
    fn arbitrary(from: &mut Unstructured<'a>) -> Result<Self> {
        let which = |from: &mut Unstructured<'a>| from.int_in_range(0..=15_usize);
        let node = |from: &mut Unstructured<'a>| from.int_in_range(0..=2_usize);
        Ok(match from.int_in_range(0..=47_u8)? {
            0..=9 => Self::Take { node: node(from)?, times: from.int_in_range(1..=12)? },
            10 => Self::Leave { which: which(from)? },
            11..=13 => Self::Dispatch { which: which(from)? },
            14..=17 => {
                Self::Settle { which: which(from)?, refund: from.arbitrary()?, later: from.ratio(1, 4)? }
            }
            18..=19 => Self::Drop { which: which(from)? },
            20..=30 => Self::Step { node: node(from)?, fault: Fault::arbitrary(from)? },
            31..=32 => Self::Quiet,
            33 => Self::Tidy { node: node(from)? },
            34..=35 => Self::Drain { node: node(from)?, rows: from.arbitrary()?, again: from.ratio(1, 4)? },
            36..=38 => Self::Edit { edit: Edit::arbitrary(from)?, told: node(from)? },
            39..=40 => Self::Pass { millis: *from.choose(&SPANS)? },
            41 => Self::PassToMidnight { before: from.arbitrary()? },
            42..=43 => {
                let span = *from.choose(&SPANS)?;
                Self::Turn { millis: if from.arbitrary()? { span } else { -span } }
            }
            44 => Self::Zone(*from.choose(&ZONES)?),
            45 => Self::Kill {
                node: node(from)?,
                power: from.arbitrary()?,
                lost: from.arbitrary()?,
                orderly: from.ratio(1, 4)?,
            },
            46 => Self::Recover,
            _ => Self::Silent { node: node(from)? },
        })
    }
}

impl<'a> Arbitrary<'a> for Edit {
    fn arbitrary(from: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match from.int_in_range(0..=3_u8)? {
            0 => Self::Left(from.int_in_range(0..=40)?),
            1 => Self::Reset(from.int_in_range(0..=40)?),
            2 => Self::Plan(from.int_in_range(0..=80)?),
            _ => Self::ResetAll,
        })
    }
}

impl<'a> Arbitrary<'a> for Fault {
    fn arbitrary(from: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match from.int_in_range(0..=31_u8)? {
            0 => Self::Refused,
            1 => Self::Unknown,
            2 => Self::UnknownDone,
            _ => Self::None,
        })
    }
}
