"""Hostile bytes, and many of them: heads, chunks, trailers, pipelines, resets, half-closes."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable

from outcome import Outcome, is_well
from probe import Probe
from target import Target, rest_of

RESET = struct.pack("ii", 1, 0)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
#: More than any limit of the server; who may send this much is not bounded.
ENDLESS = 64 * 1024 * 1024
PIPELINED = 3000
BODY_MAX = 1_000_000
#: Who fires as fast as it can has its share of the one thread: a p99 up to this is well.
FLOOD_FLOOR = 0.010
RSS_SLACK_KIB = 24 * 1024
DESCRIPTOR_SLACK = 8


def floods(seconds: float) -> Outcome:
    """Each flood in turn, for a share of the time, while a healthy client is served."""
    outcome = Outcome("floods")
    flags = ("--client-max-body", str(BODY_MAX))
    with Target(*flags) as target, Target() as quiet:
        target.ask()
        resident, descriptors = target.rss(), target.descriptors()
        for name, flood in FLOODS.items():
            _flood(outcome, target, quiet, name, flood, seconds / 5)
        target.settle(descriptors + DESCRIPTOR_SLACK)
        outcome.returns("descriptors", descriptors, target.descriptors(), DESCRIPTOR_SLACK)
        outcome.returns("RSS KiB", resident, target.rss(), RSS_SLACK_KIB)
        log = target.log()
        outcome.note(f"log {len(log)} bytes")
        outcome.promise(len(log) < 20_000, f"the log has {len(log)} bytes")
        outcome.promise(target.is_alive() and target.ask()[0] == 200, "the server has died")
    return outcome


def _flood(
    outcome: Outcome,
    target: Target,
    quiet: Target,
    name: str,
    flood: Callable[[Target], bytes],
    seconds: float,
) -> None:
    wanted = {b"200", b"400", b"403", b"404", b"405", b"431", b"413", b"501", b"-"}
    count, got = 0, set()
    probe = Probe(target.address, quiet.address)
    until = time.monotonic() + seconds
    while time.monotonic() < until and target.is_alive():
        got.add(flood(target))
        count += 1
    shown = b"/".join(sorted(got)).decode()
    fired, quietly = probe.stop()
    outcome.note(f"{name} {count}x {shown}, p99 {fired.p99 * 1e3:.2f}/{quietly.p99 * 1e3:.2f} ms")
    outcome.promise(fired.failures == 0, f"{name}: {fired.failures} healthy requests failed")
    outcome.promise(is_well(fired, quietly, FLOOD_FLOOR), f"{name}: slows a healthy client")
    outcome.promise(got <= wanted, f"{name}: {shown}")


def _status(answer: bytes) -> bytes:
    return answer[9:12] if answer.startswith(b"HTTP/1.1 ") else b"nothing"


def _refused(target: Target, begin: bytes, more: bytes) -> bytes:
    """Send without end until the server has had enough."""
    with target.connect() as peer:
        sent = peer.send(begin)
        peer.settimeout(2)
        try:
            while sent < ENDLESS:
                sent += peer.send(more)
                peer.setblocking(False)
                try:
                    if answer := peer.recv(4096):
                        return _status(answer)
                except BlockingIOError:
                    pass
                peer.settimeout(2)
        except ConnectionError:
            # A reset may overtake the answer.
            return b"-"
        except TimeoutError:
            return b"stalled"
    return b"endless"


def header_line(target: Target) -> bytes:
    """A header whose line does not end."""
    return _refused(target, GET[:-2] + b"X-Long: ", b"l" * 16384)


def header_count(target: Target) -> bytes:
    """Headers without end."""
    return _refused(target, GET[:-2], b"X-Many: m\r\n" * 500)


def chunk_extension(target: Target) -> bytes:
    """A chunk extension that does not end."""
    return _refused(target, CHUNKED + b"1;", b"e" * 16384)


def chunk_extensions(target: Target) -> bytes:
    """Chunk extensions without end, each within bounds."""
    return _refused(target, CHUNKED, (b"1;" + b"e" * 200 + b"\r\nx\r\n") * 50)


def trailers(target: Target) -> bytes:
    """Trailers without end."""
    return _refused(target, CHUNKED + b"0\r\n", b"X-Trailer: t\r\n" * 500)


def small_chunks(target: Target) -> bytes:
    """A body of chunks of one byte, until it is too large."""
    return _refused(target, CHUNKED, b"1\r\nx\r\n" * 4000)


def pipeline(target: Target) -> bytes:
    """3,000 requests in one go, all answered in order."""
    paths = [b"/" if number % 3 else b"/echo" for number in range(PIPELINED)]
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n%04d"
    requests = b"".join(head % (path, number) for number, path in enumerate(paths))
    with target.connect() as peer:
        peer.sendall(requests + b"GET /404 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = rest_of(peer).split(b"HTTP/1.1 ")[1:]
    bodies = [answer.rpartition(b"\r\n\r\n")[2] for answer in answers]
    expected = [b"Hello\n" if n % 3 else b"%04d" % n for n in range(PIPELINED)] + [b"nowhere"]
    return b"200" if bodies == expected else b"%d of 3,001 answers" % len(bodies)


def _reset(target: Target, sent: bytes) -> bytes:
    for _ in range(20):
        with target.connect() as peer:
            peer.sendall(sent)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return b"-"


def reset_after_connect(target: Target) -> bytes:
    """A reset, and nothing else."""
    return _reset(target, b"")


def reset_after_request(target: Target) -> bytes:
    """A reset on the heels of a request."""
    return _reset(target, GET)


def reset_in_body(target: Target) -> bytes:
    """A reset in the middle of a body that is collected, and of one that is streamed."""
    _reset(target, b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
    return _reset(target, b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nabc")


def reset_in_response(target: Target) -> bytes:
    """A reset while a large response is on its way."""
    return _reset(target, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")


def half_close(target: Target) -> bytes:
    """A client that ends its side still gets its answer, large ones too."""
    for path, length in ((b"/", 6), (b"/large", 64 * 65536), (b"/generate", 33)):
        with target.connect() as peer:
            peer.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            peer.shutdown(socket.SHUT_WR)
            answer = rest_of(peer)
        if len(answer.partition(b"\r\n\r\n")[2]) != length:
            return path + b" cut off: " + answer[:40]
    return b"200"


def connect_method(target: Target) -> bytes:
    """CONNECT is an ordinary request."""
    with target.connect() as peer:
        peer.sendall(b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n")
        return _status(peer.recv(4096))


def refused_upgrade(target: Target) -> bytes:
    """An Upgrade that is refused; the next request is read as HTTP."""
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    with target.connect() as peer:
        peer.sendall(b"GET /upgrade HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n")
        first = peer.recv(4096)
        peer.sendall(GET)
        second = peer.recv(4096)
    return _status(first) if _status(second) == b"200" else b"then " + _status(second)


def refused_upload(target: Target) -> bytes:
    """Uploaders that are refused and go on sending as fast as they can: what lingers is bounded."""
    peers = [target.connect(2) for _ in range(20)]
    body = bytes(262144)
    for peer in peers:
        peer.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        peer.setblocking(False)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        for peer in peers:
            try:
                peer.send(body)
            except OSError:
                pass
        time.sleep(0.001)
    answers = set()
    for peer in peers:
        try:
            answers.add(_status(peer.recv(4096)))
        except OSError:
            answers.add(b"-")
        peer.close()
    return b"/".join(answers)


FLOODS: dict[str, Callable[[Target], bytes]] = {
    "endless header line": header_line,
    "headers": header_count,
    "endless chunk extension": chunk_extension,
    "chunk extensions": chunk_extensions,
    "trailers": trailers,
    "chunks of a byte": small_chunks,
    "3,000 pipelined": pipeline,
    "20 RST after connect": reset_after_connect,
    "20 RST after request": reset_after_request,
    "40 RST in body": reset_in_body,
    "20 RST in response": reset_in_response,
    "half-closed": half_close,
    "CONNECT": connect_method,
    "refused Upgrade": refused_upgrade,
    "20 refused uploads": refused_upload,
}
