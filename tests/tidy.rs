//! The project's style, as a test.
//!
//! It reads every source file as text, blanks out comments and literals, and
//! applies one small function for each rule. It knows just enough Rust for that:
//! words, braces and attributes. What rustc, clippy and rustfmt check is left to
//! them. Each rule is shown to fail when it is broken, at the bottom of the file.

use std::fmt;
use std::fs;
use std::path::Path;

const FUNCTION_LINES_MAX: usize = 60;
const FILE_LINES_MAX: usize = 600;

/// The files in which `unsafe` may appear. A pattern ending in `*` is a prefix.
const UNSAFE_FILES: &[&str] = &[
    "meinheld-coro/src/fiber.rs",
    "meinheld-coro/src/fiber/*",
    "meinheld-coro/src/switch.rs",
    "meinheld-coro/src/stack.rs",
    "meinheld-coro/src/sys.rs",
    "meinheld-coro/src/sys/*",
    "meinheld-core/src/sys/*",
    "meinheld-py/src/fastcall.rs",
    "meinheld-py/src/gil.rs",
    "meinheld-py/src/references.rs",
    "meinheld-py/src/text.rs",
    "meinheld-py/src/thread_bound.rs",
    "meinheld-py/src/tstate/*",
    "meinheld-py/src/unwinding.rs",
];

/// The external crates that have one home, and the files that are it.
const HOMES: &[(&str, &[&str])] = &[
    ("corosensei", &["meinheld-coro/src/fiber.rs", "meinheld-coro/src/fiber/*"]),
    ("libc", &["meinheld-coro/src/sys.rs", "meinheld-coro/src/sys/*", "meinheld-core/src/sys/*"]),
    ("httparse", &["meinheld-core/src/http/head.rs"]),
    ("tungstenite", &["meinheld-core/src/ws/protocol.rs", "meinheld-core/src/ws/message.rs"]),
    ("sha1", &["meinheld-core/src/ws/handshake.rs"]),
    ("pyo3", &["meinheld-py/*"]),
];

/// The words that a crate must not know. One ending in `*` is a prefix.
const UNKNOWN_WORDS: &[(&str, &[&str], &str)] = &[
    (
        "meinheld-core/",
        &["pyo3*", "Python*", "PyObject", "meinheld_py"],
        "core knows no Python: move it to meinheld-py",
    ),
    (
        "meinheld-coro/",
        &["pyo3*", "Python*", "PyObject", "meinheld_py", "meinheld_core"],
        "coro is the lowest layer: move it to the crate above",
    ),
    (
        "meinheld-coro/",
        &[
            "fd",
            "RawFd",
            "OwnedFd",
            "BorrowedFd",
            "AsFd",
            "AsRawFd",
            "FromRawFd",
            "IntoRawFd",
            "TcpStream",
            "TcpListener",
            "UnixStream",
            "UnixListener",
            "UdpSocket",
            "socket*",
            "epoll*",
        ],
        "coro knows no file descriptors: move it to meinheld-core",
    ),
    (
        "meinheld-py/",
        &["new_err"],
        "without memory for its text this ends the process: use saying() of raising.rs",
    ),
];

/// The dependencies that a crate's manifest must not have.
const UNKNOWN_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("meinheld-coro/Cargo.toml", &["meinheld-core", "meinheld-py", "pyo3", "httparse"]),
    ("meinheld-core/Cargo.toml", &["meinheld-py", "pyo3", "corosensei"]),
    ("meinheld-py/Cargo.toml", &["libc", "corosensei", "httparse"]),
];

const RUST_RULES: &[fn(&Source) -> Vec<Offence>] = &[
    opens_with_a_doc,
    unsafe_stays_in_its_files,
    unsafe_is_explained,
    crates_stay_at_home,
    layers_know_only_what_is_below,
    nothing_unwraps,
    nothing_is_left_to_do,
    functions_fit_a_screen,
    files_have_one_idea,
    files_are_named_after_their_idea,
];

