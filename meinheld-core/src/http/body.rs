//! The body of a request, RFC 9112 sections 6 and 7: where it ends, and its content.
//!
//! A [`Decoder`] is fed what was received and hands on the content; it never takes a byte that comes
//! after the body, so that the next request stays where it is. Not here: buffers, waiting, and what
//! becomes of a body that nobody reads.

use std::fmt;

use super::chunked::ChunkedDecoder;
use super::head::Framing;

/// The bounds of a request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// The most content, in bytes, whether its length is announced or comes out in chunks. Default
    /// 16 MiB.
    pub body_bytes_max: u64,
    /// The most bytes of extensions after one chunk size. Default 256.
    pub extension_bytes_max: u32,
    /// The most bytes of extensions in one body. Default 16 KiB.
    pub extension_bytes_total_max: u32,
    /// The most bytes of trailer fields, line ends included. Default 8 KiB.
    pub trailer_bytes_max: u32,
    /// The most trailer fields. Default 64.
    pub trailer_count_max: u32,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 * 1024 * 1024,
            extension_bytes_max: 256,
            extension_bytes_total_max: 16 * 1024,
            trailer_bytes_max: 8 * 1024,
            trailer_count_max: 64,
        }
    }
}

/// The rule that a request body broke. After the response, if there still can be one, the connection
/// is to be closed: where the body ends is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyError {
    /// A chunk size that is not `1*HEXDIG`, or not followed by CR LF or an extension, RFC 9112
    /// section 7.1: 400.
    ChunkSize,
    /// A chunk size of more than 16 digits, RFC 9112 section 7.1: 400.
    ChunkSizeTooLong,
    /// A character that a chunk extension may not hold, RFC 9112 section 7.1.1: 400.
    ChunkExtension,
    /// More bytes of chunk extensions than allowed, in one chunk or in all, RFC 9112 section 7.1.1:
    /// 400.
    ChunkExtensionTooLong,
    /// A chunk whose data is not followed by CR LF, RFC 9112 section 7.1: 400.
    ChunkDataEnd,
    /// A line of the framing that does not end with CR LF, RFC 9112 section 2.2: 400.
    LineEnd,
    /// A trailer field that is no field line, RFC 9112 section 7.1.2: 400.
    Trailer,
    /// More bytes of trailer fields, or more of them, than allowed, RFC 9112 section 7.1.2: 400.
    TrailerTooLarge,
    /// More content than [`body_bytes_max`](BodyLimits::body_bytes_max), RFC 9110 section 15.5.14:
    /// 413.
    TooLarge,
    /// The connection ended before the body did, RFC 9112 section 8: 400.
    Truncated,
}

impl BodyError {
    /// The status code of the response that tells the client.
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge => 413,
            _ => 400,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChunkSize => "a chunk size is not a hexadecimal number",
            Self::ChunkSizeTooLong => "a chunk size has too many digits",
            Self::ChunkExtension => "a chunk extension holds a character that is not allowed",
            Self::ChunkExtensionTooLong => "the chunk extensions are too long",
            Self::ChunkDataEnd => "the data of a chunk is not followed by CR LF",
            Self::LineEnd => "a line of the chunked body does not end with CR LF",
            Self::Trailer => "a trailer field is malformed",
            Self::TrailerTooLarge => "the trailer fields are too large",
            Self::TooLarge => "the request body is too large",
            Self::Truncated => "the connection ended before the request body did",
        })
    }
}

impl std::error::Error for BodyError {}

/// What one call of [`Decoder::decode`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// How many bytes of the input are done with.
    pub consumed: usize,
    /// How many bytes of content were written at the start of the output.
    pub produced: usize,
}

/// Takes one request body apart.
#[derive(Debug)]
pub struct Decoder {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Length { remaining_bytes: u64 },
    Chunked(ChunkedDecoder),
}

impl Decoder {
    /// A decoder for what a head announced.
    ///
    /// # Errors
    ///
    /// [`BodyError::TooLarge`] if the announced length is over the limit.
    pub fn new(framing: Framing, limits: &BodyLimits) -> Result<Self, BodyError> {
        match framing {
            Framing::None => Ok(Self::length(0)),
            // RFC 9110 section 15.5.14: before a byte of it is read.
            Framing::Length(body_bytes) if body_bytes > limits.body_bytes_max => {
                Err(BodyError::TooLarge)
            }
            Framing::Length(body_bytes) => Ok(Self::length(body_bytes)),
            Framing::Chunked => Ok(Self::chunked(limits)),
        }
    }

    /// A decoder for a body of `body_bytes`, RFC 9112 section 6.2; 0 is done at once.
    pub fn length(body_bytes: u64) -> Self {
        Self { kind: Kind::Length { remaining_bytes: body_bytes } }
    }

    /// A decoder for a chunked body, RFC 9112 section 7.1.
    pub fn chunked(limits: &BodyLimits) -> Self {
        Self { kind: Kind::Chunked(ChunkedDecoder::new(limits.clone())) }
    }

    /// Takes from the start of `input` what belongs to the body and writes its content to the start
    /// of `output`.
    ///
    /// It goes on until the body or the input ends, or until there is content and no room in
    /// `output`. Framing needs no room.
    ///
    /// # Errors
    ///
    /// One [`BodyError`] for each rule a body can break. Content before the fault that was decoded in
    /// the same call is lost, and every later call gives the same error.
    pub fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Decoded, BodyError> {
        match &mut self.kind {
            Kind::Length { remaining_bytes } => {
                let copied = copy_content(input, output, remaining_bytes);
                Ok(Decoded { consumed: copied, produced: copied })
            }
            Kind::Chunked(chunked) => chunked.decode(input, output),
        }
    }

