"""Downloads against a server in this process that behaves well, badly, and not at all."""

import hashlib
import io
import re
import runpy
import shutil
import socket
import sys

import pytest

import tinyheads as th
from download_server import (DATA, NAMES, answer, assert_complete, broken_off, files, module, ranges,  # noqa: F401
                             server, status, without_range)


# --- what should happen ------------------------------------------------------------------------


def test_all_five_files_are_fetched_byte_for_byte(server, files, tmp_path):
    assert th.download("355M", tmp_path / "new" / "355M", server.url + "/") == tmp_path / "new" / "355M"
    assert_complete(tmp_path / "new" / "355M", files)
    assert server.asked == [(f"/models/355M/{name}", None) for name in NAMES]


def test_files_that_are_there_are_not_fetched_again(server, files, tmp_path):
    th.download("124M", tmp_path, server.url)
    (tmp_path / "hparams.json").unlink()
    server.asked.clear()
    th.download("124M", tmp_path, server.url)
    assert server.asked == [("/models/124M/hparams.json", None)]
    assert_complete(tmp_path, files)


def test_the_address_may_come_from_the_environment_and_the_folder_from_the_search_path(server, files, tmp_path,
                                                                                       monkeypatch):
    monkeypatch.setenv("TINYHEADS_BASE_URL", server.url)
    monkeypatch.setenv("TINYHEADS_WEIGHTS", str(tmp_path))
    assert th.download("774M") == tmp_path / "774M"
    assert_complete(tmp_path / "774M", files)


def test_a_partial_file_is_continued_where_it_ends(server, files, tmp_path):
    (tmp_path / (DATA + ".part")).write_bytes(files[DATA][:123_457])
    th.download("124M", tmp_path, server.url)
    assert ranges(server) == ["bytes=123457-"]
    assert_complete(tmp_path, files)


def test_a_server_that_ignores_range_sends_the_file_anew(server, files, tmp_path):
    (tmp_path / (DATA + ".part")).write_bytes(b"x" * 1000)
    server.plan[DATA] = [without_range]
    th.download("124M", tmp_path, server.url)
    assert_complete(tmp_path, files)


def test_a_connection_that_breaks_off_is_continued_within_the_run(server, files, tmp_path):
    server.plan[DATA] = [broken_off(400_000), broken_off(1), broken_off(0)]
    th.download("124M", tmp_path, server.url)
    assert ranges(server) == [None, "bytes=400000-", "bytes=400001-", "bytes=400001-"]
    assert_complete(tmp_path, files)


def test_an_answer_of_less_than_all_the_rest_is_not_taken_for_the_end(server, files, tmp_path):
    def a_bit(handler, content):
        headers = {"Content-Length": 10, "Content-Range": f"bytes 1000-1009/{len(content)}"}
        answer(handler, 206, headers, content[1000:1010])
    (tmp_path / (DATA + ".part")).write_bytes(files[DATA][:1000])
    server.plan[DATA] = [a_bit]
    th.download("124M", tmp_path, server.url)
    assert ranges(server) == ["bytes=1000-", "bytes=1010-"]
    assert_complete(tmp_path, files)


def test_a_part_that_is_the_whole_file_is_taken_and_one_that_is_longer_is_thrown_away(server, files, tmp_path):
    (tmp_path / (DATA + ".part")).write_bytes(files[DATA])
    (tmp_path / "hparams.json.part").write_bytes(files["hparams.json"] + b"x")
    th.download("124M", tmp_path, server.url)
    assert ranges(server) == [f"bytes={len(files[DATA])}-"]
    assert ranges(server, "hparams.json") == [f"bytes={len(files['hparams.json']) + 1}-", None]
    assert_complete(tmp_path, files)


def test_a_server_in_trouble_is_asked_again(server, files, tmp_path):
    server.plan = {"hparams.json": [status(500), status(503)], DATA: [broken_off(5), status(502)]}
    th.download("124M", tmp_path, server.url)
    assert_complete(tmp_path, files)


