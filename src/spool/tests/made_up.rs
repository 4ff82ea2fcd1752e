//! The stories of `fuzz/spool_reader`, a few hundred of chance bytes: so they are compiled, and told, with
//! every run of the tests.
#![cfg(test)]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[path = "../../../fuzz/spool_reader/story.rs"]
mod story;

#[test]
fn made_up_segments_are_read_to_their_end() {
    for seed in 0..200 {
        let mut chance = StdRng::seed_from_u64(seed);
        let bytes: Vec<u8> = (0..chance.random_range(0..80)).map(|_| chance.random()).collect();
        let told = std::panic::catch_unwind(|| story::tell(&bytes));
        assert!(told.is_ok(), "seed {seed}: {bytes:?}");
    }
}
