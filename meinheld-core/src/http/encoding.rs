//! Numbers on their way out, and the framing of chunks, RFC 9112 section 7.1. Nothing here
//! allocates: what is made lives on the stack until it is written.

use std::num::NonZeroUsize;

/// What follows the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The chunk that ends a body, with its empty trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// As many hexadecimal digits as a length can have, and CR LF.
const CHUNK_HEADER_BYTES_MAX: usize = 18;

/// As many decimal digits as a 64-bit number can have.
const DECIMAL_BYTES_MAX: usize = 20;

/// The line that comes before the data of a chunk: its length in hexadecimal, and CR LF.
///
/// The length cannot be zero: an empty chunk would end the body.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHeader {
    bytes: [u8; CHUNK_HEADER_BYTES_MAX],
    start: usize,
}

impl ChunkHeader {
    /// The line for a chunk of `chunk_bytes`.
    pub fn new(chunk_bytes: NonZeroUsize) -> Self {
        let mut bytes = [0; CHUNK_HEADER_BYTES_MAX];
        let mut start = CHUNK_HEADER_BYTES_MAX - CHUNK_END.len();
        bytes[start..].copy_from_slice(CHUNK_END);
        let mut rest = chunk_bytes.get();
        while rest > 0 {
            start -= 1;
            bytes[start] = b"0123456789abcdef"[rest % 16];
            rest /= 16;
        }
        Self { bytes, start }
    }

    /// The line, with its CR LF.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Appends `number` in decimal.
pub fn push_decimal(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; DECIMAL_BYTES_MAX];
    let mut start = DECIMAL_BYTES_MAX;
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b"0123456789"[(rest % 10) as usize];
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_header_is_hexadecimal_and_cr_lf_per_rfc_9112_section_7_1() {
        let cases = [1, 9, 10, 15, 16, 255, 4096, 0xdead_beef, usize::MAX];
        for chunk_bytes in cases {
            let header = ChunkHeader::new(NonZeroUsize::new(chunk_bytes).unwrap());
            assert_eq!(header.as_bytes(), format!("{chunk_bytes:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn decimals_have_no_leading_zeros() {
        for number in [0, 7, 9, 10, 99, 100, 404, 1_234_567_890, u64::MAX] {
            let mut out = b"kept ".to_vec();
            push_decimal(number, &mut out);
            assert_eq!(out, format!("kept {number}").as_bytes());
        }
    }
}
