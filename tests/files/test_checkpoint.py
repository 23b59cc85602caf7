"""Weights read from every format and layout are the very numbers that the reference libraries wrote."""

import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import tinyheads as th
import tinyheads.files.checkpoint
from file_writers import (golden_arrays, openai_arrays, openai_name, safetensors_bytes, safetensors_table,
                          write_bundle)

ROUTES = [("wide", "wide"), ("wide", "wide_tf"), ("wide", "wide_tf_2_shards"), ("wide", "wide_tf_blocks"),
          ("wide", "wide_bare"), ("deep", "deep"), ("deep", "deep_tf"), ("one", "one"), ("one", "one_tf")]
HPARAMS = {"n_vocab": 61, "n_ctx": 24, "n_embd": 24, "n_layer": 2, "n_head": 3}  # of "wide"


def path_of(route, golden, tmp_path):
    """Where a route's files lie; some are put together first."""
    if route == "wide_tf_blocks":
        shutil.copytree(golden / "wide_tf", tmp_path / route)
        index = zlib.decompress((golden / "wide_tf_blocks.index.zlib").read_bytes())
        (tmp_path / route / "model.ckpt.index").write_bytes(index)
        with open(tmp_path / route / "model.ckpt.data-00000-of-00001", "ab") as file:
            file.write(np.arange(20, dtype=np.float32).tobytes())
        return tmp_path / route
    if (golden / f"{route}.safetensors").exists():
        shutil.copy(golden / "wide" / "config.json", tmp_path)
        return shutil.copy(golden / f"{route}.safetensors", tmp_path)
    return golden / route


def assert_bit_equal(checkpoint, arrays):
    assert checkpoint.names == sorted(arrays)
    for name, array in arrays.items():
        found = checkpoint[name]
        assert found.dtype == np.float32 and found.shape == array.shape, name
        assert found.tobytes() == array.astype(np.float32).tobytes(), name


# --- the reference libraries' files ------------------------------------------------------------


@pytest.mark.parametrize("shape, route", ROUTES)
def test_every_format_gives_the_bits_that_were_written(shape, route, golden, tmp_path):
    checkpoint = th.open_checkpoint(path_of(route, golden, tmp_path), verify=True)
    assert_bit_equal(checkpoint, golden_arrays(golden / shape))
    saved = json.loads((golden / shape / "config.json").read_text())
    sizes = [saved[key] for key in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "tie_word_embeddings")]
    assert list(vars(checkpoint.config).values()) == sizes


@pytest.mark.parametrize("shape, route", ROUTES)
def test_logits_from_every_format_are_those_of_transformers(shape, route, golden, expected, tmp_path):
    model = th.load(path_of(route, golden, tmp_path), verify=True)
    logits = model(torch.from_numpy(expected[f"{shape}.tokens"])).numpy()
    assert np.abs(logits - expected[f"{shape}.logits"]).max() < 1e-4


