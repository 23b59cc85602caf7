"""Some thousands of files, mutated at random: each is refused with a CheckpointError, or loads as a whole model."""

import json
import random
import shutil
import time
import tracemalloc

import pytest

import tinyheads as th
from file_writers import (block, bundle_header, entries_and_shards, entry, field, openai_arrays, parse_safetensors,
                          safetensors_bytes, table)

DATA = "model.ckpt.data-00000-of-00001"
SLOWEST = 5  # seconds for one small file, where milliseconds are the rule


def mutated_bytes(raw: bytes, rng: random.Random) -> bytes:
    """One to four flips, cuts, insertions, deletions, repetitions, or numbers overwritten by extreme ones."""
    raw = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = rng.randrange(len(raw) + 1)
        n = rng.choice([1, 1, 2, 4, 8, 100])
        kind = rng.choice(["flip", "flip", "byte", "truncate", "insert", "delete", "repeat", "extreme", "swap"])
        if kind == "flip" and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == "byte" and at < len(raw):
            raw[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif kind == "truncate":
            del raw[at:]
        elif kind == "insert":
            raw[at:at] = rng.randbytes(n)
        elif kind == "delete":
            del raw[at:at + n]
        elif kind == "repeat":
            raw[at:at] = raw[at:at + n] * rng.choice([1, 1, 3, 50])
        elif kind == "extreme":
            raw[at:at + 8] = rng.choice([2**63, 2**64 - 1, 2**32, 0, 2**31 - 1]).to_bytes(8, "little")
        elif kind == "swap":
            to = rng.randrange(len(raw) + 1)
            raw[at:at + n], raw[to:to + n] = raw[to:to + n], raw[at:at + n]
    return bytes(raw)


def odd_value(value, rng: random.Random):
    """A value like the one given, or quite unlike it."""
    odd = [0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, None, True, "F32", "F16", "BF16", "F64", "I32", "", [], {}, [[]],
           "\ud800", float("nan"), float("inf")]
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


def mutated_index(entries: dict[str, tuple], rng: random.Random) -> bytes:
    """An index whose every checksum is right, and whose entries, blocks or handles are not: for the parser behind them."""
    level = rng.choice(["entry fields", "entry", "block", "index block", "header", "pairs"])
    entries = dict(entries)
    if level == "entry fields":
        for _ in range(rng.choice([1, 1, 3])):
            name = rng.choice(list(entries))
            parts = list(entries[name])
            i = rng.randrange(6)
            numbers = [0, 1, 2, 3, 14, 19, 2**31, 2**63, 2**64 - 4, parts[i] if i != 1 else 8]
            if i == 1:
                shapes = [(), (rng.choice(numbers),) * rng.randrange(40), (*parts[1], 1), (1, *parts[1])]
                parts[1] = rng.choice(shapes)
            else:
                parts[i] = (rng.choice(numbers) + rng.choice([0, 4, 32])) % (2**32 if i == 5 else 2**64)
            entries[name] = tuple(parts)
    pairs = [(b"", bundle_header(1)), *((name.encode(), entry(*parts)) for name, parts in sorted(entries.items()))]
    i = rng.randrange(len(pairs))
    if level == "header":
        pairs[0] = rng.choice([(b"", mutated_bytes(pairs[0][1], rng)), (b"", bundle_header(rng.choice([0, 2, 99_999, 2**40]))),
                               (b"", bundle_header(1) + field(2, 1)), (b"\0", pairs[0][1])])
    elif level == "entry":
        key, value = pairs[i]
        pairs[i] = rng.choice([(key, mutated_bytes(value, rng)), (mutated_bytes(key, rng), value)])
    elif level == "pairs":
        key, value = pairs[i]
        pairs[i:i + 1] = rng.choice([[], [pairs[i]] * 2, pairs[i:i + 2][::-1], [pairs[i], (key + b"/Adam", value)]])
    cut = rng.randrange(1, len(pairs)) if len(pairs) > 1 else 1
    contents = [block(part, rng.choice([1, 2, 16])) for part in (pairs[:cut], pairs[cut:]) if part]
    keys = [part[-1][0] for part in (pairs[:cut], pairs[cut:]) if part]
    if level == "block":
        j = rng.randrange(len(contents))
        contents[j] = mutated_bytes(contents[j], rng)
    if rng.random() < 0.05:  # a block twice
        contents, keys = [*contents, contents[0]], [*keys, keys[-1] + b"z"]
    mutate = (lambda index: mutated_bytes(index, rng)) if level == "index block" else (lambda index: index)
    return table(contents, keys, mutate_index=mutate)


def try_to_load(folder) -> bool:
    """Whether it loads; if so, every tensor must have the shape that the config asks for. Anything else is a failure."""
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
    entries, (data,) = entries_and_shards(openai_arrays(golden / "one"))
    (one_tf / DATA).write_bytes(data)
    pairs = [(b"", bundle_header(1)), *((name.encode(), entry(*parts)) for name, parts in sorted(entries.items()))]
    (one_tf / "model.ckpt.index").write_bytes(table([block(pairs)], [b"z"]))
    assert try_to_load(one_tf)
    for _ in range(300):
        (one_tf / "model.ckpt.index").write_bytes(mutated_index(entries, rng))
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
    entries, (tf_data,) = entries_and_shards(openai_arrays(golden / "one"))
    (one_tf / DATA).write_bytes(tf_data)
    peaks = []
    tracemalloc.start()
    for i in range(200):
        folder = (one, one_tf)[i % 2]
        if folder == one:
            (one / "model.safetensors").write_bytes(safetensors_bytes(mutated_header(header, rng), data))
        else:
            (one_tf / "model.ckpt.index").write_bytes(mutated_index(entries, rng))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try_to_load(folder)
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    assert max(peaks) < 500_000  # files of 1 to 7 kB; the tables of Python objects made from them, and the error
