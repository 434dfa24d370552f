//! What the fields of a request say about the message itself, gathered in one pass.
//!
//! Not here: names it does not know, and the fields' syntax, which is checked before.

use super::super::grammar::{is_token, list_elements, parse_decimal};
use super::super::host::is_host;
use super::{HeadError, Version};

/// How many digits a Content-Length may have: as many as the greatest 64-bit number.
const LENGTH_DIGITS_MAX: usize = 20;

/// How the end of a request's body is known, RFC 9112 section 6.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// The body has this many bytes.
    Length(u64),
    /// The body comes in chunks.
    Chunked,
}

/// A field that the head's parser acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Host,
    Proxy,
    Expect,
    Upgrade,
    Connection,
    ContentType,
    ContentLength,
    TransferEncoding,
}

impl Known {
    /// Recognises a name in any case; the length leaves at most one candidate to compare.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let (known, spelling): (Self, &[u8]) = match name.len() {
            4 => (Self::Host, b"host"),
            5 => (Self::Proxy, b"proxy"),
            6 => (Self::Expect, b"expect"),
            7 => (Self::Upgrade, b"upgrade"),
            10 => (Self::Connection, b"connection"),
            12 => (Self::ContentType, b"content-type"),
            14 => (Self::ContentLength, b"content-length"),
            17 => (Self::TransferEncoding, b"transfer-encoding"),
            _ => return None,
        };
        name.eq_ignore_ascii_case(spelling).then_some(known)
    }
}

/// The options of Connection that mean something here, RFC 9110 section 7.6.1.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

/// What Transfer-Encoding has named so far, over all its lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    Absent,
    /// Only codings that are not implemented.
    Unknown,
    /// `chunked` and nothing else.
    Chunked,
    /// `chunked` after codings that are not implemented.
    UnknownThenChunked,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// These are positions among the fields.
    pub(super) host: Option<usize>,
    pub(super) upgrade: Option<usize>,
    pub(super) content_type: Option<usize>,
    pub(super) connection: ConnectionOptions,
    pub(super) expects_continue: bool,
    content_length: Option<u64>,
    coding: Coding,
}

impl Facts {
    /// Takes in the field at `position`.
    pub(super) fn note(
        &mut self,
        known: Known,
        value: &[u8],
        position: usize,
    ) -> Result<(), HeadError> {
        match known {
            Known::Host => self.note_host(value, position),
            Known::Expect => self.note_expect(value),
            Known::ContentLength => self.note_content_length(value),
            Known::TransferEncoding => self.note_transfer_encoding(value),
            Known::Connection => {
                self.note_connection(value);
                Ok(())
            }
            Known::Upgrade => {
                self.upgrade.get_or_insert(position);
                Ok(())
            }
            Known::ContentType => {
                self.content_type.get_or_insert(position);
                Ok(())
            }
            Known::Proxy => Ok(()),
        }
    }

    /// Judges the fields together, after the last: RFC 9112 section 6.3 for the framing.
    pub(super) fn conclude(&self, version: Version) -> Result<Framing, HeadError> {
        // RFC 9112 section 3.2.
        if self.host.is_none() && version == Version::Http11 {
            return Err(HeadError::HostMissing);
        }
        match (self.coding, self.content_length) {
            (Coding::Absent, None) => Ok(Framing::None),
            (Coding::Absent, Some(body_bytes)) => Ok(Framing::Length(body_bytes)),
            // RFC 9112 section 6.1: never fall back to Content-Length.
            (_, Some(_)) => Err(HeadError::ContentLengthWithTransferEncoding),
            // RFC 9112 section 6.1: its framing is faulty whatever it names.
            _ if version == Version::Http10 => Err(HeadError::TransferEncodingOnHttp10),
            (Coding::Chunked, None) => Ok(Framing::Chunked),
            // RFC 9112 section 6.3: without chunked as the last there is no end to be found.
            (Coding::Unknown, None) => Err(HeadError::TransferEncodingMalformed),
            // RFC 9112 section 6.1.
            (Coding::UnknownThenChunked, None) => Err(HeadError::TransferCodingUnknown),
        }
    }

    /// RFC 9112 section 3.2. The empty value is what a client without an authority must send.
    fn note_host(&mut self, value: &[u8], position: usize) -> Result<(), HeadError> {
        if self.host.is_some() {
            return Err(HeadError::HostRepeated);
        }
        if !value.is_empty() && !is_host(value) {
            return Err(HeadError::HostMalformed);
        }
        self.host = Some(position);
        Ok(())
    }

