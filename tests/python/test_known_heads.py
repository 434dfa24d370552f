"""A response made of the very objects of an earlier one is as if it had been made anew."""

from __future__ import annotations

import pytest
from lab import Lab, running_lab

SOURCE = """
class Text(str):
    pass

STATUS = "200 OK"
HEADERS = [("X-One", "1"), ("Content-Length", "1")]
OTHER = ("X-Two", "2")
SUBCLASS = (Text("X-Three"), "3")
NUMBER = [0]

def app(environ, start_response):
    kind = environ["QUERY_STRING"]
    NUMBER[0] += 1
    if kind == "same":
        start_response(STATUS, HEADERS)
    elif kind == "more":
        start_response(STATUS, [*HEADERS, OTHER])
    elif kind == "fresh":
        start_response(STATUS, [("X-Number", str(NUMBER[0])), HEADERS[1]])
    elif kind == "changed":
        HEADERS[0] = ("X-One", str(NUMBER[0]))
        start_response(STATUS, HEADERS)
    elif kind == "status":
        start_response("404 Not Found", HEADERS)
    elif kind == "bad":
        start_response(STATUS, [("X-Bad", "a\\r\\nb")])
    elif kind == "subclass":
        start_response(STATUS, [SUBCLASS, HEADERS[1]])
    return [b"x"]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One server for all."""
    with running_lab(tmp_path_factory.mktemp("known-heads")) as lab:
        yield lab


def test_each_head_is_that_of_its_call(lab: Lab) -> None:
    """Constants, what follows them in the same list, and what only looks like them."""
    # The validator wants a Content-Type, and refuses subclasses of str.
    name = lab.define(SOURCE, validate=False)
    number = 0
    one = "1"
    with lab.connect() as wire:
        for kind in ("same", "more", "fresh", "changed", "status", "subclass", "same") * 4:
            wire.send(lab.request(name, target=f"/?{kind}"))
            response = wire.response()
            number += 1
            # One that is refused ends its connection, and shows in no other.
            assert lab.ask_again(name, target="/?bad").status == 500
            number += 1
            headers = {key.lower(): value for key, value in dict(response.headers).items()}
            if kind == "changed":
                one = str(number - 1)
            assert response.status == (404 if kind == "status" else 200)
            assert headers["content-length"] == "1"
            assert headers.get("x-number") == (str(number - 1) if kind == "fresh" else None)
            assert headers.get("x-two") == ("2" if kind == "more" else None)
            assert headers.get("x-three") == ("3" if kind == "subclass" else None)
            if kind not in ("fresh", "subclass"):
                assert headers["x-one"] == one
