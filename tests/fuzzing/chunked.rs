//! Any bytes as a chunked body: every way to feed them, and to take their content, gives what a
//! second, naive decoder finds; and any content, encoded, comes back.

use std::num::NonZeroUsize;

use meinheld_core::http::{
    BodyError, BodyLimits, CHUNK_END, ChunkHeader, Decoder, Framing, LAST_CHUNK,
};

use super::grammar::{is_text, is_text_byte, is_token, is_token_byte};

/// What came of a whole input.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done { content: Vec<u8>, consumed: usize },
    Incomplete { content: Vec<u8> },
    Refused(BodyError),
}

/// What the naive decoder says; it does not name faults.
enum Naive {
    Done { content: Vec<u8>, consumed: usize },
    Incomplete,
    Refused,
}

/// Decodes `data` in several ways, with the default limits and with narrow ones, and encodes it.
pub(crate) fn chunked(data: &[u8]) {
    let narrow = BodyLimits {
        body_bytes_max: 40,
        extension_bytes_max: 6,
        extension_bytes_total_max: 9,
        trailer_bytes_max: 24,
        trailer_count_max: 2,
    };
    for limits in [BodyLimits::default(), narrow] {
        let whole = decode(data, data.len().max(1), 64 * 1024, &limits);
        for (piece, room) in [(1, 1), (1, 7), (2, 3), (3, 64), (5, 1), (data.len().max(1), 1)] {
            let cut = decode(data, piece, room, &limits);
            assert_eq!(cut, whole, "pieces of {piece}, {room} of room: {}", data.escape_ascii());
        }
        agree(&whole, &naive(data, &limits), data);
    }
    for piece in [1, 3, 16, 4096] {
        check_encoded(data, piece);
    }
    check_length(data);
}

fn decode(wire: &[u8], piece: usize, room: usize, limits: &BodyLimits) -> Outcome {
    let mut decoder = Decoder::chunked(limits);
    let (mut content, mut consumed) = (Vec::new(), 0);
    let mut output = vec![0; room];
    for mut bytes in wire.chunks(piece) {
        while !bytes.is_empty() && !decoder.is_done() {
            let step = match decoder.decode(bytes, &mut output) {
                Ok(step) => step,
                Err(error) => {
                    let again = decoder.decode(b"0\r\n\r\n", &mut output);
                    assert_eq!(again, Err(error), "a fault is for good");
                    return Outcome::Refused(error);
                }
            };
            assert!(step.consumed > 0, "no progress at {consumed}: {}", wire.escape_ascii());
            assert!(step.produced <= step.consumed);
            content.extend_from_slice(&output[..step.produced]);
            consumed += step.consumed;
            bytes = &bytes[step.consumed..];
        }
    }
    if decoder.is_done() {
        assert_eq!(decoder.handle_eof(), Ok(()));
        let behind = decoder.decode(b"GET /", &mut output).expect("nothing can be wrong with it");
        assert_eq!(behind.consumed, 0, "what follows the body is not the body's");
        return Outcome::Done { content, consumed };
    }
    assert_eq!(decoder.handle_eof(), Err(BodyError::Truncated));
    Outcome::Incomplete { content }
}

fn agree(decoded: &Outcome, naive: &Naive, wire: &[u8]) {
    let same = match (decoded, naive) {
        (Outcome::Done { content, consumed }, Naive::Done { content: other, consumed: end }) => {
            content == other && consumed == end
        }
        // The naive decoder looks at whole lines only, and may see a fault later.
        (Outcome::Incomplete { .. }, Naive::Incomplete)
        | (Outcome::Refused(_), Naive::Incomplete | Naive::Refused) => true,
        _ => false,
    };
    assert!(same, "{decoded:?}: {}", wire.escape_ascii());
}

/// RFC 9112 section 7.1, line by line.
fn naive(wire: &[u8], limits: &BodyLimits) -> Naive {
    let (mut content, mut at, mut extensions) = (Vec::new(), 0, 0);
    loop {
        let Some(line) = line_at(wire, at) else { return unended(&wire[at..]) };
        at += line.len() + 2;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        let Ok(size) = u64::from_str_radix(str::from_utf8(size).unwrap_or("x"), 16) else {
            return Naive::Refused;
        };
        extensions += extension.len();
        let fits = extension.len() <= limits.extension_bytes_max as usize
            && extensions <= limits.extension_bytes_total_max as usize;
        let total = size.checked_add(content.len() as u64);
        let small = total.is_some_and(|total| total <= limits.body_bytes_max);
        if digits > 16 || !fits || !small || !is_extension(extension) {
            return Naive::Refused;
        }
        if size == 0 {
            return naive_trailers(wire, at, content, limits);
        }
        let end = at + usize::try_from(size).expect("it is small");
        if wire.len() < end {
            return Naive::Incomplete;
        }
        content.extend_from_slice(&wire[at..end]);
        match wire[end..] {
            [b'\r', b'\n', ..] => at = end + 2,
            [] | [b'\r'] => return Naive::Incomplete,
            _ => return Naive::Refused,
        }
    }
}

