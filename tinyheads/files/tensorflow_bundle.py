"""OpenAI's own GPT-2 files, a TensorFlow "tensor bundle", read without TensorFlow.

    model.ckpt.index                 which tensor lies where: a sorted string table (SSTable)
    model.ckpt.data-00000-of-00001   the tensors' bytes, one behind the other (a "shard")

The index is LevelDB's table format. It is read from its end:

    footer (last 48 bytes)  -> where the index block is   (a "handle": offset and size)
    index block             -> a handle for each data block
    data blocks             -> sorted keys ("model/h0/attn/c_attn/w"), each with a protocol buffer
                               that gives dtype, shape, shard, offset, size and crc32c

Sources: tensorflow/core/lib/io/format.cc and table_format.txt (the table), tensorflow/core/protobuf/
tensor_bundle.proto (the values), tensorflow/core/util/tensor_bundle (file names and checksums).
"""

import os
from pathlib import Path
from typing import Callable

import numpy as np

from tinyheads.files.array_file import Entry, check_shape, map_file, stored_bytes
from tinyheads.files.crc32c import crc32c, masked
from tinyheads.errors import CheckpointError

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
LARGEST_INDEX = 1 << 20  # bytes; the largest GPT-2's has 22 thousand, three times that with an optimizer's tensors
MOST_TENSORS = 20_000    # the largest GPT-2 has 580; this many are read in half a second
MOST_AXES = 32           # as many as every NumPy can have
RESTART_INTERVAL = 16    # a key is stored whole at least this often, which bounds all keys together
# TensorFlow's DataType numbers for what weights are stored in: our name, bits an item.
DTYPES = {1: ("F32", 32), 2: ("F64", 64), 14: ("BF16", 16), 19: ("F16", 16)}


def read_bundle(index_path: Path) -> dict[str, Entry]:
    """The table of tensors in a bundle, by TensorFlow's names. Raises CheckpointError, naming what is off.

    index_path: `<prefix>.index`; the shards `<prefix>.data-SSSSS-of-NNNNN` must lie beside it.
    Tensors that are not float (the step counter of a training run, say) are passed over.
    """
    mapped = map_file(index_path)
    if len(mapped) > LARGEST_INDEX:
        raise CheckpointError(f"{index_path}: {len(mapped)} bytes are too many for the index of a GPT-2")
    try:
        pairs = read_table(mapped.tobytes())
        if b"" not in pairs:
            raise BadIndex("its first entry, which names the number of shards, is missing")
        header = parse_message(pairs.pop(b""))
        n_shards = number(header, 1)
        if number(header, 2) != 0:
            raise BadIndex("its numbers are big-endian, which tinyheads does not read")
        entries = {}
        for key, value in pairs.items():
            entry = parse_entry(index_path, key.decode("utf-8"), parse_message(value), n_shards)
            if entry:
                entries[key.decode("utf-8")] = entry
    except (BadIndex, UnicodeDecodeError) as error:
        raise CheckpointError(f"{index_path}: damaged or not a TensorFlow checkpoint index: {error}") from error
    check_shards(entries)
    return entries


class BadIndex(Exception):
    """What is wrong with the index, inside this module; `read_bundle` adds the file's name."""


# --- the table ------------------------------------------------------------------------------


def read_table(data: bytes) -> dict[bytes, bytes]:
    """All key-value pairs of an SSTable, in order. Keys must ascend."""
    if len(data) < FOOTER_BYTES:
        raise BadIndex(f"{len(data)} bytes, a table has {FOOTER_BYTES} at least (truncated?)")
    if int.from_bytes(data[-8:], "little") != MAGIC:
        raise BadIndex("its last 8 bytes are not a table's magic number (truncated?)")
    footer = data[-FOOTER_BYTES:]
    _, at = read_handle(footer, 0)              # the metaindex block, which bundles leave empty
    index_handle, _ = read_handle(footer, at)
    pairs: dict[bytes, bytes] = {}
    last = None
    reached = 0
    for _, handle_bytes in read_block(data, *index_handle):
        (offset, size), _ = read_handle(handle_bytes, 0)
        if offset < reached:                    # or a damaged index could name one block a million times
            raise BadIndex("its data blocks overlap")
        reached = offset + size
        for key, value in read_block(data, offset, size):
            if last is not None and key <= last:
                raise BadIndex(f"key {key!r} stands behind {last!r}: keys must ascend, each once")
            pairs[key] = value
            last = key
            if len(pairs) > MOST_TENSORS:
                raise BadIndex(f"more than {MOST_TENSORS} tensors, which no GPT-2 has")
    return pairs


