//! libFuzzer's way into the websocket target.

#![no_main]

#[allow(dead_code, unused_imports, reason = "each binary runs one target of several")]
#[path = "../../tests/fuzzing/mod.rs"]
mod fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::websocket(data));
