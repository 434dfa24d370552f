"""The chat example, end to end: its HTTP endpoints, and two people with a browser each.

Every test has a server of its own on a free port of 127.0.0.1. The browser windows are shared, because they are
slow to start; a new port is a new origin, so nothing that a page remembers reaches the next test.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import browser
import pytest
from process import Running

CHAT = Path(__file__).resolve().parents[2] / "examples" / "chat"
START_SECONDS = 20
PATIENCE_SECONDS = 10
PROMPT_SECONDS = 1.0
GRACE_SECONDS = 1.5
LOAD_FAILED = re.compile(r"net::ERR_|status of 4\d\d|status of 50[13]")


class Server:
    """The chat in a process of its own, which may be stopped and started again on the same port.

    `poll` is the CHAT_POLL_SECONDS that it runs with.
    """

    def __init__(self, directory: Path, poll: float) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._poll = poll
        self._directory = directory
        self._runs: list[Running] = []

    def start(self) -> None:
        command = [sys.executable, str(CHAT / "chat.py"), "--bind", f"127.0.0.1:{self.port}"]
        env = {**os.environ, "CHAT_POLL_SECONDS": str(self._poll)}
        run = Running(command, self._directory / f"chat{len(self._runs)}.log", cwd=CHAT, env=env)
        self._runs.append(run)
        run.wait_until(self._accepts, "a connection")

    def stop(self) -> None:
        """As Ctrl-C does it: questions that sleep are not waited for."""
        assert self._runs[-1].stop(signal.SIGINT) == 0, self.output

    @property
    def output(self) -> str:
        return "".join(run.output() for run in self._runs)

    def ask(self, path: str, body: object = None, method: str | None = None) -> tuple[int, dict]:
        """The status and the JSON of one request."""
        status, _headers, payload = self.fetch(path, body, method)
        return status, json.loads(payload or b"{}")

    def fetch(self, path: str, body: object = None, method: str | None = None):
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {} if raw is None else {"Content-Type": "application/json"}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)) as line:
            line.request(method or ("GET" if raw is None else "POST"), path, raw, headers)
            answer = line.getresponse()
            return answer.status, answer.headers, answer.read()

    def join(self, name: str, room: str = "lobby") -> dict:
        status, seat = self.ask(f"/rooms/{room}/join", {"name": name})
        assert status == 200, seat
        return seat

    def updates(self, seat: dict, room: str = "lobby") -> tuple[int, dict]:
        """One poll; what it says moves the seat's cursor."""
        status, update = self.ask(f"/rooms/{room}/updates?token={seat['token']}&after={seat['cursor']}")
        seat["cursor"] = update.get("cursor", seat["cursor"])
        return status, update

    def hang_up_while_polling(self, seat: dict) -> None:
        """Polls like a browser and goes away like one whose window is closed."""
        path = f"/rooms/lobby/updates?token={seat['token']}&after={seat['cursor']}"
        with socket.create_connection(("127.0.0.1", self.port)) as line:
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: chat\r\n\r\n".encode())
            time.sleep(0.3)

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


class Background:
    """A call in a thread of its own. `result()` waits for what it returns or raises; `seconds` is how long it took."""

    def __init__(self, call, *arguments) -> None:
        self._began = time.monotonic()
        self._outcome: Future = Future()
        threading.Thread(target=self._run, args=(call, *arguments), daemon=True).start()

    def result(self):
        return self._outcome.result(PATIENCE_SECONDS)

    def _run(self, call, *arguments) -> None:
        try:
            answer = call(*arguments)
        except Exception as error:
            self._outcome.set_exception(error)
        else:
            self.seconds = time.monotonic() - self._began
            self._outcome.set_result(answer)


@pytest.fixture
def start_server(tmp_path):
    servers = []

    def start(poll: float = 25) -> Server:
        server = Server(tmp_path, poll)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()
        assert "Traceback" not in server.output


@pytest.fixture
def server(start_server) -> Server:
    return start_server()


def names(update: dict) -> list[str]:
    return [member["name"] for member in update["members"]]


def texts(update: dict) -> list[str]:
    return [message["text"] for message in update["messages"]]


# Without a browser


def test_it_says_where_it_is(server):
    assert f"Chat is at {server.url} (Ctrl-C ends it)\n" in server.output


