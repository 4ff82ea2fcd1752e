//! Stories of the data plane: what a chat client, and the app behind the gate, see.

mod access_ended;
mod addresses;
mod counting;
mod drain;
mod durable;
mod endings;
mod entitlements;
mod headers;
mod http2;
mod keys;
mod laxest;
mod limits;
mod log;
mod malformed;
mod models;
mod open_calls;
mod operator;
mod rates;
mod refusals;
mod routes;
mod slow;
mod sockets;
mod spellings;
mod tls;
mod untouched;
mod upgrade;
