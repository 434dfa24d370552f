//! The fuzz targets: each takes any bytes and panics if a promise of `meinheld-core` is broken.
//!
//! They are plain functions, run by libFuzzer (`fuzz/`) and, over the corpus and bounded mutations
//! of it, by an ordinary test (`tests/fuzz_corpus.rs`). Not here: where the bytes come from.

mod chunked;
mod connection;
mod expected;
mod grammar;
mod head;
mod reply;
mod response;
mod script;
mod websocket;

pub(crate) use chunked::chunked;
pub(crate) use connection::connection;
pub(crate) use head::head;
pub(crate) use response::response;
pub(crate) use websocket::websocket;
