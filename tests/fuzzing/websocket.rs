//! Any bytes as a client's WebSocket frames: every way to feed them gives what a second, naive
//! decoder finds, what is answered is whole frames, and nothing follows a close.

use std::collections::VecDeque;
use std::io::{self, Read};

use meinheld_core::ws::{Closure, Protocol, Step};

/// A small limit on messages, in bytes, so that it is met.
const MESSAGE_BYTES_MAX: usize = 200;

/// What is told of the frames.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// The peer's close, as it was understood.
    Closed(u16),
    Failed(u16),
}

/// Reads `data` in several ways.
pub(crate) fn websocket(data: &[u8]) {
    let (expected, pongs) = naive(data);
    for piece in [data.len().max(1), 1, 2, 7] {
        let (told, replies) = converse(data, piece);
        assert_eq!(told, expected, "pieces of {piece}: {}", data.escape_ascii());
        check_replies(&replies, &pongs, &told);
    }
}

struct Pieces<'a> {
    now: VecDeque<u8>,
    later: std::slice::Chunks<'a, u8>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.now.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

fn converse(data: &[u8], piece: usize) -> (Vec<Told>, Vec<u8>) {
    let mut protocol = Protocol::new(MESSAGE_BYTES_MAX);
    let mut source = Pieces { now: VecDeque::new(), later: data.chunks(piece) };
    let (mut told, mut replies) = (Vec::new(), Vec::new());
    loop {
        let step = protocol.read(&mut source);
        replies.extend(protocol.take_replies());
        match step {
            Step::Message(message) => told.push(match message.text() {
                Some(text) => Told::Text(text.as_bytes().to_vec()),
                None => Told::Binary(message.bytes().to_vec()),
            }),
            Step::Control => {}
            Step::Closed(Closure { code, .. }) => {
                told.push(Told::Closed(code));
                break;
            }
            Step::Failed(Closure { code, .. }) => {
                told.push(Told::Failed(code));
                break;
            }
            Step::Ended | Step::Broken(_) => panic!("the source neither ends nor fails"),
            Step::Starved => match source.later.next() {
                Some(bytes) => source.now.extend(bytes),
                None => break,
            },
        }
    }
    (told, replies)
}

/// The pongs in order, and then a close if there is to be one.
fn check_replies(mut replies: &[u8], pongs: &[Vec<u8>], told: &[Told]) {
    for payload in pongs {
        let length = u8::try_from(payload.len()).expect("a ping is short");
        let pong = [&[0x8a, length][..], payload].concat();
        replies = replies.strip_prefix(&pong[..]).expect("a ping is answered with its payload");
    }
    match told.last() {
        Some(Told::Closed(code) | Told::Failed(code)) => {
            let [0x88, length, payload @ ..] = replies else { panic!("a close is answered") };
            assert_eq!(usize::from(*length), payload.len(), "nothing follows a close");
            assert!(*length <= 125);
            let empty = *code == Closure::NO_CODE;
            assert!(if empty {
                payload.is_empty()
            } else {
                payload.starts_with(&code.to_be_bytes())
            });
        }
        _ => assert!(replies.is_empty(), "nothing else is answered"),
    }
}

/// A frame as it lies there: its first byte, its payload without the mask, whether it had one.
struct Frame {
    first: u8,
    payload: Vec<u8>,
    masked: bool,
}

/// RFC 6455 section 5, frame by frame.
fn naive(mut wire: &[u8]) -> (Vec<Told>, Vec<Vec<u8>>) {
    let (mut told, mut pongs) = (Vec::new(), Vec::new());
    let mut message: Option<(u8, Vec<u8>)> = None;
    loop {
        let frame = match naive_frame(&mut wire) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (told, pongs),
            Err(code) => {
                told.push(Told::Failed(code));
                return (told, pongs);
            }
        };
        let last = match frame.first & 0x0f {
            _ if !frame.masked || frame.first & 0x70 != 0 => Some(Told::Failed(1002)),
            8..=10 => naive_control(frame, &mut pongs),
            _ => match naive_data(&frame, &mut message) {
                Ok(whole) => {
                    told.extend(whole);
                    None
                }
                Err(code) => Some(Told::Failed(code)),
            },
        };
        if let Some(last) = last {
            told.push(last);
            return (told, pongs);
        }
    }
}

/// Takes a frame off; what can be refused before its payload is there is.
fn naive_frame(wire: &mut &[u8]) -> Result<Option<Frame>, u16> {
    let &[first, second, ref rest @ ..] = *wire else { return Ok(None) };
    let (count, masked) = match second & 0x7f {
        126 => (2, second >= 0x80),
        127 => (8, second >= 0x80),
        _ => (0, second >= 0x80),
    };
    let mask_bytes = if masked { 4 } else { 0 };
    if rest.len() < count + mask_bytes {
        return Ok(None);
    }
    let (length, rest) = rest.split_at(count);
    let (mask, rest) = rest.split_at(mask_bytes);
    let length = match count {
        0 => u64::from(second & 0x7f),
        _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    };
    if matches!(first & 0x0f, 3..=7 | 11..=15) {
        return Err(1002);
    }
    let Ok(length @ ..=MESSAGE_BYTES_MAX) = usize::try_from(length) else { return Err(1009) };
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let key = mask.iter().copied().cycle().chain(std::iter::repeat(0));
    let payload = payload.iter().zip(key).map(|(byte, key)| byte ^ key).collect();
    *wire = &rest[length..];
    Ok(Some(Frame { first, payload, masked }))
}

fn naive_control(frame: Frame, pongs: &mut Vec<Vec<u8>>) -> Option<Told> {
    if frame.first < 0x80 || frame.payload.len() > 125 {
        return Some(Told::Failed(1002));
    }
    match (frame.first & 0x0f, frame.payload.as_slice()) {
        (9, _) => {
            pongs.push(frame.payload);
            None
        }
        (10, _) => None,
        (_, []) => Some(Told::Closed(1005)),
        (_, [_]) => Some(Told::Failed(1002)),
        (_, [_, _, reason @ ..]) if str::from_utf8(reason).is_err() => Some(Told::Failed(1007)),
        (_, [high, low, ..]) => match u16::from_be_bytes([*high, *low]) {
            code @ (1000..=1003 | 1007..=1013 | 3000..=4999) => Some(Told::Closed(code)),
            _ => Some(Told::Closed(1002)),
        },
    }
}

fn naive_data(frame: &Frame, message: &mut Option<(u8, Vec<u8>)>) -> Result<Option<Told>, u16> {
    let (kind, mut bytes) = match (frame.first & 0x0f, message.take()) {
        (0, None) | (1 | 2, Some(_)) => return Err(1002),
        (0, Some(begun)) => begun,
        (kind, None) => (kind, Vec::new()),
        (_, Some(_)) => unreachable!("other opcodes are refused"),
    };
    bytes.extend_from_slice(&frame.payload);
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(1009);
    }
    let whole = frame.first >= 0x80;
    if let (1, Err(error)) = (kind, str::from_utf8(&bytes)) {
        // A character that is cut may go on in the next fragment.
        if whole || error.error_len().is_some() {
            return Err(1007);
        }
    }
    if whole {
        return Ok(Some(if kind == 1 { Told::Text(bytes) } else { Told::Binary(bytes) }));
    }
    *message = Some((kind, bytes));
    Ok(None)
}
