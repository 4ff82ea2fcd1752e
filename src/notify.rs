//! Telling people and machines outside what happened in here. [`mail`]: letters.

pub mod mail;
