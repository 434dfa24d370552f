//! Why a request head is refused: one variant for each rule, with the status that answers it.

use std::fmt;

/// The rule that a request head broke. After the response the connection is to be closed: where the
/// next request would begin is not known for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadError {
    /// More than two empty lines before the request line, RFC 9112 section 2.2: 400.
    EmptyLines,
    /// A line that ends with LF alone, RFC 9112 section 2.2: 400.
    BareLineFeed,
    /// A CR that LF does not follow, RFC 9112 section 2.2: 400.
    BareCarriageReturn,
    /// A method that is no token, RFC 9112 section 3.1: 400.
    Method,
    /// A method longer than 32 bytes, longer than any that is implemented, RFC 9112 section 3: 501.
    MethodTooLong,
    /// A character that a request target may not hold, or bytes from 0x80 on that are not UTF-8,
    /// RFC 9112 section 3.2: 400.
    TargetCharacter,
    /// A request target in none of the four forms, or not in the one that its method needs, RFC 9112
    /// section 3.2: 400.
    TargetForm,
    /// A request target over [`target_bytes_max`](super::HeadLimits::target_bytes_max), RFC 9112
    /// section 3: 414.
    TargetTooLong,
    /// No version, or one that is not `HTTP/` DIGIT `.` DIGIT, RFC 9112 section 2.3: 400.
    Version,
    /// A version other than 1.0 and 1.1, RFC 9110 section 15.6.6: 505.
    VersionNotSupported,
    /// A head over [`head_bytes_max`](super::HeadLimits::head_bytes_max), RFC 6585 section 5: 431.
    HeadTooLarge,
    /// More field lines than [`header_count_max`](super::HeadLimits::header_count_max), RFC 6585
    /// section 5: 431.
    TooManyHeaders,
    /// A field over [`header_bytes_max`](super::HeadLimits::header_bytes_max), RFC 6585 section 5: 431.
    HeaderTooLarge,
    /// A line that begins with white space, RFC 9112 sections 2.2 and 5.2: 400.
    LineFolding,
    /// White space between a field name and its colon, RFC 9112 section 5.1: 400.
    SpaceBeforeColon,
    /// A field name that is no token, or no colon after it, RFC 9112 section 5: 400.
    HeaderName,
    /// A field name with an underscore, where
    /// [`UnderscoreHeaders::Refuse`](super::UnderscoreHeaders::Refuse) was chosen: 400.
    HeaderUnderscore,
    /// A control character in a field value, RFC 9110 section 5.5: 400.
    HeaderValue,
    /// No Host with HTTP/1.1, RFC 9112 section 3.2: 400.
    HostMissing,
    /// More than one Host, RFC 9112 section 3.2: 400.
    HostRepeated,
    /// A Host that is neither empty nor `uri-host [":" port]`, RFC 9112 section 3.2: 400.
    HostMalformed,
    /// A Content-Length that is not `1*DIGIT` below 2^64, RFC 9112 section 6.3: 400.
    ContentLengthMalformed,
    /// More than one Content-Length, even with one value, RFC 9112 section 6.3: 400.
    ContentLengthRepeated,
    /// Both Content-Length and Transfer-Encoding, RFC 9112 section 6.1: 400.
    ContentLengthWithTransferEncoding,
    /// A Transfer-Encoding that is no list of codings with one `chunked` as its last, RFC 9112
    /// sections 6.1 and 6.3: 400.
    TransferEncodingMalformed,
    /// A transfer coding before `chunked`, RFC 9112 section 6.1: 501.
    TransferCodingUnknown,
    /// Transfer-Encoding with HTTP/1.0, RFC 9112 section 6.1: 400.
    TransferEncodingOnHttp10,
    /// An Expect that is not `100-continue`, RFC 9110 section 10.1.1: 417.
    Expectation,
    /// Refused by the parser for a reason that has no variant of its own, RFC 9112 section 2.2: 400.
    Malformed,
}

impl HeadError {
    /// The status code of the response that tells the client.
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge | Self::TooManyHeaders | Self::HeaderTooLarge => 431,
            Self::MethodTooLong | Self::TransferCodingUnknown => 501,
            Self::VersionNotSupported => 505,
            _ => 400,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyLines => "too many empty lines before the request line",
            Self::BareLineFeed => "a line of the request head ends with LF alone",
            Self::BareCarriageReturn => "the request head holds a CR without LF",
            Self::Method => "the method is not a token",
            Self::MethodTooLong => "the method is too long",
            Self::TargetCharacter => "the request target holds a character that is not allowed",
            Self::TargetForm => "the request target does not have a form its method allows",
            Self::TargetTooLong => "the request target is too long",
            Self::Version => "the request line has no valid HTTP version",
            Self::VersionNotSupported => "the HTTP version is not 1.0 or 1.1",
            Self::HeadTooLarge => "the request head is too large",
            Self::TooManyHeaders => "the request has too many header fields",
            Self::HeaderTooLarge => "a header field of the request is too large",
            Self::LineFolding => "a header line begins with white space",
            Self::SpaceBeforeColon => "white space before the colon of a header",
            Self::HeaderName => "a header name is not a token followed by a colon",
            Self::HeaderUnderscore => "a header name holds an underscore",
            Self::HeaderValue => "a header value holds a control character",
            Self::HostMissing => "the Host header is missing",
            Self::HostRepeated => "the Host header is repeated",
            Self::HostMalformed => "the Host header is not a host with an optional port",
            Self::ContentLengthMalformed => "Content-Length is not a decimal number",
            Self::ContentLengthRepeated => "Content-Length is repeated",
            Self::ContentLengthWithTransferEncoding => {
                "both Content-Length and Transfer-Encoding are present"
            }
            Self::TransferEncodingMalformed => "Transfer-Encoding does not end with one chunked",
            Self::TransferCodingUnknown => "the transfer coding is not implemented",
            Self::TransferEncodingOnHttp10 => "Transfer-Encoding in an HTTP/1.0 request",
            Self::Expectation => "the expectation is not 100-continue",
            Self::Malformed => "the request head is malformed",
        })
    }
}

impl std::error::Error for HeadError {}

#[cfg(test)]
mod tests {
    use super::HeadError;

    #[test]
    fn an_error_is_one_line_with_a_client_or_server_error_status() {
        for error in [HeadError::EmptyLines, HeadError::Malformed, HeadError::Expectation] {
            assert!((400..=599).contains(&error.status()));
            assert!(!error.to_string().contains('\n'));
        }
    }
}
