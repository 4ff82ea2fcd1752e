//! See `sse_cutter/story.rs`.
#![no_main]

#[path = "../sse_cutter/story.rs"]
mod story;

libfuzzer_sys::fuzz_target!(|data: &[u8]| story::tell(data));
