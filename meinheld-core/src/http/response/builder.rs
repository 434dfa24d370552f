//! Encodes the head of one response: what the application says, checked, and what the server adds.

use std::cell::RefCell;
use std::sync::Arc;

use super::super::encoding::push_decimal;
use super::super::grammar::{is_field_value, parse_decimal};
use super::super::head::{RequestKind, Version};
use super::fields::{self, ConnectionWish, Known};
use super::{BodyEncoding, BodyPlan, KeepAlive, RequestFacts, ResponseError, ServerFields, canned};

/// Room for the status line and a few headers.
const BLOCK_BYTES: usize = 128;

/// Room for what [`ResponseBuilder::finish`] adds.
const FINISH_BYTES: usize = 192;

/// What an application says of a response, checked and encoded: the status line and its headers.
///
/// It knows neither the request nor the server, so that one that repeats need be made once only, and
/// nothing of it can be sent before [`finish`](Self::finish) completes it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts independent of each other")]
pub struct ResponseBuilder {
    /// The status line and the headers, but for those that `finish` writes.
    block: Vec<u8>,
    status: u16,
    content_length: Option<u64>,
    has_date: bool,
    has_server: bool,
    has_upgrade: bool,
    closes: bool,
    /// How it was finished last.
    finished: RefCell<Finished>,
}

/// A head as [`ResponseBuilder::finish`] has encoded it for `occasion`.
#[derive(Debug, Default)]
struct Finished {
    occasion: Option<Occasion>,
    /// Empty until an occasion comes a second time: most of what is encoded once never comes again.
    head: Vec<u8>,
    plan: Option<BodyPlan>,
}

/// All that a head depends on beside what the application says.
#[derive(Debug)]
struct Occasion {
    request: RequestFacts,
    known_body_bytes: Option<u64>,
    unix_seconds: u64,
    server: Arc<[u8]>,
}

impl ResponseBuilder {
    /// Begins a final response. The version is HTTP/1.1 whatever the request's is (RFC 9110 section
    /// 6.2).
    ///
    /// # Errors
    ///
    /// [`ResponseError::Status`], [`ResponseError::InterimStatus`] or [`ResponseError::Reason`].
    pub fn begin(status: u16, reason: &[u8]) -> Result<Self, ResponseError> {
        match status {
            200..=599 => Self::begin_with(status, reason),
            // RFC 9110 section 15.2.
            100..=199 => Err(ResponseError::InterimStatus(status)),
            // RFC 9110 section 15.
            _ => Err(ResponseError::Status(status)),
        }
    }

    /// Begins a 101 (Switching Protocols), RFC 9110 section 15.2.2. An Upgrade header must follow;
    /// `Connection: Upgrade` is added.
    ///
    /// # Errors
    ///
    /// [`ResponseError::Reason`].
    pub fn begin_upgrade(reason: &[u8]) -> Result<Self, ResponseError> {
        Self::begin_with(101, reason)
    }

