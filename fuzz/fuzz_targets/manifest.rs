//! `properties/manifest.rs` says what this target asserts.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hob_fuzz::manifest::holds(bytes));
