//! Tries `properties/publish.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::publish(data));
