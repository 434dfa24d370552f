//! The slow, strict reader of a request head: it finds the first byte that breaks a rule and names
//! the rule, for heads that the fast parser refused, doubted or found incomplete.
//!
//! It reads in the order of the bytes and decides at the first that decides, so that a head gives the
//! same error however it was cut. It refuses to know what fields mean.

use super::super::grammar::{is_path_byte, is_query_byte, is_token_byte, is_value_byte};
use super::super::target::TargetLayout;
use super::{EMPTY_LINES_MAX, HeadError, HeadLimits, METHOD_BYTES_MAX};

/// Why reading did not come to the end of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes ended; nothing is wrong with those that are there.
    Short,
    Fault(HeadError),
}

impl From<HeadError> for Stop {
    fn from(error: HeadError) -> Self {
        Self::Fault(error)
    }
}

/// How many bytes of empty lines there are before the request line (RFC 9112 section 2.2).
pub(super) fn skip_empty_lines(bytes: &[u8]) -> Result<usize, Stop> {
    let mut reader = Reader { bytes, at: 0 };
    while let Some(b'\r' | b'\n') = bytes.get(reader.at) {
        if reader.at == EMPTY_LINES_MAX * b"\r\n".len() {
            return Err(HeadError::EmptyLines.into());
        }
        reader.line_end()?;
    }
    Ok(reader.at)
}

