//! The request target, RFC 9112 section 3.2: which of its four forms it has, and its parts.
//!
//! Not here: the length limit (the head's) and any decision on what a path means.

use super::grammar::{hex_digit, is_path_byte, is_query_byte};
use super::host::{is_host, is_host_with_port};
use super::span::Span;

/// Which of the four forms of RFC 9112 section 3.2 a request target has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`, section 3.2.1.
    #[default]
    Origin,
    /// `http://host/path?query`, section 3.2.2. Its authority wins over the Host header.
    Absolute,
    /// `host:port`, section 3.2.3; with CONNECT, and only with it.
    Authority,
    /// `*`, section 3.2.4; with OPTIONS, and only with it.
    Asterisk,
}

/// A request target in the form that its method allows, over the bytes as they were sent.
#[derive(Clone, Copy, Debug)]
pub struct Target<'b> {
    raw: &'b [u8],
    layout: TargetLayout,
}

/// Where the parts of a target lie, relative to its first byte.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TargetLayout {
    form: TargetForm,
    authority: Span,
    path: Span,
    query: Span,
}

impl<'b> Target<'b> {
    pub(super) fn new(raw: &'b [u8], layout: TargetLayout) -> Self {
        Self { raw, layout }
    }

    /// Which form the target has.
    pub fn form(&self) -> TargetForm {
        self.layout.form
    }

    /// The whole target, as sent.
    pub fn raw(&self) -> &'b [u8] {
        self.raw
    }

    /// The path, as sent and not decoded (see [`percent_decode_path`]).
    ///
    /// It is `/` when an absolute-form has none (RFC 9110 section 4.2.3), `*` for the asterisk-form
    /// and empty for the authority-form.
    pub fn path(&self) -> &'b [u8] {
        match self.layout.path.slice(self.raw) {
            b"" if self.layout.form == TargetForm::Absolute => b"/",
            path => path,
        }
    }

    /// What follows the first `?`, as sent; empty if there is no `?`.
    pub fn query(&self) -> &'b [u8] {
        self.layout.query.slice(self.raw)
    }

    /// `host[:port]` of an absolute-form or an authority-form.
    ///
    /// For an absolute-form it replaces the Host header (RFC 9112 section 3.2.2).
    pub fn authority(&self) -> Option<&'b [u8]> {
        match self.layout.form {
            TargetForm::Absolute | TargetForm::Authority => {
                Some(self.layout.authority.slice(self.raw))
            }
            TargetForm::Origin | TargetForm::Asterisk => None,
        }
    }

    /// `http` or `https` of an absolute-form, in the case it was sent in.
    pub fn scheme(&self) -> Option<&'b [u8]> {
        let separator = b"://".len();
        (self.layout.form == TargetForm::Absolute)
            .then(|| &self.raw[..self.layout.authority.start() - separator])
    }
}

impl TargetLayout {
    /// Finds the parts of `raw`; `None` if a character or the form is not allowed for `method`.
    ///
    /// Bytes from 0x80 on are taken: that they are UTF-8 is checked where the head is parsed.
    pub(super) fn parse(method: &[u8], raw: &[u8]) -> Option<Self> {
        let (path_end, query) = split_query(raw)?;
        let whole = Self { path: Span::new(0, path_end), query, ..Self::default() };
        match (method, raw) {
            (b"CONNECT", _) => is_host_with_port(raw).then(|| Self::authority(raw)),
            (_, [b'/', ..]) => Some(whole),
            (b"OPTIONS", b"*") => Some(Self { form: TargetForm::Asterisk, ..whole }),
            _ => whole.absolute(raw, path_end),
        }
    }

    fn authority(raw: &[u8]) -> Self {
        Self { form: TargetForm::Authority, authority: Span::new(0, raw.len()), ..Self::default() }
    }

    /// `scheme "://" authority path-abempty`. Other schemes than http are nothing that this server
    /// could answer for, and an empty or malformed authority is refused (RFC 9110 section 4.2).
    fn absolute(self, raw: &[u8], path_end: usize) -> Option<Self> {
        let before_query = &raw[..path_end];
        let scheme_bytes = memchr::memchr(b':', before_query)?;
        let (scheme, rest) = before_query.split_at(scheme_bytes);
        let rest = rest.strip_prefix(b"://")?;
        let start = path_end - rest.len();
        let end = start + memchr::memchr(b'/', rest).unwrap_or(rest.len());
        let known = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
        (known && is_host(&raw[start..end])).then(|| Self {
            form: TargetForm::Absolute,
            authority: Span::new(start, end),
            path: Span::new(end, path_end),
            ..self
        })
    }
}

