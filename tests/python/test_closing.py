"""Connections for one request: how they begin and end, counted in the segments that their clients see."""

from __future__ import annotations

import socket
import statistics
import struct
from collections.abc import Callable

import pytest
from conftest import Server
from wire import SECONDS

APP = """
import itertools
import select
import sys
import time

from meinheld import server

numbers = itertools.count(1)

class Logger:
    def access(self, environ):
        pass

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/logged":
        server.set_access_logger(Logger())
    if path in ("/busy", "/asleep"):
        print("begun", next(numbers), file=sys.stderr, flush=True)
        fd = environ["meinheld.client"].get_fd()
        while path == "/asleep" and not select.select([fd], [], [], 0)[0]:
            server.sleep(0.001)
        select.select([fd], [], [])
    if path == "/busy":
        # Longer than what the server takes for no time at all.
        time.sleep(0.01)
    if path == "/pieces":
        pieces = [bytes([number]) * 65536 for number in range(100)]
    elif path == "/large":
        pieces = [b"x" * 8_000]
    else:
        pieces = [b"hello"]
    start_response("200 OK", [("Content-Length", str(sum(map(len, pieces))))])
    return pieces
"""

OLD = "GET {} HTTP/1.0\r\n\r\n"
LAST = "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def started(serve: Callable, **options: object) -> Server:
    """The server, without the validator: a list is sent in one piece, and what that makes of it is not."""
    server: Server = serve(APP, validate=False, **options)
    return server


def connected(port: int) -> socket.socket:
    """A client's socket."""
    return socket.create_connection(("127.0.0.1", port), SECONDS)


def rest(peer: socket.socket) -> bytes:
    """All until the end, which is no reset."""
    received = b""
    while piece := peer.recv(65536):
        received += piece
    return received


def typical(port: int, request: str) -> int:
    """How many segments mostly come on a connection: a slow machine has some repeated."""
    return statistics.mode(segments(port, request) for _ in range(31))


def segments(port: int, request: str) -> int:
    """How many segments the server has sent on a connection of its own."""
    with connected(port) as peer:
        peer.sendall(request.encode())
        assert rest(peer).startswith(b"HTTP/1.1 200 ")
        # tcpi_segs_in stands behind eight bytes, 24 numbers of four, and four of eight.
        info = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        (count,) = struct.unpack_from("I", info, 8 + 24 * 4 + 4 * 8 + 4)
        return int(count)


@pytest.mark.parametrize("request_", [OLD, LAST], ids=["old", "last"])
def test_answer_and_end_are_one_segment(serve: Callable, request_: str) -> None:
    """Behind the one that opens the connection, and the acknowledgement of the request."""
    server = started(serve)
    assert typical(server.port, request_.format("/")) <= 3
    assert typical(server.port, request_.format("/large")) <= 3


def test_end_waits_for_no_logger_of_python(serve: Callable) -> None:
    """The answer goes out before a logger is called that may take its time; its end follows."""
    server = started(serve)
    before = typical(server.port, OLD.format("/"))
    segments(server.port, OLD.format("/logged"))
    assert typical(server.port, OLD.format("/")) == before + 1


def test_access_log_is_no_reason_to_split(serve: Callable) -> None:
    """Its line is made without a call of Python."""
    server = started(serve, access_log="-")
    # The first one finds out where the lines go.
    segments(server.port, OLD.format("/"))
    assert typical(server.port, OLD.format("/")) <= 3


@pytest.mark.parametrize("path", ["/", "/large", "/pieces"])
@pytest.mark.parametrize("behind", ["", "GET /none HTTP/1.1\r\nHost: x\r\n\r\n", "x" * 100_000], ids=len)
def test_nothing_is_lost_to_who_says_more(serve: Callable, path: str, behind: str) -> None:
    """What follows the last request is not answered, and resets nothing that is."""
    server = started(serve)
    for request in (OLD, LAST):
        with connected(server.port) as peer:
            peer.sendall((request.format(path) + behind).encode())
            head, _, body = rest(peer).partition(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        assert len(body) == int(length.split()[1])
        if path == "/pieces":
            assert body == b"".join(bytes([number]) * 65536 for number in range(100))


@pytest.mark.parametrize("path", ["/busy", "/asleep"])
def test_nothing_is_lost_to_who_says_more_while_it_is_answered(serve: Callable, path: str) -> None:
    """Even where the server looks for nothing meanwhile, being busy or waiting for something else."""
    server = started(serve)
    for number, request in enumerate((OLD, LAST), 1):
        with connected(server.port) as peer:
            peer.sendall(request.format(path).encode())
            server.wait_for(f"begun {number}")
            peer.sendall(b"\r\n")
            assert rest(peer).endswith(b"hello")


def test_half_closed_client_has_its_answer(serve: Callable) -> None:
    """Its end comes with its request, or behind it."""
    server = started(serve)
    with connected(server.port) as peer:
        peer.sendall(LAST.format("/").encode())
        peer.shutdown(socket.SHUT_WR)
        assert rest(peer).endswith(b"hello")


def test_silent_clients_are_served_when_they_speak(serve: Callable) -> None:
    """In whatever order, and piece by piece; who goes without a word holds up nobody."""
    server = started(serve)
    with connected(server.port) as first, connected(server.port) as second:
        with connected(server.port):
            pass
        first.sendall(OLD.format("/").encode())
        assert rest(first).endswith(b"hello")
        second.sendall(b"GET ")
        second.sendall(b"/ HTTP/1.0\r\n\r\n")
        assert rest(second).endswith(b"hello")
