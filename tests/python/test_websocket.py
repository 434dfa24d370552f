"""WebSockets: `environ["wsgi.websocket"]`, by raw frames and by a client library."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from frames import ASK, BINARY, FIN, PING, PONG, TEXT, Peer, close, frame
from lab import Lab, collect_until, running_lab
from websockets.sync.client import connect
from wire import wait_until

from meinheld.middleware import WebSocketMiddleware

ECHO = """
    from meinheld.middleware import WebSocketMiddleware

    def talk(environ, start_response):
        ws = environ["wsgi.websocket"]
        for message in ws:
            ws.send(message)
        events.append([ws.closed, ws.close_code, ws.close_reason])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"not sent"]

    app = WebSocketMiddleware(talk)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab for all tests here but those that stop it."""
    with running_lab(tmp_path_factory.mktemp("websocket")) as running:
        yield running


def talking(body: str, wrapper: str = "WebSocketMiddleware(talk)") -> str:
    """An application whose WebSocket is `ws`, and which runs `body`."""
    lines = "\n".join(f"        {line}" for line in body.strip().splitlines())
    return f"""
    from meinheld import server
    from meinheld.middleware import WebSocketMiddleware
    from meinheld.websocket import WebSocketClosed, WebSocketWSGI
    from meinheld.common import CONTINUATION_KEY

    def talk(environ, start_response):
        ws = environ["wsgi.websocket"]
{lines}
        return []

    app = {wrapper}
    """


def test_messages_come_back_as_they_went(lab: Lab) -> None:
    """Text as str, binary as bytes, of every size of header; the first came with the request."""
    name = lab.define(ECHO)
    with Peer(lab, name, more=frame(FIN | TEXT, b"early")) as peer:
        assert peer.receive() == "early"
        for message in ("", "héllo ☃ 💬", b"", b"\0\xff", "x" * 126, b"y" * 70_000, "z" * 2**20):
            peer.send(message)
            assert peer.receive() == message
        peer.wire.send(frame(TEXT, b"in ") + frame(FIN | PING, b"p") + frame(FIN, b"two"))
        assert peer.frame() == (FIN | PONG, b"p")
        assert peer.receive() == "in two"
        peer.wire.send(close(4000, "très bien"))
        assert peer.expect_close(4000, answer=False) == "très bien"
    assert lab.wait_for_event(name, [True, 4000, "très bien"])
    assert "Traceback" not in lab.log()


def test_a_client_library_agrees(lab: Lab) -> None:
    """The websockets package connects, talks, pings and closes."""
    name = lab.define(ECHO)
    url = f"ws://127.0.0.1:{lab.server.port}/"
    with connect(url, additional_headers={"X-App": name}, compression="deflate") as client:
        for message in ("text", b"bytes", "x" * 300_000):
            client.send(message)
            assert client.recv(5) == message
        client.send(["frag", "ments"])
        assert client.recv(5) == "fragments"
        assert client.ping().wait(5)
    assert client.close_code == 1000


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame(FIN | TEXT, b"bare", mask=b""), 1002),
        (frame(FIN | 3, b"x"), 1002),
        (frame(FIN | 0x40 | TEXT, b"x"), 1002),
        (frame(FIN | TEXT, b"\xff"), 1007),
        (frame(FIN | BINARY, b"x" * (2**20 + 1)), 1009),
    ],
)
def test_a_client_at_fault_is_told(lab: Lab, wire: bytes, code: int) -> None:
    """It gets a close with the code; the application's wait ends."""
    name = lab.define(ECHO)
    with Peer(lab, name) as peer:
        peer.wire.send(wire)
        peer.expect_close(code, answer=False)
    wait_until(lambda: bool(lab.events(name)), "the wait has ended")
    assert lab.events(name)[0][:2] == [True, code]


def test_a_client_that_goes_ends_the_wait(lab: Lab) -> None:
    """None, with 1006; nothing is logged."""
    name = lab.define(ECHO)
    with Peer(lab, name):
        pass
    lab.wait_for_event(name, [True, 1006, ""])
    assert "Traceback" not in lab.log()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("Version: 13", "Version: 8"), 426),
        (("dGhl", "dGh"), 400),
        (("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
    ],
)
def test_a_wrong_handshake_is_refused_and_http_goes_on(
    lab: Lab, change: tuple[str, str], status: int
) -> None:
    """The application is not called; the connection serves the next request."""
    name = lab.define(ECHO)
    with lab.connect() as wire:
        for _ in range(2):
            wire.send(lab.request(name, headers=ASK.replace(*change)))
            response = wire.response()
            assert response.status == status
            if status == 426:
                assert response["Sec-WebSocket-Version"] == "13"
                assert response["Upgrade"] == "websocket"
    assert lab.events(name) == []


