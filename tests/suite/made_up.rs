//! The stories of `fuzz/` that need nothing but the library, some thousand of chance bytes each: so they are
//! compiled, and told, with every run of the tests.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[path = "../../fuzz/admission_scanner/story.rs"]
mod admission_scanner;
#[path = "../../fuzz/configuration/story.rs"]
mod configuration;
#[path = "../../fuzz/forwarded_for/story.rs"]
mod forwarded_for;
#[path = "../../fuzz/request_path/story.rs"]
mod request_path;
#[path = "../../fuzz/sse_cutter/story.rs"]
mod sse_cutter;

/// Tells `stories` of up to `length` bytes.
fn tell(stories: u64, length: usize, story: fn(&[u8])) {
    for seed in 0..stories {
        let mut chance = StdRng::seed_from_u64(seed);
        let bytes: Vec<u8> = (0..chance.random_range(0..length)).map(|_| chance.random()).collect();
        let told = std::panic::catch_unwind(|| story(&bytes));
        assert!(told.is_ok(), "seed {seed}: {bytes:?}");
    }
}

#[test]
fn bodies_hide_no_field_from_the_scanner() {
    tell(20_000, 24, admission_scanner::tell);
}

#[test]
fn streams_are_cut_as_the_standards_say() {
    tell(5_000, 60, sse_cutter::tell);
}

#[test]
fn forwarded_addresses_are_walked_as_the_rule_says() {
    tell(10_000, 24, forwarded_for::tell);
}

#[test]
fn paths_that_a_lax_server_reads_as_charged_are_charged() {
    tell(20_000, 16, request_path::tell);
}

#[test]
fn configurations_are_read_or_refused() {
    tell(2_000, 40, configuration::tell);
}
