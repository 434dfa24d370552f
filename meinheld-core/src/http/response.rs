//! The head of a response, RFC 9112 sections 4 and 6: validated, completed and encoded.
//!
//! ```text
//!   begin(status, reason) ──► header()* ──► finish(known length) ──► BodyPlan for the writer
//!           │                    │              adds Date, Server, Connection, framing
//!           └── error ───────────┴──► nothing of it can be sent
//! ```
//!
//! Nothing that an application says reaches the buffer unchecked, and framing and connection are
//! decided here alone. It refuses to know the body: the [`BodyPlan`] tells its writer what to do.

mod builder;
mod canned;
mod error;
mod fields;

pub use builder::ResponseBuilder;
pub use canned::{CONTINUE, early_hints, error_response};
pub use error::ResponseError;

use std::sync::Arc;

use super::date::DateCache;
use super::head::{Head, RequestKind, Version};

/// What this server calls itself in the Server header, RFC 9110 section 10.2.4.
pub const SERVER_NAME: &str = concat!("meinheld/", env!("CARGO_PKG_VERSION"));

/// Whether a connection outlives a response, RFC 9112 section 9.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// The next request may come.
    Keep,
    /// The connection is closed once the response is written.
    Close,
}

/// What a response depends on of its request, and of the server's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// The version of the request.
    pub version: Version,
    /// What its method means for the response.
    pub kind: RequestKind,
    /// Whether the connection would be kept, were it not for the response.
    pub keep_alive: KeepAlive,
}

impl RequestFacts {
    /// The facts of a request, of which only the client's wish for the connection is known; set
    /// `keep_alive` to [`KeepAlive::Close`] if the server has a reason of its own.
    pub fn of(head: &Head<'_>) -> Self {
        let keep_alive = if head.keep_alive() { KeepAlive::Keep } else { KeepAlive::Close };
        Self { version: head.version(), kind: head.kind(), keep_alive }
    }
}

/// How the body is to be written after the head, RFC 9112 section 6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEncoding {
    /// No byte, whatever the application yields: HEAD, 204, 205, 304.
    None,
    /// Exactly this many bytes. If the application yields more, the rest is dropped; if less, the
    /// connection must be closed.
    Length(u64),
    /// In chunks; see [`ChunkHeader`](super::ChunkHeader).
    Chunked,
    /// As it is, until the connection is closed. After a 101, and a 2xx to CONNECT, it is no body but
    /// another protocol.
    UntilClose,
}

/// What the writer has to do once the head is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyPlan {
    /// How to write the body.
    pub encoding: BodyEncoding,
    /// What becomes of the connection after it.
    pub keep_alive: KeepAlive,
}

/// The Server header of every response that brings none of its own.
#[derive(Clone, Debug)]
pub struct ServerName {
    line: Arc<[u8]>,
}

impl ServerName {
    /// `name` as the Server header; with the empty name there is none.
    ///
    /// # Errors
    ///
    /// [`ResponseError::HeaderValue`] if `name` holds a control character (RFC 9110 section 5.5).
    pub fn new(name: &str) -> Result<Self, ResponseError> {
        let mut line = Vec::new();
        if !name.is_empty() {
            fields::validate(b"Server", name.as_bytes())?;
            fields::push(b"Server", name.as_bytes(), &mut line);
        }
        Ok(Self { line: line.into() })
    }

    fn line(&self) -> &[u8] {
        &self.line
    }
}

impl Default for ServerName {
    /// [`SERVER_NAME`].
    fn default() -> Self {
        Self::new(SERVER_NAME).expect("the crate's version holds no control character")
    }
}

/// The fields that the server adds to every response.
#[derive(Clone, Debug, Default)]
pub struct ServerFields {
    /// For Date; to be refreshed each second.
    pub date: DateCache,
    /// For Server.
    pub name: ServerName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_name_is_a_field_value_or_nothing_per_rfc_9110_section_10_2_4() {
        assert_eq!(ServerName::default().line(), format!("Server: {SERVER_NAME}\r\n").as_bytes());
        assert_eq!(ServerName::new("mine/1").unwrap().line(), b"Server: mine/1\r\n");
        assert_eq!(ServerName::new("").unwrap().line(), b"");
        let error = ServerName::new("a\r\nb").map(drop).unwrap_err();
        assert_eq!(error, ResponseError::HeaderValue("Server".into()));
    }
}