def test_other_requests_pass_through(lab: Lab) -> None:
    """Without a WebSocket, and with a continuation."""
    response = lab.ask(
        """
        from meinheld.middleware import WebSocketMiddleware

        def plain(environ, start_response):
            found = "wsgi.websocket" in environ, "meinheld.continuation" in environ
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [repr(found).encode()]

        app = WebSocketMiddleware(plain)
        """
    )
    assert (response.status, response.body) == (200, b"(False, True)")


def test_under_another_server_requests_pass_through() -> None:
    """The middleware does nothing there, to requests for a WebSocket either."""
    app = WebSocketMiddleware(lambda environ, _: [repr("wsgi.websocket" in environ).encode()])
    environ = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
    }
    assert app(environ, lambda *_: None) == [b"False"]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"protocols": "chat"}, "TypeError: protocols is 'chat' and must be several strings: ['chat']"),
        ({"origins": "http://a"}, "TypeError: origins is 'http://a' and must be several strings: ['http://a']"),
        ({"max_size": 0}, "ValueError: max_size is 0 and must be from 1 to 1073741824 bytes"),
        ({"max_size": 2**64}, f"ValueError: max_size is {2**64} and must be from 1 to 1073741824 bytes"),
        ({"max_size": 1e6}, "TypeError: max_size is 1000000.0 and must be a number of bytes"),
        ({"ping_interval": -1}, "ValueError: ping_interval is -1 and must be 0 or more seconds"),
        ({"send_timeout": None}, "TypeError: send_timeout is None and must be a number of seconds"),
        ({"close_timeout": float("nan")}, "ValueError: close_timeout is nan and must be 0 or more seconds"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(settings: dict, error: str) -> None:
    """And not told to the clients; one origin would let those pass that are a part of it."""
    from meinheld.middleware import WebSocketMiddleware

    with pytest.raises((TypeError, ValueError)) as raised:
        WebSocketMiddleware(lambda _environ, _start_response: [], **settings)
    assert f"{type(raised.value).__name__}: {raised.value}" == error


def test_subprotocols_and_origins(lab: Lab) -> None:
    """The first that both know; a page from elsewhere is turned away."""
    wrapper = 'WebSocketMiddleware(talk, protocols=["b", "c"], origins=["http://here"])'
    name = lab.define(talking("ws.send(f'{ws.protocol} {ws.origin} {ws.path}')", wrapper))
    headers = "Sec-WebSocket-Protocol: a, c, b\r\nOrigin: http://here\r\n"
    with Peer(lab, name, headers) as peer:
        assert peer.head["Sec-WebSocket-Protocol"] == "c"
        assert peer.receive() == "c http://here /"
        peer.expect_close(1000)
    with Peer(lab, name, "Sec-WebSocket-Protocol: a\r\n") as peer:
        assert peer.head["Sec-WebSocket-Protocol"] is None
        assert peer.receive() == "None None /"
    with lab.connect() as wire:
        wire.send(lab.request(name, headers=ASK + "Origin: http://elsewhere\r\n"))
        assert wire.response().status == 403


def test_what_the_application_returns_is_not_sent(lab: Lab) -> None:
    """A generator is run, and closed; an exception closes with 1011 and is logged."""
    name = lab.define(
        """
        from meinheld.middleware import WebSocketMiddleware

        def talk(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            ws = environ["wsgi.websocket"]
            try:
                ws.send("one")
                yield b"not sent"
                ws.send("two")
                if ws.wait() == "fail":
                    raise ValueError("asked for")
            finally:
                events.append("cleaned up")

        app = WebSocketMiddleware(talk)
        """
    )
    for answer, code in (("fail", 1011), ("end", 1000)):
        with Peer(lab, name) as peer:
            assert [peer.receive(), peer.receive()] == ["one", "two"]
            peer.send(answer)
            peer.expect_close(code)
    assert lab.events(name) == ["cleaned up"] * 2
    assert lab.log("ValueError: asked for").count("Traceback") == 1


def test_others_send_while_one_waits(lab: Lab) -> None:
    """A request and a spawned task send on a WebSocket that waits for messages."""
    name = lab.define(
        """
        from meinheld import server
        from meinheld.middleware import WebSocketMiddleware

        members = []

        def talk(environ, start_response):
            ws = environ.get("wsgi.websocket")
            if ws is None:
                for member in members:
                    member.send(environ["QUERY_STRING"])
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"sent"]
            members.append(ws)
            server.spawn(ws.send, ("welcome",))
            for message in ws:
                for member in members:
                    member.send(message)
            members.remove(ws)
            return []

        app = WebSocketMiddleware(talk)
        """
    )
    with Peer(lab, name) as ann, Peer(lab, name) as bob:
        assert (ann.receive(), bob.receive()) == ("welcome", "welcome")
        ann.send("from Ann")
        assert (ann.receive(), bob.receive()) == ("from Ann", "from Ann")
        assert lab.ask_again(name, target="/?news").body == b"sent"
        assert (ann.receive(), bob.receive()) == ("news", "news")
    assert "Traceback" not in lab.log()


def test_it_goes_with_suspend(lab: Lab) -> None:
    """A request suspends, and is interrupted when its client goes."""
    name = lab.define(
        talking(
            """
c = environ[CONTINUATION_KEY]
server.schedule_call(0.01, c.resume, "woken")
ws.send(c.suspend(5))
try:
    c.suspend(5)
except server.ClientDisconnected:
    events.append("gone")
    try:
        ws.send("x" * 100_000)
        ws.send("x" * 100_000)
        ws.wait()
        ws.send("late")
    except WebSocketClosed as error:
        events.append(str(error)[:24])
    raise
"""
        )
    )
    with Peer(lab, name) as peer:
        assert peer.receive() == "woken"
    lab.wait_for_event(name, "the WebSocket is closed ")
    assert lab.events(name)[0] == "gone"
    assert "Traceback" not in lab.log()


def test_closing(lab: Lab) -> None:
    """A code and a reason; after it nothing can be sent, and nothing comes."""
    name = lab.define(
        talking(
            """
events.append([ws.closed, ws.close_code, repr(ws)])
for code, reason in ((1005, ""), (1000, "x" * 124), (5000, "")):
    try:
        ws.close(code, reason)
    except ValueError:
        events.append(code)
ws.close(4001, "enough")
ws.close()
events.append([ws.closed, ws.wait(), ws.receive(), list(ws), ws.close_code, ws.close_reason])
try:
    ws.send("late")
except WebSocketClosed as error:
    events.append(str(error))
"""
        )
    )
    with Peer(lab, name) as peer:
        assert peer.expect_close(4001) == "enough"
    assert lab.events(name) == [
        [False, None, "<meinheld.websocket.WebSocket, open>"],
        1005,
        1000,
        5000,
        [True, None, None, [], 4001, "enough"],
        "the WebSocket is closed (4001 enough)",
    ]


def test_mistakes_are_named(lab: Lab) -> None:
    """Wrong types, a second waiter, another thread: an error each, and the WebSocket goes on."""
    name = lab.define(
        talking(
            """
import threading
def note(work, *args):
    try:
        work(*args)
    except Exception as error:
        events.append(f"{type(error).__name__}: {error}")
note(ws.send, 5)
note(ws.send, "\\ud800")
note(ws.wait, -1)
note(ws.wait, 0.01)
thread = threading.Thread(target=note, args=(ws.send, "x"))
thread.start()
thread.join()
waiting = server.spawn(ws.wait)
server.sleep(0)
note(ws.wait)
ws.send("ready")
ws.send(waiting.join())
"""
        )
    )
    with Peer(lab, name) as peer:
        assert peer.receive() == "ready"
        peer.send("still here")
        assert peer.receive() == "still here"
    found = lab.events(name)
    expected = [
        "TypeError: a message is str or bytes, not int",
        "UnicodeEncodeError",
        "ValueError: timeout is -1",
        "timeout: timed out",
        "RuntimeError: a WebSocket is used on the server's thread",
        "RuntimeError: another coroutine waits for this WebSocket's messages",
    ]
    assert len(found) == len(expected), found
    for told, wanted in zip(found, expected, strict=True):
        assert told.startswith(wanted), json.dumps(found, indent=1)


def test_a_client_that_does_not_read_times_out(lab: Lab) -> None:
    """The sender gets `timeout`, the WebSocket is closed, and another is served meanwhile."""
    name = lab.define(
        talking(
            """
message = ws.wait()
try:
    while message == "flood":
        ws.send(b"x" * 500_000, timeout=0.2)
    ws.send(message)
except server.timeout:
    events.append(["timeout", ws.closed, ws.close_code])
"""
        )
    )
    with Peer(lab, name) as stalled, Peer(lab, name) as other:
        stalled.send("flood")
        other.send("hello")
        assert other.receive() == "hello"
        lab.wait_for_event(name, ["timeout", True, 1006])


def test_a_silent_client_is_pinged_and_given_up(lab: Lab) -> None:
    """One that answers stays."""
    wrapper = "WebSocketMiddleware(talk, ping_interval=0.1)"
    name = lab.define(talking("events.append([ws.wait(), ws.close_code])", wrapper))
    with Peer(lab, name) as peer:
        for _ in range(3):
            assert peer.frame() == (FIN | PING, b"")
            peer.wire.send(frame(FIN | PONG))
        assert peer.frame() == (FIN | PING, b"")
        assert peer.wire.closed()
    lab.wait_for_event(name, [None, 1006])


def test_the_old_handler_style(lab: Lab) -> None:
    """WebSocketWSGI calls a function of the WebSocket, and refuses what is none."""
    source = """
        from meinheld.websocket import WebSocketWSGI

        def handle(ws):
            ws.send(f"{ws.version} {ws.websocket_closed} {ws.environ['PATH_INFO']}")

        app = WebSocketWSGI(handle)
        """
    name = lab.define(source)
    with Peer(lab, name) as peer:
        assert peer.receive() == "13 False /"
        peer.expect_close(1000)
    assert lab.ask_again(name).status == 400


def test_a_cycle_through_its_environ_is_collected(lab: Lab) -> None:
    """What an application puts into the environ may have the WebSocket, which has the environ."""
    name = lab.define(
        talking(
            """
import weakref
class Room: pass
room = Room()
room.socket = ws
environ["room"] = room
weakref.finalize(room, events.append, "collected")
            """
        )
    )
    with Peer(lab, name) as peer:
        peer.expect_close(1000)
    collect_until(lab, name, "collected")


def test_a_stop_closes_with_1001(tmp_path: Path) -> None:
    """SIGTERM ends WebSockets that wait; the server ends at once."""
    with running_lab(tmp_path) as lab:
        name = lab.define(ECHO)
        peers = [Peer(lab, name) for _ in range(5)]
        for peer in peers:
            peer.send("x")
            peer.receive()
        lab.server.send_signal(signal.SIGTERM)
        for peer in peers:
            peer.expect_close(1001)
            peer.wire.socket.close()
        assert lab.server.wait_for_end(10) == 0


def test_the_access_log_tells_of_the_end(tmp_path: Path) -> None:
    """One line, with 101 and what was sent."""
    with running_lab(tmp_path, access_log="-") as lab:
        name = lab.define(ECHO)
        with Peer(lab, name) as peer:
            peer.send("x" * 100)
            peer.receive()
            peer.wire.send(close(1000))
            peer.expect_close(1000, answer=False)
        lab.log('" 101 106 ')


def test_in_a_flask_view(lab: Lab) -> None:
    """The WebSocket is in the request's environ; what the view returns is not sent."""
    name = lab.define(
        """
        import flask
        from meinheld.middleware import WebSocketMiddleware

        web = flask.Flask("web")

        @web.route("/")
        def index():
            return "the page"

        @web.route("/chat", websocket=True)
        def chat():
            ws = flask.request.environ["wsgi.websocket"]
            while (message := ws.wait()) is not None:
                ws.send(f"{flask.request.path} heard {message}")
            return "not sent"

        app = WebSocketMiddleware(web)
        """
    )
    assert lab.ask_again(name).body == b"the page"
    with Peer(lab, name, target="/chat") as peer:
        peer.send("hello")
        assert peer.receive() == "/chat heard hello"
        peer.wire.send(close(1000))
        peer.expect_close(1000, answer=False)
    assert "Traceback" not in lab.log()


def test_ctrl_c_ends_waiting_and_suspended_ones(tmp_path: Path) -> None:
    """Who waits is closed with 1001, who suspends gets Stopped, which closes with 1001 too."""
    with running_lab(tmp_path) as lab:
        waiting = lab.define(ECHO)
        suspended = lab.define(talking("ws.send('here')\nenviron[CONTINUATION_KEY].suspend()"))
        peers = [Peer(lab, waiting), Peer(lab, suspended)]
        assert peers[1].receive() == "here"
        peers[0].send("x")
        peers[0].receive()
        lab.server.send_signal(signal.SIGINT)
        for peer in peers:
            peer.expect_close(1001)
            peer.wire.socket.close()
        assert lab.server.wait_for_end(10) == 0
