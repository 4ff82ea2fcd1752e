//! The REST API, as the clients of the seed and an admin use it.

mod admin_users;
mod envelope;
mod health;
mod jobs;
mod log_message;
mod login;
mod my_key;
mod profile;
mod register;
mod surfaces;
mod trail;
mod usage;
mod verify_key;