    /// Takes from the start of `input` what belongs to a body whose length was announced: that is content
    /// as it is. `None` if the body comes in chunks.
    pub fn take_plain<'b>(&mut self, input: &'b [u8]) -> Option<&'b [u8]> {
        let Kind::Length { remaining_bytes } = &mut self.kind else { return None };
        let count = (input.len() as u64).min(*remaining_bytes);
        *remaining_bytes -= count;
        usize::try_from(count).ok().map(|count| &input[..count])
    }

    /// Whether the whole body, with all its framing, has been consumed.
    pub fn is_done(&self) -> bool {
        match &self.kind {
            Kind::Length { remaining_bytes } => *remaining_bytes == 0,
            Kind::Chunked(chunked) => chunked.is_done(),
        }
    }

    /// How many bytes of content are still to come, in bytes: all of them if the length was
    /// announced, else what is left of the chunk at hand.
    pub fn remaining_hint(&self) -> u64 {
        match &self.kind {
            Kind::Length { remaining_bytes } => *remaining_bytes,
            Kind::Chunked(chunked) => chunked.remaining_in_chunk(),
        }
    }

    /// Tells the decoder that no more bytes will come.
    ///
    /// # Errors
    ///
    /// [`BodyError::Truncated`] if the body is not done: it must never look like a shorter one (RFC
    /// 9112 section 8).
    pub fn handle_eof(&self) -> Result<(), BodyError> {
        if self.is_done() { Ok(()) } else { Err(BodyError::Truncated) }
    }
}

/// Copies as much content as there is, as fits, and as remains, and counts it off.
pub(super) fn copy_content(input: &[u8], output: &mut [u8], remaining_bytes: &mut u64) -> usize {
    let remaining = usize::try_from(*remaining_bytes).unwrap_or(usize::MAX);
    let copied = input.len().min(output.len()).min(remaining);
    output[..copied].copy_from_slice(&input[..copied]);
    *remaining_bytes -= copied as u64;
    copied
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay;

    #[test]
    fn a_length_body_ends_exactly_where_it_said_per_rfc_9112_section_6_2() {
        let wire = b"helloGET /";
        for cut in 0..=wire.len() {
            let mut decoder = Decoder::length(5);
            let mut content = [0; 16];
            let first = decoder.decode(&wire[..cut], &mut content).unwrap();
            let rest = &mut content[first.produced..];
            let second = decoder.decode(&wire[first.consumed..], rest).unwrap();
            assert_eq!(first.consumed + second.consumed, 5, "cut at {cut}");
            assert_eq!(&content[..5], b"hello", "cut at {cut}");
            assert!(decoder.is_done());
            let mut decoder = Decoder::length(5);
            let plain = [&wire[..cut], &wire[cut.min(5)..]]
                .map(|piece| decoder.take_plain(piece).expect("it has a length").len());
            assert_eq!(plain, [cut.min(5), 5 - cut.min(5)], "cut at {cut}");
            assert!(decoder.is_done());
        }
        assert_eq!(Decoder::chunked(&BodyLimits::default()).take_plain(b"0\r\n"), None);
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
        let next = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let answers = replay::answers(format!("{head}hello{next}").as_bytes());
        assert_eq!(answers, [(200, b"hello".to_vec()), (200, Vec::new())]);
        let answers = replay::answers(format!("{head}hello!{next}").as_bytes());
        assert_eq!(answers, [(200, b"hello".to_vec()), (200, Vec::new())], "a method of !GET");
        let answers = replay::answers(format!("{head}hello {next}").as_bytes());
        assert_eq!(answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 400]);
    }

    #[test]
    fn a_length_body_waits_for_room() {
        let mut decoder = Decoder::length(5);
        assert_eq!(decoder.decode(b"hello", &mut []), Ok(Decoded::default()));
        let mut two = [0; 2];
        assert_eq!(decoder.decode(b"hello", &mut two), Ok(Decoded { consumed: 2, produced: 2 }));
        assert_eq!(decoder.remaining_hint(), 3);
        assert!(!decoder.is_done());
    }

    #[test]
    fn a_body_that_ends_early_is_an_error_per_rfc_9112_section_8() {
        let limits = BodyLimits::default();
        assert_eq!(Decoder::length(0).handle_eof(), Ok(()));
        assert_eq!(Decoder::length(1).handle_eof(), Err(BodyError::Truncated));
        assert_eq!(Decoder::chunked(&limits).handle_eof(), Err(BodyError::Truncated));
    }

    #[test]
    fn an_announced_length_over_the_limit_is_413_per_rfc_9110_section_15_5_14() {
        let limits = BodyLimits { body_bytes_max: 10, ..BodyLimits::default() };
        assert!(Decoder::new(Framing::Length(10), &limits).is_ok());
        let error = Decoder::new(Framing::Length(11), &limits).map(drop).unwrap_err();
        assert_eq!((error, error.status()), (BodyError::TooLarge, 413));
        assert!(Decoder::new(Framing::None, &limits).unwrap().is_done());
        assert!(!Decoder::new(Framing::Chunked, &limits).unwrap().is_done());
    }
}
