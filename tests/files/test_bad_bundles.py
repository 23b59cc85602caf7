"""Missing, damaged and misleading TensorFlow bundles: the error says what was wrong, and where."""

import shutil
import time
import tracemalloc

import numpy as np
import pytest

import tinyheads as th
from file_writers import (block, bundle_header, data_blocks, entries_and_shards, entry, field, openai_arrays, table,
                          varint,
                          write_bundle)

HPARAMS = {"n_vocab": 33, "n_ctx": 12, "n_embd": 8, "n_layer": 1, "n_head": 1}  # of "one"
DATA = "model.ckpt.data-00000-of-00001"
DIM_8 = field(2, field(1, 8))  # a shape of one dimension, 8


def refused(path, *words, verify=False):
    """The path is refused with a CheckpointError that names it and has these words."""
    with pytest.raises(th.CheckpointError) as caught:
        th.load(path, verify=verify)
    for word in [str(path), *words]:
        assert word in str(caught.value)


@pytest.fixture
def one_tf(golden, tmp_path):
    return shutil.copytree(golden / "one_tf", tmp_path / "one_tf")


@pytest.fixture
def pairs(golden):
    """The index of "one" as key-value pairs, for a data file of the same tensors that `write_index` leaves there."""
    entries, (data,) = entries_and_shards(openai_arrays(golden / "one"))
    return {b"": bundle_header(1), **{name.encode(): entry(*parts) for name, parts in entries.items()}}, entries, data


def write_index(folder, index, data):
    (folder / "model.ckpt.index").write_bytes(index)
    (folder / DATA).write_bytes(data)
    return folder


def one_block(pairs):
    return table([block(sorted(pairs.items()))], [max(pairs)])


# --- files that are not there ---------------------------------------------------------------------


def test_missing_parts_of_a_bundle_are_named(one_tf):
    (one_tf / DATA).rename(one_tf / "elsewhere")
    refused(one_tf, DATA, "missing, though tensor 'model/")
    (one_tf / DATA).mkdir()
    refused(one_tf, DATA)
    (one_tf / DATA).rmdir()
    (one_tf / "elsewhere").rename(one_tf / DATA)
    th.load(one_tf)
    (one_tf / "hparams.json").unlink()
    refused(one_tf, "model.ckpt.index is there, hparams.json is missing")
    (one_tf / "model.ckpt.index").unlink()
    refused(one_tf, "neither *.safetensors nor model.ckpt.index is there", DATA)


def test_a_missing_shard_of_several_is_named(golden, tmp_path):
    folder = shutil.copytree(golden / "wide_tf_2_shards", tmp_path / "tf")
    (folder / "model.ckpt.data-00001-of-00002").unlink()
    refused(folder, "model.ckpt.data-00001-of-00002: missing")


def test_two_indexes_in_a_folder_must_be_told_apart(one_tf):
    shutil.copy(one_tf / "model.ckpt.index", one_tf / "model-7.index")
    refused(one_tf, "several checkpoints", "model-7.index", "model.ckpt.index")
    assert th.load(one_tf / "model.ckpt.index").config.n_layer == 1


# --- an index that was damaged -------------------------------------------------------------------


def test_an_index_truncated_anywhere_is_refused(one_tf):
    index = one_tf / "model.ckpt.index"
    intact = index.read_bytes()
    for n in range(len(intact)):
        index.write_bytes(intact[:n])
        refused(one_tf, "model.ckpt.index: damaged or not a TensorFlow checkpoint index")


def test_a_flip_of_any_byte_of_the_index_is_refused_or_harmless(one_tf):
    index = one_tf / "model.ckpt.index"
    intact = index.read_bytes()
    weights = th.load(one_tf).state_dict()
    harmless = []
    for at in range(len(intact)):
        for flip in [0x01, 0x80]:
            damaged = bytearray(intact)
            damaged[at] ^= flip
            index.write_bytes(damaged)
            try:
                found = th.load(one_tf).state_dict()
            except th.CheckpointError as error:
                assert "model.ckpt.index" in str(error)
                continue
            harmless.append((at, flip))
            assert all(bool((found[name] == weights[name]).all()) for name in weights)
    # No checksum covers the footer (the last 48 bytes), of which 3 bytes lead to the index block and 8 are the magic
    # number; 3 lead to the metaindex, an empty block of 8 + 5 bytes that nobody reads; the rest is padding
    # (in front of which byte 521, with its top bit set, still ends the same number).
    unread = [*range(483, 496), *range(516, 519), *range(522, 556)]
    assert all(at in unread or (at, flip) == (521, 0x80) for at, flip in harmless)