#[test]
fn the_tree_is_tidy() {
    let files = files_below(Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut offences = Vec::new();
    let mut sources = Vec::new();
    for (path, text) in &files {
        offences.extend(text_is_clean(path, text));
        offences.extend(manifest_points_down(path, text));
        if has_extension(path, "rs") {
            let source = Source::new(path, text);
            offences.extend(RUST_RULES.iter().flat_map(|rule| rule(&source)));
            sources.push(source);
        }
    }
    for krate in ["meinheld-coro/src/", "meinheld-core/src/", "meinheld-py/src/"] {
        let found = sources.iter().any(|source| source.path.starts_with(krate));
        assert!(found, "{krate} has no Rust file: this test looks in the wrong place");
    }
    offences.extend(lists_are_true(&sources));
    let lines: Vec<String> = offences.iter().map(Offence::to_string).collect();
    assert!(lines.is_empty(), "{} offences:\n{}", lines.len(), lines.join("\n"));
}

/// One thing to mend.
#[derive(Debug)]
struct Offence {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

// ---------------------------------------------------------------- the rules

fn opens_with_a_doc(source: &Source) -> Vec<Offence> {
    if source.raw.first().is_some_and(|line| line.starts_with("//!")) {
        return Vec::new();
    }
    vec![source.offence(0, "open with `//!`: what the file owns, what it refuses to know")]
}

fn unsafe_stays_in_its_files(source: &Source) -> Vec<Offence> {
    if matches_any(&source.path, UNSAFE_FILES) {
        return Vec::new();
    }
    let words = source.words().filter(|word| word.text == "unsafe");
    words
        .map(|word| {
            source.offence(
                word.line,
                "`unsafe` outside of UNSAFE_FILES: call a safe function of the files listed there",
            )
        })
        .collect()
}

fn unsafe_is_explained(source: &Source) -> Vec<Offence> {
    let words = source.words().filter(|word| {
        let rest = source.code[word.end..].trim_start();
        word.text == "unsafe" && (rest.starts_with('{') || rest.starts_with("impl"))
    });
    words
        .filter(|word| !source.has_safety_comment(word.line))
        .map(|word| {
            source.offence(
                word.line,
                "`unsafe` without a reason: put `// SAFETY:` above, with the invariant and who upholds it",
            )
        })
        .collect()
}

fn crates_stay_at_home(source: &Source) -> Vec<Offence> {
    if !source.is_product() {
        return Vec::new();
    }
    let mut offences = Vec::new();
    for (name, homes) in HOMES {
        if matches_any(&source.path, homes) {
            continue;
        }
        for word in source.product_words().filter(|word| word.text == *name) {
            let what = format!("`{name}` outside of its home {}: call that", homes.join(", "));
            offences.push(source.offence(word.line, what));
        }
    }
    offences
}

fn layers_know_only_what_is_below(source: &Source) -> Vec<Offence> {
    let mut offences = Vec::new();
    for (krate, unknown, reason) in UNKNOWN_WORDS {
        if !source.path.starts_with(krate) {
            continue;
        }
        for word in source.product_words().filter(|word| matches_any(word.text, unknown)) {
            offences.push(source.offence(word.line, format!("`{}`: {reason}", word.text)));
        }
    }
    offences
}

fn nothing_unwraps(source: &Source) -> Vec<Offence> {
    let words = source.product_words().filter(|word| {
        word.text == "unwrap"
            && source.code[..word.start].trim_end().ends_with('.')
            && source.code[word.end..].starts_with("()")
    });
    words
        .map(|word| {
            source.offence(
                word.line,
                "`.unwrap()`: return the error, or `.expect(\"why it holds\")` where it cannot happen",
            )
        })
        .collect()
}

fn nothing_is_left_to_do(source: &Source) -> Vec<Offence> {
    let marks = ["todo", "dbg", "unimplemented"];
    let words = source.words().filter(|word| {
        marks.contains(&word.text)
            && source.code[word.end..].starts_with('!')
            && !source.code[word.end..].starts_with("!=")
    });
    words
        .map(|word| {
            source.offence(word.line, format!("`{}!`: finish it or take it out", word.text))
        })
        .collect()
}

fn functions_fit_a_screen(source: &Source) -> Vec<Offence> {
    let mut offences = Vec::new();
    for word in source.product_words().filter(|word| word.text == "fn") {
        let name = source.code[word.end..].trim_start();
        let name: String = name.chars().take_while(|&c| is_word(c)).collect();
        let (false, Some(end)) = (name.is_empty(), item_end(&source.code, word.end)) else {
            continue;
        };
        let lines = source.line_at(end) - word.line + 1;
        if lines > FUNCTION_LINES_MAX {
            let what = format!(
                "`{name}` has {lines} lines, over {FUNCTION_LINES_MAX}: give its steps names of their own"
            );
            offences.push(source.offence(word.line, what));
        }
    }
    offences
}

fn files_have_one_idea(source: &Source) -> Vec<Offence> {
    if !source.is_product() {
        return Vec::new();
    }
    let lines = source.test.iter().filter(|&&test| !test).count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    let what =
        format!("{lines} lines before the tests, over {FILE_LINES_MAX}: split it by its ideas");
    vec![source.offence(FILE_LINES_MAX, what)]
}

fn files_are_named_after_their_idea(source: &Source) -> Vec<Offence> {
    let vague = ["util", "utils", "helper", "helpers", "misc", "common"];
    let name = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
    let name = name.rsplit('/').next().unwrap_or(name);
    if vague.contains(&name) {
        return vec![
            source.offence(0, format!("`{name}` says nothing: name the file after its idea")),
        ];
    }
    Vec::new()
}

fn text_is_clean(path: &str, text: &str) -> Vec<Offence> {
    let mut offences = Vec::new();
    let mut add = |line: usize, what: &str| {
        offences.push(Offence { path: path.into(), line: line + 1, what: what.into() });
    };
    for (number, line) in text.split('\n').enumerate() {
        if line.contains('\t') && !path.ends_with("Makefile") {
            add(number, "tab: use spaces");
        }
        if line.ends_with([' ', '\t', '\r']) {
            add(number, "white space at the end of the line: take it out");
        }
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        add(text.lines().count().max(1) - 1, "end the file with exactly one newline");
    }
    offences
}

fn manifest_points_down(path: &str, text: &str) -> Vec<Offence> {
    let Some((_, unknown)) = UNKNOWN_DEPENDENCIES.iter().find(|(manifest, _)| *manifest == path)
    else {
        return Vec::new();
    };
    let mut offences = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let key: String = line.chars().take_while(|&c| is_word(c) || c == '-').collect();
        if unknown.contains(&key.as_str()) {
            let what =
                format!("`{key}` points the wrong way: py -> core -> coro, one home a crate");
            offences.push(Offence { path: path.into(), line: number + 1, what });
        }
    }
    offences
}

/// A list that names what is no longer there hides what comes back.
fn lists_are_true(sources: &[Source]) -> Vec<Offence> {
    let uses = |pattern: &str, name: &str| {
        let at = sources.iter().filter(|source| matches_any(&source.path, &[pattern]));
        at.flat_map(Source::words).any(|word| word.text == name)
    };
    let unsafe_files = UNSAFE_FILES.iter().map(|pattern| ("unsafe", *pattern));
    let homes =
        HOMES.iter().flat_map(|(name, homes)| homes.iter().map(move |pattern| (*name, *pattern)));
    let unused = unsafe_files.chain(homes).filter(|(name, pattern)| !uses(pattern, name));
    unused
        .map(|(name, pattern)| Offence {
            path: "tests/tidy.rs".into(),
            line: 1,
            what: format!("`{pattern}` is listed for `{name}` but has none: take it off the list"),
        })
        .collect()
}

// ------------------------------------------------------- reading the sources

/// A Rust file, with what the rules ask about it.
struct Source {
    path: String,
    raw: Vec<String>,
    /// The text with comments and the insides of literals blanked out;
    /// INVARIANT: it has the same lines as `raw`.
    code: String,
    /// The byte in `code` at which each line starts.
    starts: Vec<usize>,
    /// Whether the line belongs to a test.
    test: Vec<bool>,
}

/// A word of the code and where it stands; lines count from 0.
struct Word<'a> {
    text: &'a str,
    start: usize,
    end: usize,
    line: usize,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let raw: Vec<String> = text.lines().map(str::to_owned).collect();
        let code = blank_out(text);
        let mut starts = vec![0];
        starts.extend(code.match_indices('\n').map(|(at, _)| at + 1));
        let mut source =
            Self { path: path.into(), test: vec![false; raw.len()], raw, code, starts };
        source.mark_tests();
        source
    }

    fn offence(&self, line: usize, what: impl Into<String>) -> Offence {
        Offence { path: self.path.clone(), line: line + 1, what: what.into() }
    }

    /// Part of a crate, and not of its tests, benches or examples.
    fn is_product(&self) -> bool {
        self.path.starts_with("meinheld-")
            && !["/tests/", "/benches/", "/examples/", "/tests.rs"]
                .iter()
                .any(|part| self.path.contains(part))
    }

    fn words(&self) -> impl Iterator<Item = Word<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = at + self.code[at..].find(is_word)?;
            let rest = &self.code[start..];
            let end = start + rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            at = end;
            Some(Word { text: &self.code[start..end], start, end, line: self.line_at(start) })
        })
    }

    /// The words outside of tests.
    fn product_words(&self) -> impl Iterator<Item = Word<'_>> {
        self.words().filter(|word| self.is_product() && !self.test[word.line])
    }

    fn line_at(&self, byte: usize) -> usize {
        self.starts.partition_point(|&start| start <= byte) - 1
    }

    fn code_line(&self, line: usize) -> &str {
        self.code.lines().nth(line).unwrap_or("")
    }

    /// Marks the items that stand under `#[cfg(test)]` or `#[test]`.
    fn mark_tests(&mut self) {
        for attribute in ["#[cfg(test)]", "#[cfg(all(test", "#[test]"] {
            for (start, _) in self.code.match_indices(attribute) {
                let first = self.line_at(start);
                let after = start + self.code[start..].find(']').unwrap_or(0);
                let last = item_end(&self.code, after + 1).map_or(first, |end| self.line_at(end));
                self.test[first..=last].fill(true);
            }
        }
    }

    /// Whether `SAFETY:` stands on the line or just above its statement.
    fn has_safety_comment(&self, line: usize) -> bool {
        if self.raw[line].contains("SAFETY:") {
            return true;
        }
        for above in (0..line).rev() {
            let (raw, code) = (self.raw[above].trim(), self.code_line(above).trim());
            let is_comment = code.is_empty() && !raw.is_empty();
            if is_comment && raw.contains("SAFETY:") {
                return true;
            }
            let statement_ended = code.is_empty() || code.ends_with([';', '{', '}', ',']);
            if !is_comment && !code.starts_with("#[") && statement_ended {
                return false;
            }
        }
        false
    }
}

