//! The stories of `fuzz/quota_model`, a thousand of chance bytes: so they are compiled, and told, with
//! every run of the tests.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[path = "../../../fuzz/quota_model/story.rs"]
mod story;

#[test]
fn made_up_stories_end_as_arithmetic_says() {
    let stories = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_000);
    for seed in 0..stories {
        let mut chance = StdRng::seed_from_u64(seed);
        let bytes: Vec<u8> = (0..chance.random_range(8..600)).map(|_| chance.random()).collect();
        let told = std::panic::catch_unwind(|| story::tell(&bytes));
        assert!(told.is_ok(), "seed {seed}: {bytes:?}");
    }
}
