//! The chunked coding, RFC 9112 section 7.1, taken apart byte by byte.
//!
//! ```text
//!            ┌──────────────────────────────────────────────────────┐
//!            ▼                                                      │
//!   SizeStart ──► Size ──┬─► Extension ─┬─► SizeLf ──► Data ──► DataCr ──► DataLf
//!                        └──────────────┘      │ size 0
//!                                              ▼
//!                       ┌─► TrailerStart ──► TrailerName ──► TrailerValue ─┐
//!                       │       │ CR                                       │
//!                       │       ▼                                          ▼
//!                       │     EndLf ──► Done                           TrailerLf
//!                       └──────────────────────────────────────────────────┘
//! ```
//!
//! Every line ends with CR LF and nothing else. Extensions and trailer fields are checked, counted
//! against their bounds, and dropped. Any fault is for good.

use super::body::{BodyError, BodyLimits, Decoded, copy_content};
use super::grammar::{hex_digit, is_token_byte, is_value_byte};

/// As many digits as a 64-bit size can have; leading zeros count too.
const SIZE_DIGITS_MAX: u8 = 16;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The first digit of a chunk size.
    SizeStart,
    /// More digits, an extension, or the end of the line.
    Size {
        size: u64,
        digits: u8,
    },
    /// White space that only an extension may follow.
    SizeSpace {
        size: u64,
    },
    /// The rest of an extension, or the end of the line.
    Extension {
        size: u64,
        part: Part,
    },
    /// The LF after a chunk size.
    SizeLf {
        size: u64,
    },
    /// Content.
    Data {
        remaining_bytes: u64,
    },
    /// The CR after the content of a chunk.
    DataCr,
    /// The LF after the content of a chunk.
    DataLf,
    /// A trailer field, or the empty line that ends the body.
    TrailerStart,
    /// More of a trailer field's name, or its colon.
    TrailerName,
    /// More of a trailer field's value, or the end of the line.
    TrailerValue,
    /// The LF after a trailer field.
    TrailerLf,
    /// The LF of the empty line.
    EndLf,
    Done,
    Failed(BodyError),
}

/// What of an extension has been read last, RFC 9112 section 7.1.1: `*( BWS ";" BWS name [ BWS "=" BWS
/// ( token / quoted-string ) ] )`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Semicolon,
    Name,
    NameSpace,
    Equals,
    Token,
    ValueSpace,
    Quoted,
    Escape,
    QuoteEnd,
}

impl Part {
    /// Whether the line may end here.
    fn may_end(self) -> bool {
        matches!(self, Part::Name | Part::Token | Part::QuoteEnd)
    }

    /// What the next byte is; `None` if it may not stand here.
    fn next(self, byte: u8) -> Option<Part> {
        Some(match (self, byte) {
            (Part::Quoted, b'"') => Part::QuoteEnd,
            (Part::Quoted, b'\\') => Part::Escape,
            (Part::Quoted | Part::Escape, _) if is_value_byte(byte) => Part::Quoted,
            (Part::Semicolon | Part::NameSpace | Part::Equals | Part::ValueSpace, b' ' | b'\t') => {
                self
            }
            (Part::Name, b' ' | b'\t') => Part::NameSpace,
            (Part::Token | Part::QuoteEnd, b' ' | b'\t') => Part::ValueSpace,
            (Part::Semicolon | Part::Name, _) if is_token_byte(byte) => Part::Name,
            (Part::Equals | Part::Token, _) if is_token_byte(byte) => Part::Token,
            (Part::Name | Part::NameSpace, b'=') => Part::Equals,
            (Part::Equals, b'"') => Part::Quoted,
            (
                Part::Name | Part::NameSpace | Part::Token | Part::ValueSpace | Part::QuoteEnd,
                b';',
            ) => Part::Semicolon,
            _ => return None,
        })
    }
}