    fn begin_with(status: u16, reason: &[u8]) -> Result<Self, ResponseError> {
        // RFC 9112 section 4.
        if !is_field_value(reason) {
            return Err(ResponseError::Reason(reason.escape_ascii().to_string()));
        }
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        block.extend_from_slice(b"HTTP/1.1 ");
        canned::push_status(status, reason, &mut block);
        block.extend_from_slice(b"\r\n");
        Ok(Self {
            block,
            status,
            content_length: None,
            has_date: false,
            has_server: false,
            has_upgrade: false,
            closes: false,
            finished: RefCell::default(),
        })
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Adds a header. Connection and Content-Length are taken in and written by
    /// [`finish`](Self::finish), as far as the response may have them.
    ///
    /// # Errors
    ///
    /// [`ResponseError::HeaderName`], [`ResponseError::HeaderValue`], [`ResponseError::HopByHop`],
    /// [`ResponseError::ContentLengthMalformed`] or [`ResponseError::ContentLengthRepeated`]; then
    /// nothing was added.
    pub fn header(&mut self, name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
        fields::validate(name, value)?;
        self.finished.get_mut().occasion = None;
        match Known::of(name) {
            None => {}
            Some(Known::Date) => self.has_date = true,
            Some(Known::Server) => self.has_server = true,
            Some(Known::ContentLength) => return self.take_content_length(value),
            Some(Known::Connection) => return self.take_connection(value),
            Some(Known::Upgrade) if self.may_upgrade() => self.has_upgrade = true,
            // PEP 3333, "Other HTTP Features".
            Some(Known::Upgrade | Known::HopByHop) => {
                return Err(ResponseError::HopByHop(fields::display(name)));
            }
        }
        fields::push(name, value, &mut self.block);
        Ok(())
    }

    /// RFC 9110 sections 15.2.2 and 15.5.22: the two responses that must have an Upgrade header.
    fn may_upgrade(&self) -> bool {
        matches!(self.status, 101 | 426)
    }

    /// RFC 9110 section 8.6.
    fn take_content_length(&mut self, value: &[u8]) -> Result<(), ResponseError> {
        if self.content_length.is_some() {
            return Err(ResponseError::ContentLengthRepeated);
        }
        let malformed = || ResponseError::ContentLengthMalformed(fields::display(value));
        self.content_length = Some(parse_decimal(value).ok_or_else(malformed)?);
        Ok(())
    }

    /// The application may ask for the connection to be closed, and for nothing else: to keep it is
    /// the server's to decide.
    fn take_connection(&mut self, value: &[u8]) -> Result<(), ResponseError> {
        let wish = ConnectionWish::parse(value)?;
        if wish.upgrade && !self.may_upgrade() {
            return Err(ResponseError::HopByHop("Connection".to_owned()));
        }
        if wish.close {
            self.close();
        }
        Ok(())
    }

    /// Has the connection closed after this response, whatever the request wishes.
    pub fn close(&mut self) {
        self.finished.get_mut().occasion = None;
        self.closes = true;
    }

    /// Appends the complete head to `out`: with Date and Server unless the application gave its own,
    /// the framing of the body, Connection, and the empty line. Tells what its writer has to do.
    ///
    /// `known_body_bytes` is the length of the whole body, in bytes, if it is known already. A
    /// Content-Length of the application's wins over it.
    ///
    /// # Errors
    ///
    /// [`ResponseError::UpgradeMissing`] or [`ResponseError::UpgradeOnHttp10`]; then `out` is as it was.
    pub fn finish(
        &self,
        request: RequestFacts,
        known_body_bytes: Option<u64>,
        server: &ServerFields,
        out: &mut Vec<u8>,
    ) -> Result<BodyPlan, ResponseError> {
        let mut finished = self.finished.borrow_mut();
        let repeats = finished.is_for(request, known_body_bytes, server);
        if let (true, Some(plan)) = (repeats, finished.plan) {
            out.extend_from_slice(&finished.head);
            return Ok(plan);
        }
        let start = out.len();
        let plan = self.encode(request, known_body_bytes, server, out)?;
        if repeats {
            finished.head.extend_from_slice(&out[start..]);
            finished.plan = Some(plan);
        } else {
            finished.note(request, known_body_bytes, server);
        }
        Ok(plan)
    }

    fn encode(
        &self,
        request: RequestFacts,
        known_body_bytes: Option<u64>,
        server: &ServerFields,
        out: &mut Vec<u8>,
    ) -> Result<BodyPlan, ResponseError> {
        self.check_upgrade(request)?;
        out.reserve(self.block.len() + FINISH_BYTES);
        out.extend_from_slice(&self.block);
        if !self.has_date {
            out.extend_from_slice(server.date.line());
        }
        if !self.has_server {
            out.extend_from_slice(server.name.line());
        }
        let (encoding, length) = self.framing(request, known_body_bytes);
        push_framing(encoding, length, out);
        let keep_alive = match encoding {
            BodyEncoding::UntilClose => KeepAlive::Close,
            _ if self.closes => KeepAlive::Close,
            _ => request.keep_alive,
        };
        out.extend_from_slice(self.connection_line(request.version, keep_alive));
        out.extend_from_slice(b"\r\n");
        Ok(BodyPlan { encoding, keep_alive })
    }

    /// RFC 9110 sections 7.8 and 15.2.2.
    fn check_upgrade(&self, request: RequestFacts) -> Result<(), ResponseError> {
        match (self.status, request.version) {
            (101, Version::Http10) => Err(ResponseError::UpgradeOnHttp10),
            (101, Version::Http11) if !self.has_upgrade => Err(ResponseError::UpgradeMissing),
            _ => Ok(()),
        }
    }

    /// How the body is to be written, and which Content-Length to tell: RFC 9112 section 6.3 from the
    /// sender's side.
    fn framing(
        &self,
        request: RequestFacts,
        known_body_bytes: Option<u64>,
    ) -> (BodyEncoding, Option<u64>) {
        match (self.status, request.kind) {
            // RFC 9110 sections 8.6 and 9.3.6: neither Content-Length nor Transfer-Encoding.
            (101, _) | (200..=299, RequestKind::Connect) => (BodyEncoding::UntilClose, None),
            // RFC 9110 section 8.6: no Content-Length, not even the application's.
            (204, _) => (BodyEncoding::None, None),
            // RFC 9110 section 15.3.6.
            (205, _) => (BodyEncoding::None, Some(0)),
            // RFC 9110 section 15.4.5: what a 200 would have had, which only the application knows.
            (304, _) => (BodyEncoding::None, self.content_length),
            // RFC 9110 section 9.3.2: the same as to GET. An application that yields nothing for HEAD
            // says nothing of the length that GET would have.
            (_, RequestKind::Head) => {
                let known = known_body_bytes.filter(|&body_bytes| body_bytes > 0);
                (BodyEncoding::None, self.content_length.or(known))
            }
            _ => match (self.content_length.or(known_body_bytes), request.version) {
                (Some(body_bytes), _) => (BodyEncoding::Length(body_bytes), Some(body_bytes)),
                // RFC 9112 section 6.1: Transfer-Encoding only to those who know HTTP/1.1.
                (None, Version::Http10) => (BodyEncoding::UntilClose, None),
                (None, Version::Http11) => (BodyEncoding::Chunked, None),
            },
        }
    }

    /// RFC 9112 section 9.3: what the version does not say by itself.
    fn connection_line(&self, version: Version, keep_alive: KeepAlive) -> &'static [u8] {
        match (self.status, keep_alive, version) {
            (101, ..) => b"Connection: Upgrade\r\n",
            (_, KeepAlive::Close, _) if self.has_upgrade => b"Connection: close, Upgrade\r\n",
            (_, KeepAlive::Keep, Version::Http11) if self.has_upgrade => b"Connection: Upgrade\r\n",
            (_, KeepAlive::Keep, Version::Http10) if self.has_upgrade => {
                b"Connection: keep-alive, Upgrade\r\n"
            }
            (_, KeepAlive::Close, _) => b"Connection: close\r\n",
            (_, KeepAlive::Keep, Version::Http10) => b"Connection: keep-alive\r\n",
            (_, KeepAlive::Keep, Version::Http11) => b"",
        }
    }
}

