//! Why the head of a response is refused. Unlike the peer's faults these are the application's, and
//! somebody has to find them: each names what it is about.

use std::fmt;

/// The rule that the head of an application's response broke; none of its bytes are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// A status that does not begin with three digits and a space, PEP 3333.
    StatusLine(String),
    /// A status code outside 100 to 599, RFC 9110 section 15.
    Status(u16),
    /// A 1xx status code for a final response, RFC 9110 section 15.2.
    InterimStatus(u16),
    /// A control character in the reason phrase, RFC 9112 section 4.
    Reason(String),
    /// A header name that is no token, RFC 9110 section 5.1.
    HeaderName(String),
    /// A control character in the value of this header, RFC 9110 section 5.5.
    HeaderValue(String),
    /// A header about the connection, which is the server's to send, RFC 9110 section 7.6.1 and PEP
    /// 3333.
    HopByHop(String),
    /// A Content-Length that is not `1*DIGIT` below 2^64, RFC 9110 section 8.6.
    ContentLengthMalformed(String),
    /// More than one Content-Length, RFC 9110 section 8.6.
    ContentLengthRepeated,
    /// A header that may not stand in a 1xx response, RFC 9110 sections 8.6 and 15.2.
    NotInInterim(String),
    /// A 101 (Switching Protocols) without Upgrade, RFC 9110 section 15.2.2.
    UpgradeMissing,
    /// A 101 (Switching Protocols) to an HTTP/1.0 request, RFC 9110 section 7.8.
    UpgradeOnHttp10,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StatusLine(status) => {
                write!(f, "status '{status}' is not three digits, a space and a reason phrase")
            }
            Self::Status(code) => write!(f, "status code {code} is not within 100 to 599"),
            Self::InterimStatus(code) => {
                write!(f, "status code {code} cannot be that of a final response")
            }
            Self::Reason(reason) => {
                write!(f, "reason phrase '{reason}' holds a control character")
            }
            Self::HeaderName(name) => write!(f, "header name '{name}' is not a token"),
            Self::HeaderValue(name) => {
                write!(f, "the value of header '{name}' holds a control character")
            }
            Self::HopByHop(name) => {
                write!(f, "hop-by-hop header '{name}' is not the application's to send")
            }
            Self::ContentLengthMalformed(value) => {
                write!(f, "Content-Length '{value}' is not a decimal number")
            }
            Self::ContentLengthRepeated => f.write_str("Content-Length is given twice"),
            Self::NotInInterim(name) => {
                write!(f, "header '{name}' cannot stand in an interim response")
            }
            Self::UpgradeMissing => f.write_str("status code 101 needs an Upgrade header"),
            Self::UpgradeOnHttp10 => f.write_str("status code 101 cannot answer HTTP/1.0"),
        }
    }
}

impl std::error::Error for ResponseError {}
