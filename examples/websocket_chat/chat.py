"""A chat over WebSockets, with a page: `python examples/websocket_chat/chat.py`, then open the address.

Every browser tab is a member, whose coroutine waits for what it says. What is said is put into an
outbox of each member, and sent by a task of its own while there is something in it, so that a
member whose network has stalled keeps nobody waiting; one that falls too far behind is dropped.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from meinheld import middleware, server
from meinheld.websocket import CLOSE_POLICY, WebSocketClosed

NAME_CHARACTERS_MAX = 30
TEXT_CHARACTERS_MAX = 2000
HISTORY_MAX = 50
OUTBOX_MAX = 200
SEND_SECONDS = 10
MESSAGE_BYTES_MAX = 16 * 1024

STATIC = Path(__file__).resolve().parent / "static"
PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/chat.css": ("chat.css", "text/css; charset=utf-8"),
    "/chat.js": ("chat.js", "text/javascript; charset=utf-8"),
}
HEADERS = [
    ("Cache-Control", "no-cache"),
    ("Content-Security-Policy", "default-src 'self'; img-src data:"),
    ("X-Content-Type-Options", "nosniff"),
]


class Refused(Exception):
    """What a member sent has no meaning; the text says what to do."""


class Member:
    """Somebody in the room."""

    def __init__(self, websocket, name: str) -> None:
        self.websocket = websocket
        self.name = name
        self._outbox: collections.deque[str] = collections.deque()
        self._sending = False

    def post(self, **message: object) -> None:
        """Send a message some time; never waits."""
        if len(self._outbox) >= OUTBOX_MAX:
            self._outbox.clear()
            server.spawn(self.websocket.close, (CLOSE_POLICY, "too far behind"))
            return
        self._outbox.append(json.dumps(message))
        if not self._sending:
            self._sending = True
            server.spawn(self._send_all)

    def _send_all(self) -> None:
        try:
            while self._outbox:
                self.websocket.send(self._outbox.popleft(), timeout=SEND_SECONDS)
        except (WebSocketClosed, server.timeout):
            self._outbox.clear()  # The member's own coroutine sees the end, and leaves.
        finally:
            self._sending = False


class Room:
    """Who is there, and what was said last."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.history: collections.deque[dict[str, object]] = collections.deque(maxlen=HISTORY_MAX)

    def join(self, websocket, wanted: str) -> Member:
        """Let somebody in, under a name that nobody else has."""
        taken = {member.name for member in self.members}
        names = itertools.chain([wanted], (f"{wanted} {number}" for number in itertools.count(2)))
        member = Member(websocket, next(name for name in names if name not in taken))
        self.members.append(member)
        member.post(type="welcome", name=member.name, history=list(self.history))
        self._tell_people()
        return member

    def leave(self, member: Member) -> None:
        """Let somebody out."""
        self.members.remove(member)
        self._tell_people()

    def say(self, member: Member, text: str) -> None:
        """Pass on what a member says, to that one too."""
        said = {"name": member.name, "text": text, "at": time.time()}
        self.history.append(said)
        self._tell(type="said", **said)

    def _tell_people(self) -> None:
        self._tell(type="people", people=[member.name for member in self.members])

    def _tell(self, **message: object) -> None:
        for member in list(self.members):
            member.post(**message)


room = Room()


def chat(websocket) -> None:
    """Talk to one member, from its first message, which has its name, to its end."""
    member = None
    try:
        for message in websocket:
            try:
                if member is None:
                    member = room.join(websocket, field(message, "name", NAME_CHARACTERS_MAX))
                else:
                    room.say(member, field(message, "text", TEXT_CHARACTERS_MAX))
            except Refused as refused:
                websocket.send(json.dumps({"type": "error", "error": str(refused)}))
    finally:
        if member is not None:
            room.leave(member)


def field(message: str | bytes, name: str, characters_max: int) -> str:
    """The text in a field of a message, without white space around it."""
    try:
        value = json.loads(message)[name].strip()
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Refused(f"send a JSON object with a text called {name}") from None
    if not 0 < len(value) <= characters_max:
        raise Refused(f"the {name} must have 1 to {characters_max} characters")
    if not value.replace("\n", "").isprintable():
        raise Refused(f"the {name} must be printable")
    return value


def application(environ, start_response):
    """Serve the page; talk on its WebSocket."""
    path, websocket = environ["PATH_INFO"], environ.get("wsgi.websocket")
    if websocket is not None:
        if path == "/chat" and is_own_page(environ):
            chat(websocket)
        else:
            websocket.close(CLOSE_POLICY, "open the page of this chat")
        return []
    if path not in PAGES or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        start_response("404 Not Found", [("Content-Type", "text/plain"), *HEADERS])
        return [b"There is nothing here; the chat is at /.\n"]
    file, kind = PAGES[path]
    start_response("200 OK", [("Content-Type", kind), *HEADERS])
    return [(STATIC / file).read_bytes()]


def is_own_page(environ) -> bool:
    """Whether a browser is on a page of this server: any other could speak in its user's name."""
    origin = environ.get("HTTP_ORIGIN")
    return origin is None or urlsplit(origin).netloc == environ["HTTP_HOST"]


app = middleware.WebSocketMiddleware(application, max_size=MESSAGE_BYTES_MAX)


def main() -> None:
    """Run the chat until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A chat over WebSockets.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    try:
        server.listen((arguments.host, arguments.port))
    except OSError as error:
        sys.exit(f"The chat cannot listen on port {arguments.port}: {error.strerror or error}")
    host, port = server.addresses()[0]
    print(f"Chat is at http://{host}:{port}/ (Ctrl-C ends it)", flush=True)
    server.run(app, silent=True)


if __name__ == "__main__":
    main()
