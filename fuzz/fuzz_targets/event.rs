//! Tries `properties/event.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::event(data));
