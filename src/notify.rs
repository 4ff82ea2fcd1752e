//! What goes out without anybody having asked. [`mail`]: letters to people. [`webhook`]: messages to
//! the operator's own systems.

pub mod mail;
pub mod webhook;
