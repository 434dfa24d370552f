"""Files for download, sent by the kernel: `python file_download.py DIRECTORY [PORT]`.

`wsgi.file_wrapper` hands a file to the server, which sends it by sendfile(2), from where it stands and up to the
Content-Length. A client that reads slowly keeps its own request waiting, and nobody else. The server closes the
file in the end, also when the client goes in the middle. A request for a part of a file (`Range: bytes=100-`) is the
application's to answer: it seeks, and says how much is to be sent.
"""

import mimetypes
import os
import re
import sys
from pathlib import Path

from meinheld import server

DIRECTORY = Path(sys.argv[1] if __name__ == "__main__" and len(sys.argv) > 1 else ".").resolve()


def app(environ, start_response):
    """Answer GET and HEAD with the file of that name, and other requests with what is wrong with them."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return refuse(start_response, "405 Method Not Allowed", [("Allow", "GET, HEAD")])
    # The path comes percent-decoded, each byte as one character (PEP 3333).
    name = os.fsdecode(environ["PATH_INFO"].encode("latin-1")).lstrip("/")
    if "\0" in name:
        return refuse(start_response, "404 Not Found")
    path = (DIRECTORY / name).resolve()
    # Neither `..` nor a link may lead out of the directory.
    if not path.is_relative_to(DIRECTORY) or not path.is_file():
        return refuse(start_response, "404 Not Found")
    try:
        file = path.open("rb")
    except OSError:
        return refuse(start_response, "403 Forbidden")
    return send(environ, start_response, file, path.name)


def send(environ, start_response, file, name):
    """Answer with the file, or the part of it that is asked for."""
    size = os.fstat(file.fileno()).st_size
    first, last = part_of(environ.get("HTTP_RANGE", ""), size)
    if first > last and size > 0:
        file.close()
        return refuse(start_response, "416 Range Not Satisfiable", [("Content-Range", f"bytes */{size}")])
    headers = [
        ("Content-Type", mimetypes.guess_type(name)[0] or "application/octet-stream"),
        ("Content-Length", str(last - first + 1)),
        ("Accept-Ranges", "bytes"),
    ]
    if last - first + 1 < size:
        headers.append(("Content-Range", f"bytes {first}-{last}/{size}"))
        start_response("206 Partial Content", headers)
    else:
        start_response("200 OK", headers)
    file.seek(first)
    return environ["wsgi.file_wrapper"](file)


def part_of(wanted, size):
    """The first and the last byte of a `Range` with one range; of the whole file if it is anything else."""
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", wanted)
    if found is None or found[0] == "bytes=-" or (found[1] and found[2] and int(found[2]) < int(found[1])):
        return 0, size - 1
    if not found[1]:
        # The last so many bytes.
        count = int(found[2])
        return (max(size - count, 0), size - 1) if count else (size, size - 1)
    return int(found[1]), min(int(found[2] or size), size - 1)


def refuse(start_response, status, headers=()):
    """Answer with a status alone."""
    start_response(status, [("Content-Type", "text/plain"), *headers])
    return [status.encode() + b"\n"]


if __name__ == "__main__":
    server.listen(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 8000))
    print("http://%s:%d" % server.addresses()[0], flush=True)
    server.run(app, silent=True)
