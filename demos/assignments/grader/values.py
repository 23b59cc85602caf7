"""How arguments and answers travel between the grader and the process in which a submission runs.

A value becomes a line of JSON (its structure) and a run of bytes (its tensors), in one file. Nothing is pickled, so
reading an answer runs no code; sizes, kinds and shapes are checked on the way in, since a submission could have
written anything into these files. Both sides use this module; it needs torch and numpy alone.
"""

import json
import math
import sys
from dataclasses import dataclass, fields, is_dataclass
from types import SimpleNamespace
from typing import Callable

import numpy as np
import torch
from torch import Tensor

LARGEST_BYTES = 64 * 2**20       # the tensors of one answer, together
LARGEST_TEXT = 4 * 2**20         # its structure, as JSON
LONGEST_STRING = 20_000
DEEPEST = 20                     # lists within lists
DTYPES = {name: getattr(torch, name) for name in (
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64",
    "complex128")}
# The library's small records that may be passed and returned, by their class's name.
RECORDS = ("Head", "Component", "Edge", "Heads", "SVD", "Prompts", "GPT2Config", "WeightEdit", "Circuit")


@dataclass(frozen=True)
class Reference:
    """An argument that the runner loads: kind "model" or "tokenizer", and the folder to load it from."""

    kind: str
    path: str


class BadValue(ValueError):
    """A value that cannot travel, or a text that is no value: says why."""


def pack(value: object) -> bytes:
    """A value as one line of JSON and then its tensors' bytes. Raises BadValue for one too large or too deep.

    Travels: None, bool, int, float, str, tensors, numpy arrays, lists, tuples and dicts of them, the library's
    RECORDS, a torch module (as its parameters by name). Anything else arrives as `Other`.
    """
    chunks: list[bytes] = []
    tree = packed(value, chunks, 0)
    text = json.dumps(tree)
    if len(text) > LARGEST_TEXT:
        raise BadValue("it has too many parts")
    return text.encode() + b"\n" + b"".join(chunks)


def packed(value: object, chunks: list[bytes], depth: int) -> list:
    """One value as [kind, content], its tensors' bytes added to `chunks`."""
    if depth > DEEPEST:
        raise BadValue(f"it is nested more than {DEEPEST} deep")
    inner = lambda each: packed(each, chunks, depth + 1)
    if value is None or type(value) in (bool, float) or type(value) is int and abs(value) < 2**63:
        return ["plain", value]
    if isinstance(value, str):
        return ["plain", str(value)[:LONGEST_STRING]]
    if isinstance(value, Tensor):
        return packed_tensor("tensor", value, chunks)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc":
        return packed_tensor("array", torch.from_numpy(np.array(value)), chunks)
    if isinstance(value, torch.nn.Module):
        return ["dict", [[["plain", name], inner(each)] for name, each in value.named_parameters()]]
    if isinstance(value, Reference):
        return [value.kind, value.path]
    if is_dataclass(value) and type(value).__name__ in RECORDS:
        contents = [[field.name, inner(getattr(value, field.name))] for field in fields(value)]
        return ["record", type(value).__name__, contents]
    if isinstance(value, (list, tuple)):
        return ["tuple" if isinstance(value, tuple) else "list", [inner(each) for each in value]]
    if isinstance(value, dict):
        return ["dict", [[inner(key), inner(each)] for key, each in value.items()]]
    return ["other", f"{type(value).__module__}.{type(value).__qualname__}"[:200].removeprefix("builtins.")]


def packed_tensor(kind: str, x: Tensor, chunks: list[bytes]) -> list:
    """A tensor as [kind, dtype, shape, first byte]."""
    name = str(x.dtype).removeprefix("torch.")
    if name not in DTYPES or x.device.type == "meta":
        return ["other", f"tensor of {x.dtype} on {x.device}"]
    start = sum(map(len, chunks))
    if start + x.numel() * x.element_size() > LARGEST_BYTES:
        raise BadValue(f"a tensor of shape {list(x.shape)} is too large: an answer may hold {LARGEST_BYTES >> 20} MB")
    x = x.detach().cpu()
    x = (x if x.layout is torch.strided else x.to_dense()).resolve_conj().resolve_neg()
    chunks.append(x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return [kind, name, list(x.shape), start]


def unpack(data: bytes, load: Callable[[str, str], object] | None = None) -> object:
    """The value again. load(kind, path): makes what a `Reference` stands for; without it none is allowed.

    Raises BadValue.
    """
    text, _, blob = data.partition(b"\n")
    if len(text) > LARGEST_TEXT:
        raise BadValue("it has too many parts")
    try:
        return unpacked(json.loads(text), blob, load or no_such_kind)
    except BadValue:
        raise
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, RuntimeError, OverflowError) as error:
        raise BadValue(f"damaged ({type(error).__name__}: {error})"[:300]) from error


def unpacked(tree: list, blob: bytes, load: Callable) -> object:
    """One value from [kind, content ...]."""
    kind, content = tree[0], tree[1]
    if kind == "plain":
        if content is not None and type(content) not in (bool, int, float, str):
            raise BadValue(f"a plain value is no {type(content).__name__}")
        return content
    if kind in ("tensor", "array"):
        x = unpacked_tensor(*tree[1:], blob)
        return x if kind == "tensor" else x.numpy()
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](unpacked(each, blob, load) for each in content)
    if kind == "dict":
        return {unpacked(key, blob, load): unpacked(each, blob, load) for key, each in content}
    if kind == "record":
        return make_record(str(content), {str(name): unpacked(each, blob, load) for name, each in tree[2]})
    if kind == "other":
        return Other(str(content)[:200])
    return load(str(kind), content)


def unpacked_tensor(name: str, shape: list, start: int, blob: bytes) -> Tensor:
    """A tensor of its own memory, once it is sure that the bytes are there."""
    if not all(type(n) is int and 0 <= n < 2**40 for n in [start, *shape]) or len(shape) > 16:
        raise BadValue(f"a tensor has the impossible shape {str(shape)[:100]}")
    dtype = DTYPES[name]
    n_bytes = math.prod(shape) * dtype.itemsize
    if start + n_bytes > len(blob):
        raise BadValue(f"a tensor of shape {shape} is longer than its file")
    if n_bytes == 0:
        return torch.empty(shape, dtype=dtype)
    part = torch.frombuffer(bytearray(blob[start:start + n_bytes]), dtype=torch.uint8)
    return (part != 0 if name == "bool" else part.view(dtype)).reshape(shape)


def make_record(kind: str, contents: dict[str, object]) -> object:
    """One of the library's records; its fields alone where the library is not loaded (in assignments 1 to 3)."""
    if kind not in RECORDS:
        no_such_kind(kind, contents)
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "tinyheads" and hasattr(module, kind):
            return getattr(module, kind)(**contents)
    return SimpleNamespace(**contents)


def no_such_kind(kind: str, content: object) -> None:
    """What `load` is where nothing may be loaded."""
    raise BadValue(f"{kind[:50]!r} is no kind of answer")


class Other:
    """Stands for a value that cannot travel (a function, a generator ...). name: its type's."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"
