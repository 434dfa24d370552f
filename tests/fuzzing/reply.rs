//! What a strict client reads: response heads and bodies, by RFC 9112 sections 4 to 7, with no
//! leniency at all.

use super::grammar::{is_text, is_token, show};

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) reason: Vec<u8>,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) body_end: BodyEnd,
}

/// Whether all of a body was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    Complete,
    /// Whatever came, to the end of the connection.
    UntilClose,
    CutOff,
}

impl Reply {
    /// The values of the fields of this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_slice()).collect()
    }

    /// The value of the one field of this name.
    pub(crate) fn one(&self, name: &str) -> Option<&[u8]> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} is said twice: {self:?}");
        all.first().copied()
    }

    pub(crate) fn closes(&self) -> bool {
        self.all("connection").iter().any(|value| {
            value
                .split(|&byte| byte == b',')
                .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
        })
    }

    pub(crate) fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Reads a head from the start of `wire`; `None` if it is cut off. Tells how long it is.
pub(crate) fn read_head(wire: &[u8]) -> Option<(Reply, usize)> {
    let text = wire.windows(4).position(|end| end == b"\r\n\r\n")?;
    let mut lines = split_lines(&wire[..text]).into_iter();
    let line = lines.next().unwrap_or_default();
    let rest = line.strip_prefix(b"HTTP/1.1 ").unwrap_or_else(|| panic!("{}", show(wire)));
    assert!(rest.len() >= 4 && rest[3] == b' ', "{}", show(&line));
    assert!(rest[..3].iter().all(u8::is_ascii_digit), "{}", show(&line));
    let status = rest[..3].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    assert!(is_text(&rest[4..]), "{}", show(&line));
    let fields = lines.map(|line| read_field(&line)).collect();
    let (body, body_end) = (Vec::new(), BodyEnd::Complete);
    let reply = Reply { status, reason: rest[4..].to_vec(), fields, body, body_end };
    Some((reply, text + 4))
}

/// Reads a response to `method` from the start of `wire`, with its body; `None` if its head is cut
/// off. Tells how long it is.
pub(crate) fn read_reply(method: &str, wire: &[u8]) -> Option<(Reply, usize)> {
    let (mut reply, head_bytes) = read_head(wire)?;
    let rest = &wire[head_bytes..];
    let length = reply.one("content-length").map(decimal);
    let coding = reply.one("transfer-encoding").map(<[u8]>::to_vec);
    assert!(length.is_none() || coding.is_none(), "two framings: {reply:?}");
    let bodiless = reply.is_interim() || matches!(reply.status, 204 | 304) || method == "HEAD";
    let tunnel = method == "CONNECT" && (200..300).contains(&reply.status);
    let (body, body_end, used) = match (length, coding) {
        _ if bodiless => (&rest[..0], BodyEnd::Complete, 0),
        (None, None) => (rest, BodyEnd::UntilClose, rest.len()),
        (length, coding) if tunnel => panic!("framing after CONNECT: {length:?} {coding:?}"),
        (Some(length), _) if length <= rest.len() => (&rest[..length], BodyEnd::Complete, length),
        (Some(_), _) => (rest, BodyEnd::CutOff, rest.len()),
        (None, Some(coding)) => {
            assert_eq!(coding, b"chunked");
            let (body, end, used) = read_chunks(rest);
            (reply.body, reply.body_end) = (body, end);
            return Some((reply, head_bytes + used));
        }
    };
    (reply.body, reply.body_end) = (body.to_vec(), body_end);
    Some((reply, head_bytes + used))
}

fn read_chunks(wire: &[u8]) -> (Vec<u8>, BodyEnd, usize) {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let cut_off = (body.clone(), BodyEnd::CutOff, wire.len());
        let Some(end) = wire[at..].windows(2).position(|pair| pair == b"\r\n") else {
            return cut_off;
        };
        let digits = str::from_utf8(&wire[at..at + end]).expect("a size");
        let size = usize::from_str_radix(digits, 16).expect("a size");
        let start = at + end + 2;
        let Some(chunk) = wire.get(start..start + size + 2) else { return cut_off };
        assert_eq!(&chunk[size..], b"\r\n", "{}", show(wire));
        body.extend_from_slice(&chunk[..size]);
        at = start + size + 2;
        if size == 0 {
            return (body, BodyEnd::Complete, at);
        }
    }
}

fn read_field(line: &[u8]) -> (String, Vec<u8>) {
    let colon = line.iter().position(|&byte| byte == b':');
    let colon = colon.unwrap_or_else(|| panic!("no colon: {}", show(line)));
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    assert!(is_token(name), "{}", show(line));
    assert!(is_text(value), "{}", show(line));
    let name = String::from_utf8(name.to_vec()).expect("a token is ASCII");
    (name, value.strip_prefix(b" ").unwrap_or(value).to_vec())
}

fn split_lines(text: &[u8]) -> Vec<Vec<u8>> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(rest[..end].to_vec());
        rest = &rest[end + 2..];
    }
    lines.push(rest.to_vec());
    lines
}

fn decimal(digits: &[u8]) -> usize {
    assert!(!digits.is_empty() && digits.iter().all(u8::is_ascii_digit), "{}", show(digits));
    let number = str::from_utf8(digits).expect("digits").parse::<u64>();
    usize::try_from(number.expect("a 64-bit length")).expect("64 bits")
}
