//! Fuzzes [`fuzz::dlq`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::dlq::run(data));
