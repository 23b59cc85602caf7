"""A small web server for test_download.py, in this process, that can be told to misbehave."""

import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Server(ThreadingHTTPServer):
    """Serves `files`; `plan` holds what to do instead for the requests of one file, one after the other."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.plan, self.asked = files, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}/models"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        name = urlsplit(self.path).path.rsplit("/", 1)[1]
        self.server.asked.append((self.path, self.headers["Range"]))
        plan = self.server.plan.get(name)
        (plan.pop(0) if plan else serve)(self, self.server.files.get(name))


def answer(handler, status, headers, body=b""):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    try:
        handler.wfile.write(body)
    except ConnectionError:
        pass  # who asked has heard enough


def serve(handler, content, stop=None):
    """What a real server does, Range and all; `stop`: close the connection after so many bytes of the body."""
    if content is None:
        return answer(handler, 404, {"Content-Length": 0})
    asked = handler.headers["Range"]
    start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
    if asked and start >= len(content):
        return answer(handler, 416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": 0})
    headers = {"Content-Length": len(content) - start, "Content-Type": "application/octet-stream"}
    if asked:
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    answer(handler, 206 if asked else 200, headers, content[start:][:stop])


def broken_off(n):
    return lambda handler, content: serve(handler, content, stop=n)


def status(code):
    return lambda handler, content: answer(handler, code, {"Content-Length": 0})


def without_range(handler, content):
    answer(handler, 200, {"Content-Length": len(content)}, content)
