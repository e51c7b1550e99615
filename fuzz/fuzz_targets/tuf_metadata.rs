//! `properties/tuf_metadata.rs` says what this target asserts.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hob_fuzz::tuf_metadata::holds(bytes));