def test_data_truncated_anywhere_is_refused(one_tf):
    data = one_tf / DATA
    intact = data.read_bytes()
    for n in range(0, len(intact), 13):
        data.write_bytes(intact[:n])
        refused(one_tf, f"{DATA}: {n} bytes", "truncated")


# --- an index that is whole and says what cannot be ---------------------------------------------


def test_the_pairs_of_this_file_make_a_bundle_that_loads(one_tf, pairs):
    pairs, _, data = pairs
    write_index(one_tf, one_block(pairs), data)
    th.load(one_tf, verify=True)


@pytest.mark.parametrize("name, change, words", [
    ("model/ln_f/b", dict(shape=(9,)), "needs 36 bytes, and 32 are stored"),
    ("model/ln_f/b", dict(shape=(2, 4)), "'ln_f.bias' has shape [2, 4]; the config asks for [8]"),
    ("model/ln_f/b", dict(shape=(2**63,)), "impossible shape"),  # -2**63
    ("model/ln_f/b", dict(shape=(2**63, 0), nbytes=0), "impossible shape"),
    ("model/ln_f/b", dict(shape=(1,) * 300), "impossible shape"),
    ("model/ln_f/b", dict(shape=(2**62,) * 32), "impossible shape"),
    ("model/ln_f/b", dict(shape=(2, 2, 8)), "needs 128 bytes"),
    ("model/ln_f/b", dict(nbytes=64), "needs 32 bytes, and 64 are stored"),
    ("model/ln_f/b", dict(dtype=2), "needs 64 bytes, and 32 are stored"),
    ("model/ln_f/b", dict(dtype=9), "'ln_f.bias'"),  # int64: passed over, then missing
    ("model/ln_f/b", dict(dtype=77), "'ln_f.bias'"),
    ("model/ln_f/b", dict(shard=1), "lies in shard 1 of 1"),
    ("model/ln_f/b", dict(offset=10**6), "should end at byte 1000032: truncated"),
    ("model/ln_f/b", dict(offset=2**64 - 32), "truncated"),
    ("model/ln_f/b", dict(offset=4), "overlap"),
], ids=str)
def test_an_entry_that_cannot_be_is_named(name, change, words, one_tf, pairs):
    pairs, entries, data = pairs
    keys = ["dtype", "shape", "shard", "offset", "nbytes", "crc"]
    pairs[name.encode()] = entry(**{**dict(zip(keys, entries[name])), **change})
    refused(write_index(one_tf, one_block(pairs), data), words)


@pytest.mark.parametrize("value, words", [
    (b"\xff" * 11, "more than 10 bytes"), (b"\x08", "ends in the middle of a number"), (b"\x80", "ends in the middle"),
    (b"\x0b", "a field of unknown kind 3"), (b"\x0f", "unknown kind 7"), (b"\x12\x7f", "reaches outside its message"),
    (b"\x0d\0\0", "reaches outside its message"), (field(1, b"float"), "field 1 of an entry should be a number"),
    (field(1, 1) + field(2, 8), "its shape should be a message"),
    (field(1, 1) + field(2, field(2, 8)), "a dimension should be"),
    (field(1, 1) + field(2, b"\xff"), "ends in the middle"), (field(1, 1) + field(7, b""), "stored in slices"),
    (field(1, 1) + field(2, DIM_8) + field(5, 32) + field(6, b"crc"), "field 6 of an entry should be a number"),
], ids=lambda value: repr(value)[:30])
def test_an_entry_that_is_no_message_is_refused(value, words, one_tf, pairs):
    pairs, _, data = pairs
    pairs[b"model/ln_f/b"] = value
    refused(write_index(one_tf, one_block(pairs), data), "model.ckpt.index: damaged", words)


@pytest.mark.parametrize("header, words", [
    (None, "its first entry, which names the number of shards, is missing"), (b"", "lies in shard 0 of 0"),
    (bundle_header(2), "model.ckpt.data-00000-of-00002: missing"), (bundle_header(10**9), "of 1000000000"),
    (bundle_header(1) + field(2, 1), "big-endian"), (field(1, b"1"), "should be a number"),
], ids=str)
def test_a_header_of_the_bundle_that_cannot_be(header, words, one_tf, pairs):
    pairs, _, data = pairs
    pairs.pop(b"")
    if header is not None:
        pairs[b""] = header
    refused(write_index(one_tf, one_block(pairs), data), words)


