"""What th.save writes of a tokenizer opens in transformers with equal ids, and never lies beside another's weights."""

import hashlib
import json
import os
import shutil

import pytest
import torch

import tinyheads as th
from helpers import random_model
from tinyheads.files.tokenizer_files import tokenizer_files

SIZES = dict(n_vocab=400, n_ctx=9, n_embd=12, n_layer=2, n_head=3)
NAMES = ["blanks", "bytes_only", "lacking", "pair", "untidy", "whole", "gpt2"]
TOKENIZER = ["tokenizer.json", "tokenizer_config.json"]
MODEL = ["config.json", "model.safetensors"]


def tokenizer_named(name, golden, request):
    if name == "gpt2":
        return th.load_tokenizer(request.getfixturevalue("gpt2_folder"))
    return th.Tokenizer.bytes_only() if name == "bytes_only" else th.load_tokenizer(golden / "tokenizers" / name)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_those_that_transformers_opened_and_the_ids_are_equal(name, golden, request, tmp_path):
    """saved_tokenizers.json: by golden/make_tokenizers.py, with AutoTokenizer of transformers 4.57.6 and 5.24.0."""
    found = json.loads((golden / "saved_tokenizers.json").read_text())[name]
    texts = json.loads((golden / "tokenizers.json").read_text())["texts"]
    tokenizer = tokenizer_named(name, golden, request)
    th.save(random_model(SIZES), tmp_path, tokenizer)
    assert sorted(os.listdir(tmp_path)) == MODEL + TOKENIZER
    for file, sha256 in found["sha256"].items():
        assert hashlib.sha256((tmp_path / file).read_bytes()).hexdigest() == sha256, file
    assert found["transformers"] == ["4.57.6", "5.24.0"]
    again = th.load_tokenizer(tmp_path)
    assert (again.merges, again.ids, again.added, again.nfc) == (tokenizer.merges, tokenizer.ids, tokenizer.added,
                                                                 tokenizer.nfc)
    for text, plain, special in zip(texts, found["plain"], found["special"]):
        if name == "lacking" and plain_is_refused(again, text):
            continue
        assert (again.encode(text), again.encode(text, special=True)) == (plain, special), text[:50]
    assert set(found["end"]) == {again.end_of_text}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["eos_token_id"] == config["bos_token_id"] == again.end_of_text


def plain_is_refused(tokenizer, text):
    return not {bytes([byte]) for byte in text.encode()} <= set(tokenizer.ids)


def test_openais_and_other_tokenizers_files_give_way_to_the_one_saved(golden, tmp_path):
    shutil.copytree(golden / "tokenizers" / "pair", tmp_path / "model")
    for name in ["vocab.bpe", "encoder.json", "special_tokens_map.json", "tokenizer.json", "notes.txt"]:
        (tmp_path / "model" / name).write_text("of another")
    th.save(random_model(SIZES), tmp_path / "model", th.Tokenizer.bytes_only())
    assert sorted(os.listdir(tmp_path / "model")) == sorted([*MODEL, *TOKENIZER, "notes.txt"])
    assert th.load_tokenizer(tmp_path / "model").n_vocab == 257


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.bpe", "vocab.json", "added_tokens.json"])
def test_saving_without_a_tokenizer_beside_one_is_refused_and_changes_nothing(name, tmp_path):
    (tmp_path / name).write_text("of another")
    before = contents(tmp_path)
    with pytest.raises(th.CheckpointError, match=rf"not saved: a tokenizer is there \({name}\), and none was given"):
        th.save(random_model(SIZES), tmp_path)
    assert contents(tmp_path) == before


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(th.CheckpointError, match="tokenizer must be a tinyheads.Tokenizer, not str"):
        th.save(random_model(SIZES), tmp_path / "model", "gpt2")
    assert not (tmp_path / "model").exists()


def test_a_disk_that_is_full_at_the_tokenizer_leaves_the_old_model_with_its_old_tokenizer(golden, tmp_path):
    resource = pytest.importorskip("resource")
    small = dict(SIZES, n_vocab=20, n_embd=3)
    th.save(random_model(small), tmp_path, th.Tokenizer.bytes_only())
    before = contents(tmp_path)
    tokenizer = th.load_tokenizer(golden / "tokenizers" / "blanks")
    assert max(map(len, before.values())) < 5000 < len(tokenizer_files(tokenizer)["tokenizer.json"])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limit[1]))
    try:
        with pytest.raises(th.CheckpointError, match="cannot be written"):
            th.save(random_model(small, seed=1), tmp_path, tokenizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, PermissionError(13, "Permission denied")], ids=repr)
@pytest.mark.parametrize("n", range(10))
def test_an_error_between_two_files_leaves_the_old_ones_and_no_mixture(n, error, golden, tmp_path, monkeypatch):
    """At the n-th renaming: of the weights just written; then four files go out and four come in."""
    th.save(random_model(SIZES), tmp_path, th.Tokenizer.bytes_only())
    for name in ["tokenizer_config.json", "config.json"]:
        (tmp_path / name).unlink()
    (tmp_path / "vocab.bpe").write_text("old")
    (tmp_path / "config.json").write_text("old")
    before, replace, done = contents(tmp_path), os.replace, []

    def counted(source, target):
        there = contents_apart(tmp_path)
        old = [name for name in there if there[name] == before.get(name)]
        assert old in ([], list(there)), "a mixture"
        done.append(target)
        if len(done) == n + 1:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", counted)
    if n == 9:  # never reached
        th.save(random_model(SIZES, seed=1), tmp_path, th.load_tokenizer(golden / "tokenizers" / "whole"))
        assert len(done) == 9 and sorted(os.listdir(tmp_path)) == MODEL + TOKENIZER
        assert torch.equal(th.load(tmp_path).wte.weight, random_model(SIZES, seed=1).wte.weight)
        return
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else th.CheckpointError):
        th.save(random_model(SIZES, seed=1), tmp_path, th.load_tokenizer(golden / "tokenizers" / "whole"))
    assert contents(tmp_path) == before


def contents_apart(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
