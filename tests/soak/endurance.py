"""Many requests, and many that are given up: nothing is left of them. And failures without end."""

from __future__ import annotations

import socket
import struct
import time

from outcome import Outcome
from target import Target, rest_of

RESET = struct.pack("ii", 1, 0)
RSS_SLACK_KIB = 16 * 1024
DESCRIPTOR_SLACK = 4
ABORTED = 20_000
BATCH = 500
REQUESTS = 100_000
FAILURES = 10_000
SETTLE = 1.0


def source(number: int) -> tuple[str, int]:
    """An address of the loopback's, so that so many connections do not use up one's ports."""
    return (f"127.0.0.{number % 100 + 2}", 0)


def connect(target: Target, number: int = 0) -> socket.socket:
    """Open a connection from one of many addresses."""
    return socket.create_connection(target.address, 10, source(number))


def request(path: str, extra: str = "", body: bytes = b"", method: str = "GET") -> bytes:
    """The bytes of a request."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{extra}{length}\r\n".encode() + body


def aborted(scale: float) -> Outcome:
    """Requests that are parked when their client goes, by FIN and by RST."""
    outcome = Outcome("aborted parked requests")
    count = max(int(ABORTED * scale) // BATCH, 4) * BATCH
    with Target() as target:
        for _ in range(2):
            _abort_batch(target)
        time.sleep(SETTLE)
        resident, descriptors = target.rss(), target.descriptors()
        begun = time.monotonic()
        for _ in range(count // BATCH):
            _abort_batch(target)
        took = time.monotonic() - begun
        time.sleep(SETTLE)
        outcome.note(f"{count} in {took:.1f} s")
        outcome.returns("parked", 0, target.state()["parked"], 0)
        outcome.returns("descriptors", descriptors, target.descriptors(), DESCRIPTOR_SLACK)
        outcome.returns("RSS KiB", resident, target.rss(), RSS_SLACK_KIB)
        outcome.promise("Traceback" not in target.log(), "tracebacks in the log")
    return outcome


def _abort_batch(target: Target) -> None:
    peers = [connect(target, number) for number in range(BATCH)]
    for peer in peers:
        peer.sendall(request("/park"))
    # The last one is parked when its request has been read, all others before it.
    deadline = time.monotonic() + 10
    while target.state()["parked"] < BATCH and time.monotonic() < deadline:
        time.sleep(0.002)
    for number, peer in enumerate(peers):
        if number % 2:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.close()
    while target.state()["parked"] > 0 and time.monotonic() < deadline:
        time.sleep(0.002)


ROUND = [
    *[request("/")] * 20,
    request("/echo", body=b"b" * 1000, method="POST"),
    request("/echo", "Transfer-Encoding: chunked\r\n", method="POST") + b"3\r\nabc\r\n0\r\n\r\n",
    *[request("/generate")] * 10,
    request("/nowhere"),
    request("/", method="HEAD"),
]
#: What ends its connection.
LAST = [
    request("/", "Connection: close\r\n"),
    request("/fail"),
    request("/fail-midway"),
    request("/expire"),
    request("/echo", body=b"b" * 99_999, method="POST")[:-1000],
]


def requests(scale: float) -> Outcome:
    """All kinds of requests; the connections are kept for a while, and end in all ways."""
    outcome = Outcome("requests")
    with Target() as target:
        _many(target, 3000)
        time.sleep(SETTLE)
        resident, descriptors = target.rss(), target.descriptors()
        begun = time.monotonic()
        sent, answered = _many(target, max(int(REQUESTS * scale), 5000))
        took = time.monotonic() - begun
        target.settle(descriptors + DESCRIPTOR_SLACK)
        outcome.note(f"{sent} in {took:.1f} s, {answered} answered")
        outcome.promise(sent == answered, f"{sent - answered} were not answered")
        outcome.returns("descriptors", descriptors, target.descriptors(), DESCRIPTOR_SLACK)
        outcome.returns("RSS KiB", resident, target.rss(), RSS_SLACK_KIB)
        state = target.state()
        outcome.promise(state["begun"] == state["closed"], f"iterables not closed: {state}")
    return outcome


def _many(target: Target, count: int) -> tuple[int, int]:
    """Send about so many; how many were sent, and how many answered."""
    sent = answered = number = 0
    while sent < count:
        last = LAST[number % len(LAST)]
        with connect(target, number) as peer:
            for _ in range(3):
                peer.sendall(b"".join(ROUND))
            peer.sendall(last)
            peer.shutdown(socket.SHUT_WR)
            answered += rest_of(peer).count(b"HTTP/1.1 ")
        sent += 3 * len(ROUND) + 1
        number += 1
    return sent, answered


def failures(scale: float) -> Outcome:
    """An application that raises on each request, and midway through each response."""
    outcome = Outcome("failures")
    count = max(int(FAILURES * scale), 1000)
    with Target() as target:
        _fail(target, 500)
        resident, descriptors = target.rss(), target.descriptors()
        begun = time.monotonic()
        wrong = _fail(target, count)
        took = time.monotonic() - begun
        target.settle(descriptors + DESCRIPTOR_SLACK)
        outcome.note(f"{count} in {took:.1f} s")
        outcome.promise(not wrong, f"{wrong} had another end than a 500, or a cut-off 200")
        outcome.returns("descriptors", descriptors, target.descriptors(), DESCRIPTOR_SLACK)
        outcome.returns("RSS KiB", resident, target.rss(), RSS_SLACK_KIB)
        state = target.state()
        outcome.promise(state["begun"] == state["closed"], f"iterables not closed: {state}")
    return outcome


def _fail(target: Target, count: int) -> int:
    """Fail so often; how many did not end as they should."""
    wrong = 0
    for number in range(count):
        path, status = (("/fail", b"500"), ("/fail-midway", b"200"))[number % 2]
        with connect(target, number) as peer:
            peer.sendall(request(path))
            answer = rest_of(peer)
        cut_off = not answer.endswith(b"\r\n0\r\n\r\n")
        wrong += answer[9:12] != status or not cut_off
    return wrong
