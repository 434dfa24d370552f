//! Status codes and reason phrases, RFC 9110 section 15 and its registry.

use super::grammar::{is_field_value, parse_decimal};
use super::response::ResponseError;

/// The registered phrase of `status`, or the empty string, which a status line may have (RFC 9112
/// section 4).
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100..=299 => success_phrase(status),
        300..=399 => redirection_phrase(status),
        400..=499 => client_error_phrase(status),
        _ => server_error_phrase(status),
    }
}

fn success_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        _ => "",
    }
}

fn redirection_phrase(status: u16) -> &'static str {
    match status {
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        _ => "",
    }
}

fn client_error_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a Teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        _ => "",
    }
}

fn server_error_phrase(status: u16) -> &'static str {
    match status {
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

/// Takes apart the status of a WSGI application, `404 Not Found`, into its code and its reason
/// phrase (PEP 3333, the `start_response()` callable). A code alone is taken too.
///
/// # Errors
///
/// [`ResponseError::StatusLine`] if it does not begin with three digits and a space, and
/// [`ResponseError::Reason`] if the phrase holds a control character (RFC 9112 section 4).
pub fn parse_status(status: &[u8]) -> Result<(u16, &[u8]), ResponseError> {
    let malformed = || ResponseError::StatusLine(status.escape_ascii().to_string());
    let (code, reason) = match status {
        [_, _, _] => (status, &b""[..]),
        [_, _, _, b' ', reason @ ..] => (&status[..3], reason),
        _ => return Err(malformed()),
    };
    let code =
        parse_decimal(code).and_then(|code| u16::try_from(code).ok()).ok_or_else(malformed)?;
    if !is_field_value(reason) {
        return Err(ResponseError::Reason(reason.escape_ascii().to_string()));
    }
    Ok((code, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_three_digits_and_a_phrase_per_pep_3333() {
        let good: &[(&str, u16, &str)] = &[
            ("200 OK", 200, "OK"),
            ("404 Not Found", 404, "Not Found"),
            ("200 ", 200, ""),
            ("200", 200, ""),
            ("299 \u{e9}", 299, "\u{e9}"),
        ];
        for (status, code, reason) in good {
            let parsed = parse_status(status.as_bytes());
            assert_eq!(parsed, Ok((*code, reason.as_bytes())), "{status:?}");
        }
    }

    #[test]
    fn a_status_that_would_break_the_status_line_is_refused() {
        for status in ["", "20", "2000 OK", "OK", "200OK", " 200 OK", "+20 OK", "20x OK", "200\tOK"]
        {
            let error = parse_status(status.as_bytes()).unwrap_err();
            assert!(matches!(error, ResponseError::StatusLine(_)), "{status:?}: RFC 9112 4");
        }
        for status in ["200 OK\r\nX: y", "200 \n", "200 a\rb", "200 \0", "200 \x7f"] {
            let error = parse_status(status.as_bytes()).unwrap_err();
            assert!(matches!(error, ResponseError::Reason(_)), "{status:?}: RFC 9112 4");
        }
    }

    #[test]
    fn the_statuses_this_server_sends_itself_have_their_phrase() {
        for status in [100, 101, 103, 200, 400, 408, 413, 414, 417, 431, 500, 501, 503, 505] {
            assert_ne!(reason_phrase(status), "", "{status}");
        }
        assert_eq!(reason_phrase(413), "Content Too Large");
        assert_eq!(reason_phrase(299), "");
        assert_eq!(reason_phrase(999), "");
        assert_eq!(reason_phrase(0), "");
    }
}
