"""Downloads under faults: after each, no wrong file lies under its final name, and a second run completes."""

import gzip
import os
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import tinyheads as th
from download_server import (DATA, NAMES, answer, assert_complete, broken_off, files, module, ranges,  # noqa: F401
                             serve, server, stalled, status, without_range)

PAGE = b"\r\n<!DOCTYPE html><html><body>Sign in to the network</body></html>"


# --- answers that are not what they should be: handlers for download_server -------------------------------


def claiming(difference, accept_range=True):
    """Another Content-Length than the body has, for a request of the whole file, or for every request."""
    def handle(handler, content):
        if handler.headers["Range"] and accept_range:
            return serve(handler, content)
        answer(handler, 200, {"Content-Length": len(content) + difference}, content)
    return handle


def with_headers(code, headers, body=None):
    return lambda handler, content: answer(handler, code, headers, content if body is None else body)


def chunked(stop=None):
    """The whole file in chunks, or a connection that ends inside one."""
    def handle(handler, content):
        pieces = [content[i:i + 70_000] for i in range(0, len(content), 70_000)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        answer(handler, 200, {"Transfer-Encoding": "chunked"}, body[:stop])
    return handle


def redirected(to):
    return lambda handler, content: answer(handler, 302, {"Location": to, "Content-Length": 0})


def packed(handler, content):
    body = gzip.compress(content, 1)
    answer(handler, 200, {"Content-Encoding": "gzip", "Content-Length": len(body)}, body)


def garbage(handler, content):
    handler.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")


FAULTS = {
    **{f"cut at {tenth}/10": broken_off(90_000 * tenth) for tenth in range(11)},
    "length too long": claiming(+10), "length too short": claiming(-10), "length 0": claiming(-900_000),
    "length too long and no ranges": claiming(+10, False), "length too short and no ranges": claiming(-10, False),
    "no length": with_headers(200, {}),
    "no length, cut": lambda handler, content: answer(handler, 200, {}, content[:450_000]),
    "length that is no number": with_headers(200, {"Content-Length": "9" * 5000}),
    "chunks": chunked(), "chunks, cut": chunked(400_000), "chunks without end": chunked(-5),
    "404": status(404), "403": status(403), "416": status(416), "500": status(500), "503": status(503),
    "204": status(204), "empty": status(200), "no ranges": without_range,
    "part of another file": with_headers(206, {"Content-Range": "bytes 0-899999/5000000"}),
    "redirect to itself": lambda handler, content: redirected(handler.path)(handler, content),
    "redirect to a file": redirected("file:///etc/hostname"), "redirect to nowhere": redirected("http://[::1"),
    "page": with_headers(200, {"Content-Type": "text/html"}, PAGE),
    "page without a type": with_headers(200, {"Content-Length": len(PAGE)}, PAGE),
    "page in chunks": with_headers(200, {"Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n0\r\n\r\n" % (len(PAGE), PAGE)),
    "packed": packed,
    "no HTTP": garbage, "nothing at all": lambda handler, content: None,
    "stalled at once": stalled(0), "stalled later": stalled(300_000),
}


@pytest.mark.parametrize("part", [0, 500_000], ids=["from the start", "continued"])
@pytest.mark.parametrize("times", [1, 4], ids=["once", "persistent"])
@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_no_wrong_file_is_there_and_the_next_run_completes(fault, times, part, server, files, tmp_path,
                                                                         monkeypatch):
    for name in NAMES[:4]:
        (tmp_path / name).write_bytes(files[name])
    monkeypatch.setattr(module, "TIMEOUT", 0.2 if "stalled" in fault else 5)
    if part:
        (tmp_path / (DATA + ".part")).write_bytes(files[DATA][:part])
    server.plan[DATA] = [FAULTS[fault]] * times
    try:
        th.download("124M", tmp_path, server.url)
    except th.DownloadError as error:
        assert DATA in str(error)
    found = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.name != DATA + ".part"}
    assert found.items() <= files.items()
    server.released.set()
    server.plan.clear()
    monkeypatch.setattr(module, "TIMEOUT", 30)
    th.download("124M", tmp_path, server.url)
    assert_complete(tmp_path, files)


def test_a_redirect_is_followed_with_its_range(server, files, tmp_path):
    (tmp_path / (DATA + ".part")).write_bytes(files[DATA][:1234])
    server.plan[DATA] = [redirected(f"{server.url}/mirror/{DATA}")]
    th.download("124M", tmp_path, server.url)
    assert ranges(server) == ["bytes=1234-", "bytes=1234-"]
    assert_complete(tmp_path, files)


def test_without_a_length_the_servers_word_on_what_lies_behind_is_waited_for(server, files, tmp_path):
    server.plan[DATA] = [with_headers(200, {}, files[DATA][:1000])]
    th.download("124M", tmp_path, server.url)
    assert ranges(server) == [None, "bytes=1000-"]
    server.plan["hparams.json"] = [with_headers(200, {})] * 4
    (tmp_path / "hparams.json").unlink()
    with pytest.raises(th.DownloadError, match="hparams.json: the connection ended after 90 of unknown bytes"):
        th.download("124M", tmp_path, server.url)  # nobody ever says how long it is
    assert not (tmp_path / "hparams.json").exists()


def test_an_address_that_is_not_on_the_web(server, tmp_path):
    (tmp_path / "124M").mkdir()
    (tmp_path / "124M" / "hparams.json").write_bytes(b"{}")
    with pytest.raises(th.DownloadError, match="is no address on the web"):
        th.download("124M", tmp_path / "new", tmp_path.as_uri())
    assert os.listdir(tmp_path / "new") == []


# --- other processes -----------------------------------------------------------------------------------

DOWNLOAD = """
import pathlib, sys, types
package = types.ModuleType("tinyheads")
package.__path__ = [sys.argv[1]]
sys.modules["tinyheads"] = package  # in place of its __init__, which imports torch: that takes seconds
from tinyheads.files import download
download.SHA256 = {}
if sys.argv[4:]:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))  # no file may grow beyond
download.fetch_model("124M", pathlib.Path(sys.argv[2]), sys.argv[3])
"""


@pytest.fixture
def start(server, tmp_path):
    """Start a process that downloads into tmp_path / "124M"; what is left of them is killed in the end."""
    started = []
    def start(*limit):
        package, folder = Path(th.__file__).parent, tmp_path / "124M"
        command = [sys.executable, "-c", DOWNLOAD, package, folder, server.url, *map(str, limit)]
        heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)   # a shell's background job is born deaf to it
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        preexec_fn=heard))
        return started[-1]
    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("waited for half a minute")


