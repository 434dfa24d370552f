"""The examples as a person runs them: `python examples/NAME`, and a client that does what its docstring says."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from process import Running
from wire import Client, get, wait_until

#: In which steps the upload tells of its progress.
STEP_BYTES = 16 * 1024
EXAMPLES = Path(__file__).parents[2] / "examples"


@contextlib.contextmanager
def running(directory: Path, name: str, *arguments: str) -> Iterator[Running]:
    """Run an example until the test is over; it ends well, and logs no exception."""
    example = Running([sys.executable, str(EXAMPLES / name), *arguments, "0"], directory / "example.log")
    try:
        yield example
    finally:
        status = example.stop()
        assert (status, "Traceback" in example.output()) == (0, False), example.output()


def test_hello(tmp_path: Path) -> None:
    with running(tmp_path, "hello.py") as example:
        response = get(example.port, "/")
        assert (response.status, response.text) == (200, "Hello, world!\n")


def request(target: str, *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with a file, and one beside it that is nobody's business."""
    directory = tmp_path / "files"
    (directory / "sub").mkdir(parents=True)
    (directory / "big file.bin").write_bytes(random.Random(1).randbytes(3_000_000))
    (directory / "sub" / "page.html").write_text("<p>page")
    (directory / "empty").write_bytes(b"")
    (directory / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret")
    return directory


def test_file_download(tmp_path: Path, files: Path) -> None:
    big = (files / "big file.bin").read_bytes()
    with running(tmp_path, "file_download.py", str(files)) as example, Client(example.port) as client:

        def ask(target: str, *headers: str) -> object:
            response = client.send_bytes(request(target, *headers)).response()
            return response.status, response.body, response.headers.get("content-range")

        assert ask("/big%20file.bin") == (200, big, None)
        assert ask("/sub/page.html") == (200, b"<p>page", None)
        assert ask("/empty") == (200, b"", None)
        size = len(big)
        parts = {
            "bytes=0-0": (0, 0), "bytes=100-": (100, size - 1), "bytes=5-9": (5, 9), "bytes=-7": (size - 7, size - 1),
            f"bytes=10-{2 * size}": (10, size - 1),
        }
        for wanted, (first, last) in parts.items():
            expected = 206, big[first : last + 1], f"bytes {first}-{last}/{size}"
            assert ask("/big%20file.bin", f"Range: {wanted}") == expected, wanted
        for nonsense in ["bytes=9-5", "bytes=-", "bytes=a-b", "bytes=1-2,5-6", "lines=1-2"]:
            assert ask("/big%20file.bin", f"Range: {nonsense}") == (200, big, None)
        for beyond in [f"bytes={size}-", "bytes=-0"]:
            status, _, content_range = ask("/big%20file.bin", f"Range: {beyond}")
            assert (status, content_range) == (416, f"bytes */{size}")
        for hidden in ["/../secret", "/%2e%2e/secret", "/link", "/sub", "/none", "/%00", "//etc/passwd"]:
            assert ask(hidden)[0] == 404, hidden
        head = client.send_bytes(request("/big%20file.bin", method="HEAD")).head()
        assert f"Content-Length: {size}\r\n".encode() in head
        assert client.send_bytes(request("/empty", method="DELETE")).response().status == 405


def test_upload_progress(tmp_path: Path) -> None:
    body = random.Random(2).randbytes(5 * STEP_BYTES * 50)
    with running(tmp_path, "upload_progress/upload_progress.py") as example, Client(example.port) as uploading:
        assert "<progress" in get(example.port, "/").text
        assert get(example.port, "/progress/a", seen=0).status == 404
        uploading.send_bytes(request("/uploads/a", f"Content-Length: {len(body)}", method="PUT"))
        with Client(example.port) as following:
            wait_until(lambda: get(example.port, "/progress/a").status == 200, "the upload has begun")
            received, parts = 0, 5
            for part in range(1, parts + 1):
                # Asked before there is anything to tell, and answered once there is.
                following.send("/progress/a", seen=received)
                end = len(body) * part // parts
                uploading.send_bytes(body[received:end])
                while received < end:
                    progress = following.response().json()
                    assert progress["total"] == len(body)
                    assert received < progress["received"] <= end
                    received = progress["received"]
                    if received < end:
                        following.send("/progress/a", seen=received)
        result = uploading.response().json()
        assert result == {"received": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        progress = get(example.port, "/progress/a", seen=len(body)).json()
        assert progress == {"received": len(body), "total": len(body), "state": "done"}
        assert get(example.port, "/progress/a", seen="x").status == 400


def test_upload_that_breaks_off(tmp_path: Path) -> None:
    with running(tmp_path, "upload_progress/upload_progress.py") as example, Client(example.port) as uploading:
        uploading.send_bytes(request("/uploads/b", "Content-Length: 1000000", method="PUT") + b"x" * STEP_BYTES)
        wait_until(lambda: get(example.port, "/progress/b").json().get("received") == STEP_BYTES, "it has begun")
        again = request("/uploads/b", "Content-Length: 4", method="PUT") + b"more"
        with Client(example.port) as other:
            assert other.send_bytes(again).response().status == 409
        with Client(example.port) as following:
            following.send("/progress/b", seen=STEP_BYTES)
            uploading.finish()
            assert following.response().json() == {"received": STEP_BYTES, "total": 1000000, "state": "broken off"}


def test_django_chat(tmp_path: Path) -> None:
    with running(tmp_path, "django_chat/django_chat.py") as example:
        with Client(example.port) as client:
            page = client.send_bytes(request("/")).response()
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        cookie = page.headers["set-cookie"].partition(";")[0]
        assert token is not None and page.status == 200

        def say(**fields: str) -> int:
            form = urlencode(fields).encode()
            headers = [
                f"Cookie: {cookie}", f"Content-Length: {len(form)}", "Content-Type: application/x-www-form-urlencoded"
            ]
            with Client(example.port) as client:
                return client.send_bytes(request("/messages", *headers, method="POST") + form).response().status

        assert say(name="Eve", text="forged") == 403
        assert say(name="Ann", text=" ", csrfmiddlewaretoken=token[1]) == 400
        heard: list[object] = []

        def hear() -> None:
            with Client(example.port) as client:
                heard.append(json.loads(client.send_bytes(request("/messages?after=0")).response().body))

        listeners = [threading.Thread(target=hear) for _ in range(5)]
        for listener in listeners:
            listener.start()
        assert say(name="Ann", text="J\xf6rg, \u4e2d <b>!", csrfmiddlewaretoken=token[1]) == 200
        for listener in listeners:
            listener.join(10)
        message = {"number": 1, "name": "Ann", "text": "J\xf6rg, \u4e2d <b>!"}
        assert heard == [{"messages": [message], "last": 1}] * 5
        with Client(example.port) as client:
            # From an earlier run of the server.
            news = client.send_bytes(request("/messages?after=99")).response().json()
            assert news["last"] == 1
            assert client.send_bytes(request("/messages?after=x")).response().status == 400
            client.send_bytes(request("/messages?after=1"))
            assert say(name="Bob", text="hi", csrfmiddlewaretoken=token[1]) == 200
            assert client.response().json()["messages"][0]["name"] == "Bob"
