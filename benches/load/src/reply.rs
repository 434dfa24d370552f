//! One response, read and compared as it comes.
//!
//! It knows as much HTTP as the servers under comparison send: a 200 with a length, in chunks, or
//! until the end of the connection.

use std::fmt;

const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Where a response has come to.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    head: Vec<u8>,
    body: Body,
    /// How many bytes of the body have come and were right.
    matched: usize,
}

#[derive(Debug, Default)]
enum Body {
    /// The head is not complete.
    #[default]
    Unknown,
    Length(usize),
    Chunked(Chunk),
    UntilEnd,
}

#[derive(Debug)]
enum Chunk {
    /// The digits of its size so far.
    Size(Vec<u8>),
    Data(usize),
    /// This many bytes of the CRLF behind it have come.
    DataEnd(u8),
    /// The CRLF behind the last chunk.
    LastEnd(u8),
}

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Status,
    Head,
    Framing,
    Body,
    CutOff,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Status => "a status other than 200",
            Fault::Head => "an endless head",
            Fault::Framing => "a body whose framing is wrong",
            Fault::Body => "another body than expected",
            Fault::CutOff => "a response that was cut off",
        })
    }
}

impl Reply {
    /// Takes what belongs to this response; how much that is, and whether it is complete.
    pub(crate) fn take(&mut self, input: &[u8], expected: &[u8]) -> Result<(usize, bool), Fault> {
        let mut taken = 0;
        if matches!(self.body, Body::Unknown) {
            taken = self.take_head(input)?;
        }
        while !self.is_complete() {
            if taken == input.len() {
                return Ok((taken, false));
            }
            taken += self.take_body(&input[taken..], expected)?;
        }
        self.check_length(expected).map(|()| (taken, true))
    }

    /// What the end of the connection makes of it.
    pub(crate) fn end(&self, expected: &[u8]) -> Result<(), Fault> {
        match self.body {
            Body::UntilEnd => self.check_length(expected),
            _ => Err(Fault::CutOff),
        }
    }

    /// Whether the end of the connection is its end.
    pub(crate) fn lasts_to_end(&self) -> bool {
        matches!(self.body, Body::UntilEnd)
    }

    fn is_complete(&self) -> bool {
        match &self.body {
            Body::Length(length) => self.matched == *length,
            Body::Chunked(Chunk::LastEnd(bytes)) => *bytes == 2,
            Body::Chunked(_) | Body::UntilEnd | Body::Unknown => false,
        }
    }

    fn check_length(&self, expected: &[u8]) -> Result<(), Fault> {
        if self.matched == expected.len() { Ok(()) } else { Err(Fault::Body) }
    }

    fn take_head(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let before = self.head.len();
        self.head.extend_from_slice(&input[..input.len().min(HEAD_BYTES_MAX)]);
        let begin = before.saturating_sub(3);
        let end = self.head[begin..].windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else {
            return if self.head.len() < HEAD_BYTES_MAX {
                Ok(input.len())
            } else {
                Err(Fault::Head)
            };
        };
        self.head.truncate(begin + end + 4);
        self.body = framing(&self.head)?;
        Ok(self.head.len() - before)
    }

    fn take_body(&mut self, input: &[u8], expected: &[u8]) -> Result<usize, Fault> {
        match &mut self.body {
            Body::Unknown => Ok(input.len()),
            Body::UntilEnd => self.compare(input, expected),
            Body::Length(length) => {
                let left = *length - self.matched;
                self.compare(&input[..input.len().min(left)], expected)
            }
            Body::Chunked(Chunk::Data(left)) => {
                let piece = &input[..input.len().min(*left)];
                *left -= piece.len();
                if *left == 0 {
                    self.body = Body::Chunked(Chunk::DataEnd(0));
                }
                self.compare(piece, expected)
            }
            Body::Chunked(chunk) => {
                chunk.take_byte(input[0])?;
                Ok(1)
            }
        }
    }