/// Reads the head that begins with the first of `bytes`, to the empty line that ends it.
pub(super) fn scan(bytes: &[u8], limits: &HeadLimits) -> Result<(), Stop> {
    let mut reader = Reader { bytes, at: 0 };
    reader.request_line(limits)?;
    for _ in 0..limits.header_count() {
        if reader.is_at_empty_line()? {
            return reader.line_end();
        }
        reader.field_line()?;
    }
    if reader.is_at_empty_line()? {
        return reader.line_end();
    }
    Err(HeadError::TooManyHeaders.into())
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    /// RFC 9112 section 3.
    fn request_line(&mut self, limits: &HeadLimits) -> Result<(), Stop> {
        let method = self.method()?;
        let target = self.target(limits)?;
        self.version()?;
        // After the version, so that the preface of HTTP/2 is answered with 505.
        TargetLayout::parse(method, target).ok_or(HeadError::TargetForm)?;
        Ok(())
    }

    /// RFC 9112 section 3.1.
    fn method(&mut self) -> Result<&'b [u8], Stop> {
        let method = self.run(is_token_byte);
        if method.len() > METHOD_BYTES_MAX {
            return Err(HeadError::MethodTooLong.into());
        }
        match self.peek()? {
            b' ' if !method.is_empty() => self.at += 1,
            _ => return Err(HeadError::Method.into()),
        }
        Ok(method)
    }

    /// RFC 9112 section 3.2, the characters; the form is judged with the whole line.
    fn target(&mut self, limits: &HeadLimits) -> Result<&'b [u8], Stop> {
        let start = self.at;
        self.run(is_path_byte);
        if self.bytes.get(self.at) == Some(&b'?') {
            self.run(is_query_byte);
        }
        let target = &self.bytes[start..self.at];
        if target.len() > limits.target_bytes_max {
            return Err(HeadError::TargetTooLong.into());
        }
        match self.peek()? {
            b' ' if !target.is_empty() && str::from_utf8(target).is_ok() => self.at += 1,
            // RFC 9112 section 3: the line of HTTP/0.9, which has no version.
            b'\r' | b'\n' if !target.is_empty() => return Err(HeadError::Version.into()),
            _ => return Err(HeadError::TargetCharacter.into()),
        }
        Ok(target)
    }

    /// RFC 9112 section 2.3, to the end of the line.
    fn version(&mut self) -> Result<(), Stop> {
        for expected in b"HTTP/" {
            self.expect(|byte| byte == *expected, HeadError::Version)?;
        }
        let major = self.expect(|byte| byte.is_ascii_digit(), HeadError::Version)?;
        self.expect(|byte| byte == b'.', HeadError::Version)?;
        let minor = self.expect(|byte| byte.is_ascii_digit(), HeadError::Version)?;
        match self.peek()? {
            b'\r' | b'\n' => self.line_end()?,
            _ => return Err(HeadError::Version.into()),
        }
        match (major, minor) {
            (b'1', b'0' | b'1') => Ok(()),
            _ => Err(HeadError::VersionNotSupported.into()),
        }
    }

    /// RFC 9112 section 5.
    fn field_line(&mut self) -> Result<(), Stop> {
        let name = self.run(is_token_byte);
        match self.peek()? {
            b':' if !name.is_empty() => self.at += 1,
            b' ' | b'\t' if name.is_empty() => return Err(HeadError::LineFolding.into()),
            b' ' | b'\t' => return Err(HeadError::SpaceBeforeColon.into()),
            _ => return Err(HeadError::HeaderName.into()),
        }
        self.run(is_value_byte);
        match self.peek()? {
            b'\r' | b'\n' => self.line_end(),
            _ => Err(HeadError::HeaderValue.into()),
        }
    }

    fn is_at_empty_line(&self) -> Result<bool, Stop> {
        Ok(matches!(self.peek()?, b'\r' | b'\n'))
    }

    /// CR LF and nothing else, RFC 9112 section 2.2.
    fn line_end(&mut self) -> Result<(), Stop> {
        self.expect(|byte| byte == b'\r', HeadError::BareLineFeed)?;
        self.expect(|byte| byte == b'\n', HeadError::BareCarriageReturn)?;
        Ok(())
    }

    fn expect(&mut self, is_good: impl Fn(u8) -> bool, fault: HeadError) -> Result<u8, Stop> {
        let byte = self.peek()?;
        if !is_good(byte) {
            return Err(fault.into());
        }
        self.at += 1;
        Ok(byte)
    }

    /// Takes the longest run of bytes of a class, perhaps to the end of what is there.
    fn run(&mut self, is_member: impl Fn(u8) -> bool) -> &'b [u8] {
        let rest = &self.bytes[self.at..];
        let run_bytes = rest.iter().position(|&byte| !is_member(byte)).unwrap_or(rest.len());
        self.at += run_bytes;
        &rest[..run_bytes]
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::Short)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::refusal;
    use super::*;

    /// What is wrong, how it is named, and the section it breaks, of RFC 9112 unless it says so.
    type Case = (&'static [u8], HeadError, &'static str);

    fn check(cases: &[Case]) {
        for (wire, error, rule) in cases {
            assert_eq!(refusal(wire), Some(*error), "{}: {rule}", wire.escape_ascii());
        }
    }

    #[test]
    fn a_malformed_request_line_is_refused() {
        check(&[
            (b"\x16\x03\x01\x02\x00\x01", HeadError::Method, "3.1: a TLS hello"),
            (b"\0", HeadError::Method, "3.1"),
            (b" GET / HTTP/1.1\r\n", HeadError::Method, "3.1: no leading space"),
            (b"G(T / HTTP/1.1\r\n", HeadError::Method, "3.1"),
            (b"G\xc3\xa9T / HTTP/1.1\r\n", HeadError::Method, "3.1"),
            (b"GET\t/ HTTP/1.1\r\n", HeadError::Method, "3: one SP"),
            (b"GET\r\n", HeadError::Method, "3"),
            (
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\nHost: a\r\n\r\n",
                HeadError::MethodTooLong,
                "3: 33 bytes",
            ),
            (b"GET  / HTTP/1.1\r\n", HeadError::TargetCharacter, "3: one SP"),
            (b"GET \r\n", HeadError::TargetCharacter, "3"),
            (b"GET /a\0b HTTP/1.1\r\n", HeadError::TargetCharacter, "3.2"),
            (b"GET /a\tb HTTP/1.1\r\n", HeadError::TargetCharacter, "3.2"),
            (b"GET /a\x7fb HTTP/1.1\r\n", HeadError::TargetCharacter, "3.2"),
            (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetCharacter, "3.2"),
            (b"GET /?a#b HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetCharacter, "3.2"),
            (b"GET /\"<>\\^`{} HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetCharacter, "3.2"),
            (b"GET /?\"<> HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetCharacter, "3.2"),
            (b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetCharacter, "3.2: UTF-8"),
            (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetForm, "3.2.4"),
            (b"GET foo HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetForm, "3.2.1"),
            (b"GET a:1 HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetForm, "3.2.3"),
            (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetForm, "3.2.3"),
            (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetForm, "9110 4.2.4"),
        ]);
    }

    #[test]
    fn a_malformed_or_unknown_version_is_refused() {
        check(&[
            (b"GET /\r\n", HeadError::Version, "3: HTTP/0.9"),
            (b"GET /\n", HeadError::Version, "3: HTTP/0.9"),
            (b"GET / \r\n", HeadError::Version, "2.3"),
            (b"GET / /a HTTP/1.1\r\n", HeadError::Version, "3: a space in the target"),
            (b"GET / http/1.1\r\n", HeadError::Version, "2.3: case-sensitive"),
            (b"GET / HTTPS/1.1\r\n", HeadError::Version, "2.3"),
            (b"GET / HTTP/1\r\n", HeadError::Version, "2.3"),
            (b"GET / HTTP/1,1\r\n", HeadError::Version, "2.3"),
            (b"GET / HTTP/1.10\r\n", HeadError::Version, "2.3: one digit"),
            (b"GET / HTTP/11.1\r\n", HeadError::Version, "2.3: one digit"),
            (b"GET / HTTP/1.1 \r\n", HeadError::Version, "3: nothing after it"),
            (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", HeadError::VersionNotSupported, "9110 15.6.6"),
            (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", HeadError::VersionNotSupported, "9110 15.6.6"),
            (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", HeadError::VersionNotSupported, "9110 15.6.6"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HeadError::VersionNotSupported, "9113 3.4"),
        ]);
        assert_eq!(HeadError::Version.status(), 400);
        assert_eq!(HeadError::VersionNotSupported.status(), 505);
    }

    #[test]
    fn a_line_ends_with_cr_lf_only_per_rfc_9112_section_2_2() {
        check(&[
            (b"\nGET / HTTP/1.0\r\n\r\n", HeadError::BareLineFeed, "before the request line"),
            (b"\r\n\nGET / HTTP/1.0\r\n\r\n", HeadError::BareLineFeed, "before the request line"),
            (b"GET / HTTP/1.0\n\r\n", HeadError::BareLineFeed, "after the request line"),
            (b"GET / HTTP/1.0\n\n", HeadError::BareLineFeed, "everywhere"),
            (b"GET / HTTP/1.0\r\nA: b\n\r\n", HeadError::BareLineFeed, "after a field"),
            (b"GET / HTTP/1.0\r\nA: b\nC: d\r\n\r\n", HeadError::BareLineFeed, "after a field"),
            (b"GET / HTTP/1.0\r\nA:\nC: d\r\n\r\n", HeadError::BareLineFeed, "empty value"),
            (b"GET / HTTP/1.0\r\nA: b\r\n\n", HeadError::BareLineFeed, "the empty line"),
            (b"GET / HTTP/1.0\r\n\n", HeadError::BareLineFeed, "the empty line"),
            (b"\rGET / HTTP/1.0\r\n\r\n", HeadError::BareCarriageReturn, "before the request line"),
            (b"GET / HTTP/1.0\rA: b\r\n\r\n", HeadError::BareCarriageReturn, "request line"),
            (b"GET / HTTP/1.0\r\nA: b\rc\r\n\r\n", HeadError::BareCarriageReturn, "in a value"),
            (b"GET / HTTP/1.0\r\nA: b\r\r\n\r\n", HeadError::BareCarriageReturn, "in a value"),
            (b"GET / HTTP/1.0\r\n\rA: b\r\n\r\n", HeadError::BareCarriageReturn, "the empty line"),
            (b"\r\n\r\n\r\nGET / HTTP/1.0\r\n\r\n", HeadError::EmptyLines, "a third empty line"),
        ]);
    }

    #[test]
    fn a_malformed_field_line_is_refused_per_rfc_9112_section_5() {
        check(&[
            (b"GET / HTTP/1.0\r\n A: b\r\n\r\n", HeadError::LineFolding, "2.2"),
            (b"GET / HTTP/1.0\r\nA: b\r\n c\r\n\r\n", HeadError::LineFolding, "5.2"),
            (b"GET / HTTP/1.0\r\nA: b\r\n\tc\r\n\r\n", HeadError::LineFolding, "5.2"),
            (b"GET / HTTP/1.0\r\nA : b\r\n\r\n", HeadError::SpaceBeforeColon, "5.1"),
            (b"GET / HTTP/1.0\r\nA\t: b\r\n\r\n", HeadError::SpaceBeforeColon, "5.1"),
            (b"GET / HTTP/1.0\r\nA B: c\r\n\r\n", HeadError::SpaceBeforeColon, "5.1"),
            (b"GET / HTTP/1.0\r\n: b\r\n\r\n", HeadError::HeaderName, "5.1"),
            (b"GET / HTTP/1.0\r\nA\r\n\r\n", HeadError::HeaderName, "5: no colon"),
            (b"GET / HTTP/1.0\r\nA\0: b\r\n\r\n", HeadError::HeaderName, "5.1"),
            (b"GET / HTTP/1.0\r\nA(: b\r\n\r\n", HeadError::HeaderName, "5.1"),
            (b"GET / HTTP/1.0\r\n\"A\": b\r\n\r\n", HeadError::HeaderName, "5.1"),
            (b"GET / HTTP/1.0\r\n\xc3\xa9: b\r\n\r\n", HeadError::HeaderName, "5.1"),
            (b"GET / HTTP/1.0\r\nA: b\0c\r\n\r\n", HeadError::HeaderValue, "9110 5.5"),
            (b"GET / HTTP/1.0\r\nA: \x0bb\r\n\r\n", HeadError::HeaderValue, "9110 5.5"),
            (b"GET / HTTP/1.0\r\nA: b\x7f\r\n\r\n", HeadError::HeaderValue, "9110 5.5"),
        ]);
    }

    #[test]
    fn the_first_fault_is_the_one_that_is_named() {
        check(&[
            (b"GET foo HTTP/1.0\nA : b\r\n\r\n", HeadError::BareLineFeed, "the line comes first"),
            (b"GET foo HTTP/1.0\r\nA : b\r\n\r\n", HeadError::TargetForm, "then its target"),
            (b"GET / HTTP/1.1\r\nHost: @\r\nA : b\r\n\r\n", HeadError::SpaceBeforeColon, "syntax"),
        ]);
    }
}
