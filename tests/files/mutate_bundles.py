"""TensorFlow bundles mutated with their structure in mind: block handles, varints, prefix lengths, restart arrays,
shapes, offsets, sizes, shard numbers, dtypes, checksums. Every checksum is right again afterwards, unless it is what
was mutated.

Where only the numbers in entries were changed, what should become of the file is known: `entries_fit` says it from the
rules of tensor_bundle.proto, and the bytes of each tensor are cut out of the shards here, by no code of tinyheads'.
"""

import random
from pathlib import Path

import numpy as np

from file_writers import (block, bundle_header, data_blocks, entries_and_shards, entry, field, masked_crc32c,
                          openai_arrays, table, varint)
from mutate_safetensors import mutated_bytes

NUMPY_DTYPES = {1: "<f4", 2: "<f8", 14: "<u2", 19: "<f2"}
NUMBERS = [0, 1, 2, 3, 7, 9, 14, 19, 127, 128, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 4, 2**64 - 1]
LAYOUTS = [dict(), dict(n_shards=3, first=8, gap=5), dict(n_shards=2, gap=1)]


def bases(golden: Path) -> list[tuple[dict, list[bytes]]]:
    """The golden model "one" in several layouts: entries by name, and the shards."""
    return [entries_and_shards(openai_arrays(golden / "one"), **layout) for layout in LAYOUTS]


def key_values(entries: dict, n_shards: int) -> list[tuple[bytes, bytes]]:
    """The index's pairs, in order."""
    written = [(name.encode(), entry(*parts)) for name, parts in sorted(entries.items())]
    return [(b"", bundle_header(n_shards)), *written]


# --- entries, and whether they can be -----------------------------------------------------------------


def mutated_entries(entries: dict, rng: random.Random) -> dict:
    """One to three entries with another dtype, shape, shard, offset, size or checksum, gone, or under another name."""
    entries = dict(entries)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        name = rng.choice(list(entries))
        parts = list(entries[name])
        kind = rng.choice(["number", "number", "near", "near", "shape", "swap", "drop", "name"])
        i = rng.choice([0, 2, 3, 4, 5])
        if kind in ("number", "near"):
            n = rng.choice(NUMBERS) if kind == "number" else parts[i] + rng.choice([-32, -8, -4, -1, 1, 4, 8, 32])
            parts[i] = n % (2**32 if i == 5 else 2**64)
        elif kind == "shape":
            shape = parts[1]
            parts[1] = rng.choice([(), (rng.choice(NUMBERS),) * rng.randrange(40), (*shape, 1), (1, *shape),
                                   shape[::-1], (*shape, 0), (*shape, 2**63), (1,) * rng.choice([20, 30, 40]) + shape])
        elif kind == "swap":
            other = rng.choice(list(entries))
            entries[other], parts = tuple(parts), list(entries[other])
        entries[name] = tuple(parts)
        if kind == "drop" and len(entries) > 1:
            del entries[name]
        elif kind == "name":
            entries[rng.choice([name + "x", name[:-1], "model/new", "z" * 300, "\x7f", "é"])] = entries.pop(name)
    return entries


def entries_fit(entries: dict, shards: list[bytes]) -> bool:
    """Whether every float tensor's bytes are as many as its shape takes, in a shard that is there, and its alone."""
    placed = []
    for dtype, shape, shard, offset, nbytes, _ in entries.values():
        if dtype not in NUMPY_DTYPES:
            continue
        n_items = 1
        for n in shape:
            n_items *= n
            if n >= 2**63 or n_items >= 2**63:
                return False
        if shard >= len(shards) or len(shape) > 32 or n_items * np.dtype(NUMPY_DTYPES[dtype]).itemsize != nbytes:
            return False
        if offset + nbytes > len(shards[shard]):
            return False
        placed.append((shard, offset, offset + nbytes))
    return not any(a[0] == b[0] and a[1] < b[2] and b[1] < a[2] for i, a in enumerate(placed) for b in placed[:i])


def arrays_of(entries: dict, shards: list[bytes]) -> dict[str, np.ndarray]:
    """The float tensors that entries which fit point to, as float32."""
    arrays = {}
    for name, (dtype, shape, shard, offset, nbytes, _) in entries.items():
        if dtype in NUMPY_DTYPES:
            flat = np.frombuffer(shards[shard][offset:offset + nbytes], NUMPY_DTYPES[dtype])
            if dtype == 14:  # bfloat16: the upper half of a float32
                flat = (flat.astype("<u4") << 16).view("<f4")
            arrays[name] = flat.astype(np.float32)
    return arrays


# --- the index's blocks -------------------------------------------------------------------------------


def long_varint(n: int, rng: random.Random) -> bytes:
    """A number in more bytes than it needs, or in more than a number may have, or cut."""
    written = varint(n)
    padded = written[:-1] + bytes([written[-1] | 128])
    return rng.choice([padded + b"\0", padded + b"\x80" * 3 + b"\0", b"\x80" * 11 + written, b"\xff" * 9 + b"\x01",
                       b"\xff" * 10, padded, b""])


