"""A second writer of TensorFlow bundles and of safetensors files, for layouts that the real ones do not produce.

It shares no code with tinyheads: written from LevelDB's table_format.txt and tensor_bundle.proto alone,
so that reader and writer cannot be wrong in the same way. Everything that a damaged file could hold is
open to the caller: block contents, entries, checksums, offsets.
"""

import json
from pathlib import Path

import numpy as np

# DataType of tensorflow/core/framework/types.proto; uint16 stands for the bits of bfloat16, which NumPy lacks.
TENSORFLOW_DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "uint16": 14, "float16": 19}


def crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = crc_table()


def plain_crc32c(data: bytes) -> int:
    """crc32c, byte by byte."""
    state = 0xFFFFFFFF
    for byte in data:
        state = state >> 8 ^ CRC_TABLE[(state ^ byte) & 255]
    return state ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    crc = plain_crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def varint(n: int) -> bytes:
    low, n = n % 128, n // 128
    return bytes([low + 128]) + varint(n) if n else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    """One field of a protocol buffer: a varint for an int, else a length and the bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(dtype: int, shape: tuple, shard: int, offset: int, nbytes: int, crc: int) -> bytes:
    """A BundleEntryProto, whose fields of value 0 are left out, as protocol buffers do."""
    dims = b"".join(field(2, field(1, n)) for n in shape)
    numbers = [(1, dtype), (2, dims), (3, shard), (4, offset), (5, nbytes)]
    written = b"".join(field(number, value) for number, value in numbers if value or number == 2)
    return written + varint(6 << 3 | 5) + crc.to_bytes(4, "little")


def bundle_header(n_shards: int) -> bytes:
    """A BundleHeaderProto: the number of shards, little-endian, version 1."""
    return field(1, n_shards) + field(3, field(1, 1))


def block(pairs: list[tuple[bytes, bytes]], restart_interval: int = 16) -> bytes:
    """A block's contents: prefix-compressed pairs, then the restart points."""
    written, restarts, before = b"", [], b""
    for i, (key, value) in enumerate(pairs):
        shared = 0
        if i % restart_interval == 0:
            restarts.append(len(written))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        written += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return written + b"".join(n.to_bytes(4, "little") for n in [*(restarts or [0]), len(restarts or [0])])


def table(contents: list[bytes], index_keys: list[bytes], restart_interval: int = 1, mutate_index=lambda index: index,
          compression: bytes = b"\0") -> bytes:
    """An SSTable of these data blocks, every checksum right whatever the blocks hold."""
    written, handles = b"", []
    def append(content: bytes) -> bytes:
        nonlocal written
        handle = varint(len(written)) + varint(len(content))
        written += content + compression + masked_crc32c(content + compression).to_bytes(4, "little")
        return handle
    handles = [append(content) for content in contents]
    meta = append(block([]))
    index = append(mutate_index(block(list(zip(index_keys, handles)), restart_interval)))
    return written + (meta + index).ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def data_blocks(pairs: list[tuple[bytes, bytes]], block_bytes: int,
                restart_interval: int) -> tuple[list[bytes], list[bytes]]:
    """The pairs cut into blocks of about block_bytes each: contents, and the last key of each for the index."""
    groups = [[]]
    for pair in sorted(pairs):
        if groups[-1] and len(block(groups[-1], restart_interval)) >= block_bytes:
            groups.append([])
        groups[-1].append(pair)
    return [block(group, restart_interval) for group in groups], [group[-1][0] for group in groups]


def entries_and_shards(tensors: dict[str, np.ndarray], n_shards: int = 1, first: int = 0, gap: int = 0,
                       shard_of=lambda i: i) -> tuple[dict[str, tuple], list[bytes]]:
    """Lay tensors into shards, in no particular order: each name's `entry` arguments, and the shards' bytes.

    first: bytes of rubbish before the first tensor; gap: between two; shard_of: shard of the i-th tensor, mod n_shards.
    """
    shards, entries = [b"\xAA" * first] * n_shards, {}
    for i, (name, array) in enumerate(tensors.items()):
        shard, data = shard_of(i) % n_shards, array.tobytes()
        dtype = TENSORFLOW_DTYPES[str(array.dtype)]
        entries[name] = (dtype, array.shape, shard, len(shards[shard]), len(data), masked_crc32c(data))
        shards[shard] += data + b"\xAA" * gap
    return entries, shards


def write_bundle(folder: Path, tensors: dict[str, np.ndarray], hparams: dict, n_shards: int = 1,
                 block_bytes: int = 1 << 18, restart_interval: int = 16,
                 index_restart_interval: int = 1, **layout) -> Path:
    """A folder as OpenAI lays it out; gives the index's path."""
    folder.mkdir(exist_ok=True)
    entries, shards = entries_and_shards(tensors, n_shards, **layout)
    for i, data in enumerate(shards):
        (folder / f"model.ckpt.data-{i:05d}-of-{n_shards:05d}").write_bytes(data)
    pairs = [(b"", bundle_header(n_shards)), *((name.encode(), entry(*parts)) for name, parts in entries.items())]
    contents, keys = data_blocks(pairs, block_bytes, restart_interval)
    (folder / "model.ckpt.index").write_bytes(table(contents, keys, index_restart_interval))
    (folder / "hparams.json").write_text(json.dumps(hparams))
    return folder / "model.ckpt.index"


# --- safetensors --------------------------------------------------------------------------------


def safetensors_bytes(header: dict | bytes, data: bytes = b"") -> bytes:
    """A safetensors file with this header, right or wrong."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + data


def safetensors_table(arrays: dict[str, np.ndarray]) -> tuple[dict, bytes]:
    """Header and data of float32 arrays."""
    header, data = {}, b""
    for name, array in arrays.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        data += array.astype("<f4").tobytes()
    return header, data


def parse_safetensors(raw: bytes) -> tuple[dict, bytes]:
    """Header and data of an intact file."""
    n = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:8 + n]), raw[8 + n:]


def safetensors_arrays(path: Path) -> dict[str, np.ndarray]:
    """The float32 arrays of an intact file."""
    header, data = parse_safetensors(path.read_bytes())
    header.pop("__metadata__", None)
    return {name: np.frombuffer(data[slice(*fields["data_offsets"])], "<f4").reshape(fields["shape"])
            for name, fields in header.items() if fields["dtype"] == "F32"}


def golden_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The tensors that transformers wrote into a folder, without the prefix that it gives them."""
    return {name.removeprefix("transformer."): array
            for name, array in safetensors_arrays(folder / "model.safetensors").items()}


def openai_name(name: str) -> str:
    """h.0.attn.c_attn.weight -> model/h0/attn/c_attn/w, as in OpenAI's checkpoint."""
    if name in ("wte.weight", "wpe.weight"):
        return "model/" + name[:3]
    *path, last = name.replace("h.", "h", 1).split(".") if name.startswith("h.") else name.split(".")
    return "/".join(["model", *path, {"bias": "b", "weight": "g" if "ln_" in name else "w"}[last]])


def openai_arrays(folder: Path, dtype=np.float32) -> dict[str, np.ndarray]:
    """The same under OpenAI's names."""
    return {openai_name(name): array.astype(dtype) for name, array in golden_arrays(folder).items()}
