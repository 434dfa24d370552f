//! What the protocol costs without a server around it: parsing a head, and encoding one.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meinheld_core::http::{
    HeadIndex, HeadLimits, KeepAlive, RequestFacts, RequestKind, ResponseBuilder, ServerFields,
    Version,
};

criterion_group!(benches, heads, responses);
criterion_main!(benches);

/// The request of a benchmark's client.
const SHORT: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";

/// The request of a browser.
const BROWSER: &[u8] = b"GET /page?n=1 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=6f1e2a7c9b3d4f5e8a0b1c2d3e4f5a6b; theme=dark; _ga=GA1.2.1234567890.1700000000\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: none\r\n\
    Cache-Control: max-age=0\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse a head");
    let (mut index, limits) = (HeadIndex::new(), HeadLimits::default());
    for (name, head) in [("short", SHORT), ("browser", BROWSER)] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| index.parse(black_box(head), &limits).expect("the head is good"));
        });
    }
    let mut follower = HeadIndex::new();
    let changed = [&b"GET /page?n=2"[..], &BROWSER[13..]].concat();
    group.bench_function("browser, by the one before", |bencher| {
        let mut heads = [BROWSER, &changed];
        follower.parse(heads[0], &limits).expect("the head is good");
        bencher.iter(|| {
            heads.swap(0, 1);
            follower.follow(heads[1], black_box(heads[0]), &limits).expect("one tells the other")
        });
    });
}

fn responses(criterion: &mut Criterion) {
    let request = RequestFacts {
        version: Version::Http11,
        kind: RequestKind::Other,
        keep_alive: KeepAlive::Keep,
    };
    let (server, mut out) = (ServerFields::default(), Vec::new());
    let begin = || {
        let mut builder = ResponseBuilder::begin(200, black_box(b"OK")).expect("200 is final");
        for (name, value) in [("Content-Type", "text/plain"), ("Content-Length", "13")] {
            builder.header(name.as_bytes(), value.as_bytes()).expect("the header is good");
        }
        builder
    };
    criterion.bench_function("check and encode a response", |bencher| {
        bencher.iter(|| {
            out.clear();
            begin().finish(request, None, &server, &mut out).expect("no upgrade is asked for")
        });
    });
    let known = begin();
    criterion.bench_function("complete one that was encoded before", |bencher| {
        bencher.iter(|| {
            out.clear();
            known.finish(request, None, &server, &mut out).expect("no upgrade is asked for")
        });
    });
}
