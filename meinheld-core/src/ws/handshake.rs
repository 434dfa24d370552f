//! The opening handshake, RFC 6455 section 4.2, on header fields alone.
//!
//! Not here: sending the answer (see accept.rs).

use std::fmt;

use data_encoding::BASE64;
use sha1::{Digest, Sha1};

use crate::http::{Version, is_token, list_elements};

/// What every server appends to a client's key, RFC 6455 section 1.3.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How long a key is once it is decoded, in bytes.
const KEY_BYTES: usize = 16;

/// A client's wish for a WebSocket that can be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    accept: String,
    protocols: Vec<String>,
}

/// Why a request for a WebSocket is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// Another method than GET, section 4.2.1.
    Method,
    /// No `Sec-WebSocket-Version`, or another one than 13, section 4.4.
    Version,
    /// No `Sec-WebSocket-Key`, several, or one that is not 16 bytes in base64, section 4.2.1.
    Key,
    /// A `Sec-WebSocket-Protocol` that is not a list of tokens, section 11.3.4.
    Protocol,
}

impl HandshakeError {
    /// The status that answers it.
    pub fn status(self) -> u16 {
        match self {
            HandshakeError::Version => 426,
            HandshakeError::Method | HandshakeError::Key | HandshakeError::Protocol => 400,
        }
    }

    /// The headers that the answer must have: what the server does speak.
    pub fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            HandshakeError::Version => &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")],
            HandshakeError::Method | HandshakeError::Key | HandshakeError::Protocol => &[],
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandshakeError::Method => "a WebSocket is asked for with GET",
            HandshakeError::Version => "Sec-WebSocket-Version must be 13",
            HandshakeError::Key => "Sec-WebSocket-Key must be 16 bytes in base64, once",
            HandshakeError::Protocol => "Sec-WebSocket-Protocol must be a list of tokens",
        })
    }
}

impl std::error::Error for HandshakeError {}

/// What the fields say, before it is judged.
#[derive(Default)]
struct Wish<'h> {
    upgrade: bool,
    connection: bool,
    version: Option<&'h [u8]>,
    key: Option<&'h [u8]>,
    key_repeated: bool,
    protocols: Vec<&'h [u8]>,
}

impl Handshake {
    /// Looks at a request. `None` if it does not ask for a WebSocket: without `Upgrade: websocket` that
    /// Connection names too, and with HTTP/1.0, it is a request like any other (RFC 9110 section 7.8).
    ///
    /// # Errors
    /// It asks in a way that must be refused, see [`HandshakeError`].
    pub fn of<'h>(
        method: &str,
        version: Version,
        fields: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> Result<Option<Handshake>, HandshakeError> {
        let mut wish = Wish::default();
        for (name, value) in fields {
            wish.note(name, value);
        }
        if version == Version::Http10 || !wish.upgrade || !wish.connection {
            return Ok(None);
        }
        if method != "GET" {
            return Err(HandshakeError::Method);
        }
        if wish.version != Some(b"13") {
            return Err(HandshakeError::Version);
        }
        let key = wish.key.filter(|key| !wish.key_repeated && is_key(key));
        let accept = accept_value(key.ok_or(HandshakeError::Key)?);
        let protocols = wish.protocols.iter().map(|name| match str::from_utf8(name) {
            Ok(name) if is_token(name.as_bytes()) => Ok(name.to_owned()),
            _ => Err(HandshakeError::Protocol),
        });
        Ok(Some(Handshake { accept, protocols: protocols.collect::<Result<_, _>>()? }))
    }

    /// The value of `Sec-WebSocket-Accept`.
    pub fn accept(&self) -> &str {
        &self.accept
    }

    /// The subprotocols that the client offers, those that it prefers first.
    pub fn protocols(&self) -> impl ExactSizeIterator<Item = &str> {
        self.protocols.iter().map(String::as_str)
    }
}

impl<'h> Wish<'h> {
    fn note(&mut self, name: &str, value: &'h [u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("Upgrade") {
            self.upgrade |= has_element(value, b"websocket");
        } else if is("Connection") {
            self.connection |= has_element(value, b"upgrade");
        } else if is("Sec-WebSocket-Version") {
            // Two that differ are none that is understood.
            let same = self.version.is_none_or(|version| version == value);
            self.version = Some(if same { value } else { b"" });
        } else if is("Sec-WebSocket-Key") {
            self.key_repeated |= self.key.is_some();
            self.key = Some(value);
        } else if is("Sec-WebSocket-Protocol") {
            self.protocols.extend(list_elements(value));
        }
    }
}

fn has_element(list: &[u8], wanted: &[u8]) -> bool {
    list_elements(list).any(|element| element.eq_ignore_ascii_case(wanted))
}

fn is_key(value: &[u8]) -> bool {
    BASE64.decode(value).is_ok_and(|key| key.len() == KEY_BYTES)
}

