//! See `spool_reader/story.rs`.
#![no_main]

#[path = "../spool_reader/story.rs"]
mod story;

libfuzzer_sys::fuzz_target!(|data: &[u8]| story::tell(data));
