"""Real frameworks below wsgiref's validator, each with the same small application: what a user of theirs would run.

The application answers a form, a file upload, JSON, a stream, a session, a redirect, a file to
download, an error and an unknown path; the client is http.client.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator

import pytest
from conftest import Server

FILE = b"\x00\xff binary \r\n" * 10_000

COMMON = """
import json, pathlib, tempfile, warnings
FILE = b"\\x00\\xff binary \\r\\n" * 10_000
PATH = pathlib.Path(__file__).with_name("download.bin")
PATH.write_bytes(FILE)

def stream():
    for number in range(5):
        yield f"line {number}\\n".encode()
"""

FLASK = """
import flask

app = flask.Flask(__name__)
app.secret_key = "secret"

@app.get("/")
def index():
    return "hello"

@app.post("/form")
def form():
    return flask.request.form["name"]

@app.post("/upload")
def upload():
    file = flask.request.files["file"]
    return {"name": file.filename, "size": len(file.read()), "field": flask.request.form["field"]}

@app.post("/json")
def echo():
    return flask.jsonify(flask.request.get_json())

@app.get("/stream")
def streaming():
    return flask.Response(stream(), mimetype="text/plain")

@app.get("/count")
def count():
    flask.session["count"] = flask.session.get("count", 0) + 1
    return str(flask.session["count"])

@app.get("/redirect")
def redirect():
    return flask.redirect("/")

@app.get("/download")
def download():
    return flask.send_file(PATH, as_attachment=True)

@app.get("/fail")
def fail():
    raise RuntimeError("in a view")

@app.get("/unicode/<name>")
def unicode(name):
    return name
"""

DJANGO = """
import django
from django.conf import settings