/// The byte that ends the item which starts at `from`: its closing brace, or
/// None if a semicolon ends it before any brace opens.
fn item_end(code: &str, from: usize) -> Option<usize> {
    let (mut braces, mut brackets) = (0, 0);
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' if braces <= 1 => return Some(from + at),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

/// Replaces comments and the insides of literals by spaces, line for line.
fn blank_out(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' => comment_length(rest),
            '"' => string_length(rest),
            '\'' => char_length(rest),
            'r' | 'b' | 'c' if !out.ends_with(is_word) => prefixed_length(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let blank = |c| if c == '\n' { '\n' } else { ' ' };
            out.extend(rest[..length].chars().map(blank));
            rest = &rest[length..];
        }
    }
    out
}

/// The length of the comment that `rest` starts with, or 0.
fn comment_length(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if !rest.starts_with("/*") {
        return 0;
    }
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let (deeper, step) = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (1, 2),
            [b'*', b'/', ..] => (-1, 2),
            _ => (0, 1),
        };
        depth += deeper;
        at += step;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of the string that starts with the quote at the front.
fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of the character literal at the front; 0 for a lifetime.
fn char_length(rest: &str) -> usize {
    let mut inside = rest.char_indices().skip(1);
    match (inside.next(), inside.next()) {
        (Some((_, '\\')), Some((at, c))) => {
            let from = at + c.len_utf8();
            rest[from..].find('\'').map_or(0, |close| from + close + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// The length of a literal with a prefix, `r#"…"#`, `b"…"`, `b'…'`, or 0.
fn prefixed_length(rest: &str) -> usize {
    let prefix = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    let (letters, after) = rest.split_at(prefix);
    let hashes = after.len() - after.trim_start_matches('#').len();
    let raw = matches!(letters, "r" | "br" | "cr");
    if raw && after[hashes..].starts_with('"') {
        let close = format!("\"{}", "#".repeat(hashes));
        let from = prefix + hashes + 1;
        return rest[from..].find(&close).map_or(rest.len(), |at| from + at + close.len());
    }
    match (letters, after.chars().next()) {
        ("b" | "c", Some('"')) => prefix + string_length(after),
        ("b", Some('\'')) => prefix + char_length(after),
        _ => 0,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a pattern is the whole text or, ending in `*`, its beginning.
fn matches_any(text: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => text.starts_with(prefix),
        None => text == *pattern,
    })
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// Every text file of the tree that people write, sorted, with its text.
fn files_below(root: &Path) -> Vec<(String, String)> {
    let written = ["rs", "py", "pyi", "c", "h", "toml", "ini", "md", "js", "css", "html", "txt"];
    let named = ["Makefile", ".ci/*", "tools/*"];
    let (mut files, mut folders) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the tree can be read") {
            let path = entry.expect("the tree can be read").path();
            let name = path.strip_prefix(root).expect("it lies below the root");
            let name = name.to_str().expect("names are UTF-8").to_owned();
            if path.is_dir() {
                if !is_built(&name) {
                    folders.push(path);
                }
            } else if matches_any(&name, &named) || written.iter().any(|e| has_extension(&name, e))
            {
                let text = fs::read_to_string(&path).expect("text files are UTF-8");
                files.push((name, text));
            }
        }
    }
    files.sort();
    files
}

/// A folder that nobody writes by hand.
fn is_built(folder: &str) -> bool {
    let last = folder.rsplit('/').next().unwrap_or(folder);
    matches!(last, "target" | "dist" | "node_modules" | "__pycache__")
        || (last.starts_with('.') && last != ".ci")
}

// ------------------------------------------------ each rule fails when broken

const PRODUCT: &str = "meinheld-core/src/server.rs";
const LISTED: &str = "meinheld-coro/src/stack.rs";

/// The lines, from 1, at which a rule finds an offence.
fn lines_found(rule: fn(&Source) -> Vec<Offence>, path: &str, text: &str) -> Vec<usize> {
    rule(&Source::new(path, text)).iter().map(|offence| offence.line).collect()
}

#[test]
fn a_file_without_a_doc_is_found() {
    assert_eq!(lines_found(opens_with_a_doc, PRODUCT, "use std::fs;\n"), [1]);
    assert_eq!(lines_found(opens_with_a_doc, PRODUCT, "// Owns x.\n"), [1]);
    assert_eq!(lines_found(opens_with_a_doc, PRODUCT, ""), [1]);
    assert!(lines_found(opens_with_a_doc, PRODUCT, "//! Owns x.\n").is_empty());
}

#[test]
fn unsafe_outside_of_its_files_is_found() {
    let text = "fn f() {\n    unsafe { g() }\n}\nunsafe impl Send for X {}\n";
    assert_eq!(lines_found(unsafe_stays_in_its_files, PRODUCT, text), [2, 4]);
    assert_eq!(lines_found(unsafe_stays_in_its_files, "tests/slow.rs", text), [2, 4]);
    assert!(lines_found(unsafe_stays_in_its_files, LISTED, text).is_empty());
    assert!(lines_found(unsafe_stays_in_its_files, "meinheld-core/src/sys/x.rs", text).is_empty());
    let other = "#[allow(unsafe_code)] // unsafe\nmod sys; const S: &str = \"unsafe\";\n";
    assert!(lines_found(unsafe_stays_in_its_files, PRODUCT, other).is_empty());
}

#[test]
fn unsafe_without_a_reason_is_found() {
    let broken = [
        "unsafe { g() }\n",
        "// It is fine.\nunsafe { g() }\n",
        "// SAFETY: for f.\nf();\nunsafe { g() }\n",
        "// SAFETY: too far away.\n\nunsafe { g() }\n",
        "unsafe impl Send for X {}\n",
        "match x {\n    // SAFETY: of a.\n    a => unsafe { a() },\n    b => unsafe { b() },\n}\n",
        "unsafe\n{ g() }\n",
        "let s = \"SAFETY:\";\nunsafe { g() }\n",
    ];
    for text in broken {
        assert_eq!(lines_found(unsafe_is_explained, LISTED, text).len(), 1, "{text}");
    }
    let explained = [
        "// SAFETY: x is alive.\nunsafe { g() }\n",
        "// SAFETY: x is alive,\n// and ours.\nunsafe { g() }\n",
        "/* SAFETY: x is alive. */ unsafe { g() }\n",
        "// SAFETY: x is alive.\n#[inline]\nunsafe impl Send for X {}\n",
        "// SAFETY: x is alive.\nlet y =\n    unsafe { g() };\n",
        "#[unsafe(no_mangle)]\nextern \"C\" fn f() {}\n",
        "unsafe fn f() {}\n",
    ];
    for text in explained {
        assert!(lines_found(unsafe_is_explained, LISTED, text).is_empty(), "{text}");
    }
}

#[test]
fn a_crate_away_from_home_is_found() {
    let cases = [
        ("use corosensei::Coroutine;\n", "meinheld-coro/src/fiber/elsewhere.rs"),
        ("let n = libc::read(0);\n", "meinheld-core/src/sys/socket.rs"),
        ("let r = httparse::Request::new();\n", "meinheld-core/src/http/head.rs"),
        ("use pyo3::Python;\n", "meinheld-py/src/server.rs"),
    ];
    for (text, home) in cases {
        assert_eq!(lines_found(crates_stay_at_home, PRODUCT, text), [1], "{text}");
        assert!(lines_found(crates_stay_at_home, home, text).is_empty(), "{text}");
        assert!(lines_found(crates_stay_at_home, "tests/syscalls.rs", text).is_empty(), "{text}");
    }
    assert!(lines_found(crates_stay_at_home, PRODUCT, "// as libc does\n").is_empty());
}

#[test]
fn a_layer_that_looks_up_is_found() {
    let rule = layers_know_only_what_is_below;
    assert_eq!(lines_found(rule, PRODUCT, "use pyo3_ffi::x;\nfn f(py: Python<'_>) {}\n"), [1, 2]);
    assert_eq!(lines_found(rule, LISTED, "use std::os::fd::OwnedFd;\n"), [1, 1]);
    assert_eq!(lines_found(rule, LISTED, "use meinheld_core::Server;\n"), [1]);
    assert_eq!(lines_found(rule, LISTED, "fn f() { epoll_wait(); }\n"), [1]);
    assert!(
        lines_found(rule, PRODUCT, "//! Knows no Python.\nuse std::os::fd::OwnedFd;\n").is_empty()
    );
    assert!(lines_found(rule, "meinheld-py/src/lib.rs", "use pyo3::Python;\n").is_empty());
}

#[test]
fn an_unwrap_is_found() {
    let text = "fn f() {\n    x.unwrap();\n    x\n        .unwrap();\n}\n";
    assert_eq!(lines_found(nothing_unwraps, PRODUCT, text), [2, 4]);
    let fine = "fn f() { x.unwrap_or(1); x.expect(\"it holds\"); } // .unwrap()\n\
                #[cfg(test)]\nmod tests {\n    fn f() { x.unwrap(); }\n}\n";
    assert!(lines_found(nothing_unwraps, PRODUCT, fine).is_empty());
    let after = "#[cfg(test)]\nmod tests {\n}\nfn f() { x.unwrap(); }\n";
    assert_eq!(lines_found(nothing_unwraps, PRODUCT, after), [4]);
    let declared = "#[cfg(test)]\nmod tests;\nfn f() { x.unwrap(); }\n";
    assert_eq!(lines_found(nothing_unwraps, PRODUCT, declared), [3]);
    assert!(lines_found(nothing_unwraps, "tests/parse.rs", text).is_empty());
}

#[test]
fn unfinished_work_is_found() {
    let text = "fn f() { todo!() }\nfn g() { dbg!(x); }\nfn h() { unimplemented!() }\n";
    assert_eq!(lines_found(nothing_is_left_to_do, PRODUCT, text), [1, 2, 3]);
    assert_eq!(lines_found(nothing_is_left_to_do, "tests/parse.rs", text), [1, 2, 3]);
    let fine = "let todo = 1; if todo != 2 {} // todo!\nlet s = \"dbg!\"; if todo!=2 {}\n";
    assert!(lines_found(nothing_is_left_to_do, PRODUCT, fine).is_empty());
}

#[test]
fn a_long_function_is_found() {
    let of = |lines: usize| {
        format!("\nfn f(a: [u8; 2]) {{\n{}}}\n", "    g(\"}\");\n".repeat(lines - 2))
    };
    assert_eq!(lines_found(functions_fit_a_screen, PRODUCT, &of(FUNCTION_LINES_MAX + 1)), [2]);
    assert!(lines_found(functions_fit_a_screen, PRODUCT, &of(FUNCTION_LINES_MAX)).is_empty());
    let test = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", of(100));
    assert!(lines_found(functions_fit_a_screen, PRODUCT, &test).is_empty());
    let method = format!("impl X {{\n    fn a();\n    type F = fn(u8);\n{}}}\n", of(61));
    assert_eq!(lines_found(functions_fit_a_screen, PRODUCT, &method), [5]);
}

#[test]
fn a_long_file_is_found() {
    let (full, tests) = ("//\n".repeat(FILE_LINES_MAX), "#[cfg(test)]\nmod tests {\n//\n}\n");
    assert!(lines_found(files_have_one_idea, PRODUCT, &format!("{full}{tests}")).is_empty());
    assert_eq!(lines_found(files_have_one_idea, PRODUCT, &format!("{full}//\n{tests}")), [601]);
}

#[test]
fn a_vague_name_is_found() {
    let rule = files_are_named_after_their_idea;
    for path in ["meinheld-core/src/util.rs", "meinheld-py/src/helpers/mod.rs", "tests/helpers.rs"]
    {
        assert_eq!(lines_found(rule, path, ""), [1], "{path}");
    }
    assert!(lines_found(rule, "meinheld-core/src/http/mod.rs", "").is_empty());
}

#[test]
fn untidy_text_is_found() {
    let lines = |path, text| -> Vec<usize> {
        text_is_clean(path, text).iter().map(|offence| offence.line).collect()
    };
    assert_eq!(lines("a.py", "x\n\ty\n"), [2]);
    assert_eq!(lines("a.py", "x \ny\n"), [1]);
    assert_eq!(lines("a.py", "x\r\n"), [1]);
    assert_eq!(lines("a.py", "x\ny"), [2]);
    assert_eq!(lines("a.py", "x\n\n"), [2]);
    assert_eq!(lines("Makefile", "a:\n\tb\n"), [0_usize; 0]);
    assert_eq!(lines("a.py", ""), [0_usize; 0]);
}

#[test]
fn a_manifest_that_points_up_is_found() {
    let text = "[dependencies]\nlibc.workspace = true\npyo3 = \"1\"\nmeinheld-core = \"2\"\n";
    let lines = |path| -> Vec<usize> {
        manifest_points_down(path, text).iter().map(|offence| offence.line).collect()
    };
    assert_eq!(lines("meinheld-coro/Cargo.toml"), [3, 4]);
    assert_eq!(lines("meinheld-core/Cargo.toml"), [3]);
    assert_eq!(lines("meinheld-py/Cargo.toml"), [2]);
    assert_eq!(lines("Cargo.toml"), [0_usize; 0]);
}

#[test]
fn a_stale_list_is_found() {
    let stale = lists_are_true(&[Source::new(LISTED, "unsafe fn f() {}\n")]);
    assert!(stale.iter().all(|offence| !offence.what.starts_with(&format!("`{LISTED}`"))));
    let homes: usize = HOMES.iter().map(|(_, homes)| homes.len()).sum();
    assert_eq!(stale.len(), UNSAFE_FILES.len() - 1 + homes);
}

#[test]
fn an_offence_reads_as_a_compiler_error() {
    let found = opens_with_a_doc(&Source::new(PRODUCT, ""));
    assert!(found[0].to_string().starts_with("meinheld-core/src/server.rs:1: open with"));
}

#[test]
fn comments_and_literals_are_blank() {
    let cases = [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        ("f(\"a\\\"b\") g", "f(      ) g"),
        ("r#\"a\"b\"# c", "         c"),
        ("b\"x\" b'x' br\"x\" c\"x\" d", "                     d"),
        ("'x' '\\'' '\\u{1}' 'é'", "                    "),
        ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ("for r in b { c.r#type }", "for r in b { c.r#type }"),
        ("\"a\nb\" c", "  \n   c"),
    ];
    for (text, code) in cases {
        assert_eq!(blank_out(text), code, "{text}");
    }
}
