//! A head that is told by the one before it is what parsing it whole says, and nothing is taken that
//! parsing would refuse: for heads of the lines that matter, changed in every way that a smuggler could.
//!
//! The cases are the same in every run.

#[path = "support/repeatable.rs"]
mod repeatable;

use meinheld_core::http::{
    Followed, Framing, Head, HeadIndex, HeadLimits, Parsed, RequestKind, TargetForm,
    UnderscoreHeaders, Version,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use repeatable::repeatable;

/// Lines, most of which mean something to the parser.
const LINES: &[&str] = &[
    "Host: a",
    "host: b.test:80",
    "Content-Length: 5",
    "content-length: 0",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Connection: keep-alive",
    "Connection: close, Upgrade",
    "Upgrade: websocket",
    "Expect: 100-continue",
    "Content-Type: text/plain",
    "Cookie: a=b; c=d",
    "Cookie:",
    "X-Long: 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789",
    "Accept: */*",
    "Accept:\t text/html ,x \t",
    "X_Dropped: a",
    "Proxy: a",
    "a: \u{e9}",
];

/// Values, most of which would mean something with one name or another.
const VALUES: &[&str] = &[
    "",
    " ",
    "a",
    "b.test:80",
    "a b",
    "5",
    "6",
    "+5",
    "05",
    "5, 5",
    "chunked",
    "Chunked",
    "gzip",
    "gzip, chunked",
    "close",
    "keep-alive",
    "upgrade, close",
    "100-continue",
    "200-ok",
    "x: y",
    "\t a \t",
    "a\rb",
    "a\nb",
    "a\r\nb",
    "a\r\n b",
    "a\r\nX: b",
    "a\r\n\r\n",
    "a\0",
    "a\u{7f}",
    "\u{e9}",
    "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456",
];

const TARGETS: &[&str] = &[
    "/",
    "/a?b",
    "/a?b#c",
    "/%41[]|",
    "*",
    "http://b/",
    "http://b",
    "a:1",
    "",
    "/a b",
    "/\u{e9}",
    "/a\t",
    "/{}",
    "/?{}",
    "/a?b HTTP/1.1\r\nHost: c\r\n\r\nGET /",
    "/long/long/long/long/long/long/long/long/long/long/long",
];

const METHODS: &[&str] = &["GET", "POST", "OPTIONS", "CONNECT", "HEAD"];

#[derive(Clone, Debug)]
enum Change {
    Byte(Index, u8),
    Insert(Index, u8),
    Delete(Index),
    Value(Index, &'static str),
    Target(&'static str),
    Method(&'static str),
    Old,
    AddLine(Index, &'static str),
    RepeatLine(Index),
    RemoveLine(Index),
    SwapLines(Index, Index),
    BareLineFeed(Index),
    Cut(Index),
    Append(&'static str),
}

proptest! {
    #![proptest_config(repeatable(600))]

    #[test]
    fn what_is_followed_is_what_is_parsed(
        first in head(),
        courses in vec(vec(change(), 0..4), 1..4),
        limits in limits(),
    ) {
        let mut index = HeadIndex::new();
        prop_assume!(index.parse(&first, &limits) == Ok(Parsed::Complete { head_bytes: first.len() }));
        let mut before = first;
        for changes in &courses {
            let mut wire = before.clone();
            for change in changes {
                apply(change, &mut wire);
            }
            let followed = check(&mut index, &before, &wire, &limits);
            match (followed, index.parse(&wire, &limits)) {
                (Some(followed), _) => before = wire[..followed.head_bytes].to_vec(),
                (None, Ok(Parsed::Complete { head_bytes })) => before = wire[..head_bytes].to_vec(),
                (None, _) => {
                    index.parse(&before, &limits).expect("it was good before");
                }
            }
            // A head that was followed must be as good a start as one that was parsed.
            if followed.is_some() {
                index.parse(&before, &limits).expect("it was followed");
            }
        }
    }

    #[test]
    fn other_values_and_targets_are_followed(
        names in vec("[A-Za-z]{1,20}", 0..12),
        (values, others) in (vec(value(), 12), vec(value(), 12)),
        (target, other) in (target(), target()),
        behind in vec(any::<u8>(), 0..20),
    ) {
        let wire = |target: &str, values: &[String]| {
            let fields = names.iter().zip(values);
            let fields: Vec<_> = fields.map(|(name, value)| format!("x{name}:{value}\r\n")).collect();
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n{}\r\n", fields.concat()).into_bytes()
        };
        let (before, mut next) = (wire(&target, &values), wire(&other, &others));
        let head_bytes = next.len();
        next.extend_from_slice(&behind);
        let mut index = HeadIndex::new();
        let limits = HeadLimits::default();
        index.parse(&before, &limits).unwrap();
        let followed = check(&mut index, &before, &next, &limits);
        prop_assert_eq!(followed.map(|followed| followed.head_bytes), Some(head_bytes));
    }
}

/// Follows, and checks everything that is said then.
fn check(
    index: &mut HeadIndex,
    before: &[u8],
    wire: &[u8],
    limits: &HeadLimits,
) -> Option<Followed> {
    let mut parser = HeadIndex::new();
    let parsed = parser.parse(wire, limits);
    let followed = index.follow(before, wire, limits);
    let text = || wire.escape_ascii().to_string();
    let Some(Followed { head_bytes, changes }) = followed else {
        let none = index.view(b"");
        assert!(none.method().is_empty() && none.headers().len() == 0);
        return None;
    };
    assert_eq!(parsed, Ok(Parsed::Complete { head_bytes }), "{}", text());
    let seen = Shown::of(&index.view(wire));
    assert_eq!(seen, Shown::of(&parser.view(wire)), "{}", text());
    parser.parse(before, limits).expect("it was good");
    let last = Shown::of(&parser.view(before));
    assert_eq!(changes.is_none(), wire.starts_with(before), "{}", text());
    assert!(changes.target() || seen.target == last.target, "{}", text());
    assert_eq!((seen.method, seen.version), (last.method, last.version), "{}", text());
    assert_eq!(seen.headers.len(), last.headers.len(), "{}", text());
    for (position, (one, other)) in seen.headers.iter().zip(&last.headers).enumerate() {
        assert_eq!(one.0, other.0, "{}", text());
        assert!(one.1 == other.1 || changes.values().any(|known| known == position), "{}", text());
    }
    followed
}

/// All that a head shows.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    method: String,
    kind: RequestKind,
    version: Version,
    form: TargetForm,
    target: [Vec<u8>; 3],
    headers: Vec<(String, Vec<u8>)>,
    framing: Framing,
    keeps: bool,
    expects: bool,
    named: [Option<Vec<u8>>; 4],
}

impl Shown {
    fn of(head: &Head<'_>) -> Shown {
        let target = head.target();
        let named = [head.upgrade(), head.content_type(), head.host(), target.authority()];
        Shown {
            method: head.method().to_owned(),
            kind: head.kind(),
            version: head.version(),
            form: target.form(),
            target: [target.raw(), target.path(), target.query()].map(<[u8]>::to_vec),
            headers: head.headers().map(|(name, value)| (name.into(), value.into())).collect(),
            framing: head.framing(),
            keeps: head.keep_alive(),
            expects: head.expects_continue(),
            named: named.map(|value| value.map(<[u8]>::to_vec)),
        }
    }
}

/// A method, a target, a version and lines, as far as they make a good head together.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let methods = prop_oneof![3 => Just("GET"), 1 => select(METHODS)];
    let targets = prop_oneof![3 => Just("/a?b"), 1 => select(TARGETS)];
    let version = select(&["1.1", "1.1", "1.1", "1.0"][..]);
    let lines = vec(select(LINES), 0..12);
    (methods, targets, version, lines).prop_map(|(method, target, version, lines)| {
        let is_good = |wire: &[u8]| {
            let parsed = HeadIndex::new().parse(wire, &HeadLimits::default());
            parsed == Ok(Parsed::Complete { head_bytes: wire.len() })
        };
        let wire = |start: &str, fields: &str| format!("{start}{fields}\r\n").into_bytes();
        let start = format!("{method} {target} HTTP/{version}\r\nHost: a\r\n");
        let start = if is_good(&wire(&start, "")) { &start } else { "\r\nGET / HTTP/1.0\r\n" };
        let mut fields = String::new();
        for line in lines {
            let more = format!("{fields}{line}\r\n");
            fields = if is_good(&wire(start, &more)) { more } else { fields };
        }
        wire(start, &fields)
    })
}

fn limits() -> impl Strategy<Value = HeadLimits> {
    let narrow = HeadLimits {
        head_bytes_max: 200,
        target_bytes_max: 32,
        header_count_max: 5,
        header_bytes_max: 64,
        underscore_headers: UnderscoreHeaders::Keep,
    };
    prop_oneof![3 => Just(HeadLimits::default()), 1 => Just(narrow)]
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        2 => (at(), byte()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        2 => (at(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => at().prop_map(Change::Delete),
        8 => (at(), select(VALUES)).prop_map(|(at, value)| Change::Value(at, value)),
        4 => select(TARGETS).prop_map(Change::Target),
        1 => select(METHODS).prop_map(Change::Method),
        1 => Just(Change::Old),
        1 => (at(), select(LINES)).prop_map(|(at, line)| Change::AddLine(at, line)),
        1 => at().prop_map(Change::RepeatLine),
        1 => at().prop_map(Change::RemoveLine),
        1 => (at(), at()).prop_map(|(one, other)| Change::SwapLines(one, other)),
        1 => at().prop_map(Change::BareLineFeed),
        1 => at().prop_map(Change::Cut),
        1 => select(&["GET /", "\r\n", "\0"][..]).prop_map(Change::Append),
    ]
}

fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![select(b"\r\n \t:\0\x7f\x80,;a0".to_vec()), any::<u8>()]
}

fn value() -> impl Strategy<Value = String> {
    "[ \t]{0,2}[!-~]{0,60}[ \t]{0,2}"
}

fn target() -> impl Strategy<Value = String> {
    "/[a-z/%0-9]{0,60}([?][a-z=&]{0,60})?"
}

fn apply(change: &Change, wire: &mut Vec<u8>) {
    let count = wire.len();
    if count == 0 {
        return;
    }
    match change {
        Change::Byte(at, byte) => wire[at.index(count)] = *byte,
        Change::Insert(at, byte) => wire.insert(at.index(count + 1), *byte),
        Change::Delete(at) => drop(wire.remove(at.index(count))),
        Change::Cut(at) => wire.truncate(at.index(count)),
        Change::Append(bytes) => wire.extend_from_slice(bytes.as_bytes()),
        other => {
            let mut lines: Vec<Vec<u8>> =
                wire.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
            apply_to_lines(other, &mut lines);
            *wire = lines.concat();
        }
    }
}

fn apply_to_lines(change: &Change, lines: &mut Vec<Vec<u8>>) {
    let count = lines.len();
    match change {
        Change::Value(at, value) => {
            let line = &mut lines[at.index(count)];
            if let Some(colon) = line.iter().position(|&byte| byte == b':') {
                line.truncate(colon + 1);
                line.extend_from_slice(format!("{value}\r\n").as_bytes());
            }
        }
        Change::Target(_) | Change::Method(_) | Change::Old => {
            let line = String::from_utf8_lossy(&lines[0]).into_owned();
            let mut parts: Vec<&str> = line.splitn(3, ' ').collect();
            match (change, parts.len()) {
                (Change::Target(target), 3) => parts[1] = target,
                (Change::Method(method), _) => parts[0] = method,
                (_, 3) => parts[2] = "HTTP/1.0\r\n",
                _ => {}
            }
            lines[0] = parts.join(" ").into_bytes();
        }
        Change::AddLine(at, line) => {
            lines.insert(at.index(count + 1), format!("{line}\r\n").into_bytes());
        }
        Change::RepeatLine(at) => lines.insert(at.index(count), lines[at.index(count)].clone()),
        Change::RemoveLine(at) => drop(lines.remove(at.index(count))),
        Change::SwapLines(one, other) => lines.swap(one.index(count), other.index(count)),
        Change::BareLineFeed(at) => {
            let line = &mut lines[at.index(count)];
            line.truncate(line.len().saturating_sub(2));
            line.push(b'\n');
        }
        _ => unreachable!("it is of bytes"),
    }
}