def test_a_file_of_unknown_length_is_taken_as_it_comes(server, files, tmp_path):
    server.plan["hparams.json"] = [lambda handler, content: answer(handler, 200, {"Content-Length": "?"}, content),
                                   lambda handler, content: answer(handler, 200, {}, content)]
    th.download("124M", tmp_path, server.url)
    assert_complete(tmp_path, files)


# --- what goes wrong ---------------------------------------------------------------------------


def refused(server, folder, *words, size="124M", url=None):
    with pytest.raises(th.DownloadError) as caught:
        th.download(size, folder, url or server.url)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def test_an_unknown_size_is_answered_with_the_valid_ones(server, tmp_path):
    refused(server, tmp_path, "'1.5B'", "124M", "355M", "774M", "1558M", size="1.5B")
    assert server.asked == []


def test_a_file_that_the_server_does_not_have(server, files, tmp_path):
    del server.files["model.ckpt.index"]
    refused(server, tmp_path, f"{server.url}/124M/model.ckpt.index: the server answered 404 Not Found")
    assert ranges(server, "model.ckpt.index") == [None]  # asked once: it will not come
    assert sorted(file.name for file in tmp_path.iterdir()) == ["encoder.json", "hparams.json", "vocab.bpe"]


def test_a_server_that_stays_in_trouble(server, tmp_path):
    server.plan["hparams.json"] = [status(500)] * 9
    refused(server, tmp_path, "hparams.json: the server answered 500")
    assert len(server.asked) == 4 and list(tmp_path.iterdir()) == []


def test_a_connection_that_keeps_breaking_off_leaves_a_part_to_continue_from(server, files, tmp_path):
    server.plan[DATA] = [broken_off(10)] * 4
    refused(server, tmp_path, "ended after 40 of 900000 bytes", f"40 bytes are in {tmp_path / DATA}.part",
            "run again to continue")
    assert not (tmp_path / DATA).exists() and (tmp_path / (DATA + ".part")).read_bytes() == files[DATA][:40]
    th.download("124M", tmp_path, server.url)
    assert_complete(tmp_path, files)


def test_a_web_page_in_place_of_the_file(server, tmp_path):
    page = {"Content-Type": "text/html; charset=utf-8"}
    server.plan["hparams.json"] = [lambda handler, content: answer(handler, 200, page, b"<html>")]
    refused(server, tmp_path, "sent a web page in place of the file")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_answer_is_no_file(server, tmp_path):
    server.plan["hparams.json"] = [status(200)] * 4
    refused(server, tmp_path, "hparams.json", "ended after 0")
    assert not (tmp_path / "hparams.json").exists()


def test_an_answer_that_begins_elsewhere_is_not_appended(server, files, tmp_path):
    (tmp_path / (DATA + ".part")).write_bytes(files[DATA][:77])
    headers = {"Content-Range": "bytes 0-899999/900000"}
    server.plan[DATA] = [lambda handler, content: answer(handler, 206, headers, content)] * 4
    refused(server, tmp_path, "asked for bytes from 77, got 'bytes 0-899999/900000'")
    assert (tmp_path / (DATA + ".part")).read_bytes() == files[DATA][:77]


@pytest.mark.parametrize("name", ["vocab.bpe", "encoder.json"])
def test_a_tokenizer_file_that_is_not_openais_is_deleted(name, server, files, tmp_path):
    good = files[name]
    server.files[name] = good[:-1] + bytes([good[-1] ^ 1])
    found = hashlib.sha256(server.files[name]).hexdigest()
    refused(server, tmp_path, f"{name}: the file received has SHA-256 {found}", hashlib.sha256(good).hexdigest())
    assert not any(file.name.startswith(name) for file in tmp_path.iterdir())


def test_the_checksums_are_those_of_openais_files(gpt2_folder):
    assert set(module.SHA256) == {"vocab.bpe", "encoder.json"}
    for name, expected in module.SHA256.items():
        assert hashlib.sha256((gpt2_folder / name).read_bytes()).hexdigest() == expected


