//! What goes out: letters to people ([`mail`]), and what nobody has asked for, messages to the operator's
//! own systems ([`webhook`]).

pub mod mail;
pub mod webhook;
