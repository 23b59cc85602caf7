"""th.save: what it writes opens elsewhere, comes back bit for bit, and is never there by halves."""

import errno
import json
import os
import shutil
import stat

import numpy as np
import pytest
import torch

import tinyheads as th
from file_writers import parse_safetensors
from helpers import random_model

SIZES = dict(n_vocab=19, n_ctx=9, n_embd=12, n_layer=2, n_head=3)


def assert_equal_models(one, other):
    assert one.config == other.config
    ours, theirs = one.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def folder_contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_saved_model_comes_back_bit_for_bit(tmp_path):
    model = random_model(SIZES)
    assert th.save(model, tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == ["config.json", "model.safetensors"]
    assert_equal_models(th.load(tmp_path / "new" / "folder"), model)


@pytest.mark.parametrize("shape", ["wide", "deep", "one"])
def test_a_saved_bundle_holds_the_tensors_that_transformers_saved(shape, golden, tmp_path):
    th.save(th.load(golden / f"{shape}_tf"), tmp_path)
    ours, our_data = parse_safetensors((tmp_path / "model.safetensors").read_bytes())
    theirs, their_data = parse_safetensors((golden / shape / "model.safetensors").read_bytes())
    assert ours.pop("__metadata__") == theirs.pop("__metadata__") == {"format": "pt"}
    assert sorted(f"transformer.{name}" for name in ours) == sorted(theirs)
    for name, fields in ours.items():
        golden_fields = theirs[f"transformer.{name}"]
        assert fields["dtype"] == golden_fields["dtype"] and fields["shape"] == golden_fields["shape"], name
        assert our_data[slice(*fields["data_offsets"])] == their_data[slice(*golden_fields["data_offsets"])], name
    config = json.loads((tmp_path / "config.json").read_text())
    golden_config = json.loads((golden / shape / "config.json").read_text())
    for key in ["architectures", "model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner",
                "activation_function", "layer_norm_epsilon", "tie_word_embeddings"]:
        assert config[key] == golden_config[key], key


def test_the_numbers_of_a_saved_file_lie_on_8_byte_boundaries(tmp_path):
    th.save(random_model(SIZES), tmp_path)
    raw = (tmp_path / "model.safetensors").read_bytes()
    assert int.from_bytes(raw[:8], "little") % 8 == 0 and raw[8:9] == b"{"


def test_saving_into_the_folder_that_was_loaded(golden, tmp_path):
    shutil.copytree(golden / "wide", tmp_path / "model")
    lazily = th.open_checkpoint(tmp_path / "model")
    model = th.load(tmp_path / "model")
    with torch.no_grad():
        model.wte.weight.mul_(2)
    th.save(model, tmp_path / "model")
    assert_equal_models(th.load(tmp_path / "model"), model)
    assert sorted(os.listdir(tmp_path / "model")) == ["config.json", "model.safetensors"]
    old = th.open_checkpoint(golden / "wide")
    assert np.array_equal(lazily["wpe.weight"], old["wpe.weight"])  # an open checkpoint keeps the file it opened


def test_saving_over_a_bundle_or_shards_leaves_one_model_to_be_loaded(golden, tmp_path):
    shutil.copytree(golden / "one_tf", tmp_path / "model")
    model = random_model(SIZES)
    th.save(model, tmp_path / "model")
    assert_equal_models(th.load(tmp_path / "model"), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_saved_as_float32(dtype, tmp_path):
    model = random_model(SIZES).to(dtype)
    th.save(model, tmp_path)
    assert_equal_models(th.load(tmp_path), model.float())


def test_saved_files_can_be_read_by_others_as_the_umask_says(tmp_path):
    th.save(random_model(SIZES), tmp_path)
    (tmp_path / "plain").touch()
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_the_tokenizer_is_saved_beside_the_model_and_loads_from_there(gpt2_folder, tmp_path):
    tokenizer = th.load_tokenizer(gpt2_folder)
    th.save(random_model(SIZES), tmp_path, tokenizer)
    assert th.load_tokenizer(tmp_path).ids == tokenizer.ids
    text = "Saved, and loaded again 🙂"
    assert th.load_tokenizer(tmp_path).encode(text) == tokenizer.encode(text)


# --- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("there_before", [True, False])
@pytest.mark.parametrize("room", [0, 1000, 10_000])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(room, there_before, tmp_path):
    resource = pytest.importorskip("resource")
    if there_before:
        th.save(random_model(SIZES, seed=1), tmp_path)
    before = folder_contents(tmp_path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))  # no file may grow beyond this
    try:
        with pytest.raises(th.CheckpointError, match=f"{tmp_path}: cannot be written") as caught:
            th.save(random_model(SIZES, seed=2), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert os.strerror(errno.EFBIG) in str(caught.value)
    assert folder_contents(tmp_path) == before


@pytest.mark.parametrize("there_before", [True, False])
def test_an_interrupted_save_leaves_what_was_there_and_nothing_else(there_before, tmp_path, monkeypatch):
    if there_before:
        th.save(random_model(SIZES, seed=1), tmp_path)
    before = folder_contents(tmp_path)
    written = []
    def interrupt_at_the_tenth(array, dtype=None, convert=np.ascontiguousarray):
        written.append([file.stat().st_size for file in tmp_path.iterdir()])
        if len(written) == 10:
            raise KeyboardInterrupt
        return convert(array, dtype)
    monkeypatch.setattr(np, "ascontiguousarray", interrupt_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        th.save(random_model(SIZES, seed=2), tmp_path)
    assert len(written) == 10 and len(written[-1]) > len(before)  # a temporary file was there
    assert folder_contents(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for folder in [tmp_path / "file", tmp_path / "file" / "below"]:
        with pytest.raises(th.CheckpointError, match=f"{folder}: cannot be written"):
            th.save(random_model(SIZES), folder)


def test_a_model_with_infinite_or_missing_numbers_is_not_saved(tmp_path):
    for value in [float("nan"), float("inf")]:
        model = random_model(SIZES)
        model.h[1].mlp.c_fc.bias[3] = value
        with pytest.raises(th.CheckpointError, match=r"h\.1\.mlp\.c_fc\.bias.*not finite"):
            th.save(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