def test_the_page_runs_nothing_but_its_own_files(server):
    status, headers, page = server.fetch("/")
    policy = headers["Content-Security-Policy"]
    assert status == 200
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert not re.search(rb"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=|javascript:", page)
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.decode()):
        assert server.fetch(path)[0] == 200, path


def test_a_parked_poll_is_answered_by_a_message(server):
    ann, bob = server.join("Ann"), server.join("Bob")
    assert server.updates(ann)[0] == 200  # the news that Bob came
    waiting = Background(server.updates, ann)
    time.sleep(0.3)
    assert server.ask("/rooms/lobby/messages", {"token": bob["token"], "text": "hello"})[0] == 201
    status, update = waiting.result()
    assert (status, texts(update)) == (200, ["hello"])
    assert 0.3 <= waiting.seconds < 0.3 + PROMPT_SECONDS


def test_what_is_said_between_two_polls_is_in_the_next(server):
    ann = server.join("Ann")
    for text in ("one", "two", "three"):
        server.ask("/rooms/lobby/messages", {"token": ann["token"], "text": text})
    assert texts(server.updates(ann)[1]) == ["one", "two", "three"]


def test_the_time_out_is_an_empty_answer(start_server):
    server = start_server(poll=0.3)
    ann = server.join("Ann")
    for _ in range(3):
        status, update = server.updates(ann)
        assert (status, texts(update), names(update)) == (200, [], ["Ann"])


def test_who_hangs_up_is_off_the_list_after_the_grace(server):
    """Nobody says anything and the others sleep for long: the disconnect alone has to tell them."""
    ann, bob = server.join("Ann"), server.join("Bob")
    server.updates(ann)
    waiting = Background(server.updates, ann)
    server.hang_up_while_polling(bob)
    status, update = waiting.result()
    assert (status, names(update)) == (200, ["Ann"])
    assert GRACE_SECONDS <= waiting.seconds < GRACE_SECONDS + 0.3 + PROMPT_SECONDS


def test_who_hangs_up_and_polls_again_stays(server):
    ann, bob = server.join("Ann"), server.join("Bob")
    server.updates(ann)
    waiting = Background(server.updates, ann)
    server.hang_up_while_polling(bob)
    Background(server.updates, bob)
    time.sleep(GRACE_SECONDS + 0.5)
    server.ask("/rooms/lobby/messages", {"token": bob["token"], "text": "still here"})
    update = waiting.result()[1]
    assert (texts(update), names(update)) == (["still here"], ["Ann", "Bob"])


def test_leaving_tells_the_others_at_once(server):
    ann, bob = server.join("Ann"), server.join("Bob")
    server.updates(ann)
    waiting = Background(server.updates, ann)
    time.sleep(0.3)
    assert server.ask("/leave", {"token": bob["token"]})[0] == 204
    assert names(waiting.result()[1]) == ["Ann"]
    assert waiting.seconds < 0.3 + PROMPT_SECONDS


def test_a_newer_poll_takes_over(server):
    ann = server.join("Ann")
    older = Background(server.updates, dict(ann))
    time.sleep(0.3)
    newer = Background(server.updates, dict(ann))
    assert older.result()[0] == 409
    server.ask("/rooms/lobby/messages", {"token": ann["token"], "text": "still here"})
    assert texts(newer.result()[1]) == ["still here"]


def test_a_seat_in_another_room_gives_up_the_first(server):
    ann, bob = server.join("Ann"), server.join("Bob")
    status, moved = server.ask("/rooms/rust/join", {"name": "Ann", "token": ann["token"]})
    assert (status, names(moved)) == (200, ["Ann"])
    assert names(server.updates(bob)[1]) == ["Bob"]
    assert server.updates(ann)[0] == 410