@pytest.mark.parametrize("dtype, torch_dtype", [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_files_give_the_rounded_weights_and_their_logits(dtype, torch_dtype, golden, expected, tmp_path):
    path = path_of(f"wide_{dtype}", golden, tmp_path)
    rounded = {name: torch.from_numpy(array.copy()).to(torch_dtype).float().numpy()
               for name, array in golden_arrays(golden / "wide").items()}
    assert_bit_equal(th.open_checkpoint(path), rounded)
    logits = th.load(path)(torch.from_numpy(expected["wide.tokens"])).numpy()
    assert np.abs(logits - expected[f"wide_{dtype}.logits"]).max() < 1e-4


def test_a_path_may_be_text_a_folder_a_safetensors_file_or_an_index(golden):
    arrays = golden_arrays(golden / "one")
    for path in [str(golden / "one"), golden / "one" / "model.safetensors", golden / "one_tf" / "model.ckpt.index"]:
        assert_bit_equal(th.open_checkpoint(path), arrays)


# --- safetensors in other arrangements ---------------------------------------------------------


def test_a_model_in_several_safetensors_files_is_one_checkpoint(golden, tmp_path):
    arrays = golden_arrays(golden / "wide")
    for i in range(3):
        part = {name: arrays[name] for name in sorted(arrays)[i::3]}
        (tmp_path / f"model-0000{i + 1}-of-00003.safetensors").write_bytes(safetensors_bytes(*safetensors_table(part)))
    shutil.copy(golden / "wide" / "config.json", tmp_path)
    assert_bit_equal(th.open_checkpoint(tmp_path), arrays)


def test_model_safetensors_is_read_alone_where_other_files_lie_beside_it(golden, tmp_path):
    shutil.copytree(golden / "wide", tmp_path / "model")
    shutil.copy(golden / "wide_bare.safetensors", tmp_path / "model" / "before.safetensors")
    shutil.copy(golden / "one_tf" / "model.ckpt.index", tmp_path / "model")
    assert_bit_equal(th.open_checkpoint(tmp_path / "model"), golden_arrays(golden / "wide"))


def test_a_file_whose_numbers_lie_at_odd_addresses_is_read(golden, tmp_path):
    header, data = safetensors_table(golden_arrays(golden / "one"))
    raw = json.dumps(header).encode()
    (tmp_path / "odd.safetensors").write_bytes(safetensors_bytes(raw + b" " * (-len(raw) % 4 + 1), data))
    shutil.copy(golden / "one" / "config.json", tmp_path)
    assert_bit_equal(th.open_checkpoint(tmp_path / "odd.safetensors"), golden_arrays(golden / "one"))
    assert th.load(tmp_path / "odd.safetensors").config.n_embd == 8


def test_one_of_two_tied_names_is_enough_and_two_that_differ_are_refused(golden, tmp_path):
    arrays = golden_arrays(golden / "one")
    shutil.copy(golden / "one" / "config.json", tmp_path)
    path = tmp_path / "model.safetensors"
    alone = {("lm_head.weight" if name == "wte.weight" else name): array for name, array in arrays.items()}
    path.write_bytes(safetensors_bytes(*safetensors_table(alone)))
    assert_bit_equal(th.open_checkpoint(path), arrays)
    path.write_bytes(safetensors_bytes(*safetensors_table({**arrays, "lm_head.weight": arrays["wte.weight"] + 1})))
    with pytest.raises(th.CheckpointError, match="lm_head.weight differs from wte.weight, and tie_word_embeddings"):
        th.load(path)
    path.write_bytes(safetensors_bytes(*safetensors_table({**arrays, "lm_head.weight": arrays["wte.weight"]})))
    assert torch.equal(th.load(path).wte.weight, torch.from_numpy(arrays["wte.weight"].copy()))


# --- bundles in layouts that TensorFlow does not produce ------------------------------------------


@pytest.mark.parametrize("layout", [
    dict(),
    dict(block_bytes=1),                                             # a block for each key
    dict(block_bytes=200, restart_interval=1),                       # several blocks, no prefix compression
    dict(block_bytes=300, restart_interval=2, index_restart_interval=16),  # the index block compressed as well
    dict(restart_interval=64),                                       # keys compressed all along one block
    dict(n_shards=3, first=64),                                      # no tensor at offset 0
    dict(n_shards=2, first=3, gap=5, block_bytes=150, restart_interval=3),  # numbers at odd addresses, holes between
    dict(n_shards=4, shard_of=lambda i: 3 if i % 2 else 1),          # shards 0 and 2 are empty
], ids=str)
def test_bundles_of_other_layouts_are_read(layout, golden, tmp_path):
    write_bundle(tmp_path / "tf", openai_arrays(golden / "wide"), HPARAMS, **layout)
    assert_bit_equal(th.open_checkpoint(tmp_path / "tf", verify=True), golden_arrays(golden / "wide"))


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_bundles_of_other_float_dtypes_are_read(dtype, golden, tmp_path):
    write_bundle(tmp_path / "tf", openai_arrays(golden / "wide", dtype), HPARAMS)
    rounded = {name: array.astype(dtype) for name, array in golden_arrays(golden / "wide").items()}
    assert_bit_equal(th.open_checkpoint(tmp_path / "tf", verify=True), rounded)


def test_bundles_of_bfloat16_are_read(golden, tmp_path):
    rounded = {name: torch.from_numpy(array.copy()).bfloat16() 
               for name, array in golden_arrays(golden / "wide").items()}
    bits = {openai_name(name): value.view(torch.int16).numpy().view(np.uint16) for name, value in rounded.items()}
    write_bundle(tmp_path / "tf", bits, HPARAMS)
    assert_bit_equal(th.open_checkpoint(tmp_path / "tf", verify=True),
                     {name: value.float().numpy() for name, value in rounded.items()})


def test_what_fine_tuning_leaves_in_a_bundle_is_passed_over(golden, tmp_path):
    arrays = openai_arrays(golden / "wide")
    left = {"global_step": np.array(7, np.int64), "beta1_power": np.array(0.9, np.float32),
            "model/wte/Adam": arrays["model/wte"] * 2, "model/wte/Adam_1": arrays["model/wte"] * 3,
            "model/h0/attn/c_attn/w/Adam": np.zeros(3, np.float32)}
    write_bundle(tmp_path / "tf", {**left, **arrays}, HPARAMS)
    assert_bit_equal(th.open_checkpoint(tmp_path / "tf", verify=True), golden_arrays(golden / "wide"))


# --- checksums ---------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["one_tf", "wide_tf_2_shards"])
def test_verify_names_each_tensor_whose_bytes_were_flipped(route, golden, tmp_path):
    folder = shutil.copytree(golden / route, tmp_path / "tf")
    places, touched = golden_arrays(golden / route.split("_")[0]), set()
    for shard in sorted(folder.glob("*.data-*")):
        intact = shard.read_bytes()
        for i, (name, array) in enumerate(places.items()):
            at = intact.find(array.tobytes())
            if at < 0:
                continue  # in the other shard
            damaged = bytearray(intact)
            damaged[at + (i * 997) % array.nbytes] ^= 1 << i % 8
            shard.write_bytes(damaged)
            with pytest.raises(th.CheckpointError,
                               match=f"{shard.name}: tensor '{name}' is damaged".replace(".", r"\.")):
                th.load(folder, verify=True)
            touched.add(name)
        shard.write_bytes(intact)
    assert touched == set(places)
    th.load(folder, verify=True)


# --- laziness ----------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["wide", "wide_tf"])
def test_load_heads_asks_for_attention_tensors_alone(route, golden, monkeypatch):
    asked = []
    def read_array(entry, mapped, name, read=tinyheads.files.checkpoint.read_array):
        asked.append(name)
        return read(entry, mapped, name)
    monkeypatch.setattr(tinyheads.files.checkpoint, "read_array", read_array)
    th.load_heads(golden / route)
    assert sorted(set(asked)) == sorted(f"h.{layer}.{name}.{kind}" for layer in range(2) for kind in ["weight", "bias"]
                                   for name in ["ln_1", "attn.c_attn", "attn.c_proj"])


def test_load_heads_needs_no_byte_of_a_shard_that_holds_only_mlps_and_embeddings(golden, tmp_path, monkeypatch):
    arrays = openai_arrays(golden / "wide")
    in_second = [any(part in name for part in ("mlp", "wte", "wpe")) for name in arrays]
    write_bundle(tmp_path / "tf", arrays, HPARAMS, n_shards=2, shard_of=lambda i: int(in_second[i]))
    whole = th.load_heads(tmp_path / "tf")
    (tmp_path / "zeros").write_bytes(bytes((tmp_path / "tf" / "model.ckpt.data-00001-of-00002").stat().st_size))
    def map_file(path, open_map=tinyheads.files.checkpoint.map_file):
        return open_map(tmp_path / "zeros" if "00001-of" in path.name else path)
    monkeypatch.setattr(tinyheads.files.checkpoint, "map_file", map_file)
    heads = th.load_heads(tmp_path / "tf")
    for name in ["W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"]:
        assert torch.equal(getattr(heads, name), getattr(whole, name))
    model = th.load(tmp_path / "tf")
    assert not model.wte.weight.any() and not model.h[1].mlp.c_fc.weight.any()  # zeros reach who needs that shard


HEADS_OF_A_LARGE_FILE = """
import re, sys
import tinyheads as th
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])  # mapped pages count
checkpoint = th.open_checkpoint(sys.argv[1], n_head=1)
before = peak()
th.load_heads(sys.argv[1], n_head=1)
print(peak() - before)
checkpoint.maps[checkpoint.path][-200_000_000:].max()  # the measure itself: these bytes do count
print(peak() - before)
"""


def test_load_heads_of_a_gigabyte_file_leaves_its_embeddings_on_the_disk(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("how much of a file was touched is asked of Linux's /proc")
    shapes = th.GPT2Config(n_vocab=2_000_000, n_ctx=4, n_embd=64, n_layer=1, n_head=1).tensor_shapes()
    shapes = {**shapes, "lm_head.weight": shapes["wte.weight"]}
    header, at = {}, 0
    for name, shape in shapes.items():
        nbytes = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + nbytes]}
        at += nbytes
    path = tmp_path / "sparse.safetensors"
    path.write_bytes(safetensors_bytes(header))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + at)  # zeros that take no room on the disk
    assert at > 1_000_000_000
    run = subprocess.run([sys.executable, "-c", HEADS_OF_A_LARGE_FILE, path], capture_output=True, text=True,
                         check=True)
    for_heads, for_embeddings = map(int, run.stdout.split())
    assert for_heads < 50_000_000 < 150_000_000 < for_embeddings


def test_arrays_are_views_of_the_file_and_cannot_be_written_to(golden):
    array = th.open_checkpoint(golden / "wide")["wte.weight"]
    assert not array.flags.writeable and not array.flags.owndata
