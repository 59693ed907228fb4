//! Feeds `proxy` of [`antiphon_fuzz::TARGETS`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| antiphon_fuzz::feed("proxy", data));
