//! See `forwarded_for/story.rs`.
#![no_main]

#[path = "../forwarded_for/story.rs"]
mod story;

libfuzzer_sys::fuzz_target!(|data: &[u8]| story::tell(data));
