"""Both ways: what transformers saved opens here, what th.save wrote opened there; and TransformerLens's scores.

The other libraries' numbers lie in golden/: make_golden.py and make_composition.py made them.
"""

import json
import shutil

import numpy as np
import pytest
import torch

import tinyheads as th
from file_writers import golden_arrays, safetensors_bytes, safetensors_table

SAVED = [("deep_shards", torch.float32), ("deep_f16", torch.float16), ("deep_bf16_shards", torch.bfloat16)]


# --- from transformers ---------------------------------------------------------------------------


@pytest.mark.parametrize("name, dtype", SAVED)
def test_weights_saved_by_transformers_open_with_their_logits(name, dtype, golden, expected):
    checkpoint = th.open_checkpoint(golden / name)
    for tensor, array in golden_arrays(golden / "deep").items():
        rounded = torch.from_numpy(array.copy()).to(dtype).float().numpy()
        assert checkpoint[tensor].tobytes() == rounded.tobytes(), tensor
    logits = th.load(golden / name)(torch.from_numpy(expected["deep.tokens"])).numpy()
    assert np.abs(logits - expected[f"{name}.logits"]).max() < 1e-5


def test_heads_come_out_of_shards_as_out_of_one_file(golden):
    ours, whole = th.load_heads(golden / "deep_shards"), th.load_heads(golden / "deep")
    for name in ["W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"]:
        assert torch.equal(getattr(ours, name), getattr(whole, name))


@pytest.fixture
def shards(golden, tmp_path):
    return shutil.copytree(golden / "deep_shards", tmp_path / "model")


def refused(folder, *words):
    with pytest.raises(th.CheckpointError) as caught:
        th.load(folder)
    for word in words:
        assert word in str(caught.value)


def test_the_index_says_which_files_belong_together(shards, golden):
    header, data = safetensors_table({"transformer.wte.weight": np.zeros((40, 16), np.float32)})
    (shards / "model-00001-of-00002.safetensors").write_bytes(safetensors_bytes(header, data))  # an older saving's
    assert np.array_equal(th.open_checkpoint(shards)["wte.weight"], th.open_checkpoint(golden / "deep")["wte.weight"])
    (shards / "model.safetensors.index.json").unlink()
    refused(shards, "tensor 'wte.weight' is there twice")


def test_a_shard_that_is_missing_is_named(shards):
    (shards / "model-00003-of-00004.safetensors").unlink()
    refused(shards, "model-00003-of-00004.safetensors: missing, though model.safetensors.index.json names it")


@pytest.mark.parametrize("index, words", [
    ("{", "cannot be read as JSON"), ("[]", "has no weight_map"), ("{}", "has no weight_map"),
    ('{"weight_map": {}}', "has no weight_map"),
    ('{"weight_map": ["model-00001-of-00004.safetensors"]}', "has no weight_map"),
    ('{"weight_map": {"wte.weight": "../model.safetensors"}}', "names the file '../model.safetensors'"),
    ('{"weight_map": {"wte.weight": "/etc/passwd"}}', "names the file '/etc/passwd'"),
    ('{"weight_map": {"wte.weight": ".."}}', "names the file '..'"),
    ('{"weight_map": {"wte.weight": ""}}', "names the file ''"), ('{"weight_map": {"wte.weight": 7}}', "7: missing"),
    ('{"weight_map": {"wte.weight": "a\\u0000b"}}', "missing"),
    (" " * (1 << 20) + "{}", "1048578 bytes are too many"),
], ids=lambda value: value[:40].strip())
def test_an_index_of_shards_that_cannot_be(index, words, shards):
    (shards / "model.safetensors.index.json").write_text(index)
    refused(shards, "model.safetensors.index.json" if "missing" not in words else "", words)


def test_an_index_that_leaves_out_a_shard_leaves_the_model_incomplete(shards):
    path = shards / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if "model-00004" not in file}
    path.write_text(json.dumps(index))
    refused(shards, "of a whole model are missing")


# --- to transformers -----------------------------------------------------------------------------


def edited(golden):
    """The edit of make_golden.py, all of it powers of two, so that every machine rounds alike."""
    model = th.load(golden / "wide")
    change = th.edit_output(model, th.Head(1, 2), torch.eye(24)[[3, 7]], torch.tensor([[2.0, 0.5], [0.0, -1.0]]))
    assert change.rank == 2
    return model


def test_transformers_gives_the_same_logits_for_a_model_that_was_edited_and_saved(golden, expected):
    tokens = torch.from_numpy(expected["wide.tokens"])
    theirs = expected["wide_edited.logits"]  # of transformers, from the folder golden/wide_edited
    assert np.abs(th.load(golden / "wide_edited")(tokens).numpy() - theirs).max() < 1e-5
    assert np.abs(edited(golden)(tokens).numpy() - theirs).max() < 1e-5
    assert np.abs(expected["wide.logits"] - theirs).max() > 0.1  # the edit matters


def test_what_th_save_writes_is_still_what_transformers_opened(golden, tmp_path):
    th.save(edited(golden), tmp_path)
    for name in ["model.safetensors", "config.json"]:
        assert (tmp_path / name).read_bytes() == (golden / "wide_edited" / name).read_bytes()


# --- TransformerLens -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", "QKV")
@pytest.mark.parametrize("shape", ["wide", "deep"])
def test_whole_head_scores_are_those_of_transformer_lens(shape, mode, golden):
    theirs = np.load(golden / "composition.npz")[f"{shape}.{mode}"]
    ours = th.composition_scores(th.load_heads(golden / shape), mode).numpy()
    assert ours.shape == theirs.shape and theirs.max() > 0.2
    assert np.abs(ours - theirs).max() < 2e-6
