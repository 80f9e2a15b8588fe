//! Fuzzes [`fuzz::collect`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::collect::run(data));
