//! Fuzzes [`fuzz::batch`].
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::batch::prepare(), |data: &[u8]| fuzz::batch::run(data));
