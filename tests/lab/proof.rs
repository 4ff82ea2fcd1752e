//! What the laboratory's programs and the suite's stories of accountability are made of.
//!
//! Nothing here uses the product's code: the gate is a process, its clients are sockets, its model is
//! a recording origin, and the books are kept from what those saw. The same files are built into the
//! example `lab` and into the suite.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "what an experiment counts is small"
)]

pub(crate) mod away;
pub(crate) mod backlog;
pub(crate) mod books;
pub(crate) mod canary;
pub(crate) mod client;
pub(crate) mod crash;
pub(crate) mod damage;
pub(crate) mod dice;
pub(crate) mod disk;
pub(crate) mod faults;
pub(crate) mod flood;
pub(crate) mod gate;
pub(crate) mod kill;
pub(crate) mod load;
pub(crate) mod origin;
pub(crate) mod people;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod power;
pub(crate) mod race;
pub(crate) mod relay;
pub(crate) mod report;
pub(crate) mod strace_log;
pub(crate) mod told;
pub(crate) mod trace;
