"""Missing and damaged safetensors files, pickles, and configs: the error says what was wrong, and where."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch

import tinyheads as th
from file_writers import parse_safetensors, safetensors_bytes


def refused(path, *words, load=th.load):
    """The path is refused with a CheckpointError that names it and has these words."""
    with pytest.raises(th.CheckpointError) as caught:
        load(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


@pytest.fixture
def one(golden, tmp_path):
    """A model of one layer, to be damaged: its folder, header and data."""
    shutil.copytree(golden / "one", tmp_path / "one")
    return tmp_path / "one", *parse_safetensors((golden / "one" / "model.safetensors").read_bytes())


def write(one, header=None, data=None):
    """Put a changed header or changed data into the folder; gives the file."""
    folder, intact_header, intact_data = one
    path = folder / "model.safetensors"
    path.write_bytes(safetensors_bytes(intact_header if header is None else header,
                                       intact_data if data is None else data))
    return path


# --- files that are not there, or not weights ------------------------------------------------------


def test_missing_files_and_folders_are_named(tmp_path):
    refused(tmp_path / "nowhere" / "model.safetensors", "no weights")
    refused(tmp_path / "nowhere", "no such file or folder", load=th.open_checkpoint)
    refused("/" + "a" * 5000, "no weights")
    refused("/" + "a" * 5000, load=th.open_checkpoint)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "neither *.safetensors nor model.ckpt.index is there", "[]")
    (tmp_path / "empty" / "notes.txt").touch()
    refused(tmp_path / "empty", "notes.txt")


def test_a_name_that_is_found_nowhere_lists_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYHEADS_WEIGHTS", str(tmp_path))
    refused("no-such-model", f"{tmp_path}/no-such-model", ".cache/tinyheads/no-such-model", load=th.load)
    with pytest.raises(th.TokenizerError, match=f"{tmp_path}/no-such-model"):
        th.load_tokenizer("no-such-model")


def test_a_name_is_found_under_the_environments_folder(golden, monkeypatch):
    monkeypatch.setenv("TINYHEADS_WEIGHTS", str(golden))
    assert th.find_weights("deep_tf") == golden / "deep_tf"
    assert th.load("deep_tf").config.n_layer == 4


def test_pickles_are_refused_by_their_suffix(tmp_path):
    for suffix in ["bin", "pt", "pth", "pkl", "npz"]:
        folder = tmp_path / suffix
        folder.mkdir()
        torch.save({"wte.weight": torch.zeros(2)}, folder / f"pytorch_model.{suffix}")
        refused(folder / f"pytorch_model.{suffix}", "pickle", ".safetensors")
        refused(folder, f"pytorch_model.{suffix}", "pickle")


def test_pickles_are_refused_by_what_they_hold(tmp_path):
    path = tmp_path / "model.safetensors"
    torch.save({"wte.weight": torch.zeros(2)}, path)
    refused(path, "pickle")
    torch.save({"wte.weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    refused(path, "pickle")
    for protocol in [2, 3, 4, 5]:
        path.write_bytes(pickle.dumps({"wte.weight": [1.0] * 100}, protocol))
        refused(path, "pickle")
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    refused(path, "pickle")


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))
    for name in ["model.safetensors", "model.bin", "model.ckpt.index"]:
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        refused(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_a_header_length_that_begins_like_a_pickle_is_read_and_its_errors_are_its_own(length, one):
    folder, header, data = one
    header = {name: {key: fields[key] for key in ("dtype", "shape", "data_offsets")} for name, fields in header.items()
              if name != "__metadata__"}
    raw = json.dumps(header).encode()
    while len(raw) > length:  # (too long for the shortest lengths by itself)
        length += 0x10000
    path = write(one, raw.ljust(length))
    assert path.read_bytes()[0] == 0x80
    th.load(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(th.CheckpointError) as caught:
        th.load(path)
    assert "truncated" in str(caught.value) and "pickle" not in str(caught.value)


# --- safetensors: the whole file ---------------------------------------------------------------


def test_a_file_truncated_anywhere_is_refused(one):
    folder = one[0]
    path = folder / "model.safetensors"
    intact = path.read_bytes()
    for n in [*range(0, 1500, 3), *range(1500, len(intact), 41), len(intact) - 1]:
        path.write_bytes(intact[:n])
        with pytest.raises(th.CheckpointError, match="model.safetensors"):
            th.load(folder)


def test_bytes_behind_the_tensors_are_refused(one):
    refused(write(one, data=one[2] + b"\0"), "something appended")


def test_a_header_longer_than_the_file_or_than_the_format_allows(one):
    path = write(one)
    intact = path.read_bytes()
    for length in [len(intact) - 7, 2**31, 2**63, 2**64 - 1]:
        path.write_bytes(length.to_bytes(8, "little") + intact[8:])
        refused(path, f"its header has {length} bytes", f"the file has {len(intact)}")
    # a byte beyond the format's limit, in a file that is long enough (and takes no room)
    with open(path, "r+b") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(110_000_000)
    refused(path, "its header has 100000001 bytes", "the file has 110000000")


@pytest.mark.parametrize("header, words", [
    (b"", "does not begin with '{'"), (b"[]", "does not begin with '{'"), (b" {}", "does not begin with '{'"),
    (b"{", "not valid JSON"), (b"{}}", "not valid JSON"), (b'{"a": \xff}', "not valid JSON"),
    (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON"),
    (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    (b'{"a": 1}', "'a' needs dtype, shape and data_offsets"), (b'{"a": {"dtype": "F32"}}', "needs dtype, shape"),
    (b'{"__metadata__": 1}', "__metadata__ must"), (b'{"__metadata__": {"a": 1}}', "__metadata__ must"),
    (b"{}", "holds no tensors"),
], ids=lambda value: repr(value[:20]))
def test_headers_that_are_no_table_of_tensors(header, words, one):
    refused(write(one, header, b""), words)


def test_a_name_that_is_there_twice(one):
    raw = json.dumps(one[1]).encode()
    name = "transformer.h.0.ln_1.bias"
    assert raw.count(name.encode()) == 1
    again = raw[:-1] + f', "{name}": {json.dumps(one[1][name])}'.encode() + b"}"
    refused(write(one, again), f"has the name '{name}' twice")
    once = {**one[1], "h.0.ln_1.bias": {"dtype": "F32", "shape": [8], "data_offsets": [len(one[2]), len(one[2]) + 32]}}
    # with and without the prefix
    refused(write(one, once, one[2] + bytes(32)), "'h.0.ln_1.bias' is there twice, the second time as")
    fields = raw.replace(b'"dtype"', b'"dtype": "F16", "dtype"', 1)
    refused(write(one, fields), "has the name 'dtype' twice")


# --- safetensors: one tensor -------------------------------------------------------------------


@pytest.mark.parametrize("change, words", [
    (dict(dtype="F33"), "unknown dtype 'F33'"), (dict(dtype=7), "unknown dtype '7'"),
    (dict(dtype=["F32"]), "unknown dtype"),
    (dict(shape=[9]), "needs 36 bytes, and 32 are stored"), (dict(shape=[]), "needs 4 bytes"),
    (dict(shape=8), "not a list"),
    (dict(shape=[-8]), "impossible shape"), (dict(shape=[8.0]), "impossible shape"),
    (dict(shape=[True] * 8), "impossible shape"),
    (dict(shape=[2**64]), "impossible shape"), (dict(shape=[2**62] * 32), "impossible shape"),
    (dict(shape=[2**63, 2, 0]), "impossible shape"), (dict(shape=[1] * 70 + [8]), "the config asks for [8]"),
    (dict(shape=[8, 1]), "shape [8, 1]; the config asks for [8]"),
    (dict(dtype="F16"), "needs 16 bytes"), (dict(dtype="F4", shape=[3, 7]), "needs 11 bytes"),
    (dict(data_offsets=[0]), "impossible data_offsets"), (dict(data_offsets=[-32, 0]), "impossible data_offsets"),
    (dict(data_offsets=[32, 0]), "impossible data_offsets"),
    (dict(data_offsets=[0.0, 32.0]), "impossible data_offsets"),
    (dict(data_offsets=[2**70, 2**70 + 32]), "impossible data_offsets"),
    (dict(data_offsets=[10**9, 10**9 + 32]), "a hole or an overlap"),
    (dict(data_offsets=[0, 32]), "a hole or an overlap"),
], ids=str)
def test_a_tensor_that_cannot_be_is_named(change, words, one):
    name = "transformer.ln_f.bias"
    fields = {**one[1][name], **change}
    refused(write(one, {**one[1], name: fields}), "ln_f.bias" if "hole" not in words else "tensor '", words)


@pytest.mark.parametrize("dtype", ["I64", "I32", "U32", "F8_E4M3"])
def test_weights_that_are_not_floats_are_refused_when_they_are_asked_for(dtype, one):
    folder, header, data = one
    bits = {"I64": 64, "F8_E4M3": 8}.get(dtype, 32)
    name = "transformer.ln_f.bias"
    start, end = header[name]["data_offsets"]
    grown = 8 * bits // 8 - 32
    for fields in header.values():
        if "data_offsets" in fields:
            fields["data_offsets"] = [n + grown * (n >= end) for n in fields["data_offsets"]]
    header[name] = {"dtype": dtype, "shape": [8], "data_offsets": [start, end + grown]}
    path = write(one, header, data[:start] + bytes(end - start + grown) + data[end:])
    refused(path, f"tensor 'ln_f.bias' is of dtype {dtype}", "F32")


def test_missing_tensors_are_named_with_what_is_there(one):
    folder, header, data = one
    names = [name for name in header if name != "__metadata__"]
    last = max(names, key=lambda name: header[name]["data_offsets"][0])
    start = header.pop(last)["data_offsets"][0]
    write(one, header, data[:start])
    refused(folder, f"'{last.removeprefix('transformer.')}'", "h.0.attn.c_attn.bias", f"{len(names) - 1} in all")
    with pytest.raises(th.CheckpointError,
                       match="'h.0.attn.c_atn.weight' is missing; it has .* h.0.attn.c_attn.weight"):
        th.open_checkpoint(folder)["h.0.attn.c_atn.weight"]


def test_the_real_attention_weights_are_no_whole_model_and_the_error_says_so(gpt2_folder):
    refused(gpt2_folder / "model-attention.safetensors",
            "25 tensors of a whole model are missing, 'wte.weight' the first",
            "123 in all", "load_heads is enough")


def test_a_tensor_that_no_gpt2_has_is_named_with_the_nearest_that_it_has(one):
    folder, header, data = one
    header["transformer.h.0.attn.c_atn.bias"] = header.pop("transformer.h.0.attn.c_attn.bias")
    refused(write(one, header), "'h.0.attn.c_atn.bias' has no place in a GPT-2 of 1 layers", "h.0.attn.c_attn.bias")


def test_an_error_stays_short_however_long_the_names_in_the_file(one):
    folder, header, data = one
    header["x" * 100_000] = header.pop("transformer.h.0.attn.c_attn.bias")
    for config in [True, False]:
        if not config:
            (folder / "config.json").unlink()
            header["y" * 100_000] = header.pop("transformer.h.0.attn.c_attn.weight")
        with pytest.raises(th.CheckpointError) as caught:
            th.load(write(one, header))
        assert len(str(caught.value)) <= 2000


# --- configs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("change, words", [
    (dict(n_layer=2), "missing"), (dict(n_layer=10**9), "too few for 1000000000 layers"),
    (dict(n_embd=16), "the config asks for"),
    (dict(vocab_size=34), "the config asks for [34, 8]"), (dict(n_positions=1000), "the config asks for [1000, 8]"),
    (dict(n_head=3), "does not divide"), (dict(n_head=0), "n_head must be a positive whole number"),
    (dict(model_type="llama"), "model_type is 'llama'"),
], ids=str)
def test_a_config_that_does_not_fit_the_file(change, words, one):
    folder = one[0]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    refused(folder, words)


def test_a_config_that_cannot_be_read_is_named(one):
    (one[0] / "config.json").write_bytes(b"\xff{")
    refused(one[0], "config.json: cannot be read as JSON")


def test_a_bare_file_whose_sizes_cannot_be_known(one, tmp_path):
    (one[0] / "config.json").unlink()
    refused(one[0], "no config.json beside it", "n_layer=1, n_embd=8, n_vocab=33, n_ctx=12 are the sizes of no GPT-2",
            "Give n_head=", "config.json beside it")
    for n_head, words in [(3, "n_embd=8 does not divide into n_head=3"), (0, "n_head must"), ("1", "n_head must")]:
        refused(one[0], f"no config.json beside it, and the shapes of its tensors with n_head={n_head!r} are no ",
                words, load=lambda path: th.load(path, n_head=n_head))
    fields = {"dtype": "F32", "shape": [0, 0], "data_offsets": [0, 0]}
    refused(write(one, {"h.0.attn.c_attn.weight": fields}, b""), "n_layer=1, n_embd=0 are the sizes of no GPT-2")
    refused(one[0], "n_embd must be a positive whole number", load=lambda path: th.load_heads(path, n_head=1))
    refused(write(one, {"wte": fields}, b""), "no matrix h.0.attn.c_attn.weight", "wte")
