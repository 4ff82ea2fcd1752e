//! Stories of whoever runs the gateway: the command line, the first start, the last second.

pub(crate) mod child;
pub(crate) mod demo;
mod descriptors;

mod canaries;
mod check;
mod clocks;
mod commands;
mod copied;
mod elsewhere;
mod first_start;
mod json;
mod kill;
mod ledger;
mod little_memory;
mod log_output;
mod restart;
mod secrecy;
mod secrets;
mod signals;
mod starts;
mod stop;
mod warnings;