@pytest.mark.parametrize(
    ("status", "path", "body"),
    [
        (400, "/rooms/lobby/join", {"name": ""}),
        (400, "/rooms/lobby/join", {"name": "x" * 25}),
        (400, "/rooms/lobby/join", {"name": 7}),
        (400, "/rooms/lobby/join", {}),
        (400, "/rooms/lobby/join", ["Ann"]),
        (400, "/rooms/lobby/join", b"{"),
        (404, "/rooms/cellar/join", {"name": "Ann"}),
        (410, "/rooms/lobby/messages", {"token": "nobody", "text": "hello"}),
        (400, "/rooms/lobby/messages", {"token": "TOKEN"}),
        (400, "/rooms/lobby/messages", {"token": "TOKEN", "text": " \n"}),
        (400, "/rooms/lobby/messages", {"token": "TOKEN", "text": "y" * 2001}),
        (413, "/rooms/lobby/messages", {"token": "TOKEN", "text": "y" * 100_000}),
        (410, "/rooms/rust/messages", {"token": "TOKEN", "text": "wrong room"}),
        (410, "/rooms/lobby/updates?token=nobody&after=0", None),
        (400, "/rooms/lobby/updates?token=TOKEN", None),
        (400, "/rooms/lobby/updates?token=TOKEN&after=-1", None),
        (400, "/rooms/lobby/updates?token=TOKEN&after=99", None),
        (400, "/rooms/lobby/updates?token=TOKEN&after=" + "9" * 5000, None),
        (400, "/rooms/lobby/updates?token=TOKEN&after=%D9%A1", None),
        (400, "/leave", {}),
        (405, "/leave", None),
        (404, "/nowhere", None),
    ],
)
def test_what_cannot_be_done_is_answered_in_words(server, status, path, body):
    token = server.join("Ann")["token"]
    if isinstance(body, dict):
        body = {key: token if value == "TOKEN" else value for key, value in body.items()}
    answered, answer = server.ask(path.replace("TOKEN", token), body)
    assert (answered, answer["error"][-1:]) == (status, "."), answer


def test_a_body_that_is_not_json_is_refused(server):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)) as line:
        line.request("POST", "/rooms/lobby/join", b'{"name": "Ann"}', {"Content-Type": "text/plain"})
        assert line.getresponse().status == 415


