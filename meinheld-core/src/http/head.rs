//! The head of a request, RFC 9112 sections 2 to 3 and 5: parsed in place, refused in doubt.
//!
//! ```text
//!   bytes ──► httparse ──► strict? ──► facts: framing, connection, Host ──► HeadIndex
//!                 │           │                      │
//!                 └── no ─────┴─► fault: which       └─► HeadError
//!                                 rule, or Incomplete
//! ```
//!
//! The buffer may move between parsing and use, so a [`HeadIndex`] holds offsets; with the buffer it
//! makes a [`Head`]. This is the one home of httparse, which is fast but takes bare LF, any target
//! and any framing: what it lets through is checked here, and what it refuses is named by `fault`.

mod error;
mod facts;
mod fault;
mod follow;
mod limits;
mod view;

use std::mem::MaybeUninit;

pub use error::HeadError;
pub use facts::Framing;
pub use follow::{Changes, Followed};
pub use limits::{HeadLimits, UnderscoreHeaders};
pub use view::{Head, RequestKind};

use super::span::Span;
use super::target::TargetLayout;
use facts::{Facts, Known};
use fault::Stop;
use limits::HEADER_COUNT_CEILING;

/// The longest method, in bytes; the longest that is registered has 17.
const METHOD_BYTES_MAX: usize = 32;
/// How many empty lines may come before a request line (RFC 9112 section 2.2).
const EMPTY_LINES_MAX: usize = 2;

/// The version of a request, RFC 9110 section 2.5; all others are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// How far [`HeadIndex::parse`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// All is well so far; more bytes are needed.
    Incomplete,
    /// The head is complete.
    Complete {
        /// Its length in bytes, with the empty lines before it and the one that ends it: where the
        /// body, or the next request, begins.
        head_bytes: usize,
    },
}

/// Whether `new_bytes`, just received, can complete a head or reveal a new fault worth a parse.
///
/// Every line of a head ends with LF, so a caller that waits for the rest of an incomplete head need
/// call [`HeadIndex::parse`] again only when this is true, or when the buffered bytes have reached
/// [`HeadLimits::head_bytes_max`]. A client that sends byte by byte then costs one parse a line. The
/// first bytes of a connection should be parsed in any case: what is no HTTP at all (a TLS hello) is
/// refused at once.
pub fn may_complete(new_bytes: &[u8]) -> bool {
    memchr::memchr(b'\n', new_bytes).is_some()
}

/// Where the parts of one request head lie in its buffer, and what its fields say about the message.
///
/// It is scratch space, to be reused for every request of a loop: filling it again allocates nothing
/// once it has seen as many fields.
#[derive(Debug, Default)]
pub struct HeadIndex {
    method: Span,
    target: Span,
    target_layout: TargetLayout,
    version: Version,
    facts: Facts,
    framing: Framing,
    fields: Vec<FieldSpans>,
    /// Whether there are field lines that were left out.
    has_gaps: bool,
}

#[derive(Clone, Copy, Debug)]
struct FieldSpans {
    name: Span,
    value: Span,
}

impl HeadIndex {
    /// An index of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses the head at the start of `bytes`, which may hold more behind it.
    ///
    /// The outcome depends only on the bytes, not on how they were cut: a prefix of a good head is
    /// [`Parsed::Incomplete`], and a prefix of a bad one is that or the error of the whole. Unless
    /// it returns [`Parsed::Complete`], the index is that of nothing.
    ///
    /// # Errors
    ///
    /// One [`HeadError`] for each rule a head can break; the connection is to be closed after the
    /// response that tells so.
    pub fn parse(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Parsed, HeadError> {
        self.clear();
        let window = &bytes[..bytes.len().min(limits.head_bytes())];
        match self.try_parse(window, limits) {
            Ok(head_bytes) => Ok(Parsed::Complete { head_bytes }),
            Err(stop) => {
                self.clear();
                match stop {
                    Stop::Short if window.len() < limits.head_bytes() => Ok(Parsed::Incomplete),
                    // RFC 6585 section 5: no byte more would be looked at.
                    Stop::Short => Err(HeadError::HeadTooLarge),
                    Stop::Fault(error) => Err(error),
                }
            }
        }
    }

    /// The head over `bytes`, in which it was parsed, wherever they are by now.
    ///
    /// # Panics
    ///
    /// The head's accessors may panic if `bytes` is shorter than what was parsed.
    pub fn view<'b>(&'b self, bytes: &'b [u8]) -> Head<'b> {
        Head { bytes, index: self }
    }

    /// Becomes the index of what `other` is the index of; allocates nothing once warm.
    pub(crate) fn copy_from(&mut self, other: &HeadIndex) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        fields.extend_from_slice(&other.fields);
        *self = Self { fields, ..*other };
    }

    fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    fn try_parse(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<usize, Stop> {
        let head_start = fault::skip_empty_lines(bytes)?;
        let head = &bytes[head_start..];
        let mut fields = [const { MaybeUninit::uninit() }; HEADER_COUNT_CEILING];
        let mut request = httparse::Request::new(&mut []);
        let outcome = request.parse_with_uninit_headers(head, &mut fields[..limits.header_count()]);
        if let Ok(httparse::Status::Complete(head_end)) = outcome
            && let Some(line) = strict_request_line(&request, &head[..head_end], limits)
        {
            self.fill(bytes, &line, request.headers, limits)?;
            return Ok(head_start + head_end);
        }
        fault::scan(head, limits)?;
        Err(HeadError::Malformed.into())
    }

    fn fill(
        &mut self,
        bytes: &[u8],
        line: &RequestLine<'_>,
        headers: &[httparse::Header<'_>],
        limits: &HeadLimits,
    ) -> Result<(), HeadError> {
        self.method = Span::of(line.method.as_bytes(), bytes);
        self.target = Span::of(line.target.as_bytes(), bytes);
        self.target_layout = line.target_layout;
        self.version = line.version;
        for header in headers {
            let name = header.name.as_bytes();
            if name.len() + header.value.len() > limits.header_bytes_max {
                return Err(HeadError::HeaderTooLarge);
            }
            let value = Span::of(header.value, bytes);
            match Known::of(name) {
                // A CGI variable HTTP_PROXY would redirect the application's own requests.
                Some(Known::Proxy) => {
                    self.has_gaps = true;
                    continue;
                }
                Some(known) => self.facts.note(known, header.value, self.fields.len())?,
                None if !name.contains(&b'_') => {}
                None => match limits.underscore_headers {
                    UnderscoreHeaders::Keep if !passes_for_framing(name) => {}
                    UnderscoreHeaders::Refuse => return Err(HeadError::HeaderUnderscore),
                    UnderscoreHeaders::Keep | UnderscoreHeaders::Drop => {
                        self.has_gaps = true;
                        continue;
                    }
                },
            }
            self.fields.push(FieldSpans { name: Span::of(name, bytes), value });
        }
        self.framing = self.facts.conclude(line.version)?;
        Ok(())
    }
}

/// Whether the CGI variable of this name is that of a header which tells what the body is (RFC 3875
/// section 4.1.2 and 4.1.3): it was not told by this one.
fn passes_for_framing(name: &[u8]) -> bool {
    let twins: [&[u8]; 3] = [b"content_length", b"content_type", b"transfer_encoding"];
    twins.iter().any(|twin| name.eq_ignore_ascii_case(twin))
}

struct RequestLine<'b> {
    method: &'b str,
    target: &'b str,
    target_layout: TargetLayout,
    version: Version,
}

/// The request line of a head that httparse took, or `None` if there is something in the whole head
/// that it should not have taken; `fault` knows what.
fn strict_request_line<'b>(
    request: &httparse::Request<'_, 'b>,
    head: &[u8],
    limits: &HeadLimits,
) -> Option<RequestLine<'b>> {
    let (method, target) = (request.method?, request.path?);
    let version = if request.version? == 1 { Version::Http11 } else { Version::Http10 };
    let fits = method.len() <= METHOD_BYTES_MAX && target.len() <= limits.target_bytes_max;
    let target_layout = TargetLayout::parse(method.as_bytes(), target.as_bytes())?;
    (fits && ends_every_line_with_crlf(request.headers, head)).then_some(RequestLine {
        method,
        target,
        target_layout,
        version,
    })
}

