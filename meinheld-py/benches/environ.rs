//! What an environ costs, in the interpreter and without a server around it: of a new connection, of the
//! same head again, and of one that differs from the last in its path and a header.

use std::hint::black_box;
use std::net::SocketAddr;

use _meinheld::environ::Environs;
use criterion::{Criterion, criterion_group, criterion_main};
use meinheld_core::http::{Changes, Head, HeadIndex, HeadLimits};
use meinheld_core::{Address, ConnectionInfo};
use pyo3::Python;

criterion_group!(benches, environs);
criterion_main!(benches);

/// The request of a benchmark's client.
const SHORT: &str = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";

/// The request of a browser, with a place for a path and one in a header.
fn browser(item: &str) -> String {
    format!(
        "GET /page/{item} HTTP/1.1\r\n\
        Host: www.example.com\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\r\n\
        Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
        Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n\
        Accept-Encoding: gzip, deflate, br, zstd\r\n\
        Connection: keep-alive\r\n\
        Cookie: session=6f1e2a7c9b3d4f5e8a0b1c2d3e4f5a6b; theme=dark; item={item}\r\n\
        Upgrade-Insecure-Requests: 1\r\n\
        Sec-Fetch-Dest: document\r\n\
        Sec-Fetch-Mode: navigate\r\n\
        Sec-Fetch-Site: none\r\n\
        Cache-Control: max-age=0\r\n\r\n"
    )
}

fn environs(criterion: &mut Criterion) {
    Python::initialize();
    Python::attach(|py| {
        let environs = Environs::new(py).expect("the interpreter has sys.stderr");
        let build = |head: &Head<'_>, number: u64, changes: Option<Changes>| {
            let peer = Address::Ip(SocketAddr::from(([127, 0, 0, 1], 50_000)));
            let local = Address::Ip(SocketAddr::from(([127, 0, 0, 1], 8_000)));
            let connection =
                ConnectionInfo { peer: &peer, local: &local, body_bytes: None, number, changes };
            let built = environs.build_for_nobody(py, black_box(head), &connection);
            built.expect("there is memory");
        };
        for (name, texts) in [
            ("short", [SHORT.to_owned(), SHORT.to_owned()]),
            ("browser", [browser("1001"), browser("1002")]),
        ] {
            let (mut index, mut other) = (HeadIndex::new(), HeadIndex::new());
            let heads = [parse(&mut index, &texts[0]), parse(&mut other, &texts[1])];
            let changes = changes(&texts);
            let mut group = criterion.benchmark_group(format!("environ, {name}"));
            let mut number = 1;
            group.bench_function("of a new connection", |bencher| {
                bencher.iter(|| {
                    number += 1;
                    build(&heads[0], number, None);
                });
            });
            build(&heads[0], number, None);
            group.bench_function("the same head again", |bencher| {
                bencher.iter(|| build(&heads[0], number, Some(Changes::default())));
            });
            let mut turn = 0;
            group.bench_function("of another one", |bencher| {
                bencher.iter(|| {
                    turn ^= 1;
                    build(&heads[turn], number, changes);
                });
            });
        }
    });
}

/// The head that this text is.
fn parse<'a>(index: &'a mut HeadIndex, text: &'a str) -> Head<'a> {
    index.parse(text.as_bytes(), &HeadLimits::default()).expect("the head is good");
    index.view(text.as_bytes())
}

/// How the second of these heads differs from the first, if the one can be told by the other.
fn changes(texts: &[String; 2]) -> Option<Changes> {
    let mut index = HeadIndex::new();
    parse(&mut index, &texts[0]);
    let [first, second] = texts.each_ref().map(String::as_bytes);
    index.follow(first, second, &HeadLimits::default()).map(|followed| followed.changes)
}
