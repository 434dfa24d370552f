//! The responses that need no application: to a request that is refused, and the interim ones.

use super::super::encoding::push_decimal;
use super::super::head::{RequestKind, Version};
use super::super::status::reason_phrase;
use super::fields::{self, Known};
use super::{ResponseError, ServerFields};

/// The interim response that asks for the body, RFC 9110 section 15.2.1.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const EARLY_HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\n";

/// Appends a whole response to `out`: `status`, its phrase as plain text, and `Connection: close`.
///
/// To HEAD it is the same without the text (RFC 9110 section 9.3.2). Tells how many bytes of a body
/// there are.
///
/// # Panics
///
/// If `status` is not within 400 to 599: it is the server's own choice.
pub fn error_response(
    status: u16,
    kind: RequestKind,
    server: &ServerFields,
    out: &mut Vec<u8>,
) -> u64 {
    assert!((400..=599).contains(&status), "an error response needs an error status");
    let phrase = reason_phrase(status).as_bytes();
    let body_bytes = b"400 ".len() + phrase.len() + b"\n".len();
    out.extend_from_slice(b"HTTP/1.1 ");
    push_status(status, phrase, out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(server.date.line());
    out.extend_from_slice(server.name.line());
    out.extend_from_slice(b"Connection: close\r\nContent-Type: text/plain\r\nContent-Length: ");
    push_decimal(body_bytes as u64, out);
    out.extend_from_slice(b"\r\n\r\n");
    if kind == RequestKind::Head {
        return 0;
    }
    push_status(status, phrase, out);
    out.extend_from_slice(b"\n");
    body_bytes as u64
}

/// Appends a 103 (Early Hints) with `headers` to `out`, RFC 8297.
///
/// To HTTP/1.0 nothing is appended: it has no interim responses (RFC 9110 section 15.2).
///
/// # Errors
///
/// [`ResponseError::HeaderName`] and [`ResponseError::HeaderValue`] as for a final response, and
/// [`ResponseError::NotInInterim`] for a header about the connection or the framing. Then `out` is as
/// it was.
pub fn early_hints<'h>(
    version: Version,
    headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
    out: &mut Vec<u8>,
) -> Result<(), ResponseError> {
    let start = out.len();
    let outcome = push_early_hints(headers, out);
    if outcome.is_err() || version == Version::Http10 {
        out.truncate(start);
    }
    outcome
}

fn push_early_hints<'h>(
    headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
    out: &mut Vec<u8>,
) -> Result<(), ResponseError> {
    out.extend_from_slice(EARLY_HINTS);
    for (name, value) in headers {
        fields::validate(name, value)?;
        match Known::of(name) {
            None | Some(Known::Date | Known::Server) => fields::push(name, value, out),
            Some(_) => return Err(ResponseError::NotInInterim(fields::display(name))),
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends `404 Not Found`.
pub(super) fn push_status(code: u16, reason: &[u8], out: &mut Vec<u8>) {
    push_decimal(u64::from(code), out);
    out.extend_from_slice(b" ");
    out.extend_from_slice(reason);
}

#[cfg(test)]
mod tests {
    use super::super::super::date::DateCache;
    use super::super::{SERVER_NAME, ServerName};
    use super::*;

    fn server() -> ServerFields {
        ServerFields { date: DateCache::new(784_111_777), name: ServerName::default() }
    }

    #[test]
    fn an_error_response_is_complete_and_closes() {
        let mut out = b"kept".to_vec();
        let body_bytes = error_response(431, RequestKind::Other, &server(), &mut out);
        let body = out.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(body_bytes, (out.len() - body) as u64);
        let expected = format!(
            "keptHTTP/1.1 431 Request Header Fields Too Large\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: {SERVER_NAME}\r\n\
             Connection: close\r\nContent-Type: text/plain\r\nContent-Length: 36\r\n\r\n\
             431 Request Header Fields Too Large\n"
        );
        assert_eq!(out.escape_ascii().to_string(), expected.escape_default().to_string());
    }

    #[test]
    fn an_error_response_to_head_has_the_length_but_no_body_per_rfc_9110_section_9_3_2() {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        error_response(400, RequestKind::Other, &server(), &mut with);
        assert_eq!(error_response(400, RequestKind::Head, &server(), &mut without), 0);
        without.extend_from_slice(b"400 Bad Request\n");
        assert_eq!(with, without);
        assert!(with.ends_with(b"Content-Length: 16\r\n\r\n400 Bad Request\n"));
    }

    #[test]
    fn an_error_response_without_a_phrase_is_well_formed() {
        let mut out = Vec::new();
        error_response(499, RequestKind::Other, &server(), &mut out);
        assert!(out.starts_with(b"HTTP/1.1 499 \r\n"), "RFC 9112 4: the space stays");
        assert!(out.ends_with(b"Content-Length: 5\r\n\r\n499 \n"));
    }

    #[test]
    fn early_hints_are_an_interim_response_per_rfc_8297() {
        let mut out = Vec::new();
        let link: (&[u8], &[u8]) = (b"Link", b"</a.css>; rel=preload");
        early_hints(Version::Http11, [link, link], &mut out).unwrap();
        let hint = "Link: </a.css>; rel=preload\r\n";
        let expected = format!("HTTP/1.1 103 Early Hints\r\n{hint}{hint}\r\n");
        assert_eq!(out, expected.as_bytes());
    }

    #[test]
    fn early_hints_that_are_refused_leave_no_byte() {
        let refused: &[(&[u8], &[u8], &str)] = &[
            (b"Li nk", b"x", "RFC 9110 5.1"),
            (b"Link", b"x\r\nSet-Cookie: y", "RFC 9110 5.5"),
            (b"Content-Length", b"0", "RFC 9110 8.6"),
            (b"Transfer-Encoding", b"chunked", "RFC 9112 6.1"),
            (b"Connection", b"close", "RFC 9110 7.6.1"),
            (b"Upgrade", b"h2c", "RFC 9110 7.8"),
        ];
        for (name, value, rule) in refused {
            let mut out = b"kept".to_vec();
            let link: (&[u8], &[u8]) = (b"Link", b"</a.css>");
            let outcome = early_hints(Version::Http11, [link, (*name, *value)], &mut out);
            assert!(outcome.is_err(), "{}: {rule}", name.escape_ascii());
            assert_eq!(out, b"kept");
        }
    }

    #[test]
    fn early_hints_are_not_for_http_1_0_per_rfc_9110_section_15_2() {
        let mut out = Vec::new();
        let link: (&[u8], &[u8]) = (b"Link", b"</a.css>");
        assert_eq!(early_hints(Version::Http10, [link], &mut out), Ok(()));
        assert!(out.is_empty());
    }
}
