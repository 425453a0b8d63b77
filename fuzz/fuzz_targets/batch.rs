//! Tries `properties/batch.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::batch(data));