def test_another_server_is_told_that_it_cannot_park_requests():
    program = """
import json, chat
from wsgiref.util import setup_testing_defaults
from io import BytesIO
body = b'{"name": "Ann"}'
environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/rooms/lobby/join", "CONTENT_TYPE": "application/json",
           "CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body)}
setup_testing_defaults(environ)
answer = chat.app(environ, lambda status, headers, exc_info=None: print(status))
print(json.loads(b"".join(answer))["error"])
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=CHAT, capture_output=True, text=True, timeout=START_SECONDS)
    assert done.stdout.startswith("501 "), done.stdout + done.stderr
    assert "needs the meinheld server" in done.stdout


@pytest.mark.parametrize("bind", ["nonsense", "127.0.0.1", "127.0.0.1:", ":8000", "127.0.0.1:65536", "127.0.0.1:x"])
def test_an_address_that_is_none_is_refused(bind):
    command = [sys.executable, "chat.py", "--bind", bind]
    done = subprocess.run(command, cwd=CHAT, capture_output=True, text=True, timeout=START_SECONDS)
    assert done.returncode == 2
    assert "--bind takes HOST:PORT" in done.stderr


# With a browser


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    if problem := browser.missing():
        pytest.fail(problem, pytrace=False)
    with browser.Windows(tmp_path_factory.mktemp("windows")) as opened:
        yield opened


@pytest.fixture(scope="module")
def two_windows(windows):
    return windows.open(), windows.open()


@pytest.fixture
def ann(two_windows):
    yield from _person(two_windows[0])


@pytest.fixture
def bob(two_windows):
    yield from _person(two_windows[1])


def _person(driver):
    person = Person(driver)
    yield person
    unexpected = [line for line in browser.severe(driver) if not person.expects(line)]
    driver.get("about:blank")
    assert unexpected == []


class Person:
    """Somebody in front of a window: does what people do, and sees what they see."""

    def __init__(self, driver) -> None:
        self.driver = driver
        self.lost_the_server = False

    def expects(self, console_line: str) -> bool:
        return self.lost_the_server and bool(LOAD_FAILED.search(console_line))

    # Doing

    def go(self, server: Server, room: str = "") -> Person:
        self.driver.get(server.url + (f"#{room}" if room else ""))
        return self

    def type(self, text: str) -> None:
        """Types where the focus is. "\\n" is the Enter key."""
        from selenium.webdriver.common.keys import Keys

        self.driver.switch_to.active_element.send_keys(text.replace("\n", Keys.ENTER))

    def join(self, server: Server, name: str, room: str = "") -> Person:
        self.go(server, room).type(name + "\n")
        return self.wait_for_status("online")

    def say(self, text: str) -> Person:
        self.type(text + "\n")
        return self

    def click(self, selector: str) -> None:
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def script(self, source: str, *arguments):
        return self.driver.execute_script(source, *arguments)

    # Seeing

    @property
    def texts(self) -> list[str]:
        return self.script("return [...document.querySelectorAll('#messages .text')].map((e) => e.innerText)")

    @property
    def own_texts(self) -> list[str]:
        return self.script("return [...document.querySelectorAll('#messages .own .text')].map((e) => e.innerText)")

    @property
    def authors(self) -> list[str]:
        return self.script("return [...document.querySelectorAll('#messages .author')].map((e) => e.textContent)")

    @property
    def notes(self) -> list[str]:
        return self.script("return [...document.querySelectorAll('#messages .note')].map((e) => e.innerText)")

    @property
    def members(self) -> list[str]:
        return self.script("return [...document.querySelectorAll('#members .name')].map((e) => e.innerText)")

    @property
    def status(self) -> str:
        return self.script("return document.getElementById('status').textContent")

    @property
    def problems(self) -> str:
        return self.script("return [...document.querySelectorAll('.problem')].map((e) => e.innerText).join('')")

    @property
    def titles_of_all_tabs(self) -> list[str]:
        """Asked of the browser, since switching to a tab would show it."""
        return [tab["title"] for tab in self.driver.execute_cdp_cmd("Target.getTargets", {})["targetInfos"]]

    # Waiting

    def wait(self, condition, seconds: float = PATIENCE_SECONDS) -> Person:
        """Waits until `condition(self)` is true."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.wait import WebDriverWait

        try:
            WebDriverWait(self, seconds, poll_frequency=0.05).until(condition)
        except TimeoutException:
            seen = f"{self.status=} {self.members=} {self.texts=} {self.notes=} {self.problems=}"
            pytest.fail(f"not within {seconds} s; the page shows {seen}")
        return self

    def wait_for_text(self, text: str, seconds: float = PATIENCE_SECONDS) -> Person:
        return self.wait(lambda person: text in person.texts, seconds)

    def wait_for_members(self, *names: str, seconds: float = PATIENCE_SECONDS) -> Person:
        return self.wait(lambda person: person.members == list(names), seconds)

    def wait_for_status(self, status: str, seconds: float = PATIENCE_SECONDS) -> Person:
        return self.wait(lambda person: person.status == status, seconds)


def milliseconds_from_enter_to_sight(writer: Person, reader: Person, text: str) -> int:
    """Measured in the pages, by the clock of the machine, so that the driver's own slowness does not count."""
    writer.script("addEventListener('keydown', (e) => { if (e.key === 'Enter') window.sentAt = Date.now(); }, true)")
    reader.script(
        """const list = document.getElementById("messages");
        new MutationObserver((_, observer) => {
          if (!list.textContent.includes(arguments[0])) return;
          window.seenAt = Date.now();
          observer.disconnect();
        }).observe(list, { childList: true, subtree: true });""",
        text,
    )
    writer.say(text)
    reader.wait_for_text(text)
    return reader.script("return window.seenAt") - writer.script("return window.sentAt")


def test_what_one_types_the_other_sees_within_a_second(server, ann, bob):
    ann.join(server, "Ann")
    bob.join(server, "Bob")
    ann.wait_for_members("Ann", "Bob", seconds=PROMPT_SECONDS)
    for number in range(3):
        assert milliseconds_from_enter_to_sight(ann, bob, f"from Ann {number}") < PROMPT_SECONDS * 1000
        assert milliseconds_from_enter_to_sight(bob, ann, f"from Bob {number}") < PROMPT_SECONDS * 1000
    assert ann.texts == bob.texts
    assert ann.own_texts == [f"from Ann {number}" for number in range(3)]
    assert bob.authors == ["Ann", "You"] * 3