    /// RFC 9110 section 10.1.1.
    fn note_expect(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(HeadError::Expectation);
        }
        self.expects_continue = true;
        Ok(())
    }

    /// RFC 9112 section 6.3: a list of equal values might be taken as one, and is not.
    fn note_content_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.content_length.is_some() {
            return Err(HeadError::ContentLengthRepeated);
        }
        let digits = Some(value).filter(|digits| digits.len() <= LENGTH_DIGITS_MAX);
        let body_bytes = digits.and_then(parse_decimal).ok_or(HeadError::ContentLengthMalformed)?;
        self.content_length = Some(body_bytes);
        Ok(())
    }

    /// RFC 9112 section 6.1. Empty elements and parameters are refused with the rest: whoever sends
    /// them hopes that somebody reads the list differently.
    fn note_transfer_encoding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        for coding in list_elements(value) {
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.coding = match self.coding {
                _ if !is_token(coding) => return Err(HeadError::TransferEncodingMalformed),
                Coding::Absent if chunked => Coding::Chunked,
                Coding::Unknown if chunked => Coding::UnknownThenChunked,
                Coding::Absent | Coding::Unknown => Coding::Unknown,
                // RFC 9112 section 6.3: chunked is the last and comes once.
                Coding::Chunked | Coding::UnknownThenChunked => {
                    return Err(HeadError::TransferEncodingMalformed);
                }
            };
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) {
        let options = &mut self.connection;
        for option in list_elements(value) {
            options.close |= option.eq_ignore_ascii_case(b"close");
            options.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            options.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parse_every_way, refusal};
    use super::super::{HeadIndex, HeadLimits};
    use super::*;

    fn request(version: &str, fields: &str) -> String {
        format!("POST / HTTP/{version}\r\n{fields}\r\n")
    }

    fn framing(version: &str, fields: &str) -> Framing {
        let wire = request(version, fields);
        let limits = HeadLimits::default();
        parse_every_way(wire.as_bytes(), &limits).expect(fields);
        let mut index = HeadIndex::new();
        index.parse(wire.as_bytes(), &limits).unwrap();
        index.view(wire.as_bytes()).framing()
    }

    /// Version, field lines, how the fault is named, and the section, of RFC 9112 unless it says so.
    type Case = (&'static str, &'static str, HeadError, &'static str);

    fn check(cases: &[Case]) {
        for (version, fields, error, rule) in cases {
            let wire = request(version, fields);
            assert_eq!(refusal(wire.as_bytes()), Some(*error), "{wire:?}: {rule}");
        }
    }

    #[test]
    fn a_body_is_framed_by_one_length_or_one_chunked_per_rfc_9112_section_6_3() {
        let cases: &[(&str, &str, Framing)] = &[
            ("1.0", "", Framing::None),
            ("1.1", "Host: a\r\n", Framing::None),
            ("1.1", "Host: a\r\nContent-Length: 0\r\n", Framing::Length(0)),
            ("1.0", "CONTENT-LENGTH:\t007 \r\n", Framing::Length(7)),
            ("1.0", "Content-Length: 18446744073709551615\r\n", Framing::Length(u64::MAX)),
            ("1.1", "Host: a\r\nTransfer-Encoding: chunked\r\n", Framing::Chunked),
            ("1.1", "Host: a\r\ntransfer-encoding: \tCHUNKED\t\r\n", Framing::Chunked),
            ("1.0", "Content_Length: 5\r\nTransfer_Encoding: chunked\r\n", Framing::None),
        ];
        for (version, fields, expected) in cases {
            assert_eq!(framing(version, fields), *expected, "{fields:?}");
        }
    }

    #[test]
    fn a_content_length_is_strict_and_single_per_rfc_9112_section_6_3() {
        check(&[
            ("1.0", "Content-Length:\r\n", HeadError::ContentLengthMalformed, "6.3"),
            ("1.0", "Content-Length: +5\r\n", HeadError::ContentLengthMalformed, "6.3"),
            ("1.0", "Content-Length: -5\r\n", HeadError::ContentLengthMalformed, "6.3"),
            ("1.0", "Content-Length: 0x5\r\n", HeadError::ContentLengthMalformed, "6.3"),
            ("1.0", "Content-Length: 5_0\r\n", HeadError::ContentLengthMalformed, "6.3"),
            ("1.0", "Content-Length: 5 5\r\n", HeadError::ContentLengthMalformed, "6.3"),
            ("1.0", "Content-Length: 5, 5\r\n", HeadError::ContentLengthMalformed, "6.3: list"),
            (
                "1.0",
                "Content-Length: 18446744073709551616\r\n",
                HeadError::ContentLengthMalformed,
                "6.3: 2^64",
            ),
            (
                "1.0",
                "Content-Length: 000000000000000000003\r\n",
                HeadError::ContentLengthMalformed,
                "6.3: more digits than any length has",
            ),
            (
                "1.0",
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                HeadError::ContentLengthRepeated,
                "6.3: even the same",
            ),
            (
                "1.0",
                "Content-Length: 5\r\nA: b\r\ncontent-length: 6\r\n",
                HeadError::ContentLengthRepeated,
                "6.3",
            ),
        ]);
    }

    #[test]
    fn a_transfer_encoding_is_chunked_or_refused_per_rfc_9112_section_6_1() {
        use HeadError::{TransferCodingUnknown, TransferEncodingMalformed};
        let cases: &[(&str, HeadError)] = &[
            ("", TransferEncodingMalformed),
            ("chunked, chunked", TransferEncodingMalformed),
            ("chunked\r\nTransfer-Encoding: chunked", TransferEncodingMalformed),
            ("chunked, gzip", TransferEncodingMalformed),
            ("chunked, identity", TransferEncodingMalformed),
            ("gzip, chunked, chunked", TransferEncodingMalformed),
            ("chunked,", TransferEncodingMalformed),
            (", chunked", TransferEncodingMalformed),
            ("\"chunked\"", TransferEncodingMalformed),
            ("chunked;q=1", TransferEncodingMalformed),
            ("chun ked", TransferEncodingMalformed),
            ("chunked\u{a0}", TransferEncodingMalformed),
            ("gzip", TransferEncodingMalformed),
            ("gzip, chunked", TransferCodingUnknown),
            ("gzip\r\nTransfer-Encoding: chunked", TransferCodingUnknown),
            ("identity", TransferEncodingMalformed),
            ("xchunked", TransferEncodingMalformed),
            ("chunke", TransferEncodingMalformed),
        ];
        for (value, error) in cases {
            let wire = request("1.1", &format!("Host: a\r\nTransfer-Encoding: {value}\r\n"));
            assert_eq!(refusal(wire.as_bytes()), Some(*error), "{value:?}");
        }
        assert_eq!(TransferEncodingMalformed.status(), 400);
        assert_eq!(TransferCodingUnknown.status(), 501);
    }

    #[test]
    fn a_doubtful_framing_is_never_guessed_at_per_rfc_9112_section_6_1() {
        check(&[
            (
                "1.1",
                "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                HeadError::ContentLengthWithTransferEncoding,
                "6.1",
            ),
            (
                "1.1",
                "Host: a\r\nTransfer-Encoding: gzip\r\nContent-Length: 5\r\n",
                HeadError::ContentLengthWithTransferEncoding,
                "6.1",
            ),
            ("1.0", "Transfer-Encoding: chunked\r\n", HeadError::TransferEncodingOnHttp10, "6.1"),
        ]);
    }

    #[test]
    fn a_host_is_single_and_valid_per_rfc_9112_section_3_2() {
        check(&[
            ("1.1", "", HeadError::HostMissing, "3.2"),
            ("1.1", "H_ost: a\r\n", HeadError::HostMissing, "3.2"),
            ("1.1", "Host: a\r\nHost: a\r\n", HeadError::HostRepeated, "3.2: even the same"),
            ("1.0", "Host: a\r\nhost: b\r\n", HeadError::HostRepeated, "3.2"),
            ("1.1", "Host:\r\nHost: b\r\n", HeadError::HostRepeated, "3.2"),
            ("1.1", "Host: a/b\r\n", HeadError::HostMalformed, "3.2"),
            ("1.1", "Host: a b\r\n", HeadError::HostMalformed, "3.2"),
            ("1.1", "Host: u@a\r\n", HeadError::HostMalformed, "3.2"),
            ("1.1", "Host: a:b\r\n", HeadError::HostMalformed, "3.2"),
            ("1.1", "Host: [::1\r\n", HeadError::HostMalformed, "3.2"),
            ("1.0", "Host: a?b\r\n", HeadError::HostMalformed, "3.2"),
        ]);
    }

    #[test]
    fn an_expectation_is_100_continue_or_417_per_rfc_9110_section_10_1_1() {
        check(&[
            ("1.1", "Host: a\r\nExpect: 200-ok\r\n", HeadError::Expectation, "9110 10.1.1"),
            ("1.1", "Host: a\r\nExpect:\r\n", HeadError::Expectation, "9110 10.1.1"),
            ("1.1", "Host: a\r\nExpect: 100-continue, x\r\n", HeadError::Expectation, "9110"),
        ]);
        assert_eq!(HeadError::Expectation.status(), 417);
    }
}
