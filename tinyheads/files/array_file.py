"""An array that lies in a file: where it begins, what it holds, and how it is read and written.

Both weight formats that tinyheads reads come down to the same thing: a table that says "the
tensor called `name` has this dtype and shape, and lies at this offset of that file". Nothing
is read until somebody asks; then a memory map hands over the bytes, and the operating system
fetches only the pages that are touched.
"""

import mmap
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np

from tinyheads.errors import CheckpointError

# How float tensors are stored, by the names that safetensors uses. BF16 is the upper half of a
# float32, and NumPy has no such type: its bits are read as uint16 and moved up.
FLOAT_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class Entry:
    """One tensor's place: `nbytes` bytes from `offset` of `file`, of `dtype` and `shape`.

    crc32c: the masked checksum that a TensorFlow bundle stores, or None where there is none.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    crc32c: int | None = None


def as_path(given: str | Path, error: type[Exception] = CheckpointError) -> Path:
    """A path as a person gives it, with `~` for the home folder. Raises `error` where that is unknown, or no path."""
    try:
        return Path(given).expanduser()
    except (RuntimeError, TypeError) as reason:
        raise error(f"{given!r}: is no path ({reason})") from reason


def map_file(path: Path) -> np.ndarray:
    """The bytes of a file as a read-only memory map: uint8 [file size]. Raises CheckpointError."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return np.zeros(0, dtype=np.uint8)  # an empty file cannot be mapped
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            mapped.madvise(mmap.MADV_RANDOM)  # do not read ahead, into tensors that nobody asked for
        return np.frombuffer(mapped, dtype=np.uint8)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be opened ({error.strerror or error})") from error


def stored_bytes(entry: Entry, mapped: np.ndarray) -> np.ndarray:
    """The tensor's bytes, a view of the map: uint8 [nbytes]. The system is told to fetch them in one go."""
    if hasattr(mmap, "MADV_WILLNEED") and entry.nbytes:
        pages = getattr(mapped.base, "obj", mapped.base)  # the mmap under the array
        first = entry.offset // mmap.PAGESIZE * mmap.PAGESIZE
        pages.madvise(mmap.MADV_WILLNEED, first, entry.offset + entry.nbytes - first)
    return mapped[entry.offset:entry.offset + entry.nbytes]


def read_array(entry: Entry, mapped: np.ndarray, name: str) -> np.ndarray:
    """The tensor as float32 of `entry.shape`: a view of the map for F32, else a converted copy.

    mapped: what `map_file(entry.file)` gave. Raises CheckpointError for a dtype that is not float.
    """
    if entry.dtype not in FLOAT_DTYPES:
        raise CheckpointError(f"{entry.file}: tensor {name!r} is of dtype {entry.dtype}; weights are "
                              f"{', '.join(FLOAT_DTYPES)}")
    flat = stored_bytes(entry, mapped).view(FLOAT_DTYPES[entry.dtype])
    if entry.dtype == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    try:
        return flat.astype(np.float32, copy=False).reshape(entry.shape)
    except ValueError as error:  # more axes, or a longer one beside an empty one, than NumPy can have
        raise CheckpointError(f"{entry.file}: tensor {name!r} has the shape {str(entry.shape)[:100]}: "
                              f"{error}") from error


def check_shape(file: Path, name: str, shape: list, item_bits: int, nbytes: int) -> tuple[int, ...]:
    """The shape as a tuple, once it is sure that it takes exactly `nbytes`; else CheckpointError.

    No product of leading axes may exceed 64 bits, even where a later axis is 0: the formats' own readers ask for that.
    """
    n_items = 1
    for n in shape:
        if type(n) is not int or not 0 <= n < 2**64 or n_items * n >= 2**64:
            raise CheckpointError(f"{file}: tensor {name!r} has the impossible shape {str(shape)[:100]}")
        n_items *= n
    if n_items * item_bits != 8 * nbytes:
        raise CheckpointError(f"{file}: tensor {name!r} of shape {str(shape)[:100]} needs "
                              f"{-(-n_items * item_bits // 8)} bytes, and {nbytes} are stored")
    return tuple(shape)


@contextmanager
def write_atomically(path: Path) -> Iterator:
    """A binary file to write to that takes the name `path` only once it is complete.

    Until then the bytes lie in a temporary file beside it, which an error removes.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
