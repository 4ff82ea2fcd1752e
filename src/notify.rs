//! What goes out without anybody having asked: messages to the operator's own systems.

pub mod webhook;