/// Takes one chunked body apart.
#[derive(Debug)]
pub(super) struct ChunkedDecoder {
    state: State,
    limits: BodyLimits,
    /// All the chunk sizes so far, added up.
    body_bytes: u64,
    extension_bytes: u32,
    extension_bytes_total: u32,
    trailer_bytes: u32,
    trailer_count: u32,
}

impl ChunkedDecoder {
    pub(super) fn new(limits: BodyLimits) -> Self {
        Self {
            state: State::SizeStart,
            limits,
            body_bytes: 0,
            extension_bytes: 0,
            extension_bytes_total: 0,
            trailer_bytes: 0,
            trailer_count: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(super) fn remaining_in_chunk(&self) -> u64 {
        match self.state {
            State::Data { remaining_bytes } => remaining_bytes,
            _ => 0,
        }
    }

    /// See [`Decoder::decode`](super::Decoder::decode).
    pub(super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Decoded, BodyError> {
        let mut done = Decoded::default();
        while done.consumed < input.len() {
            match self.state {
                State::Done => break,
                State::Failed(error) => return Err(error),
                State::Data { remaining_bytes } => {
                    let room = &mut output[done.produced..];
                    if room.is_empty() {
                        break;
                    }
                    let copied = self.take_data(&input[done.consumed..], room, remaining_bytes);
                    done.consumed += copied;
                    done.produced += copied;
                }
                _ => {
                    self.state = self.step(input[done.consumed]).unwrap_or_else(State::Failed);
                    done.consumed += 1;
                }
            }
        }
        match self.state {
            State::Failed(error) => Err(error),
            _ => Ok(done),
        }
    }

    fn take_data(&mut self, input: &[u8], room: &mut [u8], mut remaining_bytes: u64) -> usize {
        let copied = copy_content(input, room, &mut remaining_bytes);
        self.state = match remaining_bytes {
            0 => State::DataCr,
            _ => State::Data { remaining_bytes },
        };
        copied
    }

    /// Where one byte of framing leads.
    fn step(&mut self, byte: u8) -> Result<State, BodyError> {
        match (self.state, byte) {
            (State::SizeStart, _) => first_size_digit(byte),
            (State::Size { size, digits }, _) => self.after_size_digit(size, digits, byte),
            (State::SizeSpace { size } | State::Extension { size, .. }, _) => {
                self.extension(size, byte)
            }
            (State::SizeLf { size }, b'\n') => self.begin_chunk(size),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::SizeStart),
            // RFC 9112 section 7.1: without this check a wrong size reads framing as content.
            (State::DataCr | State::DataLf, _) => Err(BodyError::ChunkDataEnd),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => {
                self.trailer(byte)
            }
            (State::TrailerLf, b'\n') => self.count_trailer_byte(State::TrailerStart),
            // RFC 9112 section 2.2.
            (State::SizeLf { .. } | State::TrailerLf | State::EndLf, _) => Err(BodyError::LineEnd),
            (State::Data { .. } | State::Done | State::Failed(_), _) => Ok(self.state),
        }
    }

    fn after_size_digit(&mut self, size: u64, digits: u8, byte: u8) -> Result<State, BodyError> {
        match (hex_digit(byte), byte) {
            (Some(_), _) if digits == SIZE_DIGITS_MAX => Err(BodyError::ChunkSizeTooLong),
            (Some(digit), _) => {
                // RFC 9112 section 7.1: anticipate large numerals.
                let size = size.checked_mul(16).ok_or(BodyError::ChunkSizeTooLong)?;
                Ok(State::Size { size: size | u64::from(digit), digits: digits + 1 })
            }
            (None, b'\r') => Ok(State::SizeLf { size }),
            (None, b'\n') => Err(BodyError::LineEnd),
            (None, b';' | b' ' | b'\t') => {
                self.extension_bytes = 0;
                self.extension(size, byte)
            }
            (None, _) => Err(BodyError::ChunkSize),
        }
    }

    /// RFC 9112 section 7.1.1. Nobody acts on an extension, but who reads an unended quotation
    /// differently finds other chunks.
    fn extension(&mut self, size: u64, byte: u8) -> Result<State, BodyError> {
        let next = match (self.state, byte) {
            (State::Extension { part, .. }, b'\r') if part.may_end() => {
                return Ok(State::SizeLf { size });
            }
            (_, b'\n') => return Err(BodyError::LineEnd),
            (State::Extension { part, .. }, _) => match part.next(byte) {
                Some(part) => State::Extension { size, part },
                None => return Err(BodyError::ChunkExtension),
            },
            (_, b';') => State::Extension { size, part: Part::Semicolon },
            (_, b' ' | b'\t') => State::SizeSpace { size },
            _ => return Err(BodyError::ChunkSize),
        };
        self.extension_bytes = self.extension_bytes.saturating_add(1);
        self.extension_bytes_total = self.extension_bytes_total.saturating_add(1);
        let fits = self.extension_bytes <= self.limits.extension_bytes_max
            && self.extension_bytes_total <= self.limits.extension_bytes_total_max;
        if fits { Ok(next) } else { Err(BodyError::ChunkExtensionTooLong) }
    }

    fn begin_chunk(&mut self, size: u64) -> Result<State, BodyError> {
        self.body_bytes = self.body_bytes.checked_add(size).ok_or(BodyError::TooLarge)?;
        if self.body_bytes > self.limits.body_bytes_max {
            // RFC 9110 section 15.5.14: before a byte of the chunk is read.
            return Err(BodyError::TooLarge);
        }
        Ok(match size {
            0 => State::TrailerStart,
            _ => State::Data { remaining_bytes: size },
        })
    }

    /// RFC 9112 sections 5 and 7.1.2: `field-name ":" OWS field-value`, no folding.
    fn trailer(&mut self, byte: u8) -> Result<State, BodyError> {
        let next = match (self.state, byte) {
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (_, b'\n') => return Err(BodyError::LineEnd),
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, _) if is_value_byte(byte) => State::TrailerValue,
            (State::TrailerName, _) if is_token_byte(byte) => State::TrailerName,
            (State::TrailerStart, _) if is_token_byte(byte) => {
                self.trailer_count = self.trailer_count.saturating_add(1);
                State::TrailerName
            }
            _ => return Err(BodyError::Trailer),
        };
        self.count_trailer_byte(next)
    }

    fn count_trailer_byte(&mut self, next: State) -> Result<State, BodyError> {
        self.trailer_bytes = self.trailer_bytes.saturating_add(1);
        let fits = self.trailer_bytes <= self.limits.trailer_bytes_max
            && self.trailer_count <= self.limits.trailer_count_max;
        if fits { Ok(next) } else { Err(BodyError::TrailerTooLarge) }
    }
}

/// RFC 9112 section 7.1: `1*HEXDIG`; the empty size is not 0.
fn first_size_digit(byte: u8) -> Result<State, BodyError> {
    match hex_digit(byte) {
        Some(digit) => Ok(State::Size { size: u64::from(digit), digits: 1 }),
        None => Err(BodyError::ChunkSize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay;

    /// The content and the length of the body, or why it was refused.
    type Outcome = Result<(Vec<u8>, usize), BodyError>;

    fn limits() -> BodyLimits {
        BodyLimits {
            body_bytes_max: 1000,
            extension_bytes_max: 8,
            extension_bytes_total_max: 12,
            trailer_bytes_max: 24,
            trailer_count_max: 3,
        }
    }

    /// Feeds `pieces` one after the other into `room` bytes of output at a time.
    fn decode<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, room: usize) -> Outcome {
        let mut decoder = ChunkedDecoder::new(limits());
        let (mut content, mut consumed) = (Vec::new(), 0);
        let mut output = vec![0; room];
        for mut piece in pieces {
            loop {
                let step = decoder.decode(piece, &mut output)?;
                content.extend_from_slice(&output[..step.produced]);
                consumed += step.consumed;
                piece = &piece[step.consumed..];
                if step == Decoded::default() {
                    break;
                }
            }
        }
        assert!(decoder.is_done(), "incomplete: {consumed} bytes, {content:?}");
        Ok((content, consumed))
    }

    /// Feeds `wire` whole, byte by byte, and cut in two at every place, to a decoder and through
    /// connections; all must agree.
    fn decode_every_way(wire: &[u8]) -> Outcome {
        let whole = decode([wire], 4096);
        assert_eq!(decode([wire], 1), whole, "one byte of room: {}", wire.escape_ascii());
        assert_eq!(decode(wire.chunks(1), 3), whole, "byte by byte: {}", wire.escape_ascii());
        for cut in 0..=wire.len() {
            let (first, second) = wire.split_at(cut);
            assert_eq!(decode([first, second], 7), whole, "{cut}: {}", wire.escape_ascii());
        }
        let answer =
            whole.as_ref().map(|(content, _)| &content[..]).map_err(|error| error.status());
        replay::chunked(wire, &limits(), answer);
        whole
    }

    #[test]
    fn a_chunked_body_is_its_content_and_ends_after_its_last_line_feed() {
        let cases: &[(&str, &str, &str)] = &[
            ("0\r\n\r\n", "", "7.1"),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", "7.1"),
            ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world", "7.1"),
            ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", "7.1"),
            ("0000000000000005\r\nhello\r\n00\r\n\r\n", "hello", "7.1: 16 digits"),
            ("3\r\n\r\n\n\r\n0\r\n\r\n", "\r\n\n", "7.1: content is any byte"),
            ("1;a=b\r\nx\r\n0;c\r\n\r\n", "x", "7.1.1"),
            ("1 ;a\r\nx\r\n0\t; b\r\n\r\n", "x", "7.1.1: BWS"),
            ("1;a = b\r\nx\r\n0;c ;d\r\n\r\n", "x", "7.1.1: BWS"),
            ("1;a=\";\"\r\nx\r\n0;c\r\n\r\n", "x", "7.1.1: quoted"),
            ("1;a=\"\\\"\"\r\nx\r\n0;c\r\n\r\n", "x", "7.1.1: quoted"),
            ("1;1234567\r\nx\r\n0\r\n\r\n", "x", "7.1.1: 8 bytes of extension"),
            ("1;123456\r\nx\r\n1;1234\r\ny\r\n0\r\n\r\n", "xy", "7.1.1: 7 and 5 bytes"),
            ("1;a=\"\u{e9}\"\r\nx\r\n0\r\n\r\n", "x", "7.1.1: quoted obs-text"),
            ("0\r\nA: b\r\n\r\n", "", "7.1.2"),
            ("1\r\nx\r\n0\r\nA:\r\nContent-Length: 9\r\n\r\n", "x", "7.1.2: dropped"),
            ("0\r\na:\r\nb:\r\nc:\r\n\r\n", "", "7.1.2: 3 fields"),
        ];
        for (wire, content, rule) in cases {
            let expected = Ok((content.as_bytes().to_vec(), wire.len()));
            assert_eq!(decode_every_way(wire.as_bytes()), expected, "{wire:?}: RFC 9112 {rule}");
            let pipelined = format!("{wire}GET / HTTP/1.1\r\n\r\n");
            assert_eq!(decode_every_way(pipelined.as_bytes()), expected, "{pipelined:?}");
        }
    }

    fn check_refused(cases: &[(&str, BodyError, &str)]) {
        for (wire, error, rule) in cases {
            let outcome = decode_every_way(wire.as_bytes());
            assert_eq!(outcome, Err(*error), "{wire:?}: RFC 9112 {rule}");
            assert_eq!(error.status(), if *error == BodyError::TooLarge { 413 } else { 400 });
        }
    }

    #[test]
    fn a_malformed_chunked_body_is_refused() {
        let cases: &[(&str, BodyError, &str)] = &[
            ("\r\n", BodyError::ChunkSize, "7.1: an empty size is not 0"),
            (";x\r\n", BodyError::ChunkSize, "7.1: an empty size is not 0"),
            (" \r\n", BodyError::ChunkSize, "7.1: an empty size is not 0"),
            (" 5\r\nhello\r\n", BodyError::ChunkSize, "7.1: no leading space"),
            ("\n0\r\n\r\n", BodyError::ChunkSize, "7.1"),
            ("+5\r\nhello\r\n", BodyError::ChunkSize, "7.1: no sign"),
            ("-5\r\nhello\r\n", BodyError::ChunkSize, "7.1: no sign"),
            ("0x5\r\nhello\r\n", BodyError::ChunkSize, "7.1: no prefix"),
            ("1_0\r\nhello\r\n", BodyError::ChunkSize, "7.1: no underscore"),
            ("5g\r\nhello\r\n", BodyError::ChunkSize, "7.1"),
            ("5 \r\nhello\r\n", BodyError::ChunkSize, "7.1: no trailing space"),
            ("5 5\r\nhello\r\n", BodyError::ChunkSize, "7.1"),
            ("5\0\r\nhello\r\n", BodyError::ChunkSize, "7.1"),
            ("00000000000000005\r\n", BodyError::ChunkSizeTooLong, "7.1: 17 digits"),
            ("10000000000000000\r\n", BodyError::ChunkSizeTooLong, "7.1: 2^64"),
            ("5\nhello\r\n", BodyError::LineEnd, "2.2: bare LF"),
            ("5\rhello\r\n", BodyError::LineEnd, "2.2: bare CR"),
            ("5\r\rhello\r\n", BodyError::LineEnd, "2.2: bare CR"),
            ("5;x\nhello\r\n", BodyError::LineEnd, "2.2: bare LF in an extension"),
            ("5 \nhello\r\n", BodyError::LineEnd, "2.2: bare LF"),
            ("5;x\rhello\r\n", BodyError::LineEnd, "2.2: bare CR in an extension"),
            ("5;12345678\r\nhello\r\n", BodyError::ChunkExtensionTooLong, "7.1.1: one chunk"),
            ("1;123456\r\nx\r\n1;12345\r\n", BodyError::ChunkExtensionTooLong, "7.1.1: all chunks"),
            ("5\r\nhelloX\r\n", BodyError::ChunkDataEnd, "7.1"),
            ("5\r\nhello\n0\r\n\r\n", BodyError::ChunkDataEnd, "7.1: bare LF"),
            ("5\r\nhello\r0\r\n\r\n", BodyError::ChunkDataEnd, "7.1: bare CR"),
            ("5\r\nhello0\r\n\r\n", BodyError::ChunkDataEnd, "7.1"),
            ("0\r\n\n", BodyError::LineEnd, "2.2: bare LF"),
            ("0\r\n\rX", BodyError::LineEnd, "2.2: bare CR"),
            ("0\r\nGET / HTTP/1.1\r\n\r\n", BodyError::Trailer, "7.1.2: no colon"),
            ("0\r\n: x\r\n\r\n", BodyError::Trailer, "5.1: empty name"),
            ("0\r\nA : x\r\n\r\n", BodyError::Trailer, "5.1: space before the colon"),
            ("0\r\nA: x\r\n folded\r\n\r\n", BodyError::Trailer, "5.2"),
            ("0\r\nA: \0\r\n\r\n", BodyError::Trailer, "RFC 9110 5.5"),
            ("0\r\nA\r\n\r\n", BodyError::Trailer, "5"),
            ("0\r\nA: x\n\r\n", BodyError::LineEnd, "2.2: bare LF"),
            ("0\r\nA: x\rB: y\r\n\r\n", BodyError::LineEnd, "2.2: bare CR"),
            ("0\r\na:\r\nb:\r\nc:\r\nd:\r\n\r\n", BodyError::TrailerTooLarge, "7.1.2: count"),
            ("0\r\na: 123456789012345678901\r\n\r\n", BodyError::TrailerTooLarge, "7.1.2: bytes"),
            ("3e9\r\n", BodyError::TooLarge, "RFC 9110 15.5.14: 1001 bytes"),
            ("1\r\nx\r\n3e8\r\n", BodyError::TooLarge, "RFC 9110 15.5.14: the sum"),
            ("1\r\nx\r\nffffffffffffffff\r\n", BodyError::TooLarge, "RFC 9112 7.1: overflow"),
        ];
        check_refused(cases);
    }

    #[test]
    fn a_malformed_extension_is_refused_per_rfc_9112_section_7_1_1() {
        check_refused(&[
            ("5;\0\r\nhello\r\n", BodyError::ChunkExtension, "7.1.1"),
            ("5;\r\nhello\r\n", BodyError::ChunkExtension, "7.1.1: no name"),
            ("5;;a\r\nhello\r\n", BodyError::ChunkExtension, "7.1.1: no name"),
            ("5;=b\r\nhello\r\n", BodyError::ChunkExtension, "7.1.1: no name"),
            ("5;a=\r\nhello\r\n", BodyError::ChunkExtension, "7.1.1: no value"),
            ("5;a \r\nhello\r\n", BodyError::ChunkExtension, "7.1.1: trailing space"),
            ("5;a b\r\nhello\r\n", BodyError::ChunkExtension, "7.1.1"),
            ("5;a=b=c\r\nhello\r\n", BodyError::ChunkExtension, "7.1.1"),
            ("5;\"a\"\r\nhello\r\n", BodyError::ChunkExtension, "7.1.1: no token"),
            ("5;a=\"b\r\nhello\r\n", BodyError::ChunkExtension, "7.1.1: an unended quotation"),
            ("5;a=\"b\\\r\nhello\r\n", BodyError::ChunkExtension, "RFC 9110 5.6.4"),
            ("5;a=\"b\"c\r\nhello\r\n", BodyError::ChunkExtension, "7.1.1"),
            ("5;\u{e9}\r\nhello\r\n", BodyError::ChunkExtension, "7.1.1: no token"),
            ("5;\x7f\r\nhello\r\n", BodyError::ChunkExtension, "7.1.1"),
        ]);
    }

    #[test]
    fn a_fault_is_for_good() {
        let mut decoder = ChunkedDecoder::new(limits());
        assert_eq!(decoder.decode(b"x", &mut []), Err(BodyError::ChunkSize));
        assert_eq!(decoder.decode(b"0\r\n\r\n", &mut []), Err(BodyError::ChunkSize));
        assert_eq!(decoder.decode(b"", &mut []), Err(BodyError::ChunkSize));
        assert!(!decoder.is_done());
    }

    #[test]
    fn every_proper_prefix_of_a_body_is_incomplete() {
        let wire = b"5;a\r\nhello\r\n0\r\nA: b\r\n\r\n";
        for cut in 0..wire.len() {
            let mut decoder = ChunkedDecoder::new(limits());
            let step = decoder.decode(&wire[..cut], &mut [0; 8]).unwrap();
            assert_eq!(step.consumed, cut);
            assert!(!decoder.is_done(), "cut at {cut}");
        }
    }

    #[test]
    fn framing_needs_no_room_but_content_does() {
        let mut decoder = ChunkedDecoder::new(limits());
        let step = decoder.decode(b"5\r\nhello\r\n0\r\n\r\n", &mut []).unwrap();
        assert_eq!(step, Decoded { consumed: 3, produced: 0 });
        assert_eq!(decoder.remaining_in_chunk(), 5);
        let step = decoder.decode(b"hello\r\n0\r\n\r\nNEXT", &mut [0; 5]).unwrap();
        assert_eq!(step, Decoded { consumed: 12, produced: 5 });
        assert!(decoder.is_done());
    }
}