def damaged_block(pairs: list[tuple[bytes, bytes]], rng: random.Random) -> bytes:
    """A block of which one prefix length, varint, restart point or their number is another."""
    raw = block(pairs)
    n_restarts = int.from_bytes(raw[-4:], "little")
    stop = len(raw) - 4 * n_restarts - 4
    kind = rng.choice(["lengths", "lengths", "lengths", "restart", "count", "order", "twice"])
    if kind == "restart":
        at = stop + 4 * rng.randrange(n_restarts)
        return raw[:at] + rng.choice([0, 1, stop, 2**31, 2**32 - 1]).to_bytes(4, "little") + raw[at + 4:]
    if kind == "count":
        count = rng.choice([0, n_restarts - 1, n_restarts + 1, len(raw) // 4 - 1, len(raw) // 4, 2**30, 2**31,
                            2**32 - 1])
        return raw[:-4] + count.to_bytes(4, "little")
    if kind == "order":
        return block(rng.sample(pairs, len(pairs)))
    if kind == "twice":
        return block([*pairs, rng.choice(pairs)])
    written, before = b"", b""
    wrong = rng.randrange(len(pairs))
    for i, (key, value) in enumerate(pairs):
        shared = next((n for n, (a, b) in enumerate(zip(key, before)) if a != b), min(len(key), len(before)))
        numbers = [shared, len(key) - shared, len(value)]
        lengths = [varint(n) for n in numbers]
        if i == wrong:
            j = rng.randrange(3)
            other = rng.choice([*NUMBERS, numbers[j] + 1, max(numbers[j] - 1, 0), len(before), len(before) + 1])
            lengths[j] = rng.choice([varint(other), varint(other), long_varint(numbers[j], rng)])
        written += b"".join(lengths) + key[shared:] + value
        before = key
    return written + bytes(4) + (1).to_bytes(4, "little")


def damaged_handles(contents: list[bytes], keys: list[bytes], rng: random.Random):
    """What `table` should do to its index block: one handle changed, doubled, left out or cut."""
    handles, at = [], 0
    for content in contents:
        handles.append([at, len(content)])
        at += len(content) + 5
    i, j = rng.randrange(len(handles)), rng.randrange(2)
    handles[i][j] = rng.choice([*NUMBERS, handles[i][j] + rng.choice([-5, -1, 1, 5]), at, at - 1]) % 2**64
    written = [varint(offset) + varint(size) for offset, size in handles]
    longer = long_varint(handles[i][0], rng) + varint(handles[i][1])
    written[i] = rng.choice([written[i]] * 4 + [written[i][:1], b"", longer])
    pairs = list(zip(keys, written))
    pairs = rng.choice([pairs, pairs, pairs, pairs + [(keys[-1] + b"z", written[0])], pairs[:i] + pairs[i + 1:]])
    return lambda index: block(pairs, rng.choice([1, 16]))


def mutated_value(value: bytes, rng: random.Random) -> bytes:
    """An entry's protocol buffer with bytes, fields or varints that are others."""
    return rng.choice([lambda: mutated_bytes(value, rng),
                       lambda: value + field(rng.randrange(1, 9), rng.choice(NUMBERS)),
                       lambda: value + field(rng.randrange(1, 9), rng.randbytes(rng.randrange(9))),
                       lambda: value + long_varint(rng.choice([8, 0x10, 0x18, 0x20, 0x28, 0x35]), rng) + b"\1",
                       lambda: value * 2, lambda: value[:rng.randrange(len(value) + 1)],
                       lambda: field(1, 1) + field(2, field(2, field(1, 8)) * rng.choice([1, 300])) + field(5, 32)])()


def mutated_bundle(base: tuple[dict, list[bytes]], rng: random.Random) -> tuple[bytes, list[bytes], dict | None]:
    """An index and its shards, and the entries in the index where those are all that was changed (else None)."""
    entries, shards = base
    level = rng.choice(["entries", "entries", "value", "block", "handles", "header", "crc", "bytes", "shards", "index"])
    if level == "entries":
        entries = mutated_entries(entries, rng)
    pairs = key_values(entries, len(shards))
    i = rng.randrange(1, len(pairs))
    if level == "value":
        pairs[i] = (pairs[i][0], mutated_value(pairs[i][1], rng))
    elif level == "header":
        damaged = mutated_bytes(pairs[0][1], rng)
        n_shards = rng.choice([0, len(shards) + 1, 99_999, 100_000, 2**31, 2**64 - 1])
        big_endian = field(2, rng.choice([0, 1, 2**63]))
        pairs[0] = rng.choice([(b"", damaged), (b"\0", pairs[0][1]), pairs[i], (b"", bundle_header(n_shards)),
                               (b"", bundle_header(len(shards)) + big_endian)])
    elif level == "shards":
        cut = rng.randrange(len(shards))
        shards = [shard[:rng.randrange(len(shard) + 1)] if n == cut else shard for n, shard in enumerate(shards)]
    contents, keys = data_blocks(pairs, rng.choice([1 << 18, 300, 1]), rng.choice([1, 2, 16, 64]))
    mutate_index = lambda index: index
    if level == "block":
        j = rng.randrange(len(contents))
        mine = [pair for pair in sorted(pairs) if pair[0] <= keys[j] and (j == 0 or pair[0] > keys[j - 1])]
        contents[j] = rng.choice([lambda: damaged_block(mine, rng), lambda: mutated_bytes(contents[j], rng)])()
    elif level == "handles":
        mutate_index = damaged_handles(contents, keys, rng)
    elif level == "index":
        mutate_index = lambda index: mutated_bytes(index, rng)
    raw = table(contents, keys, rng.choice([1, 16]), mutate_index, compression=b"\1" if rng.random() < 0.01 else b"\0")
    if level == "crc":  # one checksum, anywhere
        at = len(contents[0]) + 1 + rng.randrange(4)
        raw = raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1:]
    elif level == "bytes":
        raw = mutated_bytes(raw, rng)
    return raw, shards, entries if level in ("entries", "shards") and raw[len(contents[0])] == 0 else None
