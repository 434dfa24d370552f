"""The WebSocket chat example: its page, its messages, and two people with a browser each."""

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import browser
import pytest
from process import Running
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from wire import wait_until

CHAT = Path(__file__).resolve().parents[2] / "examples" / "websocket_chat" / "chat.py"
SECONDS = 10


class Chat(Running):
    """The chat in a process of its own, on a port that the system chose."""

    def __init__(self, directory: Path) -> None:
        super().__init__([sys.executable, str(CHAT), "--port", "0"], directory / "chat.log")

    @contextmanager
    def join(self, name: str) -> Iterator[ClientConnection]:
        """Be a member."""
        with connect(f"ws://127.0.0.1:{self.port}/chat", open_timeout=SECONDS) as client:
            client.send(json.dumps({"name": name}))
            yield client


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    """Run the chat; it ends at SIGTERM, and says nothing but its address."""
    running = Chat(tmp_path)
    yield running
    assert running.stop() == 0
    assert len(running.output().splitlines()) == 1, running.output()


def receive(client: ClientConnection, kind: str) -> dict:
    """The next message of a kind."""
    while True:
        message = json.loads(client.recv(SECONDS))
        if message["type"] == kind:
            return message


def test_what_is_said_reaches_everybody(chat: Chat) -> None:
    """In one order for all, and later ones are told what was said before."""
    with chat.join("Ann") as ann, chat.join("Ann") as other:
        assert receive(ann, "welcome")["name"] == "Ann"
        assert receive(other, "welcome")["name"] == "Ann 2"
        for number in range(20):
            (ann, other)[number % 2].send(json.dumps({"text": f" {number}\n<b> "}))
        heard = [[receive(client, "said") for _ in range(20)] for client in (ann, other)]
        assert heard[0] == heard[1]
        assert {said["text"] for said in heard[0]} == {f"{n}\n<b>" for n in range(20)}
        with chat.join("Late") as late:
            assert [said["text"] for said in receive(late, "welcome")["history"]] == [
                said["text"] for said in heard[0]
            ]
            assert receive(late, "people")["people"] == ["Ann", "Ann 2", "Late"]
    with chat.join("Last") as last:
        while receive(last, "people")["people"] != ["Last"]:
            pass


@pytest.mark.parametrize(
    "message", ["nonsense", "[]", '{"name": 5}', '{"name": " "}', '{"name": "\\u0000"}', b"\xff"]
)
def test_what_has_no_meaning_is_answered(chat: Chat, message: str | bytes) -> None:
    """And the member may try again."""
    with connect(f"ws://127.0.0.1:{chat.port}/chat") as client:
        client.send(message)
        assert "name" in receive(client, "error")["error"]
        client.send('{"name": "Ann"}')
        receive(client, "welcome")
        client.send(json.dumps({"text": "x" * 2001}))
        assert "2000" in receive(client, "error")["error"]


def test_other_pages_and_addresses_are_turned_away(chat: Chat) -> None:
    """A WebSocket is closed with 1008, a request gets 404."""
    url = f"127.0.0.1:{chat.port}"
    for path, origin in (("/chat", "http://evil.test"), ("/else", None)):
        with connect(f"ws://{url}{path}", origin=origin) as client:
            with pytest.raises(ConnectionClosed):
                client.recv(SECONDS)
            assert client.close_code == 1008
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{url}/static/../chat.py", timeout=SECONDS)


def test_a_member_that_does_not_read_keeps_nobody_waiting(chat: Chat) -> None:
    """It is dropped once it is too far behind."""
    with socket.socket() as stalled, chat.join("Ann") as ann:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", chat.port))
        ask = f"GET /chat HTTP/1.1\r\nHost: 127.0.0.1:{chat.port}\r\nUpgrade: websocket\r\n"
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        join = b'\x81\x8e\0\0\0\0{"name":"Bob"}'
        stalled.sendall(f"{ask}Connection: Upgrade\r\n{key}\r\n".encode() + join)
        while "Bob" not in receive(ann, "people")["people"]:
            pass
        # The system's buffers take some megabytes of them, and the outbox the next.
        for _ in range(10_000):
            ann.send(json.dumps({"text": "x" * 2000}))
            while (message := json.loads(ann.recv(SECONDS)))["type"] != "said":
                if message["type"] == "people" and message["people"] == ["Ann"]:
                    return
        pytest.fail("it is not dropped")


needs_browser = pytest.mark.skipif(browser.missing() is not None, reason=browser.missing() or "")


@needs_browser
def test_two_people_talk_and_find_each_other_again(chat: Chat, tmp_path: Path) -> None:
    """Each in a browser; a line that breaks is made again."""
    with browser.Windows(tmp_path / "profiles") as windows:
        pages = [windows.open(), windows.open()]
        for page, name in zip(pages, ("Ann", "Bob"), strict=True):
            page.get(f"http://127.0.0.1:{chat.port}/")
            page.find_element("id", "name").send_keys(name + "\n")
            wait_for(page, "state", f"you are {name}")
        wait_for(pages[0], "people", "Ann\nBob")
        pages[0].find_element("id", "text").send_keys("hello <i>Bob</i>\n")
        wait_for(pages[1], "messages", "hello <i>Bob</i>")
        pages[1].find_element("id", "text").send_keys("hello Ann\n")
        wait_for(pages[0], "messages", "hello Ann")
        pages[1].execute_script("socket.close()")
        wait_for(pages[1], "state", "disconnected")
        wait_for(pages[1], "state", "you are Bob")
        wait_for(pages[1], "messages", "hello Ann")
        windows.close(pages[1])
        wait_for(pages[0], "people", "Ann", exactly=True)
        assert browser.severe(pages[0]) == []


def wait_for(page, part: str, text: str, exactly: bool = False) -> None:
    """Wait until a part of a page shows a text."""

    def shown() -> str:
        return page.find_element("id", part).text

    wait_until(
        lambda: shown() == text if exactly else text in shown(),
        lambda: f"{part}: {shown()!r}, and not {text!r}",
        SECONDS,
    )
