//! `cargo fuzz run qmp`; what is checked stands in `src/check.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmnet_fuzz::check::qmp(data));