def read_block(data: bytes, offset: int, size: int) -> list[tuple[bytes, bytes]]:
    """The key-value pairs of one block.

    A key repeats only what differs from the key before it: (shared length, rest's length, value's
    length, rest, value). Behind the pairs stand "restart points", for binary search, which a
    reader of everything can skip; behind the block, a byte for compression and a masked crc32c.
    """
    end = offset + size
    if end + 5 > len(data) - FOOTER_BYTES:
        raise BadIndex(f"a block at bytes {offset}-{end} lies outside the file")
    if masked(crc32c(data[offset:end + 1])) != int.from_bytes(data[end + 1:end + 5], "little"):
        raise BadIndex(f"the block at byte {offset} does not have the crc32c stored behind it")
    if data[end] != 0:
        raise BadIndex(f"the block at byte {offset} is compressed (kind {data[end]}); TensorFlow writes it plain")
    block = data[offset:end]
    n_restarts = int.from_bytes(block[-4:], "little")
    stop = size - 4 * (n_restarts + 1)
    if size < 4 or stop < 0:
        raise BadIndex(f"the block at byte {offset} is too short for its {n_restarts} restart points")
    pairs, key, at, key_bytes = [], b"", 0, 0
    while at < stop:
        shared, at = read_varint(block, at)
        unshared, at = read_varint(block, at)
        value_bytes, at = read_varint(block, at)
        if shared > len(key) or at + unshared + value_bytes > stop:
            raise BadIndex(f"an entry in the block at byte {offset} reaches outside it")
        key = key[:shared] + block[at:at + unshared]
        key_bytes += len(key)
        if key_bytes > RESTART_INTERVAL * size:
            raise BadIndex(f"the keys in the block at byte {offset} are longer than their storage allows")
        if len(pairs) > MOST_TENSORS:
            raise BadIndex(f"the block at byte {offset} has more than {MOST_TENSORS} entries, which no GPT-2 has")
        pairs.append((key, block[at + unshared:at + unshared + value_bytes]))
        at += unshared + value_bytes
    return pairs


def read_handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """A block's (offset, size), and where the bytes behind the handle begin."""
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number, 7 bits a byte, low bits first, the top bit meaning "more follows"."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            raise BadIndex("it ends in the middle of a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), at
    raise BadIndex("a number of more than 10 bytes")


# --- the values: protocol buffers --------------------------------------------------------------


def parse_message(data: bytes) -> dict[int, list]:
    """A protocol buffer as {field number: its values in order}: int, or bytes for a nested message."""
    fields: dict[int, list] = {}
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = read_varint(data, at)
        elif kind in (1, 2, 5):
            n_bytes, at = read_varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            if at + n_bytes > len(data):
                raise BadIndex("a field reaches outside its message")
            value, at = data[at:at + n_bytes], at + n_bytes
            value = value if kind == 2 else int.from_bytes(value, "little")
        else:
            raise BadIndex(f"a field of unknown kind {kind}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def number(fields: dict[int, list], field: int) -> int:
    """A field that is a number; one that is missing is 0."""
    value = fields.get(field, [0])[-1]
    if type(value) is not int:
        raise BadIndex(f"field {field} of an entry should be a number")
    return value


def parse_entry(index_path: Path, name: str, fields: dict[int, list], n_shards: int) -> Entry | None:
    """A BundleEntryProto as an Entry; None where the tensor is not float."""
    dtype, shard, offset, nbytes = (number(fields, field) for field in (1, 3, 4, 5))
    if dtype not in DTYPES:
        return None
    if 7 in fields:
        raise BadIndex(f"tensor {name!r} is stored in slices, which tinyheads does not read")
    if not shard < n_shards < 100_000:
        raise BadIndex(f"tensor {name!r} lies in shard {shard} of {n_shards}")
    our_dtype, item_bits = DTYPES[dtype]
    shape = check_shape(index_path, name, parse_shape(name, fields.get(2, [])), item_bits, nbytes)
    prefix = index_path.name.removesuffix(".index")
    shard_path = index_path.with_name(f"{prefix}.data-{shard:05d}-of-{n_shards:05d}")
    return Entry(shard_path, our_dtype, shape, offset, nbytes, crc32c=number(fields, 6))


def parse_shape(name: str, messages: list) -> list[int]:
    """A TensorShapeProto's dimensions; several messages are one shape in pieces, as protocol buffers are merged."""
    shape = []
    for message in messages:
        if type(message) is not bytes:
            raise BadIndex(f"tensor {name!r}: its shape should be a message")
        for dim in parse_message(message).get(2, []):
            if type(dim) is not bytes:
                raise BadIndex(f"tensor {name!r}: a dimension should be a message")
            shape.append(number(parse_message(dim), 1))
            if len(shape) > MOST_AXES or shape[-1] >= 2**63:  # 2**63 and more stand for negative numbers
                raise BadIndex(f"tensor {name!r}: an impossible shape, {str(shape)[:100]}")
    return shape


def check_shards(entries: dict[str, Entry]) -> None:
    """Every tensor must lie inside its shard, apart from the others. Raises CheckpointError."""
    sizes: dict[Path, int] = {}
    reached: dict[Path, tuple[int, str]] = {}
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if entry.file not in sizes:
            try:
                sizes[entry.file] = os.path.getsize(entry.file)
            except OSError as error:
                raise CheckpointError(f"{entry.file}: missing, though tensor {name!r} lies in it") from error
        end, before = reached.get(entry.file, (0, ""))
        if entry.offset + entry.nbytes > sizes[entry.file]:
            raise CheckpointError(f"{entry.file}: {sizes[entry.file]} bytes, and tensor {name!r} should end at byte "
                                  f"{entry.offset + entry.nbytes}: truncated")
        if entry.offset < end:
            raise CheckpointError(f"{entry.file}: tensors {before!r} and {name!r} overlap")
        reached[entry.file] = (entry.offset + entry.nbytes, name)


def tensor_is_intact(entry: Entry, mapped: np.ndarray, progress: Callable[[int], None] | None = None) -> bool:
    """Whether the tensor's bytes have the crc32c that the index stores for it."""
    return masked(crc32c(stored_bytes(entry, mapped), progress=progress)) == entry.crc32c
