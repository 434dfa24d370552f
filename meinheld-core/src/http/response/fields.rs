//! The header fields of a response, one by one: which may be sent, and which the encoder acts on.

use super::super::grammar::{is_field_value, is_token, list_elements};
use super::ResponseError;

/// A header that the encoder acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Date,
    Server,
    Upgrade,
    Connection,
    ContentLength,
    /// One that only the server may send.
    HopByHop,
}

impl Known {
    /// Recognises a name in any case; the length leaves few candidates to compare.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let candidates: &[(Self, &[u8])] = match name.len() {
            2 => &[(Self::HopByHop, b"te")],
            4 => &[(Self::Date, b"date")],
            6 => &[(Self::Server, b"server")],
            7 => &[(Self::Upgrade, b"upgrade"), (Self::HopByHop, b"trailer")],
            8 => &[(Self::HopByHop, b"trailers")],
            10 => &[(Self::Connection, b"connection"), (Self::HopByHop, b"keep-alive")],
            14 => &[(Self::ContentLength, b"content-length")],
            16 => &[(Self::HopByHop, b"proxy-connection")],
            17 => &[(Self::HopByHop, b"transfer-encoding")],
            18 => &[(Self::HopByHop, b"proxy-authenticate")],
            19 => &[(Self::HopByHop, b"proxy-authorization")],
            _ => &[],
        };
        let found = candidates.iter().find(|(_, spelling)| name.eq_ignore_ascii_case(spelling));
        found.map(|(known, _)| *known)
    }
}

/// What an application may say in Connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConnectionWish {
    pub(super) close: bool,
    pub(super) upgrade: bool,
}

impl ConnectionWish {
    /// RFC 9110 section 7.6.1. Any other option would make a header of the application's one that
    /// the next hop drops.
    pub(super) fn parse(value: &[u8]) -> Result<Self, ResponseError> {
        let mut wish = Self::default();
        for option in list_elements(value) {
            if option.eq_ignore_ascii_case(b"close") {
                wish.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                wish.upgrade = true;
            } else if !option.eq_ignore_ascii_case(b"keep-alive") && !option.is_empty() {
                return Err(ResponseError::HopByHop("Connection".to_owned()));
            }
        }
        Ok(wish)
    }
}

/// Checks that `name` and `value` can stand in a field line, and in one only.
pub(super) fn validate(name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
    // RFC 9110 section 5.1.
    if !is_token(name) {
        return Err(ResponseError::HeaderName(name.escape_ascii().to_string()));
    }
    // RFC 9110 section 5.5: CR, LF and NUL above all.
    if !is_field_value(value) {
        return Err(ResponseError::HeaderValue(display(name)));
    }
    Ok(())
}

/// Appends the field line.
pub(super) fn push(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + b": \r\n".len());
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A header name for people.
pub(super) fn display(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}