def received(tmp_path):
    part = tmp_path / "124M" / (DATA + ".part")
    return part.stat().st_size if part.exists() else 0


def test_two_processes_at_once_fetch_each_file_once_and_both_succeed(server, files, tmp_path, start):
    def slowly(handler, content):
        threading.Event().wait(0.5)
        serve(handler, content)
    server.plan[DATA] = [slowly]
    both = [start(), start()]
    for process in both:
        assert process.wait(60) == 0, process.stderr.read()
    assert sorted(path.rsplit("/", 1)[1] for path, _ in server.asked) == sorted(NAMES)
    assert_complete(tmp_path / "124M", files)


def test_when_the_process_that_downloads_is_killed_the_one_that_waits_goes_on(server, files, tmp_path, start):
    server.plan[DATA] = [stalled(300_000)]
    first = start()
    wait_until(lambda: received(tmp_path) == 300_000)
    second = start()
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1)
    assert ranges(server) == [None]  # the second has not asked for anything
    first.kill()
    assert second.wait(60) == 0, second.stderr.read()
    assert ranges(server) == [None, "bytes=300000-"]
    assert_complete(tmp_path / "124M", files)


def test_an_interrupt_from_the_keyboard_leaves_a_part_and_no_lock(server, files, tmp_path, start):
    server.plan[DATA] = [stalled(300_000)]
    process = start()
    wait_until(lambda: received(tmp_path) == 300_000)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0 and "KeyboardInterrupt" in process.stderr.read()
    assert sorted(file.name for file in (tmp_path / "124M").iterdir()) == sorted([*NAMES[:4], DATA + ".part"])
    th.download("124M", tmp_path / "124M", server.url)
    assert ranges(server) == [None, "bytes=300000-"]
    assert_complete(tmp_path / "124M", files)


def test_a_full_disk_is_told_from_a_bad_network_and_what_came_is_kept(server, files, tmp_path, start):
    pytest.importorskip("resource")
    process = start(500_000)
    assert process.wait(60) == 1
    error = process.stderr.read()
    assert f"{DATA}.part: cannot be written (File too large)" in error
    assert "make room and run again to continue" in error
    assert ranges(server) == [None]  # and not four times
    assert (tmp_path / "124M" / (DATA + ".part")).read_bytes() == files[DATA][:500_000]
    th.download("124M", tmp_path / "124M", server.url)
    assert ranges(server) == [None, "bytes=500000-"]
    assert_complete(tmp_path / "124M", files)


def test_a_lock_that_a_killed_process_left_lying_holds_nobody_back(server, files, tmp_path):
    (tmp_path / ".download.lock").touch()
    th.download("124M", tmp_path, server.url)
    assert_complete(tmp_path, files)


def test_who_waited_for_a_lock_that_was_removed_takes_a_new_one(tmp_path):
    """Else a third process, which finds no lock file, would make one and come in too."""
    seen = []
    def second():
        with module.only_process_in(tmp_path):
            seen.append(os.listdir(tmp_path))
    with module.only_process_in(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        threading.Event().wait(0.3)  # until the second one waits
        assert seen == []
    thread.join(30)
    assert seen == [[".download.lock"]] and os.listdir(tmp_path) == []


def test_a_system_without_locks_downloads_all_the_same(server, files, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "fcntl", None)
    th.download("124M", tmp_path, server.url)
    assert_complete(tmp_path, files)


def test_what_is_complete_needs_no_lock_and_no_folder_that_can_be_written_to(server, files, tmp_path, monkeypatch):
    th.download("124M", tmp_path, server.url)
    monkeypatch.setattr(module, "only_process_in", None)
    assert th.download("124M", tmp_path, server.url) == tmp_path


def test_the_command_line_says_how_to_go_on_after_an_interrupt(server, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt
    monkeypatch.setattr(module, "receive", interrupted)
    monkeypatch.setattr(sys, "argv", ["tinyheads", "download", "124M", "--folder", str(tmp_path), "--base-url",
                                      server.url])
    with pytest.raises(SystemExit, match="^130$"):
        runpy.run_module("tinyheads", run_name="__main__")
    assert capsys.readouterr().err == ("python -m tinyheads download: interrupted; "
                                       "run again to continue where it stopped\n")
    assert os.listdir(tmp_path) == []
