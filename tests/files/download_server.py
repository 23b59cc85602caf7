"""A small web server for the tests of downloads, in this process, that can be told to misbehave."""

import hashlib
import importlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
import pytest

module = importlib.import_module("tinyheads.files.download")  # th.download is its function
NAMES = ["hparams.json", "encoder.json", "vocab.bpe", "model.ckpt.index", DATA := "model.ckpt.data-00000-of-00001"]


class Server(ThreadingHTTPServer):
    """Serves `files`; `plan` holds what to do instead for the requests of one file, one after the other."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.plan, self.asked = files, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}/models"
        self.released = threading.Event()  # ends every stall


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


def stalled(n):
    """Send n bytes of the body, then nothing more, until `server.released`."""
    def stall(handler, content):
        serve(handler, content, stop=n)
        handler.server.released.wait(60)
    return stall


@pytest.fixture
def files():
    return {name: np.random.default_rng(i).integers(0, 256, [90, 5000, 3000, 700, 900_000][i], dtype=np.uint8).tobytes()
            for i, name in enumerate(NAMES)}


@pytest.fixture
def server(files, monkeypatch):
    checksums = {name: hashlib.sha256(files[name]).hexdigest() for name in ["vocab.bpe", "encoder.json"]}
    monkeypatch.setattr(module, "SHA256", checksums)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("TINYHEADS_BASE_URL", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    server = Server(files)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def ranges(server, name=DATA):
    return [asked for path, asked in server.asked if path.endswith("/" + name)]


def assert_complete(folder, files):
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