settings.configure(
    DEBUG=False,
    SECRET_KEY="secret",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[
        "django.middleware.common.CommonMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DATA_UPLOAD_MAX_MEMORY_SIZE=10_000_000,
)
django.setup()

from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import path

def upload(request):
    file = request.FILES["file"]
    return JsonResponse({"name": file.name, "size": len(file.read()), "field": request.POST["field"]})

def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponse(str(request.session["count"]))

def fail(request):
    raise RuntimeError("in a view")

urlpatterns = [
    path("", lambda request: HttpResponse("hello")),
    path("form", lambda request: HttpResponse(request.POST["name"])),
    path("upload", upload),
    path("json", lambda request: JsonResponse(json.loads(request.body))),
    path("stream", lambda request: StreamingHttpResponse(stream(), content_type="text/plain")),
    path("count", count),
    path("redirect", lambda request: redirect("/")),
    path("download", lambda request: FileResponse(PATH.open("rb"), as_attachment=True)),
    path("fail", fail),
    path("unicode/<name>", lambda request, name: HttpResponse(name)),
]
app = get_wsgi_application()
"""

BOTTLE = """
import bottle
from bottle import request, response

bottle.BaseRequest.MEMFILE_MAX = 10_000_000
app = bottle.Bottle()

@app.get("/")
def index():
    return "hello"

@app.post("/form")
def form():
    return request.forms.name

@app.post("/upload")
def upload():
    file = request.files["file"]
    return {"name": file.raw_filename, "size": len(file.file.read()), "field": request.forms["field"]}

@app.post("/json")
def echo():
    return request.json

@app.get("/stream")
def streaming():
    return stream()

@app.get("/count")
def count():
    number = int(request.get_cookie("count", "0", secret="secret")) + 1
    response.set_cookie("count", str(number), secret="secret")
    return str(number)

@app.get("/redirect")
def redirect():
    bottle.redirect("/", 302)

@app.get("/download")
def download():
    return bottle.static_file(PATH.name, root=PATH.parent, download=True)

@app.get("/fail")
def fail():
    raise RuntimeError("in a view")

@app.get("/unicode/<name>")
def unicode(name):
    return name
"""

FALCON = """
import falcon

class Resource:
    def __init__(self, **responders):
        for name, responder in responders.items():
            setattr(self, "on_" + name, responder)

def text(value):
    def responder(request, response, **arguments):
        response.text = value(request, **arguments)
    return responder

def upload(request, response):
    answer = {}
    for part in request.get_media():
        data = part.stream.read()
        if part.filename:
            answer.update(name=part.filename, size=len(data))
        else:
            answer[part.name] = data.decode()
    response.media = answer

def echo(request, response):
    response.media = request.get_media()

def streaming(request, response):
    response.content_type = "text/plain"
    response.stream = stream()

def count(request, response):
    number = int(request.cookies.get("count", "0")) + 1
    response.set_cookie("count", str(number), secure=False)
    response.text = str(number)

def redirect(request, response):
    raise falcon.HTTPFound("/")

def download(request, response):
    response.content_type = "application/octet-stream"
    response.downloadable_as = "download.bin"
    response.stream = PATH.open("rb")
    response.content_length = len(FILE)

def fail(request, response):
    raise RuntimeError("in a view")

hello = text(lambda request: "hello")
app = falcon.App()
app.add_route("/", Resource(get=hello, head=hello))
app.add_route("/form", Resource(post=text(lambda request: request.get_media()["name"])))
app.add_route("/upload", Resource(post=upload))
app.add_route("/json", Resource(post=echo))
app.add_route("/stream", Resource(get=streaming))
app.add_route("/count", Resource(get=count))
app.add_route("/redirect", Resource(get=redirect))
app.add_route("/download", Resource(get=download))
app.add_route("/fail", Resource(get=fail))
app.add_route("/unicode/{name}", Resource(get=text(lambda request, name: name)))
"""

PYRAMID = """
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import FileResponse, Response
from pyramid.session import SignedCookieSessionFactory

def upload(request):
    file = request.POST["file"]
    return {"name": file.filename, "size": len(file.file.read()), "field": request.POST["field"]}

def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return Response(str(request.session["count"]))

def download(request):
    response = FileResponse(str(PATH), request=request)
    response.content_disposition = "attachment; filename=download.bin"
    return response

def fail(request):
    raise RuntimeError("in a view")

VIEWS = {
    "/": lambda request: Response("hello"),
    "/form": lambda request: Response(request.POST["name"]),
    "/upload": upload,
    "/json": lambda request: request.json_body,
    "/stream": lambda request: Response(app_iter=stream(), content_type="text/plain"),
    "/count": count,
    "/redirect": lambda request: HTTPFound("/"),
    "/download": download,
    "/fail": fail,
    "/unicode/{name}": lambda request: Response(request.matchdict["name"]),
}

with Configurator() as config:
    config.set_session_factory(SignedCookieSessionFactory("secret"))
    for route, view in VIEWS.items():
        config.add_route(route, route)
        config.add_view(view, route_name=route, renderer="json")
    app = config.make_wsgi_app()
"""

#: Flask reads forms and JSON with read(), to the end of the input: beyond the letter of PEP 3333, which
#: the validator holds it to in all else.
READ_TO_THE_END = """
from wsgiref.validate import InputWrapper
InputWrapper.read = lambda self, size=-1: self.input.read(size)
"""

FRAMEWORKS = {
    "flask": READ_TO_THE_END + FLASK,
    "django": DJANGO,
    "bottle": BOTTLE,
    "falcon": FALCON,
    "pyramid": PYRAMID,
}


class Browser:
    """A client with one connection and a cookie jar."""

    def __init__(self, server: Server) -> None:
        """Connect."""
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        self._cookies: dict[str, str] = {}

    def ask(
        self, path: str, method: str = "GET", body: object = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """The response and its body."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if self._cookies:
            fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        self._connection.request(method, path, body, fields)
        response = self._connection.getresponse()
        for cookie in response.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        return response, response.read()

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()


@pytest.fixture(params=FRAMEWORKS)
def server(request: pytest.FixtureRequest, serve: Callable[..., Server]) -> Server:
    """The application in one of the frameworks."""
    server = serve(COMMON + FRAMEWORKS[request.param])
    server.expects_traceback = True
    return server


@pytest.fixture
def browser(server: Server) -> Iterator[Browser]:
    """A client of it."""
    browser = Browser(server)
    yield browser
    browser.close()


def test_application(browser: Browser) -> None:
    """All of it on one connection."""
    response, body = browser.ask("/")
    assert (response.status, body, response.headers["Content-Length"]) == (200, b"hello", "5")

    response, body = browser.ask("/", "HEAD")
    assert (response.status, body) == (200, b"")

    form = {"Content_Type": "application/x-www-form-urlencoded"}
    response, body = browser.ask("/form", "POST", "name=J%C3%B6rg+M", **form)
    assert (response.status, body.decode()) == (200, "J\xf6rg M")

    part = 'Content-Disposition: form-data; name="{}"{}\r\n'
    upload = b"".join([
        b"--limit\r\n" + part.format("field", "").encode() + b"\r\nvalue\r\n",
        b"--limit\r\n" + part.format("file", '; filename="a.bin"').encode(),
        b"Content-Type: application/octet-stream\r\n\r\n" + FILE + b"\r\n--limit--\r\n",
    ])
    multipart = {"Content_Type": "multipart/form-data; boundary=limit"}
    response, body = browser.ask("/upload", "POST", upload, **multipart)
    assert json.loads(body) == {"name": "a.bin", "size": len(FILE), "field": "value"}

    # The same in chunks.
    pieces = iter([upload[:100], upload[100:70_000], upload[70_000:]])
    response, body = browser.ask("/upload", "POST", pieces, **multipart)
    assert json.loads(body) == {"name": "a.bin", "size": len(FILE), "field": "value"}

    document = {"a": [1, 2, {"b": None}], "c": "\u4e2d"}
    response, body = browser.ask("/json", "POST", json.dumps(document), Content_Type="application/json")
    assert json.loads(body) == document

    response, body = browser.ask("/stream")
    assert body == b"".join(b"line %d\n" % number for number in range(5))
    assert response.headers["Transfer-Encoding"] == "chunked"

    assert [browser.ask("/count")[1] for _ in range(3)] == [b"1", b"2", b"3"]

    response, _ = browser.ask("/redirect")
    assert response.status == 302
    assert re.fullmatch(r"(http://127\.0\.0\.1:\d+)?/", response.headers["Location"])

    response, body = browser.ask("/download")
    assert body == FILE
    assert response.headers["Content-Length"] == str(len(FILE))
    assert "download.bin" in response.headers["Content-Disposition"]

    response, body = browser.ask("/unicode/%E4%B8%AD")
    assert body.decode() == "\u4e2d"

    assert browser.ask("/no/such/path")[0].status == 404
    assert browser.ask("/fail")[0].status == 500
    assert browser.ask("/")[1] == b"hello"
