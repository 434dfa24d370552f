//! What a caller sees of a parsed head: the buffer through its index. Everything was decided when the
//! head was parsed; nothing here can fail.

use super::super::target::Target;
use super::{Framing, HeadIndex, Version};

/// What a response must know of the method it answers; RFC 9110 sections 9.3.2 and 9.3.6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestKind {
    /// HEAD: the response has no body.
    Head,
    /// CONNECT: a 2xx response has no framing.
    Connect,
    /// Any other method.
    #[default]
    Other,
}

/// A parsed request head: a view of its buffer through its [`HeadIndex`].
#[derive(Clone, Copy, Debug)]
pub struct Head<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) index: &'b HeadIndex,
}

impl<'b> Head<'b> {
    /// The method, a token in the case it was sent in (RFC 9110 section 9.1).
    pub fn method(&self) -> &'b str {
        text(self.index.method.slice(self.bytes))
    }

    /// What a response must know of the method.
    pub fn kind(&self) -> RequestKind {
        match self.index.method.slice(self.bytes) {
            b"HEAD" => RequestKind::Head,
            b"CONNECT" => RequestKind::Connect,
            _ => RequestKind::Other,
        }
    }

    /// The method and the target with the space between them, as sent.
    pub fn method_and_target(&self) -> &'b [u8] {
        &self.bytes[self.index.method.start()..self.index.target.end()]
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.index.version
    }

    /// The request target.
    pub fn target(&self) -> Target<'b> {
        Target::new(self.index.target.slice(self.bytes), self.index.target_layout)
    }

    /// The name of every kept header, as sent, with its value, without the white space around it.
    ///
    /// Names are tokens; values are HTAB, SP, VCHAR and bytes from 0x80 on (RFC 9110 section 5.5).
    /// `Proxy`, and by default every name with an underscore, is left out.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'b str, &'b [u8])> + use<'b> {
        let bytes = self.bytes;
        self.index
            .fields
            .iter()
            .map(move |field| (text(field.name.slice(bytes)), field.value.slice(bytes)))
    }

    /// The header at this position in [`headers`](Self::headers); its name in bytes.
    pub fn field(&self, position: usize) -> Option<(&'b [u8], &'b [u8])> {
        let field = self.index.fields.get(position)?;
        Some((field.name.slice(self.bytes), field.value.slice(self.bytes)))
    }

    /// The value of the first header called `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.index
            .fields
            .iter()
            .find(|field| field.name.slice(self.bytes).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value.slice(self.bytes))
    }

    /// How the end of the body is known.
    pub fn framing(&self) -> Framing {
        self.index.framing
    }

    /// Whether the client wants to send more requests on this connection, RFC 9112 section 9.3: with
    /// HTTP/1.1 unless it says `close`, with HTTP/1.0 only if it says `keep-alive` and not `close`.
    pub fn keep_alive(&self) -> bool {
        let connection = self.index.facts.connection;
        !connection.close && (self.index.version == Version::Http11 || connection.keep_alive)
    }

    /// Whether the client waits for a 100 (Continue) before it sends the body, RFC 9110 section
    /// 10.1.1; never with HTTP/1.0, and never when the body is absent or empty.
    pub fn expects_continue(&self) -> bool {
        self.index.facts.expects_continue
            && self.index.version == Version::Http11
            && !matches!(self.index.framing, Framing::None | Framing::Length(0))
    }

    /// The value of Upgrade if Connection names it too, RFC 9110 section 7.8; never with HTTP/1.0.
    ///
    /// It is a wish that may be ignored: a request with it is a request like any other.
    pub fn upgrade(&self) -> Option<&'b [u8]> {
        let named = self.index.facts.connection.upgrade && self.index.version == Version::Http11;
        self.index.facts.upgrade.filter(|_| named).map(|position| self.value(position))
    }

    /// The value of Content-Type, the first if there are several.
    pub fn content_type(&self) -> Option<&'b [u8]> {
        self.index.facts.content_type.map(|position| self.value(position))
    }

    /// `host[:port]` that the request is for: the target's authority if it has one, else the Host
    /// header (RFC 9112 section 3.3). It is valid, but may be empty.
    pub fn host(&self) -> Option<&'b [u8]> {
        self.target()
            .authority()
            .or_else(|| self.index.facts.host.map(|position| self.value(position)))
    }

    fn value(&self, position: usize) -> &'b [u8] {
        self.index.fields[position].value.slice(self.bytes)
    }
}

fn text(token: &[u8]) -> &str {
    str::from_utf8(token).expect("the parser took it for a token, which is ASCII")
}

#[cfg(test)]
mod tests {
    use super::super::HeadLimits;
    use super::super::tests::parse_every_way;
    use super::*;

