//! See `fuzz_targets::key`, which has the law and the reason.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| echo_reactor::fuzz_targets::key(bytes));
