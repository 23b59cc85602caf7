"""Some thousands of files mutated with their structure in mind; fuzz_files.py makes them and says what is right."""

import zlib

import numpy as np
import pytest

import fuzz_files
import mutate_safetensors
from file_writers import safetensors_bytes
from fuzz_files import CONSTANT, bundle_files, bundle_is_right, measured, safetensors_file, write_bundle

PARTS = 6  # of the files with golden verdicts, for tests of a second each


@pytest.mark.parametrize("part", range(PARTS))
def test_safetensors_files_get_the_verdict_of_the_official_library(part, golden, tmp_path):
    stored = np.load(golden / "verdicts.npz")
    path, read, stricter = tmp_path / "model.safetensors", 0, 0
    for seed in range(part, len(stored["files"]), PARTS):
        raw = safetensors_file(seed)
        assert zlib.crc32(raw) == stored["files"][seed], f"seed {seed} does not make the file that the library judged"
        path.write_bytes(raw)
        (ours, message), _, memory = measured(len(raw), lambda: mutate_safetensors.tinyheads_verdict(path))
        theirs = int(stored["verdicts"][seed])
        assert mutate_safetensors.agree(theirs, ours, message), f"seed {seed}: {message or 'read'}"
        assert memory < CONSTANT, f"seed {seed}"
        read, stricter = read + bool(ours), stricter + bool(theirs and not ours)
    assert read > 80 and 0 < stricter < 40  # of 500: both verdicts are common, stricter ones are not


NUMBERS = {  # as a tensor's first offset and size, and as a field no reader needs: does the library (0.8.0) take it?
    "0": (True, True), "-0": (False, True), "0.0": (False, True), "0e0": (False, True), "00": (False, False),
    "+0": (False, False), "NaN": (False, False), "Infinity": (False, False), "-Infinity": (False, False),
    "1" + "0" * 308: (False, True), "1" + "0" * 309: (False, False), "-1" + "0" * 309: (False, False),
    "9" * 5000: (False, False), "1e308": (False, True), "1e309": (False, False), "1e-999": (False, True),
    '"\\ud800"': (False, False), '"\\ud83d\\ude42"': (False, True), '{"\\ud800":0}': (False, False),
    "null": (False, True),
    "[" * 125 + "]" * 125: (False, True), "[" * 126 + "]" * 126: (False, False),
    '{"x":' * 125 + "0" + "}" * 125: (False, True), '{"x":' * 126 + "0" + "}" * 126: (False, False),
    "[" * 2000 + "]" * 2000: (False, False), '"\x7f"': (False, True), '"\t"': (False, False), "'x'": (False, False),
}


@pytest.mark.parametrize("text", NUMBERS, ids=lambda text: text[:20])
def test_what_is_json_and_what_is_a_number_is_as_the_official_library_has_it(text, tmp_path):
    rest = '"dtype":"U8","shape":[0],"data_offsets":'
    for header, taken in zip(['{"a":{' + rest + f"[{text},0]" + "}}", '{"a":{"x":' + text + "," + rest + "[0,0]}}"],
                             NUMBERS[text]):
        path = tmp_path / "model.safetensors"
        path.write_bytes(safetensors_bytes(header.encode()))
        ours, message = mutate_safetensors.tinyheads_verdict(path)
        assert bool(ours) == taken, message


@pytest.mark.parametrize("part", range(3))
def test_bundles_are_read_where_their_entries_fit_and_refused_or_whole_elsewhere(part, tmp_path):
    read = 0
    for seed in range(part, 1200, 3):
        index, shards, entries = bundle_files(seed)
        path = write_bundle(tmp_path, index, shards)
        (right, was_read), _, memory = measured(len(index), lambda: bundle_is_right(path, shards, entries))
        assert right, f"seed {seed}"
        assert memory < CONSTANT, f"seed {seed}"
        read += was_read
    assert 40 < read < 120  # of 400


def test_the_judges_themselves_tell_right_from_wrong(tmp_path):
    """A verdict that differs, or a byte, is noticed."""
    assert mutate_safetensors.agree(5, 5, "") and mutate_safetensors.agree(0, 0, "whatever")
    assert mutate_safetensors.agree(5, 0, "x.safetensors: its header has the name 'a' twice")
    assert not mutate_safetensors.agree(0, 5, "") and not mutate_safetensors.agree(5, 6, "")
    assert not mutate_safetensors.agree(5, 0, "a hole or an overlap")
    (entries, shards), *_ = fuzz_files.mutate_bundles.bases(fuzz_files.GOLDEN)
    assert fuzz_files.mutate_bundles.entries_fit(entries, shards)
    index = fuzz_files.mutate_bundles.table([fuzz_files.mutate_bundles.block(
        fuzz_files.mutate_bundles.key_values(entries, 1))], [b"z"])
    path = write_bundle(tmp_path, index, shards)
    assert bundle_is_right(path, shards, entries) == (True, True)
    assert bundle_is_right(path, [shards[0][:-1] + b"?"], entries) == (False, True)
    name = next(iter(entries))
    dtype, shape, shard, offset, nbytes, crc = entries[name]
    for wrong in [(dtype, shape, 1, offset, nbytes, crc), (dtype, shape, shard, offset + 4, nbytes, crc),
                  (dtype, shape, shard, offset, nbytes + 4, crc), (2, shape, shard, offset, nbytes, crc)]:
        assert bundle_is_right(path, shards, {**entries, name: wrong}) == (False, True)


LONG = 20_000_000  # bytes of header; the format allows 100 million


@pytest.mark.parametrize("header", [
    b"{}" + b" " * LONG, b'{"__metadata__":{"a":"' + b"x" * LONG + b'"}}',
    b'{"a":' + b"[" * LONG, b'{"a":' + b"9" * LONG,
    b"{" + b",".join(b'"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(10_000)) + b"}",
    b'{"a":[' + b"[]," * 2_000_000 + b"[]]}", b'{"a":[' + b"[[[[]]]]," * 30_000 + b"[]]}",
], ids=["padding", "text", "brackets", "digits", "tensors", "lists", "nested"])
def test_no_header_however_long_takes_much_more_memory_than_the_file(header, tmp_path):
    path = tmp_path / "long.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    _, _, memory = measured(len(header), lambda: mutate_safetensors.tinyheads_verdict(path))
    assert memory < 50_000_000
