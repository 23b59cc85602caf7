"""Some thousands of files, mutated at random: each is refused with a CheckpointError, or loads as a whole model."""

import json
import random
import shutil
import time
import tracemalloc

import pytest

import tinyheads as th
from file_writers import block, parse_safetensors, safetensors_bytes, table
from fuzz_files import write_bundle
from mutate_bundles import bases, key_values, mutated_bundle
from mutate_safetensors import mutated_bytes

DATA = "model.ckpt.data-00000-of-00001"
SLOWEST = 5  # seconds for one small file, where milliseconds are the rule


def odd_value(value, rng: random.Random):
    """A value like the one given, or quite unlike it."""
    odd = [0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, None, True, "F32", "F16", "BF16", "F64", "I32", "", [], {},
           [[]], "\ud800", float("nan"), float("inf")]
    if isinstance(value, list) and value and rng.random() < 0.7:
        changed = list(value)
        i = rng.randrange(len(changed))
        near = isinstance(changed[i], int) and rng.random() < 0.5
        changed[i] = changed[i] + rng.choice([-4, -1, 1, 4]) if near else rng.choice(odd)
        return rng.choice([changed, value[::-1], value * 2, value[:-1], [1, *value]])
    return rng.choice(odd)


def mutated_header(header: dict, rng: random.Random) -> bytes:
    """The header with some fields, names or rows changed, as JSON that is still JSON."""
    header = json.loads(json.dumps(header))
    for _ in range(rng.choice([1, 1, 2, 3])):
        name = rng.choice(list(header))
        kind = rng.choice(["field", "field", "field", "rename", "drop", "row", "offset", "dtype"])
        if kind == "rename":
            new = rng.choice([name + "x", name[1:], "", "h.0.attn.bias", "lm_head.weight", "wte.weight", "__metadata__",
                              rng.choice(list(header))])
            header[new] = header.pop(name)
        elif kind == "drop":
            header.pop(name)
            header = header or {"x": {}}
        elif kind == "row":
            header[name] = odd_value(header[name], rng)
        elif isinstance(header[name], dict) and header[name]:
            key = rng.choice(list(header[name]))
            if kind == "offset" and isinstance(header[name].get("data_offsets"), list):
                shift = rng.choice([-32, -4, 4, 32, 2**40])
                offsets = header[name]["data_offsets"]
                header[name]["data_offsets"] = [n + shift if isinstance(n, int) else n for n in offsets]
            elif kind == "dtype":
                header[name]["dtype"] = rng.choice(["F16", "BF16", "F64", "I32", "U8", "F4"])
                header[name]["shape"] = rng.choice([header[name].get("shape"), [8, 2], [16], [4, 4]])
            else:
                header[name][key] = odd_value(header[name][key], rng)
    raw = json.dumps(header).encode()
    return raw.replace(b"}", b', "dtype": "F32"}', 1) if rng.random() < 0.05 else raw


def try_to_load(folder) -> bool:
    """Whether it loads; if so, every tensor must have the shape that the config asks for. All else is a failure."""
    start = time.monotonic()
    try:
        model = th.load(folder)
    except th.CheckpointError as error:
        assert 0 < len(str(error).encode("utf-8")) < 5000  # short, and fit to be printed
        return False
    finally:
        assert time.monotonic() - start < SLOWEST
    shapes = model.config.tensor_shapes()
    state = model.state_dict()
    assert list(state) and {name: tuple(value.shape) for name, value in state.items()} == shapes
    return True


@pytest.fixture
def one(golden, tmp_path):
    return shutil.copytree(golden / "one", tmp_path / "one")


@pytest.fixture
def one_tf(golden, tmp_path):
    return shutil.copytree(golden / "one_tf", tmp_path / "one_tf")


@pytest.mark.parametrize("seed", range(4))
def test_safetensors_files_mutated_byte_by_byte(seed, one):
    rng = random.Random(seed)
    path = one / "model.safetensors"
    intact = path.read_bytes()
    n = 8 + int.from_bytes(intact[:8], "little")
    loaded = 0
    for _ in range(300):
        # The header, 1,416 bytes of 6,416, is the part that can go wrong in more than one way.
        whole = rng.random() < 0.3
        path.write_bytes(mutated_bytes(intact, rng) if whole else mutated_bytes(intact[:n], rng) + intact[n:])
        loaded += try_to_load(one)
    assert 0 < loaded < 100  # both ways out were taken


@pytest.mark.parametrize("seed", range(4))
def test_safetensors_files_whose_header_was_edited(seed, one):
    rng = random.Random(100 + seed)
    path = one / "model.safetensors"
    header, data = parse_safetensors(path.read_bytes())
    for i in range(300):
        path.write_bytes(safetensors_bytes(mutated_header(header, rng), data))
        try_to_load(one)
        if i % 10 == 0:  # without a config, the sizes too come from the file
            (one / "config.json").rename(one / "put-away")
            try_to_load(one)
            (one / "put-away").rename(one / "config.json")


@pytest.mark.parametrize("seed", range(4))
def test_bundles_whose_index_or_data_were_mutated_byte_by_byte(seed, one_tf):
    rng = random.Random(200 + seed)
    index, data = (one_tf / "model.ckpt.index").read_bytes(), (one_tf / DATA).read_bytes()
    loaded = 0
    for _ in range(200):
        in_index = rng.random() < 0.7
        (one_tf / "model.ckpt.index").write_bytes(mutated_bytes(index, rng) if in_index else index)
        (one_tf / DATA).write_bytes(data if in_index else mutated_bytes(data, rng))
        loaded += try_to_load(one_tf)
    assert 0 < loaded < 150


@pytest.mark.parametrize("seed", range(4))
def test_bundles_whose_index_has_right_checksums_and_wrong_contents(seed, golden, one_tf):
    rng = random.Random(300 + seed)
    base = entries, shards = bases(golden)[seed % 3]
    write_bundle(one_tf, table([block(key_values(entries, len(shards)))], [b"z"]), shards)
    assert try_to_load(one_tf)
    for _ in range(200):
        index, mutated_shards, _ = mutated_bundle(base, rng)
        write_bundle(one_tf, index, mutated_shards)
        try_to_load(one_tf)


@pytest.mark.parametrize("seed", range(2))
def test_hparams_and_configs_mutated(seed, one, one_tf):
    rng = random.Random(400 + seed)
    for path in [one / "config.json", one_tf / "hparams.json"]:
        intact = path.read_bytes()
        for _ in range(100):
            path.write_bytes(mutated_bytes(intact, rng))
            try_to_load(path.parent)


def test_no_mutation_makes_the_reader_take_more_memory_than_a_few_times_the_file(golden, tmp_path):
    one, one_tf = (shutil.copytree(golden / name, tmp_path / name) for name in ["one", "one_tf"])
    rng = random.Random(500)
    header, data = parse_safetensors((one / "model.safetensors").read_bytes())
    base = bases(golden)[0]
    peaks = []
    tracemalloc.start()
    for i in range(200):
        folder = (one, one_tf)[i % 2]
        if folder == one:
            (one / "model.safetensors").write_bytes(safetensors_bytes(mutated_header(header, rng), data))
        else:
            write_bundle(one_tf, *mutated_bundle(base, rng)[:2])
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try_to_load(folder)
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    assert max(peaks) < 500_000  # files of 1 to 7 kB; the tables of Python objects made from them, and the error
