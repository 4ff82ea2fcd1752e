//! See `request_path/story.rs`.
#![no_main]

#[path = "../request_path/story.rs"]
mod story;

libfuzzer_sys::fuzz_target!(|data: &[u8]| story::tell(data));
