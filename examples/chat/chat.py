"""A chat with rooms, for people with browsers: Flask, long polling, one thread and no lock.

Run it from this directory with either of

    python chat.py [--bind HOST:PORT]
    meinheld chat:app

A browser asks "what is new?" and the request sleeps in `c.suspend(timeout)` until somebody says something, comes
or goes; `c.resume()` wakes it. A sleeping request costs a few kilobytes and no thread, so a room full of people
who only listen costs next to nothing. Two requests can only interleave inside `suspend`, and that is why the
rooms (rooms.py, which knows nothing of all this) need no lock.

    GET  /                                        the page
    POST /rooms/<room>/join      {name, token?}   a seat and an update; `token` gives up an older seat
    GET  /rooms/<room>/updates   ?token=&after=   an update as soon as there is one, an empty one at the time-out
    POST /rooms/<room>/messages  {token, text}    says something
    POST /leave                  {token}          gives up the seat

An update is {messages, members, cursor, forgotten}; the next question passes `cursor` as `after`. Whatever goes
wrong is answered with a status of 400 or more and {error}, a sentence that the page shows.

Environment: CHAT_BIND (HOST:PORT), CHAT_POLL_SECONDS (how long a question may sleep; 25).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time

import flask
from werkzeug.exceptions import HTTPException

import rooms
from meinheld import middleware, server

ROOM_NAMES = ("lobby", "rust", "python")
BODY_BYTES_MAX = 64 * 1024

STATUS = {rooms.BadInput: 400, rooms.UnknownRoom: 404, rooms.RoomFull: 409, rooms.NotHere: 410}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def poll_seconds() -> float:
    seconds = float(os.environ.get("CHAT_POLL_SECONDS", "25"))
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError("CHAT_POLL_SECONDS must be a number of seconds above 0")
    return seconds


POLL_SECONDS = poll_seconds()

chat = rooms.Chat(ROOM_NAMES)
web = flask.Flask(__name__)
web.config["MAX_CONTENT_LENGTH"] = BODY_BYTES_MAX


# What the browser asks for


@web.get("/")
def page():
    return flask.render_template("index.html", rooms=chat.room_names, name_max=rooms.NAME_MAX, text_max=rooms.TEXT_MAX)


@web.post("/rooms/<room_name>/join")
def join(room_name: str):
    room = chat.room(room_name)
    continuation()
    body = json_body()
    name = string(body, "name")
    rooms.clean_name(name)  # Refuse a bad name before the older seat is lost.
    if "token" in body:
        chat.leave(string(body, "token"))
    member = room.join(name, time.monotonic())
    seat = {"token": member.token, "id": member.id, "name": member.name}
    return {**seat, "epoch": chat.epoch, "poll_seconds": POLL_SECONDS, **room.update(0)}


@web.get("/rooms/<room_name>/updates")
def updates(room_name: str):
    room = chat.room(room_name)
    member = room.member(flask.request.args.get("token", ""))
    after = cursor(flask.request.args.get("after", ""))
    room.check_cursor(after)
    sleeper = continuation()
    poll = room.begin_poll(member)
    try:
        wait_for_news(room, poll, after, sleeper)
        if poll.replaced:
            return gone_or_replaced(room, member)
        return room.update(after)
    finally:
        room.end_poll(poll, time.monotonic())


@web.post("/rooms/<room_name>/messages")
def say(room_name: str):
    room = chat.room(room_name)
    body = json_body()
    member = room.member(string(body, "token"))
    message = room.post(member, string(body, "text"), time.time_ns() // 1_000_000)
    return {"id": message.id}, 201


@web.post("/leave")
def leave():
    chat.leave(string(json_body(), "token"))
    return "", 204


# Waiting


def wait_for_news(room: rooms.Room, poll: rooms.Poll, after: int, sleeper) -> None:
    """Returns when the room has news, the poll was replaced or POLL_SECONDS are over, whichever comes first.

    Raises server.ClientDisconnected as soon as the browser is gone.
    """
    end = time.monotonic() + POLL_SECONDS
    while not poll.replaced:
        now = time.monotonic()
        room.sweep(now)
        if room.has_news(after) or now >= end:
            return
        sleep(room, poll, sleeper, min(end, room.next_departure or end) - now)


def sleep(room: rooms.Room, poll: rooms.Poll, sleeper, seconds: float) -> None:
    """Parks this request until the room wakes it, for `seconds` at most. This is where other requests run."""
    room.fall_asleep(poll, lambda: wake(sleeper))
    try:
        sleeper.suspend(seconds)
    except server.timeout:
        pass
    finally:
        room.woke_up(poll)


def wake(sleeper) -> None:
    try:
        sleeper.resume()
    except server.ContinuationError:
        pass  # Its time-out or its disconnect came first: it is about to run and looks for itself.


def gone_or_replaced(room: rooms.Room, member: rooms.Member):
    room.member(member.token)
    return {"error": "A newer request of the same window took over."}, 409


def continuation():
    """This request's continuation. Without one a poll could not sleep, so another server is told so at once."""
    found = flask.request.environ.get(middleware.CONTINUATION_KEY)
    if found is None:
        flask.abort(501, "This chat needs the meinheld server: the one it runs on cannot park a request.")
    return found


# Reading what came


def json_body() -> dict:
    try:
        body = flask.request.get_json()
    except RecursionError:
        raise rooms.BadInput("The body is nested too deeply.") from None
    if not isinstance(body, dict):
        raise rooms.BadInput("The body must be a JSON object.")
    return body


def string(body: dict, key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise rooms.BadInput(f"The field {key!r} must be there and be a string.")
    return value


def cursor(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise rooms.BadInput("The parameter 'after' must be a cursor from an earlier answer.")
    return int(text)


# Answering


@web.errorhandler(rooms.Refused)
def refused(error: rooms.Refused):
    return {"error": str(error)}, STATUS[type(error)]


@web.errorhandler(HTTPException)
def http_error(error: HTTPException):
    response = error.get_response()
    response.data = flask.json.dumps({"error": error.description})
    response.content_type = "application/json"
    return response


@web.errorhandler(server.ClientDisconnected)
def disconnected(_error):
    return "", 204  # Nobody is left to read it.


@web.after_request
def with_headers(response: flask.Response) -> flask.Response:
    response.headers.update(HEADERS)
    if response.is_json:
        response.headers["Cache-Control"] = "no-store"
    return response


app = middleware.SpawnMiddleware(web)


def main() -> None:
    parser = argparse.ArgumentParser(description="A chat with rooms, for people with browsers.")
    parser.add_argument("--bind", metavar="HOST:PORT", default=os.environ.get("CHAT_BIND", "127.0.0.1:8000"))
    bind = parser.parse_args().bind
    try:
        host, port = address(bind)
    except ValueError:
        parser.error(f"--bind takes HOST:PORT, not {bind!r}")
    try:
        server.listen((host, port))
    except OSError as error:
        sys.exit(f"The chat cannot listen on {bind}: {error.strerror or error}")
    print(f"Chat is at http://{bind}/ (Ctrl-C ends it)", flush=True)
    server.run(app, silent=True)


def address(bind: str) -> tuple[str, int]:
    """127.0.0.1:8000, localhost:8000 or [::1]:8000. Raises ValueError."""
    host, colon, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(bind)
    return host, int(port)


if __name__ == "__main__":
    main()
