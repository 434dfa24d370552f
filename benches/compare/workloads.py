"""What is asked of the servers, and how many bytes must come back."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "apps"))

import plain

FILE_BYTES = 10 << 20
POSTED = bytes(range(256)) * 64

BROWSER = """\
GET {path} HTTP/1.1
Host: 127.0.0.1:8000
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8
Accept-Language: en-US,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Referer: http://127.0.0.1:8000/previous/page?with=a&query=string
Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; csrftoken=c9f0f895fb98ab9159f51fd0297e
Upgrade-Insecure-Requests: 1
Sec-Fetch-Dest: document
Sec-Fetch-Mode: navigate
Sec-Fetch-Site: same-origin
{last}

"""


def wire(text: str) -> bytes:
    """The head of a request as it is sent."""
    return text.replace("\n", "\r\n").encode()


def get(path: str) -> bytes:
    """What a load generator of old sends."""
    return wire(f"GET {path} HTTP/1.1\nHost: 127.0.0.1:8000\n\n")


@dataclass(frozen=True)
class Workload:
    """A request, what answers it, and how it is sent."""

    name: str
    request: bytes
    body: bytes
    connections: int = 64
    pipeline: int = 1
    reuse: str = "keep-alive"
    module: str = "plain"
    # How many requests may wait for a partner when the load ends.
    stragglers: int = 0
    # Whether the server writes its access log to a file.
    logged: bool = False
    # Whether a server that holds the first piece back until the last is there does not count.
    streamed: bool = False


HELLO = plain.HELLO
PATTERN = bytes(range(256)) * (FILE_BYTES // 256)
CONNECTION = "Priority: u=0, i"

LOGGED = Workload("hello, its access log on", get("/"), HELLO, logged=True)

WORKLOADS = [
    Workload("hello", get("/"), HELLO),
    LOGGED,
    Workload("hello, a browser's headers", wire(BROWSER.format(path="/", last=CONNECTION)), HELLO),
    Workload(
        "the same, path and a header differ",
        wire(BROWSER.format(path="/item/{number}", last="X-Request-Id: {number}")),
        HELLO,
    ),
    Workload("hello, pipelined by 16", get("/"), HELLO, connections=16, pipeline=16),
    Workload(
        "hello, a connection each",
        wire("GET / HTTP/1.0\nHost: 127.0.0.1:8000\nUser-Agent: ApacheBench/2.3\nAccept: */*\n\n"),
        HELLO,
        connections=100,
        reuse="one-request",
    ),
    Workload(
        "POST of 16 KiB, echoed",
        wire(f"POST /echo HTTP/1.1\nHost: x\nContent-Length: {len(POSTED)}\n\n") + POSTED,
        POSTED,
    ),
    Workload("1 MiB body", get("/large"), plain.LARGE, connections=16),
    Workload("10 MiB file", get("/file"), PATTERN, connections=8),
    Workload("100 pieces from a generator", get("/pieces"), plain.PIECE * plain.PIECES, streamed=True),
    Workload("park and wake, in pairs", get("/pair"), b"hello", module="parking", stragglers=1),
    Workload(
        "the same, a connection each",
        get("/pair"),
        b"hello",
        reuse="one-request",
        module="parking",
        stragglers=1,
    ),
]

BESIDE = Workload("hello", get("/"), b"hello", module="parking")

WAIT = get("/wait?{number}")
WAIT_BODY = b"{number}"
WAKE = get("/wake")