    fn with_head<T>(wire: &str, check: impl FnOnce(Head<'_>) -> T) -> T {
        let limits = HeadLimits::default();
        parse_every_way(wire.as_bytes(), &limits).expect(wire);
        let mut index = HeadIndex::new();
        index.parse(wire.as_bytes(), &limits).unwrap();
        check(index.view(wire.as_bytes()))
    }

    fn with_fields<T>(version: &str, fields: &str, check: impl FnOnce(Head<'_>) -> T) -> T {
        with_head(&format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"), check)
    }

    #[test]
    fn a_head_shows_what_was_sent() {
        let wire = "\r\nPUT /a%20b?c=d HTTP/1.1\r\nHost: a\r\nX-Two:  b c\t\r\nx-two: d\r\n\
                    Content-TYPE: text/x\r\nContent-Length: 3\r\n\r\n";
        with_head(wire, |head| {
            assert_eq!((head.method(), head.version()), ("PUT", Version::Http11));
            assert_eq!(head.target().raw(), b"/a%20b?c=d");
            assert_eq!(
                (head.target().path(), head.target().query()),
                (&b"/a%20b"[..], &b"c=d"[..])
            );
            let headers: Vec<(&str, &[u8])> = head.headers().collect();
            let expected: [(&str, &[u8]); 5] = [
                ("Host", b"a"),
                ("X-Two", b"b c"),
                ("x-two", b"d"),
                ("Content-TYPE", b"text/x"),
                ("Content-Length", b"3"),
            ];
            assert_eq!(headers, expected);
            assert_eq!(head.header("x-TWO"), Some(&b"b c"[..]));
            assert_eq!(head.header("x-three"), None);
            assert_eq!(head.content_type(), Some(&b"text/x"[..]));
            assert_eq!(head.framing(), Framing::Length(3));
            assert_eq!((head.upgrade(), head.expects_continue()), (None, false));
        });
    }

    #[test]
    fn a_connection_is_kept_as_the_client_wishes_per_rfc_9112_section_9_3() {
        let cases: &[(&str, &str, bool)] = &[
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: x, CLOSE ,y\r\n", false),
            ("1.1", "Connection: x\r\nconnection: close\r\n", false),
            ("1.1", "Connection: closed, not-close\r\n", true),
            ("1.1", "Connection: keep-alive, close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ];
        for (version, fields, expected) in cases {
            with_fields(version, fields, |head| {
                assert_eq!(head.keep_alive(), *expected, "{version} {fields:?}");
            });
        }
    }

    #[test]
    fn a_client_waits_for_100_only_with_a_body_on_http_1_1_per_rfc_9110_section_10_1_1() {
        let cases: &[(&str, &str, bool)] = &[
            ("1.1", "Expect: 100-continue\r\nContent-Length: 1\r\n", true),
            ("1.1", "eXPECT: 100-Continue\r\nTransfer-Encoding: chunked\r\n", true),
            ("1.1", "Content-Length: 1\r\n", false),
            ("1.1", "Expect: 100-continue\r\n", false),
            ("1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", false),
            ("1.0", "Expect: 100-continue\r\nContent-Length: 1\r\n", false),
        ];
        for (version, fields, expected) in cases {
            with_fields(version, fields, |head| {
                assert_eq!(head.expects_continue(), *expected, "{version} {fields:?}");
            });
        }
    }

    #[test]
    fn an_upgrade_needs_its_connection_option_and_http_1_1_per_rfc_9110_section_7_8() {
        let cases: &[(&str, &str, Option<&str>)] = &[
            ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
            ("1.1", "Upgrade: a\r\nUpgrade: b\r\nConnection: x, upgrade\r\n", Some("a")),
            ("1.1", "Upgrade: websocket\r\n", None),
            ("1.1", "Connection: upgrade\r\n", None),
            ("1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n", None),
        ];
        for (version, fields, expected) in cases {
            with_fields(version, fields, |head| {
                assert_eq!(head.upgrade(), expected.map(str::as_bytes), "{version} {fields:?}");
            });
        }
    }

    #[test]
    fn a_targets_authority_wins_over_host_per_rfc_9112_section_3_2_2() {
        let cases: &[(&str, Option<&str>)] = &[
            ("GET / HTTP/1.1\r\nHost: a:1\r\n\r\n", Some("a:1")),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Some("")),
            ("GET / HTTP/1.0\r\n\r\n", None),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Some("b")),
            ("CONNECT c:443 HTTP/1.1\r\nHost: a\r\n\r\n", Some("c:443")),
        ];
        for (wire, expected) in cases {
            with_head(wire, |head| {
                assert_eq!(head.host(), expected.map(str::as_bytes), "{wire:?}");
            });
        }
    }

    #[test]
    fn the_methods_that_shape_a_response_are_told_apart() {
        let cases: &[(&str, RequestKind)] = &[
            ("HEAD /", RequestKind::Head),
            ("CONNECT a:1", RequestKind::Connect),
            ("GET /", RequestKind::Other),
            ("head /", RequestKind::Other), // RFC 9110 section 9.1: case-sensitive
        ];
        for (line, expected) in cases {
            with_head(&format!("{line} HTTP/1.0\r\n\r\n"), |head| {
                assert_eq!(head.kind(), *expected, "{line}");
            });
        }
    }
}