fn naive_trailers(wire: &[u8], start: usize, content: Vec<u8>, limits: &BodyLimits) -> Naive {
    let (mut at, mut count) = (start, 0);
    loop {
        let Some(line) = line_at(wire, at) else { return unended(&wire[at..]) };
        at += line.len() + 2;
        if line.is_empty() {
            return Naive::Done { content, consumed: at };
        }
        count += 1;
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        let good = is_token(name) && name.len() < line.len();
        let fits = at - start <= limits.trailer_bytes_max as usize
            && count <= limits.trailer_count_max as usize;
        if !good || !fits || !is_text(&line[name.len()..]) {
            return Naive::Refused;
        }
    }
}

/// RFC 9112 section 7.1.1, rule by rule.
fn is_extension(bytes: &[u8]) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let Some(rest) = trimmed(bytes).strip_prefix(b";") else { return false };
    let Some(rest) = after_token(trimmed(rest)) else { return false };
    let value = trimmed(rest).strip_prefix(b"=").map(trimmed);
    match value {
        None => is_extension(rest),
        Some([b'"', quoted @ ..]) => after_quotation(quoted).is_some_and(is_extension),
        Some(value) => after_token(value).is_some_and(is_extension),
    }
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let space = bytes.iter().take_while(|byte| b" \t".contains(byte)).count();
    &bytes[space..]
}

fn after_token(bytes: &[u8]) -> Option<&[u8]> {
    let count = bytes.iter().take_while(|&&byte| is_token_byte(byte)).count();
    (count > 0).then(|| &bytes[count..])
}

fn after_quotation(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [b'"', rest @ ..] => Some(rest),
        [b'\\', byte, rest @ ..] if is_text_byte(*byte) => after_quotation(rest),
        [byte, rest @ ..] if *byte != b'\\' && is_text_byte(*byte) => after_quotation(rest),
        _ => None,
    }
}

fn line_at(wire: &[u8], at: usize) -> Option<&[u8]> {
    let rest = &wire[at..];
    rest.windows(2).position(|pair| pair == b"\r\n").map(|end| &rest[..end])
}

/// A line without an end; CR and LF that stand alone are a fault already.
fn unended(rest: &[u8]) -> Naive {
    let text = rest.strip_suffix(b"\r").unwrap_or(rest);
    if text.iter().any(|byte| b"\r\n".contains(byte)) { Naive::Refused } else { Naive::Incomplete }
}

/// Encodes `content` in chunks of `piece` bytes, and decodes it again with a request behind it.
fn check_encoded(content: &[u8], piece: usize) {
    let mut wire = Vec::new();
    for chunk in content.chunks(piece) {
        let size = NonZeroUsize::new(chunk.len()).expect("chunks are not empty");
        wire.extend_from_slice(ChunkHeader::new(size).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(CHUNK_END);
    }
    wire.extend_from_slice(LAST_CHUNK);
    let body_bytes = wire.len();
    wire.extend_from_slice(b"GET / HTTP/1.1\r\n");
    let decoded = decode(&wire, 11, 13, &BodyLimits::default());
    assert_eq!(decoded, Outcome::Done { content: content.to_vec(), consumed: body_bytes });
}

/// A body of half the bytes: the other half is not touched.
fn check_length(data: &[u8]) {
    let half = data.len() / 2;
    let framing = Framing::Length(half as u64);
    let mut decoder = Decoder::new(framing, &BodyLimits::default()).expect("it is small");
    let (mut content, mut output) = (Vec::new(), [0; 5]);
    for bytes in data.chunks(3) {
        let mut rest = bytes;
        while !rest.is_empty() && !decoder.is_done() {
            let step = decoder.decode(rest, &mut output).expect("a length has no framing");
            content.extend_from_slice(&output[..step.produced]);
            rest = &rest[step.consumed..];
        }
    }
    assert_eq!(content, &data[..half]);
    assert!(decoder.is_done());
}
