//! `cargo fuzz run definition`; what is checked stands in `src/check.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmnet_fuzz::check::definition(data));
