//! See `quota_model/story.rs`.
#![no_main]

#[path = "../quota_model/story.rs"]
mod story;

libfuzzer_sys::fuzz_target!(|data: &[u8]| story::tell(data));
