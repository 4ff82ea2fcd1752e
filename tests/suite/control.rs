//! The REST API, as the clients of the seed and an admin use it.

mod admin_users;
mod envelope;
mod health;
mod log_message;
mod login;
mod mail;
mod my_key;
mod profile;
mod refresh;
mod register;
mod surfaces;
mod totp;
mod verify_key;
