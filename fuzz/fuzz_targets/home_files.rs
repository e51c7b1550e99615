//! `properties/home_files.rs` says what this target asserts.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hob_fuzz::home_files::holds(bytes));