/// Where the path ends and which part is the query; `None` if a character is not allowed.
fn split_query(raw: &[u8]) -> Option<(usize, Span)> {
    let end = raw.len();
    let path_end = raw.iter().position(|&byte| !is_path_byte(byte)).unwrap_or(end);
    match &raw[path_end..] {
        [] => Some((path_end, Span::new(end, end))),
        [b'?', query @ ..] if query.iter().all(|&byte| is_query_byte(byte)) => {
            Some((path_end, Span::new(path_end + 1, end)))
        }
        _ => None,
    }
}

/// Appends `path` to `out` with each `%` and two hexadecimal digits replaced by the byte they stand
/// for (RFC 3986 section 2.1).
///
/// It decodes once, so that `%2541` becomes `%41`, and leaves a malformed escape as it is.
pub fn percent_decode_path(mut path: &[u8], out: &mut Vec<u8>) {
    while let Some(percent) = memchr::memchr(b'%', path) {
        let (plain, escape) = path.split_at(percent);
        out.extend_from_slice(plain);
        let (byte, escape_bytes) = match escape {
            [_, high, low, ..] => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => (b'%', 1),
            },
            _ => (b'%', 1),
        };
        out.push(byte);
        path = &escape[escape_bytes..];
    }
    out.extend_from_slice(path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay;

    fn parse<'b>(method: &str, raw: &'b str) -> Option<Target<'b>> {
        let layout = TargetLayout::parse(method.as_bytes(), raw.as_bytes())?;
        Some(Target::new(raw.as_bytes(), layout))
    }

    fn replay_target(method: &str, raw: &str, status: u16) {
        let wire = format!("{method} {raw} HTTP/1.1\r\nHost: a\r\n\r\n");
        let answers = replay::answers(wire.as_bytes());
        assert_eq!(
            answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(),
            [status],
            "{wire}"
        );
    }

    #[test]
    fn an_origin_form_has_a_path_and_a_query_per_rfc_9112_section_3_2_1() {
        let cases: &[(&str, &str, &str)] = &[
            ("/", "/", ""),
            ("/a/b?c=d", "/a/b", "c=d"),
            ("/?", "/", ""),
            ("/??/?", "/", "?/?"),
            ("//host/x", "//host/x", ""),
            ("/a%2Fb;p=1,2@3:4", "/a%2Fb;p=1,2@3:4", ""),
            ("/a[0]|b?f[x]={y}|\\^`", "/a[0]|b", "f[x]={y}|\\^`"),
            ("/caf\u{e9}?\u{e9}", "/caf\u{e9}", "\u{e9}"),
            ("/http://x/", "/http://x/", ""),
        ];
        for (raw, path, query) in cases {
            let target = parse("GET", raw).expect(raw);
            assert_eq!(target.form(), TargetForm::Origin, "{raw}");
            assert_eq!(target.path(), path.as_bytes(), "{raw}");
            assert_eq!(target.query(), query.as_bytes(), "{raw}");
            assert_eq!(target.raw(), raw.as_bytes());
            assert_eq!((target.authority(), target.scheme()), (None, None));
            replay_target("GET", raw, 200);
        }
    }

    #[test]
    fn an_absolute_form_brings_its_authority_per_rfc_9112_section_3_2_2() {
        let cases: &[(&str, &str, &str, &str, &str)] = &[
            ("http://example.com/x?y", "http", "example.com", "/x", "y"),
            ("HTTPS://example.com:1/", "HTTPS", "example.com:1", "/", ""),
            ("http://example.com", "http", "example.com", "/", ""),
            ("http://[::1]:80?q=/z", "http", "[::1]:80", "/", "q=/z"),
        ];
        for (raw, scheme, authority, path, query) in cases {
            let target = parse("GET", raw).expect(raw);
            assert_eq!(target.form(), TargetForm::Absolute, "{raw}");
            assert_eq!(target.scheme(), Some(scheme.as_bytes()), "{raw}");
            assert_eq!(target.authority(), Some(authority.as_bytes()), "{raw}");
            assert_eq!(target.path(), path.as_bytes(), "{raw}");
            assert_eq!(target.query(), query.as_bytes(), "{raw}");
            replay_target("GET", raw, 200);
        }
    }

    #[test]
    fn authority_and_asterisk_belong_to_their_method_per_rfc_9112_section_3_2() {
        let connect = parse("CONNECT", "example.com:443").expect("3.2.3");
        assert_eq!(connect.form(), TargetForm::Authority);
        assert_eq!(connect.authority(), Some(&b"example.com:443"[..]));
        assert_eq!((connect.path(), connect.query()), (&b""[..], &b""[..]));
        let options = parse("OPTIONS", "*").expect("3.2.4");
        assert_eq!(options.form(), TargetForm::Asterisk);
        assert_eq!(options.path(), b"*");
    }

    #[test]
    fn every_other_target_is_refused() {
        let cases: &[(&str, &str, &str)] = &[
            ("GET", "*", "9112 3.2.4"),
            ("OPTIONS", "**", "9112 3.2.4"),
            ("options", "*", "9110 9.1: methods are case-sensitive"),
            ("GET", "foo", "9112 3.2.1"),
            ("GET", "example.com:80", "9112 3.2.3"),
            ("GET", "", "9112 3.2"),
            ("GET", "?x", "9112 3.2.1"),
            ("CONNECT", "/", "9112 3.2.3"),
            ("CONNECT", "http://example.com/", "9112 3.2.3"),
            ("CONNECT", "example.com", "9110 9.3.6"),
            ("CONNECT", "example.com:443/x", "9112 3.2.3"),
            ("GET", "http:///x", "9110 4.2.1"),
            ("GET", "http://", "9110 4.2.1"),
            ("GET", "http:/x", "3986 3"),
            ("GET", "http://u@example.com/", "9110 4.2.4"),
            ("GET", "http://a b/", "3986 3.2.2"),
            ("GET", "ftp://example.com/", "9110 4.2"),
            ("GET", "://example.com/", "3986 3.1"),
            ("GET", "/#f", "9112 3.2: no fragment"),
            ("GET", "/?#f", "9112 3.2: no fragment"),
            ("GET", "/a b", "9112 3.2: no white space"),
            ("GET", "/a\tb", "9112 3.2: no white space"),
            ("GET", "/\0", "3986 2"),
            ("GET", "/\x7f", "3986 2"),
            ("GET", "/?\x1f", "3986 2"),
            ("GET", "/\"", "3986 2"),
            ("GET", "/<", "3986 2"),
            ("GET", "/>", "3986 2"),
            ("GET", "/\\", "3986 2"),
            ("GET", "/^", "3986 2"),
            ("GET", "/`", "3986 2"),
            ("GET", "/{", "3986 2"),
            ("GET", "/}", "3986 2"),
            ("GET", "/?\"", "3986 2"),
            ("GET", "/?<", "3986 2"),
            ("GET", "/?>", "3986 2"),
        ];
        for (method, raw, rule) in cases {
            assert!(parse(method, raw).is_none(), "{method} {raw:?}: RFC {rule}");
            replay_target(method, raw, 400);
        }
    }

    #[test]
    fn a_path_is_decoded_once_and_malformed_escapes_stay() {
        let cases: &[(&str, &[u8])] = &[
            ("", b""),
            ("/plain", b"/plain"),
            ("/%41%62%2f", b"/Ab/"),
            ("/%2541", b"/%41"),
            ("/%e9", b"/\xe9"),
            ("/%00", b"/\0"),
            ("/%", b"/%"),
            ("/%4", b"/%4"),
            ("/%4g%41", b"/%4gA"),
            ("/%%41", b"/%A"),
            ("/+", b"/+"),
        ];
        for (path, expected) in cases {
            let mut out = b"kept".to_vec();
            percent_decode_path(path.as_bytes(), &mut out);
            assert_eq!(out.strip_prefix(b"kept"), Some(*expected), "{path}");
        }
    }
}
