//! Every fuzz target over its corpus, and over a bounded number of mutations of it that are the same
//! in every run. `make fuzz` looks further, with libFuzzer.
//!
//! `FUZZ_ROUNDS=100000` mutates more, `FUZZ_SEED=7` differently.

mod fuzzing;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The longest input that mutations make, in bytes.
const INPUT_BYTES_MAX: usize = 2048;

/// One at a time: the connection target counts this process's descriptors.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn head() {
    run("head", fuzzing::head, 4000);
}

#[test]
fn chunked() {
    run("chunked", fuzzing::chunked, 4000);
}

#[test]
fn response() {
    run("response", fuzzing::response, 20_000);
}

#[test]
fn connection() {
    run("connection", fuzzing::connection, 4000);
}

#[test]
fn websocket() {
    run("websocket", fuzzing::websocket, 20_000);
}

/// Runs `target` over its corpus, and over `rounds` mutations.
fn run(name: &str, target: fn(&[u8]), rounds: u64) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let corpus = corpus(name);
    assert!(corpus.len() >= 10, "{name} has a corpus");
    for input in &corpus {
        try_input(target, input);
    }
    let dictionary = dictionary();
    let mut random = Random(setting("FUZZ_SEED").unwrap_or(0x9e37_79b9_7f4a_7c15));
    for _ in 0..setting("FUZZ_ROUNDS").unwrap_or(rounds) {
        let mut input = random.pick(&corpus).clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, &corpus, &dictionary, &mut random);
        }
        input.truncate(INPUT_BYTES_MAX);
        try_input(target, &input);
    }
}

/// Runs `target`; if it panics, shows the input too.
fn try_input(target: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        eprintln!("the input was b\"{}\"", input.escape_ascii());
        resume_unwind(panic);
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder().join(name)).expect("there is a corpus");
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("it can be read")).collect()
}

/// The tokens of libFuzzer's dictionary: one in quotes a line, with `\xNN`, `\\` and `\"`.
fn dictionary() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(folder().join("tokens.dict")).expect("there are tokens");
    let lines = text.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    lines.map(unescape).collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut token, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = str::from_utf8(&digits).expect("two digits");
                token.push(u8::from_str_radix(digits, 16).expect("two digits"));
                after
            }
            (b'\\', [quoted, after @ ..]) => {
                token.push(*quoted);
                after
            }
            _ => {
                token.push(*first);
                after
            }
        };
    }
    token
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], dictionary: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = (at + 1 + random.below(16)).min(input.len());
    match random.below(8) {
        0 if at < end => input[at] ^= 1 << random.below(8),
        1 if at < end => input[at] = random.byte(),
        2 => input.insert(at, random.byte()),
        3 => drop(input.drain(at..end)),
        4 => {
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        5 | 6 => {
            let token = random.pick(dictionary).clone();
            let replaced = if random.below(2) == 0 { at } else { end };
            input.splice(at..replaced, token);
        }
        _ => {
            let other = random.pick(corpus);
            let from = random.below(other.len() + 1);
            input.splice(at.., other[from..].iter().copied());
        }
    }
}

/// Xorshift, 64 bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("64 bits");
        usize::try_from((self.next() >> 16) % limit).expect("it is below the limit")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

#[test]
fn tokens_are_read_as_libfuzzer_reads_them() {
    assert_eq!(unescape(r#"a\x0d\x0A\\\"|"#), b"a\r\n\\\"|");
    assert!(dictionary().contains(&b"\r\n".to_vec()));
}