/// httparse takes LF for CR LF, as RFC 9112 section 2.2 allows; but requests are smuggled between
/// those that do and those that do not. It takes LF nowhere else, so that looking before each field
/// name and at the end is enough.
fn ends_every_line_with_crlf(headers: &[httparse::Header<'_>], head: &[u8]) -> bool {
    head.ends_with(b"\r\n\r\n")
        && headers.iter().all(|header| {
            let start = header.name.as_ptr().addr() - head.as_ptr().addr();
            head[..start].ends_with(b"\r\n")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay;

    /// Parses `wire` whole and every prefix of it, and returns what the whole gave; and has it answered
    /// on connections that bring it whole and in pieces.
    ///
    /// A prefix of a good head must be incomplete, one of a bad head that or the same error, and what
    /// comes after a head must not matter.
    pub(super) fn parse_every_way(wire: &[u8], limits: &HeadLimits) -> Result<Parsed, HeadError> {
        let mut index = HeadIndex::new();
        let whole = index.parse(wire, limits);
        let is_cleared =
            |index: &HeadIndex| index.fields.is_empty() && index.view(b"").method().is_empty();
        let head_bytes = if let Ok(Parsed::Complete { head_bytes }) = whole {
            head_bytes
        } else {
            assert!(is_cleared(&index));
            wire.len()
        };
        for cut in 0..head_bytes {
            let part = index.parse(&wire[..cut], limits);
            let agrees = part == Ok(Parsed::Incomplete) || (whole.is_err() && part == whole);
            assert!(agrees, "{part:?} for {:?}", wire[..cut].escape_ascii().to_string());
            assert!(is_cleared(&index));
        }
        replay::head(wire, limits);
        whole
    }

    /// The error of a request with this line and these field lines.
    pub(super) fn refusal(wire: &[u8]) -> Option<HeadError> {
        parse_every_way(wire, &HeadLimits::default()).err()
    }

    #[test]
    fn a_head_is_complete_at_its_empty_line_and_not_before_per_rfc_9112_section_2_1() {
        let cases: &[(&str, &str)] = &[
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "3"),
            ("GET / HTTP/1.0\r\n\r\n", "3.2: no Host in HTTP/1.0"),
            ("\r\nGET / HTTP/1.0\r\n\r\n", "2.2: an empty line"),
            ("\r\n\r\nGET / HTTP/1.0\r\n\r\n", "2.2: two empty lines"),
            ("POST /a?b HTTP/1.1\r\nHost:a\r\nX:\r\nY: \t \r\n\r\n", "5: empty values"),
            ("GET http://b/ HTTP/1.1\r\nHost:\r\n\r\n", "3.2: an empty Host"),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "3.2.3"),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "3.2.4"),
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n", "3.1: any token"),
            ("M-SEARCH!# / HTTP/1.1\r\nHost: a\r\n\r\n", "3.1: any token"),
            ("GET /\u{e9}?\u{e9} HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n", "obs-text"),
        ];
        for (wire, rule) in cases {
            let limits = HeadLimits::default();
            let complete = Ok(Parsed::Complete { head_bytes: wire.len() });
            assert_eq!(parse_every_way(wire.as_bytes(), &limits), complete, "{wire:?}: {rule}");
            let longer = format!("{wire}\0\n body or next request");
            assert_eq!(parse_every_way(longer.as_bytes(), &limits), complete, "{longer:?}");
        }
    }

    #[test]
    fn a_head_is_at_most_as_long_as_allowed_per_rfc_6585_section_5() {
        let wire = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for (head_bytes_max, expected) in [
            (wire.len(), Ok(Parsed::Complete { head_bytes: wire.len() })),
            (wire.len() - 1, Err(HeadError::HeadTooLarge)),
            (0, Err(HeadError::HeadTooLarge)),
        ] {
            let limits = HeadLimits { head_bytes_max, ..HeadLimits::default() };
            assert_eq!(HeadIndex::new().parse(wire, &limits), expected, "{head_bytes_max}");
        }
        assert_eq!(HeadError::HeadTooLarge.status(), 431);
        let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &b"a".repeat(40_000)].concat();
        let limits = HeadLimits::default();
        assert_eq!(HeadIndex::new().parse(&endless, &limits), Err(HeadError::HeadTooLarge));
        let limits = HeadLimits { head_bytes_max: usize::MAX, ..limits };
        assert_eq!(HeadIndex::new().parse(&endless, &limits), Ok(Parsed::Incomplete));
    }

    #[test]
    fn a_head_has_at_most_as_many_fields_as_allowed_per_rfc_6585_section_5() {
        for (header_count_max, count, fits) in [
            (3, 3, true),
            (3, 4, false),
            (100, 101, false),
            (1000, HEADER_COUNT_CEILING, true),
            (1000, HEADER_COUNT_CEILING + 1, false),
        ] {
            // One is the Host; the others are dropped, and count all the same.
            let fields = "a_b: c\r\n".repeat(count - 1);
            let wire = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let limits = HeadLimits { header_count_max, ..HeadLimits::default() };
            let outcome = parse_every_way(wire.as_bytes(), &limits);
            assert_eq!(outcome.is_ok(), fits, "{count} of {header_count_max}");
            if let Err(error) = outcome {
                assert_eq!((error, error.status()), (HeadError::TooManyHeaders, 431));
            }
        }
    }

    #[test]
    fn a_field_is_at_most_as_long_as_allowed_per_rfc_6585_section_5() {
        let limits = HeadLimits { header_bytes_max: 8, ..HeadLimits::default() };
        for (field, fits) in [("Abc: defgh", true), ("Abc: defghi", false), ("A_c: defghi", false)]
        {
            let wire = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\nX: y\r\n\r\n");
            let outcome = parse_every_way(wire.as_bytes(), &limits);
            assert_eq!(outcome.is_ok(), fits, "{field}");
            if let Err(error) = outcome {
                assert_eq!((error, error.status()), (HeadError::HeaderTooLarge, 431));
            }
        }
    }

    #[test]
    fn a_target_is_at_most_as_long_as_allowed_per_rfc_9112_section_3() {
        let limits = HeadLimits { target_bytes_max: 4, ..HeadLimits::default() };
        let wire = b"GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(parse_every_way(wire, &limits).is_ok());
        for wire in ["GET /a?bc HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a?bc", "GET /abcdefgh"] {
            let error = parse_every_way(wire.as_bytes(), &limits).unwrap_err();
            assert_eq!((error, error.status()), (HeadError::TargetTooLong, 414), "{wire}");
        }
    }

    #[test]
    fn underscore_names_and_proxy_never_become_cgi_variables_of_other_headers() {
        let wire = b"GET / HTTP/1.1\r\nHost: a\r\nX_A: 1\r\nProxy: 2\r\npRoXy: 3\r\nX-A: 4\r\n\r\n";
        let limits =
            HeadLimits { underscore_headers: UnderscoreHeaders::Refuse, ..HeadLimits::default() };
        assert_eq!(parse_every_way(wire, &limits), Err(HeadError::HeaderUnderscore));
        assert_eq!(HeadError::HeaderUnderscore.status(), 400);
        let proxy = b"GET / HTTP/1.1\r\nHost: a\r\nProxy: 2\r\nX-A: 4\r\n\r\n";
        assert!(parse_every_way(proxy, &limits).is_ok());
        let cases: &[(UnderscoreHeaders, &[&str])] = &[
            (UnderscoreHeaders::Drop, &["Host", "X-A"]),
            (UnderscoreHeaders::Keep, &["Host", "X_A", "X-A"]),
        ];
        for (underscore_headers, expected) in cases {
            let limits =
                HeadLimits { underscore_headers: *underscore_headers, ..HeadLimits::default() };
            let mut index = HeadIndex::new();
            index.parse(wire, &limits).unwrap();
            let names: Vec<&str> = index.view(wire).headers().map(|(name, _)| name).collect();
            assert_eq!(names, *expected);
        }
    }

    #[test]
    fn a_kept_underscore_does_not_contradict_the_framing_per_rfc_3875_section_4_1() {
        let wire = b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 9\r\nCONTENT_TYPE: a\r\n\
                     Transfer_encoding: chunked\r\nX_A: 1\r\nContent-Length: 0\r\n\r\n";
        let limits =
            HeadLimits { underscore_headers: UnderscoreHeaders::Keep, ..HeadLimits::default() };
        assert!(parse_every_way(wire, &limits).is_ok());
        let mut index = HeadIndex::new();
        index.parse(wire, &limits).unwrap();
        let head = index.view(wire);
        let names: Vec<&str> = head.headers().map(|(name, _)| name).collect();
        assert_eq!(names, ["Host", "X_A", "Content-Length"]);
        assert_eq!(head.framing(), Framing::Length(0));
    }

    #[test]
    fn an_index_survives_that_its_buffer_moves_and_is_refilled() {
        let mut index = HeadIndex::new();
        let limits = HeadLimits::default();
        for path in ["/first", "/second/longer"] {
            let wire = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
            index.parse(&wire, &limits).unwrap();
            let moved = wire.clone();
            drop(wire);
            assert_eq!(index.view(&moved).target().path(), path.as_bytes());
            assert_eq!(index.view(&moved).headers().len(), 1);
        }
    }

    #[test]
    fn only_a_line_feed_can_complete_a_head() {
        assert!(!may_complete(b""));
        assert!(!may_complete(b"GET / HTTP/1.1\r"));
        assert!(may_complete(b"\n"));
    }

    /// httparse and the slow reader must never differ: a head that one takes and the other refuses
    /// would be `Malformed` or stay incomplete for ever.
    #[test]
    fn the_fast_and_the_slow_reader_agree_on_mutated_heads() {
        let seed =
            b"\r\nPOST http://a/b?c HTTP/1.1\r\nHost: a\r\nX: y\t \r\nContent-Length: 1\r\n\r\n";
        let replacements = b"\0\t\n\r !\"#%*/:;?@[\\]_a{|}~\x7f\x80\xc3\xa9\xff019";
        let limits = HeadLimits::default();
        let check = |wire: &[u8]| {
            let outcome = HeadIndex::new().parse(wire, &limits);
            assert_ne!(outcome, Err(HeadError::Malformed), "{}", wire.escape_ascii());
            let slow = fault::skip_empty_lines(wire)
                .and_then(|start| fault::scan(&wire[start..], &limits));
            match outcome {
                Ok(Parsed::Complete { .. }) => assert_eq!(slow, Ok(()), "{}", wire.escape_ascii()),
                Ok(Parsed::Incomplete) => assert_eq!(slow, Err(Stop::Short)),
                // A slow reader that found nothing leaves what the fields mean.
                Err(error) => assert!(slow == Ok(()) || slow == Err(Stop::Fault(error))),
            }
        };
        for at in 0..seed.len() {
            for &byte in replacements {
                let mut wire = seed.to_vec();
                wire[at] = byte;
                check(&wire);
                wire.insert(at, seed[at]);
                check(&wire);
                wire.drain(at..at + 2);
                check(&wire);
            }
        }
    }
}
