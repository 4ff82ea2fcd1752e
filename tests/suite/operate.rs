//! Stories of whoever runs the gateway: the command line, the first start, the last second.

pub(crate) mod child;
pub(crate) mod demo;

mod check;
mod commands;
mod first_start;
mod kill;
mod secrecy;
mod stop;