@pytest.mark.parametrize(
    "text",
    [
        "<script>window.ran = true</script>",
        "<img src=x onerror='window.ran = true'>",
        "</p></li><b>bold</b> &amp; &lt;",
    ],
)
def test_markup_is_shown_as_text(server, ann, bob, text):
    ann.join(server, "<i>Ann</i>")
    bob.join(server, "Bob")
    ann.say(text)
    for person in (ann, bob):
        person.wait_for_text(text)
        assert person.members == ["<i>Ann</i>", "Bob"]
        assert person.script("return window.ran") is None
        assert person.script("return document.querySelectorAll('#messages :is(script, img, b)').length") == 0


def test_lines_and_quick_messages_keep_their_order(server, ann, bob):
    from selenium.webdriver.common.keys import Keys

    ann.join(server, "Ann")
    bob.join(server, "Bob")
    ann.type("first" + Keys.SHIFT + Keys.ENTER + Keys.NULL + "second\n")
    for number in range(10):
        ann.say(str(number))
    bob.wait_for_text("9")
    assert bob.texts == ["first\nsecond", *map(str, range(10))]


def test_the_history_is_there_on_load(server, ann, bob):
    ann.join(server, "Ann").say("one").say("two").wait_for_text("two")
    bob.join(server, "Bob")
    assert bob.texts == ["one", "two"]
    assert bob.own_texts == []


def test_a_reload_keeps_the_seat_and_knows_its_own_messages(server, ann):
    ann.join(server, "Ann").say("mine").wait_for_text("mine")
    ann.driver.refresh()
    ann.wait_for_status("online").wait_for_text("mine")
    assert ann.own_texts == ["mine"]
    assert ann.members == ["Ann"]


def test_rooms_are_separate_and_switched_without_a_reload(server, ann, bob):
    ann.join(server, "Ann")
    bob.join(server, "Bob", room="rust")
    assert (ann.members, bob.members) == (["Ann"], ["Bob"])
    ann.say("in the lobby").wait_for_text("in the lobby")
    bob.say("in rust").wait_for_text("in rust")
    assert (ann.texts, bob.texts) == (["in the lobby"], ["in rust"])

    ann.script("window.sameDocument = true")
    ann.click("[data-room=rust]")
    ann.wait_for_text("in rust").wait_for_members("Bob", "Ann")
    bob.wait_for_members("Bob", "Ann")
    assert ann.script("return window.sameDocument")
    assert ann.texts == ["in rust"]
    ann.driver.back()
    ann.wait_for_text("in the lobby")
    bob.wait_for_members("Bob")


def test_the_second_ann_gets_a_number(server, ann, bob):
    ann.join(server, "Ann")
    bob.join(server, "Ann").wait_for_members("Ann", "Ann 2")
    ann.wait_for_members("Ann", "Ann 2")


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_closing_a_window_takes_it_off_the_list(server, windows, ann, says_goodbye):
    ann.join(server, "Ann")
    cid = Person(windows.open()).join(server, "Cid")
    ann.wait_for_members("Ann", "Cid")
    if not says_goodbye:
        cid.script("navigator.sendBeacon = () => false")
    windows.close(cid.driver)
    ann.wait_for_members("Ann", seconds=GRACE_SECONDS + PROMPT_SECONDS)


def test_leaving_shows_the_door_and_tells_the_others(server, ann, bob):
    ann.join(server, "Ann")
    bob.join(server, "Bob")
    ann.wait_for_members("Ann", "Bob")
    bob.click("#leave")
    ann.wait_for_members("Ann", seconds=PROMPT_SECONDS)
    assert bob.script("return document.activeElement.id") == "name"


def test_a_time_out_polls_again_and_nobody_notices(start_server, ann, bob):
    server = start_server(poll=1)
    ann.join(server, "Ann")
    bob.join(server, "Bob")
    polls = "return performance.getEntriesByType('resource').filter((e) => e.name.includes('/updates?')).length"
    before = ann.script(polls)
    ann.wait(lambda person: person.script(polls) >= before + 3)
    assert (ann.status, ann.problems, ann.members) == ("online", "", ["Ann", "Bob"])
    assert ann.script(polls) <= before + 5, "an answered poll is followed by one poll"
    assert milliseconds_from_enter_to_sight(bob, ann, "after the time-out") < PROMPT_SECONDS * 1000


