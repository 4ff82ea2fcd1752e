//! See `admission_scanner/story.rs`.
#![no_main]

#[path = "../admission_scanner/story.rs"]
mod story;

libfuzzer_sys::fuzz_target!(|data: &[u8]| story::tell(data));
