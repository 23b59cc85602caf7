"""The safetensors format, read and written: a length, a JSON table, and the raw numbers.

    8 bytes   N, the header's length, little-endian
    N bytes   JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
    the rest  the tensors' bytes; offsets count from here, without holes or overlaps

It holds no code, which is why tinyheads reads it and never a pickle. The rules checked here are those of
the format's specification (https://github.com/huggingface/safetensors). What the official library rejects
is rejected here, and what it accepts has the same names, shapes and bytes here; tests/fuzz_files.py compares
the two. On purpose, four kinds of files that the official library (0.8.0) lets pass are refused:

    a key that stands twice      the specification forbids it; the library takes the last, others the first
    space before the first "{"   the specification forbids it
    a tensor as a list, or its   the specification asks for an object and a string; Rust's reader also takes
    dtype as {"F32": null}       these, by accident
    more than 300,000 values     a GPT-2 has 5,000 at most; a million Python objects take a second to make
"""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np

from tinyheads.files.array_file import Entry, check_shape, map_file, write_atomically
from tinyheads.errors import CheckpointError

LONGEST_HEADER = 100_000_000  # bytes, as in the specification
MOST_VALUES = 300_000         # JSON values in a header
DEEPEST = 127                 # lists and objects inside each other
ITEM_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
             "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
             "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64}


def read_safetensors(path: Path) -> dict[str, Entry]:
    """The table of tensors in a safetensors file, by name. Raises CheckpointError, naming what is off."""
    mapped = map_file(path)
    if len(mapped) < 8:
        raise CheckpointError(f"{path}: {len(mapped)} bytes are too few for a safetensors file")
    header_bytes = int(mapped[:8].view("<u8")[0])
    if header_bytes > min(LONGEST_HEADER, len(mapped) - 8):
        raise CheckpointError(f"{path}: says that its header has {header_bytes} bytes; the file has "
                              f"{len(mapped)}. It is truncated, or not a safetensors file")
    table = parse_header(path, mapped[8:8 + header_bytes])
    data_start, data_bytes = 8 + header_bytes, len(mapped) - 8 - header_bytes
    entries = {name: read_entry(path, name, fields, data_start)
               for name, fields in table.items() if name != "__metadata__"}

    # The tensors must tile the data exactly: each begins where the one before it ends.
    reached = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if entry.offset != reached:
            raise CheckpointError(f"{path}: tensor {name!r} begins at byte {entry.offset - data_start} of the data, "
                                  f"the one before it ends at {reached - data_start}: a hole or an overlap")
        reached += entry.nbytes
    if reached != len(mapped):
        raise CheckpointError(f"{path}: its tensors take {reached - data_start} bytes, and {data_bytes} are there: "
                              f"truncated, or with something appended")
    return entries


def parse_header(path: Path, header: np.ndarray) -> dict:
    """The header's JSON as a dict of dicts; header: uint8 [bytes]. Raises CheckpointError."""
    def refuse_duplicates(pairs):
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise CheckpointError(f"{path}: its header has the name {twice!r} twice")
        return dict(pairs)

    if header[:1].tobytes() != b"{":
        raise CheckpointError(f"{path}: its header does not begin with '{{': not a safetensors file")
    n_values = sum(int(np.count_nonzero(header == ord(mark))) for mark in ",[{")  # at most; before any is made
    if n_values > MOST_VALUES:
        raise CheckpointError(f"{path}: its header has up to {n_values} values, too many for a GPT-2 (at most "
                              f"{MOST_VALUES})")
    try:
        table = json.loads(str(header.data, "utf-8"), object_pairs_hook=refuse_duplicates, parse_int=whole_number,
                           parse_float=finite_number, parse_constant=refuse_constant)
        check_values(table)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header is not valid JSON ({error})") from error
    metadata = {} if table.get("__metadata__") is None else table["__metadata__"]
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ must map strings to strings")
    return table


# Python's json takes more for JSON than the standard (RFC 8259) and the official library do:


def whole_number(text: str) -> int | float:
    """A number without a point; -0 is a float, as in Rust, and so no size. ValueError for one beyond float64."""
    finite_number(text)
    return -0.0 if text == "-0" else int(text)


def finite_number(text: str) -> float:
    """A number; ValueError for one beyond float64."""
    if math.isinf(value := float(text)):
        raise ValueError(f"the number {text[:20]}... is out of range")
    return value


def refuse_constant(text: str) -> None:
    """NaN, Infinity and -Infinity."""
    raise ValueError(f"{text} is no JSON")


def check_values(value: object, depth: int = 1) -> None:
    """ValueError for text with half a surrogate pair (no Unicode text), and for nesting beyond DEEPEST."""
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, (dict, list)):
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        for item in value:  # of a dict, the keys
            check_values(item, depth + 1)
        for item in value.values() if isinstance(value, dict) else ():
            check_values(item, depth + 1)


def read_entry(path: Path, name: str, fields: object, data_start: int) -> Entry:
    """One row of the header's table, checked. Raises CheckpointError."""
    if not isinstance(fields, dict) or not {"dtype", "shape", "data_offsets"} <= set(fields):
        raise CheckpointError(f"{path}: tensor {name!r} needs dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise CheckpointError(f"{path}: tensor {name!r} is of unknown dtype {str(dtype)[:100]!r}; known: "
                              f"{', '.join(ITEM_BITS)}")
    if (not isinstance(offsets, list) or len(offsets) != 2
            or not all(type(n) is int for n in offsets) or not 0 <= offsets[0] <= offsets[1] < 2**64):
        raise CheckpointError(f"{path}: tensor {name!r} has the impossible data_offsets {str(offsets)[:100]}")
    if not isinstance(shape, list):
        raise CheckpointError(f"{path}: tensor {name!r} has a shape that is not a list: {str(shape)[:100]}")
    begin, end = offsets
    shape = check_shape(path, name, shape, ITEM_BITS[dtype], end - begin)
    return Entry(path, dtype, shape, data_start + begin, end - begin)


def write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write float32 arrays under their names; the file appears whole or not at all."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers asks for this line
    offset = 0
    for name, array in arrays.items():
        table[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + 4 * array.size]}
        offset += 4 * array.size
    header = json.dumps(table, separators=(",", ":")).encode("utf-8")
    header += b" " * (-len(header) % 8)  # so that the numbers lie on 8-byte boundaries
    with write_atomically(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, dtype="<f4").data)