def test_a_restart_of_the_server_is_survived(server, ann, bob):
    ann.join(server, "Ann").say("before").wait_for_text("before")
    bob.join(server, "Bob")
    for person in (ann, bob):
        person.lost_the_server = True
    server.stop()
    ann.wait_for_status("reconnecting…")
    ann.say("into the void").wait(lambda person: "Not sent" in person.problems)
    server.start()
    for person in (ann, bob):
        person.wait_for_status("online")
        assert any("restarted" in note for note in person.notes)
    ann.type("\n")  # what could not be sent is still in the field
    bob.wait_for_text("into the void")
    assert ann.wait_for_text("into the void").texts == ["before", "into the void"]
    assert ann.problems == ""


def test_messages_missed_without_a_connection_are_caught_up_with(server, ann, bob):
    ann.join(server, "Ann").say("one").wait_for_text("one")
    bob.join(server, "Bob").lost_the_server = True
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    bob.driver.execute_cdp_cmd("Network.enable", {})
    bob.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        bob.wait_for_status("reconnecting…")
        ann.wait_for_members("Ann")
        ann.say("two").say("three").wait_for_text("three")
    finally:
        bob.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": False})
    bob.wait_for_text("three")
    assert bob.texts == ["one", "two", "three"]
    assert not any("restarted" in note for note in bob.notes)


def test_a_name_that_cannot_be_used_is_refused_at_the_door(server, ann):
    ann.lost_the_server = True  # the browser reports the 400 in its console
    ann.go(server).type("\u200b\n")
    ann.wait(lambda person: person.problems == "Please say what you are called.")
    ann.type("Ann\n")
    ann.wait_for_status("online")
    assert ann.members == ["Ann"]


def test_the_log_follows_only_a_reader_at_its_end(server, ann, bob):
    ann.join(server, "Ann")
    bob.join(server, "Bob")
    for number in range(30):
        ann.say(f"line {number}")
    bob.wait_for_text("line 29")
    at_end = "const l = document.getElementById('log'); return l.scrollHeight - l.scrollTop - l.clientHeight < 2"
    assert bob.script(at_end)
    bob.script("document.getElementById('log').scrollTop = 0")
    bob.wait(lambda person: not person.script(at_end))
    ann.say("below the edge")
    bob.wait(lambda person: person.script("return !document.getElementById('jump').hidden"))
    assert bob.script("return document.getElementById('log').scrollTop") == 0
    bob.click("#jump")
    bob.wait(lambda person: person.script(at_end))


def test_the_title_counts_what_a_hidden_page_has_not_shown(server, ann, bob):
    ann.join(server, "Ann")
    bob.join(server, "Bob")
    page = bob.driver.current_window_handle
    bob.driver.switch_to.new_window("tab")
    ann.say("one").say("two")
    bob.wait(lambda person: "(2) lobby · Chat" in person.titles_of_all_tabs)
    bob.driver.close()
    bob.driver.switch_to.window(page)
    bob.wait(lambda person: person.driver.title == "lobby · Chat")


@pytest.mark.parametrize("width", [320, 360, 800, 1200])
def test_nothing_is_wider_than_the_screen(server, ann, width):
    metrics = {"width": width, "height": 640, "deviceScaleFactor": 1, "mobile": width < 500}
    ann.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        ann.join(server, "W" * 24).say("w" * 500).wait_for_text("w" * 500)
        widths = ann.script("return [document.documentElement.scrollWidth, document.getElementById('log').scrollWidth"
                            " - document.getElementById('log').clientWidth]")
        assert widths == [width, 0]
    finally:
        ann.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_everything_is_reached_by_the_keyboard(server, ann):
    from selenium.webdriver.common.keys import Keys

    ann.join(server, "Ann")
    focused = "const e = document.activeElement; return e.id || e.dataset.room || e.textContent.trim()"
    order = []
    for _ in range(7):
        ann.type(Keys.SHIFT + Keys.TAB + Keys.NULL)
        order.append(ann.script(focused))
    assert order[:6] == ["log", "leave", "members", "python", "rust", "lobby"]
    ann.script("document.querySelector('[data-room=python]').focus()")
    ann.type("\n")
    ann.wait(lambda person: person.script(focused) == "text")
    ann.say("typed").wait_for_text("typed")
    assert ann.driver.title == "python · Chat"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
