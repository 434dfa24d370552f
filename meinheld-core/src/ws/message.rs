//! What a WebSocket carries: messages, and the code and the reason that it ends with.

use tungstenite::{Bytes, Utf8Bytes};

/// How many bytes the reason of a close may have: a control frame has 125 (RFC 6455 section 5.5).
const REASON_BYTES_MAX: usize = 123;

/// What kind of message it is, RFC 6455 section 5.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Text, which is UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(Payload);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Message {
    pub(super) fn new(payload: Payload) -> Message {
        Message(payload)
    }

    /// Its kind.
    pub fn kind(&self) -> MessageKind {
        match self.0 {
            Payload::Text(_) => MessageKind::Text,
            Payload::Binary(_) => MessageKind::Binary,
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Payload::Text(text) => text.as_bytes(),
            Payload::Binary(bytes) => bytes,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.0 {
            Payload::Text(text) => Some(text.as_str()),
            Payload::Binary(_) => None,
        }
    }
}

/// How a WebSocket ended, RFC 6455 section 7.1.5.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// The code: the peer's if it closed, else the one that was sent; 1005 if the peer gave none, 1006
    /// if the connection ended without a close.
    pub code: u16,
    /// The reason that came, or was sent, with it.
    pub reason: String,
}

impl Closure {
    /// No code was given.
    pub const NO_CODE: u16 = 1005;
    /// The connection ended without a close.
    pub const ABNORMAL: u16 = 1006;
    /// The server stops, or the peer's page is left.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// Text was not UTF-8.
    pub const INVALID_TEXT: u16 = 1007;
    /// A message was over the limit.
    pub const TOO_BIG: u16 = 1009;

    pub(super) fn new(code: u16, reason: impl Into<String>) -> Closure {
        Closure { code, reason: reason.into() }
    }

    /// Whether it can be sent.
    pub(super) fn is_sendable(&self) -> bool {
        is_sendable_code(self.code) && self.reason.len() <= REASON_BYTES_MAX
    }
}

/// Whether an application may close with this code, RFC 6455 section 7.4: one that is assigned, and
/// not reserved for what is never sent, or one from 3000 to 4999.
pub fn is_sendable_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_sent_with_an_assigned_code_and_a_short_reason() {
        for (code, sendable) in [
            (0, false),
            (999, false),
            (1000, true),
            (1003, true),
            (1004, false),
            (1005, false),
            (1006, false),
            (1007, true),
            (1014, true),
            (1015, false),
            (2999, false),
            (3000, true),
            (4999, true),
            (5000, false),
            (u16::MAX, false),
        ] {
            assert_eq!(Closure::new(code, "").is_sendable(), sendable, "{code}");
        }
        assert!(Closure::new(1000, "x".repeat(123)).is_sendable());
        assert!(!Closure::new(1000, "é".repeat(62)).is_sendable());
    }
}
