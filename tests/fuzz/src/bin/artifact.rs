//! Fuzzes [`fuzz::artifact`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::artifact::run(data));
