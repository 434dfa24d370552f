//! HTTP/1.1 on bytes alone: nothing here performs input or output, or knows a clock.
//!
//! ```text
//!   bytes in ──► head (request line, field lines) ──► Head: method, Target, headers, Framing
//!        └─────► body (length or chunked)         ──► content bytes, or a BodyError
//!   response ──► status line and fields           ──► bytes out, and a BodyPlan for the writer
//! ```
//!
//! The caller owns every buffer. Once those are warm nothing here allocates, except to name the
//! culprit in a [`ResponseError`]. Incomplete input is a value; a peer's fault is one variant of a
//! closed enum, with the status that answers it.
//!
//! It refuses to know: sockets, timeouts, coroutines, and what an application is.

mod body;
mod chunked;
mod date;
mod encoding;
mod grammar;
mod head;
mod host;
mod response;
mod span;
mod status;
mod target;

pub use body::{BodyError, BodyLimits, Decoded, Decoder};
pub use date::DateCache;
pub use encoding::{CHUNK_END, ChunkHeader, LAST_CHUNK, push_decimal};
pub(crate) use grammar::{is_token, list_elements};
pub use head::{
    Changes, Followed, Framing, Head, HeadError, HeadIndex, HeadLimits, Parsed, RequestKind,
    UnderscoreHeaders, Version, may_complete,
};
pub use response::{
    BodyEncoding, BodyPlan, CONTINUE, KeepAlive, RequestFacts, ResponseBuilder, ResponseError,
    SERVER_NAME, ServerFields, ServerName, early_hints, error_response,
};
pub use status::{parse_status, reason_phrase};
pub use target::{Target, TargetForm, percent_decode_path};
