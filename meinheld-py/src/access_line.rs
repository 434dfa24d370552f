//! A line of the access log, in the combined format.
//!
//! A line is printable ASCII, whatever a client sends: nothing of it can end its field or its line. Not
//! here: when it is made, and where it goes (see `access_log.rs`).

use meinheld_core::Address;
use meinheld_core::http::push_decimal;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::names::name;

/// How much is shown of the first line of a request that was refused: it may be anything.
const REFUSED_BYTES_MAX: usize = 512;

/// Appends the line of a request that has been answered, as `mlogging.Logger` makes it: of the environ
/// as the application has left it.
pub(crate) fn push_answered(
    environ: &Bound<'_, PyDict>,
    out: &mut Vec<u8>,
    time: &str,
    status: u16,
    bytes: u64,
) -> PyResult<()> {
    let py = environ.py();
    let is_empty = |item: &Bound<'_, PyAny>| item.is_truthy().map(|truthy| !truthy);
    match environ.get_item(name!(py, remote_addr))? {
        Some(peer) if !is_empty(&peer)? => push_object(out, Some(&peer))?,
        _ => out.push(b'-'),
    }
    push_time(out, time);
    push_object(out, environ.get_item(name!(py, request_method))?.as_ref())?;
    out.push(b' ');
    match environ.get_item(name!(py, raw_uri))? {
        Some(target) if !is_empty(&target)? => push_object(out, Some(&target))?,
        _ => push_object(out, environ.get_item(name!(py, path_info))?.as_ref())?,
    }
    out.push(b' ');
    push_object(out, environ.get_item(name!(py, server_protocol))?.as_ref())?;
    push_outcome(out, status, bytes);
    out.extend_from_slice(b" \"");
    push_object(out, environ.get_item(name!(py, http_referer))?.as_ref())?;
    out.extend_from_slice(b"\" \"");
    push_object(out, environ.get_item(name!(py, http_user_agent))?.as_ref())?;
    out.push(b'"');
    Ok(())
}

/// A request that was refused before it had an environ.
pub(crate) struct Refused<'a> {
    pub(crate) peer: &'a Address,
    /// Its first line as far as it came.
    pub(crate) line: &'a [u8],
    pub(crate) status: u16,
    pub(crate) bytes: u64,
}

impl Refused<'_> {
    /// Appends its line, without its end.
    pub(crate) fn push(&self, out: &mut Vec<u8>, time: &str) {
        push_peer(out, self.peer);
        push_time(out, time);
        let shown = &self.line[..self.line.len().min(REFUSED_BYTES_MAX)];
        if shown.is_empty() {
            out.push(b'-');
        }
        push_bytes(out, shown);
        if shown.len() < self.line.len() {
            out.extend_from_slice(b"...");
        }
        push_outcome(out, self.status, self.bytes);
        out.extend_from_slice(b" \"-\" \"-\"");
    }
}

/// A client on a unix socket has no address.
pub(crate) fn push_peer(out: &mut Vec<u8>, peer: &Address) {
    match peer {
        Address::Ip(ip) => push_bytes(out, ip.ip().to_string().as_bytes()),
        Address::Unix(_) => out.push(b'-'),
    }
}

fn push_time(out: &mut Vec<u8>, time: &str) {
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"] \"");
}

fn push_outcome(out: &mut Vec<u8>, status: u16, bytes: u64) {
    out.extend_from_slice(b"\" ");
    push_decimal(u64::from(status), out);
    out.push(b' ');
    push_decimal(bytes, out);
}

fn push_object(out: &mut Vec<u8>, object: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let Some(object) = object else {
        out.push(b'-');
        return Ok(());
    };
    let text = match object.cast::<PyString>() {
        Ok(text) => text.clone(),
        Err(_) => object.str()?,
    };
    if let Ok(text) = text.to_str() {
        push_text(out, text);
        return Ok(());
    }
    // Lone surrogates, which an application has put in.
    let encoded = text.call_method1(name!(text.py(), encode), ("utf-32-le", "surrogatepass"))?;
    for character in encoded.extract::<Vec<u8>>()?.as_chunks::<4>().0 {
        push_character(out, u32::from_le_bytes(*character));
    }
    Ok(())
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    if are_plain(text.as_bytes()) {
        return out.extend_from_slice(text.as_bytes());
    }
    for character in text.chars() {
        push_character(out, u32::from(character));
    }
}

/// Appends bytes of the wire, of which each is a character.
pub(crate) fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    if are_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    for byte in bytes {
        push_character(out, u32::from(*byte));
    }
}

/// Without a way out of the loop it is one for vectors.
fn are_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, byte| plain & is_plain(*byte))
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'!' | b'#'..=b'[' | b']'..=b'~')
}

fn push_character(out: &mut Vec<u8>, character: u32) {
    match u8::try_from(character) {
        Ok(byte) if is_plain(byte) => out.push(byte),
        Ok(byte @ (b'"' | b'\\')) => out.extend_from_slice(&[b'\\', byte]),
        _ => out.extend_from_slice(format!("\\x{character:02x}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn refused(line: &[u8]) -> String {
        let peer = Address::Ip(SocketAddr::from(([127, 0, 0, 1], 7)));
        let mut out = Vec::new();
        Refused { peer: &peer, line, status: 400, bytes: 17 }.push(&mut out, "now");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_refused_request_is_shown_as_far_as_it_came() {
        for (line, shown) in [
            (b"".as_slice(), "-"),
            (b"GET /a b HTTP/1.1", "GET /a b HTTP/1.1"),
            (b"\x16\x03\x01\"\\\xe9\n", "\\x16\\x03\\x01\\\"\\\\\\xe9\\x0a"),
        ] {
            assert_eq!(
                refused(line),
                format!("127.0.0.1 - - [now] \"{shown}\" 400 17 \"-\" \"-\"")
            );
        }
        let long = refused(&b"a".repeat(9000));
        assert!(long.contains("aaa...\"") && long.len() < 600, "{long}");
    }
}
