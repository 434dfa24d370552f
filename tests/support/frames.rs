//! WebSocket frames as RFC 6455 section 5.2 draws them, written and read without the server's code.

#![allow(dead_code, unreachable_pub)] // each test uses its part
#![allow(clippy::unwrap_used)] // what fails here fails the test

/// The bit that ends a message.
pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame: `first` is its first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut wire = header(first, payload.len(), 0x80);
    wire.extend(MASK);
    wire.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    wire
}

/// The same without a mask.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [header(first, payload.len(), 0), payload.to_vec()].concat()
}

/// A client's close.
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

fn header(first: u8, length: usize, mask: u8) -> Vec<u8> {
    let mut wire = vec![first];
    match u16::try_from(length) {
        Ok(short @ 0..126) => wire.push(mask | u8::try_from(short).unwrap()),
        Ok(medium) => {
            wire.push(mask | 0x7e);
            wire.extend(medium.to_be_bytes());
        }
        Err(_) => {
            wire.push(mask | 0x7f);
            wire.extend((length as u64).to_be_bytes());
        }
    }
    wire
}

/// A server's frame, if `wire` begins with a whole one: its first byte, its payload, and how long it
/// is.
pub fn parse(wire: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (&[first, second], rest) = wire.split_first_chunk::<2>()?;
    assert_eq!(second & 0x80, 0, "a server does not mask (section 5.1)");
    let (length, rest) = match second {
        126 => {
            let (bytes, rest) = rest.split_first_chunk::<2>()?;
            (u64::from(u16::from_be_bytes(*bytes)), rest)
        }
        127 => {
            let (bytes, rest) = rest.split_first_chunk::<8>()?;
            (u64::from_be_bytes(*bytes), rest)
        }
        short => (u64::from(short), rest),
    };
    let payload = rest.get(..usize::try_from(length).unwrap())?.to_vec();
    let whole = wire.len() - rest.len() + payload.len();
    Some((first, payload, whole))
}

/// All frames of a server; nothing may be left over.
pub fn parse_all(mut wire: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((first, payload, whole)) = parse(wire) {
        frames.push((first, payload));
        wire = &wire[whole..];
    }
    assert!(wire.is_empty(), "a part of a frame: {}", wire.escape_ascii());
    frames
}
