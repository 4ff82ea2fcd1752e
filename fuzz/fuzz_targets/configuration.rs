//! See `configuration/story.rs`.
#![no_main]

#[path = "../configuration/story.rs"]
mod story;

libfuzzer_sys::fuzz_target!(|data: &[u8]| story::tell(data));
