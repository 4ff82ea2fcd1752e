//! Tollgate: the gate in front of chat models.
//!
//! Two planes share one binary. The **data plane** ([`proxy`]) checks a `pe-` key, addresses, rates
//! and the day's conversations on each request, forwards it untouched, and keeps what was said. The
//! **control plane** ([`control`]) is the REST API by which users, staff and admins are managed.
//!
//! # Invariants
//!
//! - The proxy never writes a user row; control never sees a data-plane body.
//! - Only [`store`] knows SQL.
//! - Statuses live in two tables, `proxy/refusal.rs` and `control/problem.rs`. Below the planes
//!   nothing knows one, but for what [`listen`] answers to a head too large to be read.
//! - No process-global mutable state: two gateways fit in one test process.
//! - Every spawn is tracked, so that shutdown waits for it.
//! - Capture can never delay, alter or end a stream.
//! - A module imports only from floors below its own; `tests/floors.rs` holds the table.
//!
//! Read from the top of this list to its end to meet everything after what it builds on.

// Floor 0: words, time, the runtime behind, whom we believe, and the counters everyone may bump.
pub mod background;
pub mod clock;
pub mod ids;
pub mod path;
pub mod roots;
pub mod telemetry;

// Floor 1: pure knowledge.
pub mod credential;
pub mod dialect;
pub mod plan;

// Floor 2: one file, checked.
pub mod config;

// Floor 3: the outside world.
pub mod limits;
pub mod listen;
pub mod notify;
pub mod spool;
pub mod store;

// Floor 4: who, how much, what was said, when, and whether the clock is right.
pub mod chatlog;
pub mod identity;
pub mod quota;
pub mod schedule;
pub mod secrets;
pub mod timekeeper;

// Floor 5: the two planes, blind to each other, and the clockwork.
pub mod control;
pub mod jobs;
pub mod proxy;

// Floor 6: start order, stop order.
pub mod app;
pub mod demo;

// What `fuzz/` tells in its own crate, the tests tell here: under the same name.
#[cfg(test)]
extern crate self as tollgate;
