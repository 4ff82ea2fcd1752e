//! The promises, told as stories against a whole gateway. `world.rs` introduces the cast.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a story stops at the first surprise, and is no part of the product"
)]

mod accountable;
mod authenticator;
mod control;
mod made_up;
mod operate;
mod post_office;
#[expect(dead_code, reason = "some of its programs are run by hand only")]
#[path = "../lab/proof.rs"]
mod proof;
mod proxy;
mod sdk;
mod spellings;
mod upstream;
mod watch;
mod wire;
mod world;
