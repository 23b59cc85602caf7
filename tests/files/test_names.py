"""Names and paths as people type them: OpenAI's sizes by their other names, `~`, and no home folder at all."""

import os
import pwd
import shutil

import pytest

import tinyheads as th
from download_server import assert_complete, files, server  # noqa: F401
from helpers import random_model
from tinyheads.files.weights import openai_size, search_path

SIZES = dict(n_vocab=19, n_ctx=9, n_embd=12, n_layer=2, n_head=3)


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TINYHEADS_WEIGHTS", raising=False)
    return tmp_path / "home"


@pytest.fixture
def no_home(monkeypatch):
    """As in `docker run -u 1234`: no HOME, and no such user."""
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("TINYHEADS_WEIGHTS", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert os.path.expanduser("~") == "~"


def refused(word, name, load=th.load, error=th.CheckpointError):
    with pytest.raises(error) as caught:
        load(name)
    assert word in str(caught.value)


# --- OpenAI's models ---------------------------------------------------------------------------


@pytest.mark.parametrize("name, size", [
    ("124M", "124M"), ("124m", "124M"), ("124M/", "124M"), (" 355m ", "355M"), ("1558M", "1558M"), ("gpt2", "124M"),
    ("GPT2", "124M"), ("gpt2-small", "124M"), ("gpt2-medium", "355M"), ("gpt2-large", "774M"), ("gpt2-xl", "1558M"),
    ("openai-community/gpt2", "124M"), ("openai-community/gpt2-medium", "355M"), ("OpenAI-Community/GPT2-XL/", "1558M"),
    ("tiny", None), ("", None), ("/", None), ("gpt3", None), ("117M", None), ("models/124M", None), ("./gpt2", None),
    (None, None), (124, None)])
def test_the_names_of_openais_models(name, size):
    assert openai_size(name) == size


def test_a_name_gives_the_size_it_means_wherever_one_is_taken(golden, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYHEADS_WEIGHTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(golden / "one", tmp_path / "124M")
    shutil.copytree(golden / "wide", tmp_path / "355M")
    shutil.copy(golden / "tokenizers" / "whole" / "tokenizer.json", tmp_path / "355M")
    assert th.load("gpt2").config.n_embd == 8 and th.load("openai-community/gpt2-medium").config.n_embd == 24
    assert th.load_heads("gpt2").W_Q.shape[-2] == 8 and th.find_weights("gpt2-medium") == tmp_path / "355M"
    assert th.load_tokenizer("gpt2-medium").n_vocab == 340  # what th.save wrote will do: nothing is downloaded


def test_a_name_downloads_the_size_it_means(server, files, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("TINYHEADS_BASE_URL", server.url)
    monkeypatch.setenv("TINYHEADS_WEIGHTS", str(tmp_path))
    assert th.download("openai-community/gpt2-large") == tmp_path / "774M"
    assert_complete(tmp_path / "774M", files)
    assert {path for path, _ in server.asked} == {f"/models/774M/{name}" for name in files}


def test_what_lies_in_the_working_directory_under_a_name_comes_first(golden, tmp_path, monkeypatch):
    """Else th.save(model, "gpt2") and th.load("gpt2") would be two models."""
    monkeypatch.setenv("TINYHEADS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)
    for name in ["124M", "tiny"]:
        shutil.copytree(golden / "one", tmp_path / "weights" / name)
    for name in ["gpt2", "tiny", "124M"]:
        assert th.load(name).config.n_embd == 8
        th.save(random_model(SIZES), name)
        assert th.load(name).config.n_embd == 12 and th.load_heads(name).W_Q.shape[-2] == 12


def test_near_misses_are_told_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("gpt2-medium", "gpt2-mediun")
    refused("names: nearest valid: tiny", "tinny")
    refused("gpt2-xl", "gpt2xl", th.load_tokenizer, th.TokenizerError)
    refused("124M", "142M", th.load_heads)
    refused("gpt2-large", "gpt2-lrage", th.download, th.DownloadError)
    refused("there are 124M, 355M, 774M, 1558M", None, th.download, th.DownloadError)


@pytest.mark.parametrize("load, error", [(th.load, th.CheckpointError), (th.load_heads, th.CheckpointError),
                                         (th.open_checkpoint, th.CheckpointError),
                                         (th.find_weights, th.CheckpointError),
                                         (th.load_tokenizer, th.TokenizerError)])
@pytest.mark.parametrize("name", [None, 5, ["tiny"]], ids=repr)
def test_what_is_no_path_is_refused(load, error, name):
    refused(f"{name!r}: is no path", name, load, error)


# --- the home folder ---------------------------------------------------------------------------


def test_the_home_folder_is_meant_wherever_a_path_is_taken(home, server, monkeypatch):  # noqa: F811
    monkeypatch.chdir(home.parent)
    model = random_model(SIZES)
    assert th.save(model, "~/models/x", th.Tokenizer.bytes_only()) == home / "models" / "x"
    assert not os.path.exists("~")
    assert th.load("~/models/x").config == model.config
    assert th.load("~/models/x/model.safetensors").config == model.config
    assert th.open_checkpoint("~/models/x").config == model.config
    assert th.find_weights("~/models/x") == home / "models" / "x"
    assert th.load_heads("~/models/x").W_Q.shape[-2] == 12
    assert th.load_tokenizer("~/models/x").n_vocab == 257
    monkeypatch.setenv("TINYHEADS_WEIGHTS", "~/models")
    assert search_path()[0] == home / "models" and th.load("x").config == model.config
    assert th.download("124M", "~/openai/124M", server.url) == home / "openai" / "124M"
    assert not os.path.exists("~")


def test_a_user_without_a_home_folder_loads_and_saves_all_the_same(no_home, tmp_path):
    assert th.load("tiny").config.n_layer == 2 and th.load_tokenizer("tiny").n_vocab > 257
    assert th.load_heads("tiny") is not None and th.load(th.save(random_model(SIZES), tmp_path)).config.n_embd == 12
    assert not any("~" in str(folder) for folder in search_path())
    refused("no-such-model", "no-such-model")


def test_a_path_in_a_home_folder_that_is_unknown_is_refused(no_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for act, error in [(th.load, th.CheckpointError), (th.open_checkpoint, th.CheckpointError),
                       (lambda path: th.save(random_model(SIZES), path), th.CheckpointError),
                       (lambda path: th.download("124M", path), th.DownloadError),
                       (th.load_tokenizer, th.TokenizerError)]:
        refused("'~/x': is no path", "~/x", act, error)
    assert list(tmp_path.iterdir()) == []


def test_a_download_without_a_place_says_what_to_give(no_home, monkeypatch):
    monkeypatch.setattr("tinyheads.files.weights.search_path", lambda: [])
    refused("folder= or TINYHEADS_WEIGHTS", "124M", th.download, th.DownloadError)