    fn compare(&mut self, piece: &[u8], expected: &[u8]) -> Result<usize, Fault> {
        if expected.get(self.matched..self.matched + piece.len()) != Some(piece) {
            return Err(Fault::Body);
        }
        self.matched += piece.len();
        Ok(piece.len())
    }
}

impl Chunk {
    fn take_byte(&mut self, byte: u8) -> Result<(), Fault> {
        match self {
            Chunk::Size(digits) if byte == b'\n' => {
                let text = std::str::from_utf8(digits).map_err(|_| Fault::Framing)?;
                let size = usize::from_str_radix(text, 16).map_err(|_| Fault::Framing)?;
                *self = if size == 0 { Chunk::LastEnd(0) } else { Chunk::Data(size) };
            }
            Chunk::Size(_) if byte == b'\r' => {}
            Chunk::Size(digits) if digits.len() < 16 => digits.push(byte),
            Chunk::DataEnd(bytes) if byte == b"\r\n"[usize::from(*bytes)] => {
                *bytes += 1;
                if *bytes == 2 {
                    *self = Chunk::Size(Vec::new());
                }
            }
            Chunk::LastEnd(bytes) if byte == b"\r\n"[usize::from(*bytes)] => *bytes += 1,
            Chunk::Size(_) | Chunk::Data(_) | Chunk::DataEnd(_) | Chunk::LastEnd(_) => {
                return Err(Fault::Framing);
            }
        }
        Ok(())
    }
}

fn framing(head: &[u8]) -> Result<Body, Fault> {
    if !(head.starts_with(b"HTTP/1.1 200 ") || head.starts_with(b"HTTP/1.0 200 ")) {
        return Err(Fault::Status);
    }
    let mut body = Body::UntilEnd;
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = line[colon + 1..].trim_ascii();
        if line[..colon].eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            body = Body::Length(length.ok_or(Fault::Framing)?);
        } else if line[..colon].eq_ignore_ascii_case(b"transfer-encoding")
            && value.eq_ignore_ascii_case(b"chunked")
        {
            return Ok(Body::Chunked(Chunk::Size(Vec::new())));
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in two pieces at every place, and tells what all of them came to.
    fn fed(wire: &[u8], expected: &[u8]) -> Result<Option<usize>, Fault> {
        let mut outcomes = (0..=wire.len()).map(|cut| {
            let mut reply = Reply::default();
            let (taken, done) = reply.take(&wire[..cut], expected)?;
            if done {
                return Ok(Some(taken));
            }
            let (more, done) = reply.take(&wire[taken..], expected)?;
            Ok(done.then_some(taken + more))
        });
        let first = outcomes.next().expect("there is always one cut");
        for outcome in outcomes {
            assert_eq!(outcome, first);
        }
        first
    }

    #[test]
    fn a_response_ends_where_its_framing_says() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP";
        assert_eq!(fed(wire, b"hello"), Ok(Some(wire.len() - 4)));
        let wire = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\nH";
        assert_eq!(fed(wire, b"hello"), Ok(Some(wire.len() - 1)));
        let wire = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(fed(wire, b""), Ok(Some(wire.len())));
    }

    #[test]
    fn what_is_not_as_expected_is_told() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellO";
        assert_eq!(fed(wire, b"hello"), Err(Fault::Body));
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell";
        assert_eq!(fed(wire, b"hello"), Err(Fault::Body));
        assert_eq!(fed(b"HTTP/1.1 500 No\r\n\r\n", b""), Err(Fault::Status));
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nheX";
        assert_eq!(fed(wire, b"hello"), Err(Fault::Framing));
    }

    #[test]
    fn the_end_of_the_connection_ends_a_body_without_framing_alone() {
        let mut reply = Reply::default();
        assert_eq!(reply.take(b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"), Ok((24, false)));
        assert_eq!(reply.end(b"hello"), Ok(()));
        assert_eq!(Reply::default().end(b""), Err(Fault::CutOff));
    }
}
