//! Any bytes as a request head: what is accepted is exactly what the rules allow, as a second, naive
//! reading of the same lines finds, and how the bytes were cut does not matter.

use meinheld_core::http::{
    Framing, Head, HeadError, HeadIndex, HeadLimits, Parsed, TargetForm, UnderscoreHeaders,
    Version, may_complete, percent_decode_path,
};

use super::grammar::{is_text, is_token, show, trim};

/// How many prefixes of one input are parsed at the most.
const CUTS_MAX: usize = 96;

/// Parses `data` whole and cut, with the default limits and with narrow ones.
pub(crate) fn head(data: &[u8]) {
    let narrow = HeadLimits {
        head_bytes_max: 256,
        target_bytes_max: 32,
        header_count_max: 5,
        header_bytes_max: 64,
        underscore_headers: UnderscoreHeaders::Keep,
    };
    for limits in [HeadLimits::default(), narrow] {
        let mut index = HeadIndex::new();
        let whole = index.parse(data, &limits);
        let end = match whole {
            Ok(Parsed::Complete { head_bytes }) => {
                check_complete(&index.view(data), &data[..head_bytes], &limits);
                head_bytes
            }
            Ok(Parsed::Incomplete) | Err(_) => data.len(),
        };
        check_prefixes(&data[..end], whole, &limits);
    }
}

/// A prefix of a good head is incomplete, one of a bad head that or the same error, and what comes
/// behind a head does not matter.
fn check_prefixes(wire: &[u8], whole: Result<Parsed, HeadError>, limits: &HeadLimits) {
    let mut index = HeadIndex::new();
    let stride = (wire.len() / CUTS_MAX).max(1);
    let mut refused = None;
    for cut in (0..wire.len()).step_by(stride) {
        match index.parse(&wire[..cut], limits) {
            Ok(Parsed::Incomplete) => {
                assert_eq!(refused, None, "refused, and then not, at {cut}: {}", show(wire));
            }
            Ok(Parsed::Complete { head_bytes }) => {
                panic!("complete after {head_bytes} of {cut} bytes: {}", show(wire))
            }
            Err(error) => {
                assert_eq!(whole, Err(error), "another error at {cut}: {}", show(wire));
                refused = Some(error);
            }
        }
    }
    assert_eq!(index.parse(wire, limits), whole, "{}", show(wire));
    if let Ok(Parsed::Complete { head_bytes }) = whole {
        assert!(may_complete(&wire[head_bytes - 1..]), "the last byte completes it");
    }
}

fn check_complete(head: &Head<'_>, wire: &[u8], limits: &HeadLimits) {
    assert!(wire.len() <= limits.head_bytes_max);
    let text = wire.strip_suffix(b"\r\n\r\n").unwrap_or_else(|| panic!("no end: {}", show(wire)));
    let mut lines = lines_of(text).skip_while(|line| line.is_empty());
    let first = lines.next().unwrap_or_default();
    let version = if head.version() == Version::Http11 { "HTTP/1.1" } else { "HTTP/1.0" };
    let expected = [head.method().as_bytes(), head.target().raw(), version.as_bytes()].join(&b' ');
    assert_eq!(first, expected, "{}", show(wire));
    assert!(is_token(head.method().as_bytes()) && head.method().len() <= 32, "{}", show(wire));
    check_target(head, limits);

    let fields: Vec<(&[u8], &[u8])> = lines.map(split_field).collect();
    assert!(fields.len() <= limits.header_count_max);
    let kept = fields.iter().copied().filter(|(name, _)| is_kept(name, limits));
    let seen = head.headers().map(|(name, value)| (name.as_bytes(), value));
    assert!(kept.eq(seen), "{}", show(wire));
    check_framing(head, &fields, wire);
    check_host(head, &fields, wire);
    let close = has_option(&fields, b"close");
    let keep = head.version() == Version::Http11 || has_option(&fields, b"keep-alive");
    assert_eq!(head.keep_alive(), keep && !close, "{}", show(wire));
}

