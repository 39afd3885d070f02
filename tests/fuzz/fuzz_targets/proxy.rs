//! See `fuzz_targets::proxy`, which has the law and the reason.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| echo_reactor::fuzz_targets::proxy(bytes));