/// RFC 6455 section 4.2.2, step 5.4.
fn accept_value(key: &[u8]) -> String {
    BASE64.encode(&Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 section 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn handshake(
        method: &str,
        version: Version,
        fields: &str,
    ) -> Result<Option<Handshake>, HandshakeError> {
        let fields = fields.lines().map(|line| line.split_once(": ").unwrap());
        Handshake::of(method, version, fields.map(|(name, value)| (name, value.as_bytes())))
    }

    fn with(more: &str) -> Result<Option<Handshake>, HandshakeError> {
        let fields = format!("Upgrade: websocket\nConnection: Upgrade\n{more}");
        handshake("GET", Version::Http11, &fields)
    }

    #[test]
    fn the_answer_is_that_of_the_rfc_s_example() {
        let more = format!("Sec-WebSocket-Version: 13\nSec-WebSocket-Key: {KEY}");
        let handshake = with(&more).unwrap().unwrap();
        assert_eq!(handshake.accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(handshake.protocols().len(), 0);
    }

    #[test]
    fn what_asks_for_no_websocket_is_a_request_like_any_other() {
        let cases = [
            "Host: a",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Upgrade: h2c\nConnection: Upgrade",
            "Upgrade: websockets\nConnection: Upgrade",
            "Upgrade: websocket\nConnection: close",
        ];
        for fields in cases {
            assert_eq!(handshake("GET", Version::Http11, fields), Ok(None), "{fields:?}");
        }
        let whole = format!(
            "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n\
             Sec-WebSocket-Key: {KEY}"
        );
        assert_eq!(handshake("GET", Version::Http10, &whole), Ok(None), "RFC 9110 section 7.8");
    }

    #[test]
    fn names_and_tokens_are_read_in_any_case_and_out_of_lists() {
        let cases = [
            "upgrade: WebSocket\nCONNECTION: keep-alive, UPGRADE",
            "Upgrade: h2c, websocket\nConnection: upgrade",
            "Upgrade: h2c\nUpgrade: websocket\nConnection: x\nConnection: ,upgrade,",
        ];
        for fields in cases {
            let more = format!("{fields}\nsec-websocket-version: 13\nSEC-WEBSOCKET-KEY: {KEY}");
            assert!(handshake("GET", Version::Http11, &more).unwrap().is_some(), "{fields:?}");
        }
    }

    #[test]
    fn what_must_be_refused_is_named() {
        let key = format!("Sec-WebSocket-Key: {KEY}");
        let version = "Sec-WebSocket-Version: 13";
        let cases: &[(String, HandshakeError)] = &[
            (key.clone(), HandshakeError::Version),
            (format!("{key}\nSec-WebSocket-Version: 8"), HandshakeError::Version),
            (format!("{key}\nSec-WebSocket-Version: 13, 8"), HandshakeError::Version),
            (format!("{key}\n{version}\nSec-WebSocket-Version: 8"), HandshakeError::Version),
            (version.to_owned(), HandshakeError::Key),
            (format!("{version}\n{key}\n{key}"), HandshakeError::Key),
            (format!("{version}\nSec-WebSocket-Key: {KEY}, {KEY}"), HandshakeError::Key),
            (format!("{version}\nSec-WebSocket-Key: "), HandshakeError::Key),
            (format!("{version}\nSec-WebSocket-Key: AAAA"), HandshakeError::Key),
            (format!("{version}\nSec-WebSocket-Key: {}", &KEY[..22]), HandshakeError::Key),
            (format!("{version}\nSec-WebSocket-Key: {}", &KEY[..23]), HandshakeError::Key),
            (format!("{version}\nSec-WebSocket-Key: {KEY}="), HandshakeError::Key),
            (format!("{version}\n{key}\nSec-WebSocket-Protocol: a b"), HandshakeError::Protocol),
            (format!("{version}\n{key}\nSec-WebSocket-Protocol: é"), HandshakeError::Protocol),
        ];
        for (more, expected) in cases {
            let found = with(more);
            assert_eq!(found, Err(*expected), "{more:?}");
        }
        let whole = format!("Upgrade: websocket\nConnection: upgrade\n{version}\n{key}");
        for method in ["POST", "HEAD", "get"] {
            let found = handshake(method, Version::Http11, &whole);
            assert_eq!(found, Err(HandshakeError::Method), "{method}");
        }
        assert_eq!(HandshakeError::Version.status(), 426);
        assert_eq!(HandshakeError::Key.status(), 400);
    }

    #[test]
    fn subprotocols_come_in_the_clients_order() {
        let more = format!(
            "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: {KEY}\n\
             Sec-WebSocket-Protocol: chat, x.y\nSec-WebSocket-Protocol: z"
        );
        let handshake = with(&more).unwrap().unwrap();
        assert_eq!(handshake.protocols().collect::<Vec<_>>(), ["chat", "x.y", "z"]);
    }
}