def test_without_a_network_the_message_says_what_to_put_where(server, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    refused(server, tmp_path / "124M", "refused", "Without a network",
            f"put them into {tmp_path / '124M'}/: {', '.join(NAMES)}", url=url)


@pytest.mark.parametrize("url", ["nonsense", "http:", "http://[::1", "http://a..b", "http://" + "a" * 100,
                                 "gopher://x", "http://ho st/é"])
def test_an_address_that_is_none(url, server, tmp_path):
    assert url in refused(server, tmp_path, url=url)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").touch()
    refused(server, tmp_path / "file" / "124M", "file/124M: cannot be written")
    assert server.asked == []


# --- what is shown, and how names are found --------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_person_at_a_terminal_sees_rate_and_time_left(server, files, tmp_path, monkeypatch):
    (tmp_path / (DATA + ".part")).write_bytes(files[DATA][:450_000])
    monkeypatch.setattr(sys, "stderr", Terminal())
    th.download("124M", tmp_path, server.url)
    shown = sys.stderr.getvalue()
    last = re.split(r"[\r\n]", shown.strip("\n"))[-1]
    assert re.search(rf"{re.escape(DATA)}  #{{24}} 100%  0\.9/0\.9 MB  \d+\.\d MB/s  0:00 left$", last)
    first = next(line for line in shown.split("\r") if DATA in line)
    assert int(re.search(r"(\d+)%", first)[1]) >= 50  # what was there before counts as done
    assert all(name in shown for name in NAMES)


def test_nothing_is_shown_where_nobody_watches(server, tmp_path, capfd):
    th.download("124M", tmp_path, server.url)
    assert capfd.readouterr() == ("", "")


def test_a_size_is_found_where_it_lies_complete_without_asking_the_network(golden, tmp_path, monkeypatch, server,
                                                                           files):
    monkeypatch.setenv("TINYHEADS_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TINYHEADS_BASE_URL", server.url)
    shutil.copytree(golden / "one_tf", tmp_path / "124M")
    for name in ["vocab.bpe", "encoder.json"]:
        (tmp_path / "124M" / name).touch()
    assert th.load("124M").config.n_embd == 8
    assert server.asked == []
    (tmp_path / "124M" / "vocab.bpe").unlink()
    th.load("124M")
    assert server.asked == [("/models/124M/vocab.bpe", None)]


def test_a_converted_model_under_a_sizes_name_is_used_and_its_tokenizer_fetched(golden, tmp_path, monkeypatch, server,
                                                                                gpt2_folder):
    monkeypatch.setenv("TINYHEADS_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TINYHEADS_BASE_URL", server.url)
    shutil.copytree(golden / "one", tmp_path / "355M")
    assert th.load("355M").config.n_embd == 8
    assert server.asked == []
    for name in ["vocab.bpe", "encoder.json"]:
        server.files[name] = (gpt2_folder / name).read_bytes()
        monkeypatch.setitem(module.SHA256, name, hashlib.sha256(server.files[name]).hexdigest())
    assert th.load_tokenizer("355M").n_vocab == 50257
    assert server.asked == [("/models/355M/vocab.bpe", None), ("/models/355M/encoder.json", None)]


def test_the_command_line_prints_where_the_model_is_or_why_it_is_not(server, files, tmp_path, monkeypatch, capsys):
    """`python -m tinyheads download 124M`, in this process, so that the server's checksums are the ones expected."""
    monkeypatch.setattr(sys, "argv", ["tinyheads", "download", "124M", "--folder", str(tmp_path / "124M"), "--base-url",
                                      server.url])
    runpy.run_module("tinyheads", run_name="__main__")
    assert f"124M is in {tmp_path / '124M'}" in capsys.readouterr().out
    assert_complete(tmp_path / "124M", files)
    (tmp_path / "124M" / "hparams.json").unlink()
    server.files.pop("hparams.json")
    with pytest.raises(SystemExit, match="^1$"):
        runpy.run_module("tinyheads", run_name="__main__")
    assert re.search("download: error: .*hparams.json: the server answered 404", capsys.readouterr().err)