impl Finished {
    fn is_for(
        &self,
        request: RequestFacts,
        known_body_bytes: Option<u64>,
        server: &ServerFields,
    ) -> bool {
        self.occasion.as_ref().is_some_and(|last| {
            last.request == request
                && last.known_body_bytes == known_body_bytes
                && last.unix_seconds == server.date.unix_seconds()
                && Arc::ptr_eq(&last.server, &server.name.line)
        })
    }

    fn note(
        &mut self,
        request: RequestFacts,
        known_body_bytes: Option<u64>,
        server: &ServerFields,
    ) {
        let unix_seconds = server.date.unix_seconds();
        let server = Arc::clone(&server.name.line);
        self.occasion = Some(Occasion { request, known_body_bytes, unix_seconds, server });
        self.head.clear();
        self.plan = None;
    }
}

fn push_framing(encoding: BodyEncoding, length: Option<u64>, out: &mut Vec<u8>) {
    if let Some(body_bytes) = length {
        out.extend_from_slice(b"Content-Length: ");
        push_decimal(body_bytes, out);
        out.extend_from_slice(b"\r\n");
    }
    if encoding == BodyEncoding::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::date::DateCache;
    use super::super::{SERVER_NAME, ServerName};
    use super::*;

    const GET: RequestFacts = RequestFacts {
        version: Version::Http11,
        kind: RequestKind::Other,
        keep_alive: KeepAlive::Keep,
    };
    const HEAD: RequestFacts = RequestFacts { kind: RequestKind::Head, ..GET };
    const CONNECT: RequestFacts = RequestFacts { kind: RequestKind::Connect, ..GET };
    const CLOSING: RequestFacts = RequestFacts { keep_alive: KeepAlive::Close, ..GET };
    const OLD: RequestFacts = RequestFacts { version: Version::Http10, ..GET };

    fn server() -> ServerFields {
        ServerFields { date: DateCache::new(784_111_777), name: ServerName::new("").unwrap() }
    }

    /// A status with its headers, encoded: what follows the status line without Date, and the plan.
    fn encode(
        request: RequestFacts,
        status: u16,
        headers: &[(&str, &str)],
        known_body_bytes: Option<u64>,
    ) -> Result<(String, BodyPlan), ResponseError> {
        let mut builder = match status {
            101 => ResponseBuilder::begin_upgrade(b"Why")?,
            _ => ResponseBuilder::begin(status, b"Why")?,
        };
        for (name, value) in headers {
            builder.header(name.as_bytes(), value.as_bytes())?;
        }
        let mut out = b"kept".to_vec();
        let finished = builder.finish(request, known_body_bytes, &server(), &mut out);
        let plan = finished.inspect_err(|_| assert_eq!(out, b"kept"))?;
        let text = String::from_utf8(out).expect("the tests send ASCII");
        let text = text.replace("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "");
        let fields = text.strip_prefix(&format!("keptHTTP/1.1 {status} Why\r\n"));
        Ok((fields.expect("the status line comes first").to_owned(), plan))
    }

    fn finish(
        builder: &ResponseBuilder,
        request: RequestFacts,
        known_body_bytes: Option<u64>,
        fields: &ServerFields,
    ) -> (Vec<u8>, BodyPlan) {
        let mut out = Vec::new();
        let plan = builder.finish(request, known_body_bytes, fields, &mut out).unwrap();
        (out, plan)
    }

    #[test]
    fn a_response_is_completed_and_nothing_is_said_twice() {
        let fields = ServerFields { name: ServerName::default(), ..server() };
        let mut builder = ResponseBuilder::begin(200, b"OK").unwrap();
        builder.header(b"Content-Type", b"text/plain").unwrap();
        let (out, _) = finish(&builder, GET, Some(5), &fields);
        let expected = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: {SERVER_NAME}\r\n\
             Content-Length: 5\r\n\r\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);

        let mut builder = ResponseBuilder::begin(200, b"").unwrap();
        builder.header(b"dATE", b"mine").unwrap();
        builder.header(b"SERVER", b"mine").unwrap();
        builder.header(b"content-length", b"3").unwrap();
        let (out, _) = finish(&builder, GET, Some(5), &fields);
        let expected = "HTTP/1.1 200 \r\ndATE: mine\r\nSERVER: mine\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn what_is_finished_again_is_as_if_it_were_the_first_time() {
        let begin = |headers: usize, closes: bool| {
            let mut builder = ResponseBuilder::begin(200, b"OK").unwrap();
            for _ in 0..headers {
                builder.header(b"X", b"y").unwrap();
            }
            if closes {
                builder.close();
            }
            builder
        };
        let servers = [server(), ServerFields { name: ServerName::default(), ..server() }];
        let later = ServerFields { date: DateCache::new(784_111_778), ..server() };
        let [one, other] = &servers;
        let courses = [
            (GET, Some(5), one),
            (GET, Some(5), other),
            (GET, Some(6), one),
            (GET, None, one),
            (HEAD, Some(5), one),
            (CLOSING, Some(5), one),
            (OLD, Some(5), one),
            (GET, Some(5), &later),
        ];
        let mut builder = begin(0, false);
        for (headers, closes) in [(0, false), (1, false), (1, true), (2, true)] {
            for (request, known, server) in courses.iter().chain(&courses) {
                let expected = finish(&begin(headers, closes), *request, *known, server);
                for _ in 0..4 {
                    assert_eq!(finish(&builder, *request, *known, server), expected);
                }
            }
            match (headers, closes) {
                (1, false) => builder.close(),
                _ => builder.header(b"X", b"y").unwrap(),
            }
        }
    }

    #[test]
    fn the_framing_follows_status_request_and_length_per_rfc_9112_section_6_3() {
        use BodyEncoding::{Chunked, Length, None as Nothing, UntilClose};
        const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
        const CLOSE: &str = "Connection: close\r\n";
        const KEEP: &str = "Connection: keep-alive\r\n";
        type Headers = &'static [(&'static str, &'static str)];
        const APP_9: Headers = &[("Content-Length", "9")];
        // Request, status, the application's headers, the known length; what is written, the plan.
        type Case =
            (RequestFacts, u16, Headers, Option<u64>, &'static [&'static str], BodyEncoding);
        let cases: &[Case] = &[
            (GET, 200, &[], Some(5), &["Content-Length: 5\r\n"], Length(5)),
            (GET, 200, &[], Some(0), &["Content-Length: 0\r\n"], Length(0)),
            (GET, 200, &[], None, &[CHUNKED], Chunked),
            (GET, 200, APP_9, None, &["Content-Length: 9\r\n"], Length(9)),
            (GET, 200, APP_9, Some(5), &["Content-Length: 9\r\n"], Length(9)),
            (CLOSING, 200, &[], None, &[CHUNKED, CLOSE], Chunked),
            (OLD, 200, &[], None, &[CLOSE], UntilClose),
            (OLD, 200, &[], Some(5), &["Content-Length: 5\r\n", KEEP], Length(5)),
            (GET, 404, &[], Some(5), &["Content-Length: 5\r\n"], Length(5)),
            // RFC 9110 section 8.6.
            (GET, 204, &[], None, &[], Nothing),
            (GET, 204, &[], Some(5), &[], Nothing),
            (GET, 204, APP_9, None, &[], Nothing),
            (OLD, 204, &[], None, &[KEEP], Nothing),
            // RFC 9110 section 15.3.6.
            (GET, 205, APP_9, None, &["Content-Length: 0\r\n"], Nothing),
            // RFC 9110 section 15.4.5.
            (GET, 304, &[], Some(0), &[], Nothing),
            (GET, 304, APP_9, Some(0), &["Content-Length: 9\r\n"], Nothing),
            // RFC 9110 section 9.3.2.
            (HEAD, 200, &[], None, &[], Nothing),
            (HEAD, 200, &[], Some(0), &[], Nothing),
            (HEAD, 200, &[], Some(5), &["Content-Length: 5\r\n"], Nothing),
            (HEAD, 200, APP_9, Some(0), &["Content-Length: 9\r\n"], Nothing),
            // RFC 9110 section 9.3.6.
            (CONNECT, 200, APP_9, None, &[CLOSE], UntilClose),
            (CONNECT, 404, &[], Some(5), &["Content-Length: 5\r\n"], Length(5)),
        ];
        for case in cases {
            let (request, status, headers, known, lines, encoding) = *case;
            let (written, plan) = encode(request, status, headers, known).unwrap();
            assert_eq!(written, lines.concat() + "\r\n", "{case:?}");
            assert_eq!(plan.encoding, encoding, "{case:?}");
            let closes = written.contains(CLOSE);
            assert_eq!(plan.keep_alive == KeepAlive::Close, closes, "{case:?}");
        }
    }

    #[test]
    fn an_application_may_close_a_connection_but_not_keep_it_per_rfc_9112_section_9_3() {
        let cases: &[(RequestFacts, &str, &str, KeepAlive)] = &[
            (GET, "close", "Connection: close\r\n", KeepAlive::Close),
            (GET, "Keep-Alive, CLOSE", "Connection: close\r\n", KeepAlive::Close),
            (GET, "keep-alive", "", KeepAlive::Keep),
            (GET, "", "", KeepAlive::Keep),
            (CLOSING, "keep-alive", "Connection: close\r\n", KeepAlive::Close),
            (OLD, "close", "Connection: close\r\n", KeepAlive::Close),
            (OLD, "keep-alive", "Connection: keep-alive\r\n", KeepAlive::Keep),
        ];
        for (request, value, line, keep_alive) in cases {
            let headers = [("Connection", *value)];
            let (written, plan) = encode(*request, 200, &headers, Some(0)).unwrap();
            assert_eq!(written, format!("Content-Length: 0\r\n{line}\r\n"), "{value}");
            assert_eq!(plan.keep_alive, *keep_alive, "{value}");
        }
    }

    #[test]
    fn headers_about_the_connection_are_the_servers_per_pep_3333() {
        let names = [
            "Keep-Alive",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Trailers",
            "transfer-encoding",
            "Upgrade",
        ];
        for name in names {
            let error = encode(GET, 200, &[(name, "chunked")], None).unwrap_err();
            assert_eq!(error, ResponseError::HopByHop(name.to_owned()));
        }
        for value in ["Upgrade", "close, X-Mine", "Transfer-Encoding"] {
            let error = encode(GET, 200, &[("Connection", value)], None).unwrap_err();
            assert_eq!(error, ResponseError::HopByHop("Connection".to_owned()), "{value}");
        }
    }

    #[test]
    fn what_would_split_a_response_is_refused_and_named() {
        let cases: &[(&str, &str, ResponseError)] = &[
            ("X", "a\r\nSet-Cookie: b", ResponseError::HeaderValue("X".into())),
            ("X", "a\nb", ResponseError::HeaderValue("X".into())),
            ("X", "a\rb", ResponseError::HeaderValue("X".into())),
            ("X", "a\0b", ResponseError::HeaderValue("X".into())),
            ("X", "\x7f", ResponseError::HeaderValue("X".into())),
            ("X-A\r\nB", "c", ResponseError::HeaderName("X-A\\r\\nB".into())),
            ("X A", "b", ResponseError::HeaderName("X A".into())),
            ("X:", "b", ResponseError::HeaderName("X:".into())),
            ("", "b", ResponseError::HeaderName(String::new())),
            ("Content-Length", "x", ResponseError::ContentLengthMalformed("x".into())),
            ("Content-Length", "-1", ResponseError::ContentLengthMalformed("-1".into())),
            ("Content-Length", "1, 1", ResponseError::ContentLengthMalformed("1, 1".into())),
            ("Content-Length", "", ResponseError::ContentLengthMalformed(String::new())),
        ];
        for (name, value, expected) in cases {
            let headers = [("A", "b"), (*name, *value)];
            let error = encode(GET, 200, &headers, None).unwrap_err();
            assert_eq!(error, *expected, "{name:?}: {value:?}");
            assert!(!error.to_string().contains(char::is_control), "one clear line");
        }
        let twice = [("Content-Length", "1"), ("content-length", "1")];
        assert_eq!(encode(GET, 200, &twice, None), Err(ResponseError::ContentLengthRepeated));
    }

    #[test]
    fn a_final_status_is_within_200_to_599_per_rfc_9110_section_15() {
        for status in [0, 99, 600, 999, u16::MAX] {
            assert_eq!(encode(GET, status, &[], None), Err(ResponseError::Status(status)));
        }
        for status in [100, 102, 103, 199] {
            assert_eq!(encode(GET, status, &[], None), Err(ResponseError::InterimStatus(status)));
        }
        let error = ResponseBuilder::begin(101, b"").unwrap_err();
        assert_eq!(error, ResponseError::InterimStatus(101));
        let error = ResponseBuilder::begin(200, b"a\r\nb").unwrap_err();
        assert_eq!(error, ResponseError::Reason("a\\r\\nb".into()));
    }

    #[test]
    fn an_upgrade_is_explicit_per_rfc_9110_section_7_8() {
        let headers = [("Upgrade", "websocket"), ("Connection", "Upgrade")];
        let (written, plan) = encode(GET, 101, &headers, None).unwrap();
        assert_eq!(written, "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        let expected =
            BodyPlan { encoding: BodyEncoding::UntilClose, keep_alive: KeepAlive::Close };
        assert_eq!(plan, expected);
        assert_eq!(encode(GET, 101, &[], None), Err(ResponseError::UpgradeMissing));
        assert_eq!(encode(OLD, 101, &headers, None), Err(ResponseError::UpgradeOnHttp10));
    }

    #[test]
    fn a_426_names_the_protocol_it_wants_per_rfc_9110_section_15_5_22() {
        let headers = [("Upgrade", "websocket"), ("Connection", "Upgrade")];
        for (request, connection) in
            [(GET, "Upgrade"), (OLD, "keep-alive, Upgrade"), (CLOSING, "close, Upgrade")]
        {
            let (written, plan) = encode(request, 426, &headers, Some(0)).unwrap();
            let expected = format!(
                "Upgrade: websocket\r\nContent-Length: 0\r\nConnection: {connection}\r\n\r\n"
            );
            assert_eq!(written, expected);
            assert_eq!(plan.keep_alive, request.keep_alive);
        }
    }

    #[test]
    fn one_builder_answers_any_number_of_requests() {
        let mut builder = ResponseBuilder::begin(200, b"OK").unwrap();
        builder.header(b"X", b"y").unwrap();
        let first = finish(&builder, GET, Some(1), &server());
        assert_eq!(finish(&builder, CLOSING, Some(2), &server()).1.keep_alive, KeepAlive::Close);
        assert_eq!(finish(&builder, GET, Some(1), &server()), first);
    }

    #[test]
    fn a_header_that_is_refused_leaves_no_byte() {
        let mut builder = ResponseBuilder::begin(200, b"OK").unwrap();
        for (name, value) in [("X", "a\r\nb"), ("X Y", "a"), ("TE", "a"), ("Connection", "x")] {
            builder.header(name.as_bytes(), value.as_bytes()).unwrap_err();
        }
        let (out, _) = finish(&builder, GET, Some(0), &server());
        assert!(out.starts_with(b"HTTP/1.1 200 OK\r\nDate: "), "{}", out.escape_ascii());
    }

    #[test]
    fn the_server_may_close_a_connection_until_the_head_is_finished() {
        let mut builder = ResponseBuilder::begin(200, b"OK").unwrap();
        builder.close();
        let (out, plan) = finish(&builder, GET, Some(0), &server());
        assert!(out.ends_with(b"Connection: close\r\n\r\n"));
        assert_eq!(plan.keep_alive, KeepAlive::Close);
    }

    #[test]
    fn bytes_from_0x80_on_pass_as_they_are_per_rfc_9110_section_5_5() {
        let mut builder = ResponseBuilder::begin(200, b"\xe9").unwrap();
        builder.header(b"X", b"\xff\t\x80").unwrap();
        let (out, _) = finish(&builder, GET, Some(0), &server());
        assert!(out.starts_with(b"HTTP/1.1 200 \xe9\r\nX: \xff\t\x80\r\n"));
    }
}
