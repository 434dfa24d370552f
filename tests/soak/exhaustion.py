"""A server that has run out of descriptors."""

from __future__ import annotations

import socket
import time

from outcome import Outcome
from probe import Latency
from target import Target, rest_of

DESCRIPTORS = 64
ESTABLISHED = 5
CROWD = 200
WALL = 2.0
GET_PAUSE = 0.005
#: Of one processor.
CPU_SHARE_MAX = 0.25
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
PARK = b"GET /park HTTP/1.1\r\nHost: x\r\n\r\n"


def descriptor_limit(seconds: float) -> Outcome:
    """By idle connections, which can make room for others, and by busy ones, which cannot."""
    outcome = Outcome(f"{DESCRIPTORS} descriptors")
    for name, request in (("silent", b""), ("idle", GET), ("parked", PARK)):
        with Target(descriptors=DESCRIPTORS) as target:
            _fire(outcome, target, name, request)
    return outcome


def _fire(outcome: Outcome, target: Target, name: str, request: bytes) -> None:
    established = [target.connect() for _ in range(ESTABLISHED)]
    failures = _serve(established, 0.1).failures
    lines, begun = _complaints(target), time.monotonic()
    crowd = [_member(target, request) for _ in range(CROWD)]
    failures += _serve(established, 0.5).failures
    cpu, wall = target.cpu(), time.monotonic()
    latency = _serve(established, WALL)
    share = (target.cpu() - cpu) / (time.monotonic() - wall)
    failures += latency.failures
    newcomer = _newcomer(target)
    lines = _complaints(target) - lines
    elapsed = time.monotonic() - begun
    for peer in crowd:
        peer.close()
    resumed = _resumes(target)
    outcome.note(
        f"{name}: established {latency}, CPU {share * 100:.0f} %, {lines} log lines in "
        f"{elapsed:.1f} s, a newcomer got {newcomer}, service resumed in {resumed:.2f} s"
    )
    outcome.promise(failures == 0, f"{name}: {failures} established requests failed")
    outcome.promise(share <= CPU_SHARE_MAX, f"{name}: the loop spins, CPU {share * 100:.0f} %")
    outcome.promise(lines <= elapsed + 2, f"{name}: {lines} log lines in {elapsed:.1f} s")
    outcome.promise(newcomer in ("200", "503"), f"{name}: a newcomer got {newcomer}")
    outcome.promise(resumed <= 2, f"{name}: service resumed after {resumed:.2f} s")
    outcome.promise(target.is_alive(), f"{name}: the server has died")
    for peer in established:
        peer.close()


def _member(target: Target, request: bytes) -> socket.socket:
    peer = target.connect()
    try:
        peer.sendall(request)
    except ConnectionError:
        pass
    return peer


def _serve(established: list[socket.socket], seconds: float) -> Latency:
    """Ask on each established connection in turn; all must be answered."""
    samples, failures = [], 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for peer in established:
            begun = time.perf_counter()
            try:
                peer.sendall(GET)
                answered = peer.recv(4096).startswith(b"HTTP/1.1 200 ")
            except OSError:
                answered = False
            samples.append(time.perf_counter() - begun)
            failures += not answered
            time.sleep(GET_PAUSE)
    return Latency.of(samples, failures)


def _newcomer(target: Target) -> str:
    """What a client gets that comes when there is no room: an answer, and not silence."""
    try:
        return str(target.ask(seconds=5)[0] or "closed")
    except TimeoutError:
        return "silence"
    except OSError as error:
        return type(error).__name__


def _complaints(target: Target) -> int:
    return target.log().count("\n")


def _resumes(target: Target) -> float:
    """How long it takes until new clients are served again."""
    begun = time.monotonic()
    while time.monotonic() < begun + 10:
        try:
            with target.connect(2) as peer:
                peer.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                if rest_of(peer).startswith(b"HTTP/1.1 200 "):
                    break
        except OSError:
            pass
        time.sleep(0.02)
    return time.monotonic() - begun
