//! The REST API, as the clients of the seed and an admin use it.

mod admin_users;
mod authz;
mod deletion;
mod envelope;
mod explain;
mod health;
mod jobs;
mod key_self;
mod keys;
mod log_message;
mod login;
mod mail;
mod matrix;
mod my_key;
mod password;
mod profile;
mod refresh;
mod register;
mod staff;
mod staff_accounts;
mod surfaces;
mod totp;
mod trail;
mod usage;
mod verify_key;
mod webhooks;