fn check_target(head: &Head<'_>, limits: &HeadLimits) {
    let target = head.target();
    let raw = target.raw();
    assert!(!raw.is_empty() && raw.len() <= limits.target_bytes_max);
    assert!(raw.iter().all(|&byte| byte > b' ' && byte != 0x7f && byte != b'#'), "{}", show(raw));
    assert!(str::from_utf8(raw).is_ok());
    match target.form() {
        TargetForm::Origin => {
            let (path, query) = (target.path(), target.query());
            assert!(path.starts_with(b"/"));
            let joined = [path, query].join(&b'?');
            assert!(raw == joined || (query.is_empty() && raw == path), "{}", show(raw));
        }
        TargetForm::Absolute => assert!(raw.to_ascii_lowercase().starts_with(b"http")),
        TargetForm::Authority => assert_eq!(head.method(), "CONNECT"),
        TargetForm::Asterisk => assert_eq!((head.method(), raw), ("OPTIONS", &b"*"[..])),
    }
    let mut decoded = Vec::new();
    percent_decode_path(target.path(), &mut decoded);
    assert_eq!(decoded, decode_naively(target.path()), "{}", show(raw));
}

/// RFC 9112 section 6.3, from the lines alone: one length, or one `chunked`, or nothing.
fn check_framing(head: &Head<'_>, fields: &[(&[u8], &[u8])], wire: &[u8]) {
    let lengths = values(fields, b"content-length");
    let codings = values(fields, b"transfer-encoding");
    match head.framing() {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty(), "{}", show(wire)),
        Framing::Length(bytes) => {
            assert!(lengths.len() == 1 && codings.is_empty(), "{}", show(wire));
            assert!(lengths[0].iter().all(u8::is_ascii_digit), "{}", show(wire));
            let text = str::from_utf8(lengths[0]).expect("digits");
            assert_eq!(text.parse(), Ok(bytes), "{}", show(wire));
        }
        Framing::Chunked => {
            assert_eq!(head.version(), Version::Http11, "{}", show(wire));
            assert!(lengths.is_empty() && codings.len() == 1, "{}", show(wire));
            assert!(codings[0].eq_ignore_ascii_case(b"chunked"), "{}", show(wire));
        }
    }
}

fn check_host(head: &Head<'_>, fields: &[(&[u8], &[u8])], wire: &[u8]) {
    let hosts = values(fields, b"host");
    assert!(hosts.len() == 1 || (hosts.is_empty() && head.version() == Version::Http10));
    let host = head.host().unwrap_or_default();
    assert!(
        !host.iter().any(|byte| b"/?#@ \\\"<>\t".contains(byte) || *byte >= 0x7f),
        "a host that is none: {}",
        show(wire)
    );
}

/// The lines of `text`; no CR and no LF stands alone in it.
fn lines_of(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let end = bytes.windows(2).position(|pair| pair == b"\r\n");
        rest = end.map(|end| &bytes[end + 2..]);
        let line = &bytes[..end.unwrap_or(bytes.len())];
        assert!(!line.iter().any(|byte| b"\r\n\0".contains(byte)), "{}", show(text));
        Some(line)
    })
}

fn split_field(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = line.iter().position(|&byte| byte == b':').expect("a field line has a colon");
    let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
    assert!(is_token(name), "{}", show(line));
    assert!(is_text(value), "{}", show(line));
    (name, value)
}

fn is_kept(name: &[u8], limits: &HeadLimits) -> bool {
    let underscore = name.contains(&b'_');
    let dropped = underscore && limits.underscore_headers == UnderscoreHeaders::Drop;
    !dropped && !name.eq_ignore_ascii_case(b"proxy")
}

fn values<'b>(fields: &[(&'b [u8], &'b [u8])], name: &[u8]) -> Vec<&'b [u8]> {
    let named = fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    named.map(|(_, value)| *value).collect()
}

fn has_option(fields: &[(&[u8], &[u8])], option: &[u8]) -> bool {
    let connection = values(fields, b"connection");
    let mut options = connection.iter().flat_map(|value| value.split(|&byte| byte == b','));
    options.any(|found| trim(found).eq_ignore_ascii_case(option))
}

fn decode_naively(path: &[u8]) -> Vec<u8> {
    let (mut decoded, mut at) = (Vec::new(), 0);
    while let Some(&byte) = path.get(at) {
        let digits = path.get(at + 1..at + 3).and_then(|digits| str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        if let Some(digits) = digits.filter(|_| byte == b'%') {
            decoded.push(u8::from_str_radix(digits, 16).expect("two digits"));
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    decoded
}