def test_keys_that_do_not_ascend_or_are_there_twice(one_tf, pairs):
    pairs, _, data = pairs
    ordered = sorted(pairs.items())
    for wrong in [ordered[::-1], [*ordered, ordered[-1]], [*ordered[:3], ordered[2], *ordered[3:]]]:
        refused(write_index(one_tf, table([block(wrong)], [b"z"]), data), "keys must ascend, each once")
    contents, keys = data_blocks(ordered, 100, 16)
    refused(write_index(one_tf, table(contents[::-1], keys), data), "keys must ascend, each once")


def test_names_that_are_the_same_once_translated(one_tf, pairs):
    pairs, _, data = pairs
    pairs[b"model/ln_f/bias"] = entry(1, (8,), 0, len(data), 32, 0)
    refused(write_index(one_tf, one_block(pairs), data + bytes(32)), "is there under a second name")


def test_a_bundle_of_something_else_says_what_it_has(one_tf):
    write_bundle(one_tf, {"generator/dense/kernel": np.zeros((2, 3), np.float32)}, HPARAMS)
    refused(one_tf, "names no weights of a GPT-2", "generator/dense/kernel")


def test_names_that_are_not_utf8(one_tf, pairs):
    pairs, _, data = pairs
    pairs[b"model/\xff"] = entry(1, (8,), 0, 0, 32, 0)
    refused(write_index(one_tf, one_block(pairs), data), "model.ckpt.index: damaged", "utf-8")


def test_compressed_blocks_are_refused_as_such(one_tf, pairs):
    pairs, _, data = pairs
    content = block(sorted(pairs.items()))
    refused(write_index(one_tf, table([content], [b"z"], compression=b"\1"), data), "is compressed (kind 1)")


@pytest.mark.parametrize("content, words", [
    (b"", "too short for its"), (b"\0\0\0", "too short for its"),
    (b"\xff\xff\xff\xff", "too short for its 4294967295 restart"),
    (b"\1\1\1ab" + bytes(4) + b"\1\0\0\0", "reaches outside it"),
    (b"\0\x7f\1ab" + bytes(4) + b"\1\0\0\0", "reaches outside it"),
    (b"\0\1\x7fab" + bytes(4) + b"\1\0\0\0", "reaches outside it"),
    (b"\x80" * 12 + bytes(4) + b"\1\0\0\0", "more than 10 bytes"),
    (b"\0\1" + b"\x80" * 2 + b"\xff\xff\xff\xff" + b"\0\0\0\0", ""),
], ids=lambda value: repr(value)[:40])
def test_blocks_that_hold_no_pairs(content, words, one_tf, pairs):
    refused(write_index(one_tf, table([content], [b"z"]), pairs[2]), "model.ckpt.index: damaged", words)


@pytest.mark.parametrize("handles, words", [
    (lambda size: [varint(0) + varint(size), varint(0) + varint(size)], "its data blocks overlap"),
    (lambda size: [varint(2**63) + varint(size)], "lies outside the file"),
    (lambda size: [varint(0) + varint(2**64 - 1)], "lies outside the file"),
    (lambda size: [varint(1) + varint(size)], "does not have the crc32c"),
    (lambda size: [b""], "ends in the middle of a number"),
], ids=["twice", "far", "long", "shifted", "none"])
def test_handles_that_lead_astray(handles, words, one_tf, pairs):
    pairs, _, data = pairs
    content = block(sorted(pairs.items()))
    wrong = block([(bytes([97 + i]), handle) for i, handle in enumerate(handles(len(content)))])
    refused(write_index(one_tf, table([content], [b"z"], mutate_index=lambda index: wrong), data), words)


def test_keys_that_swell_a_hundredfold_when_they_are_unpacked_are_refused_early(one_tf, pairs):
    content = varint(0) + varint(100_000) + b"\0" + b"k" * 100_000 + b"".join(
        varint(100_000) + varint(1) + b"\0" + bytes([i]) for i in range(256) for _ in range(100))  # 2.5 GB of keys
    content += bytes(4) + (1).to_bytes(4, "little")
    write_index(one_tf, table([content], [b"z"]), pairs[2])
    tracemalloc.start()
    start = time.monotonic()
    refused(one_tf, "longer than their storage allows")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000 and time.monotonic() - start < 10


def test_an_index_of_a_size_that_no_gpt2_has(one_tf):
    with open(one_tf / "model.ckpt.index", "r+b") as file:
        file.truncate(1 << 30)  # takes no room on the disk
    refused(one_tf, "1073741824 bytes are too many for the index of a GPT-2")
