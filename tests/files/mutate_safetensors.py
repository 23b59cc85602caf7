"""safetensors files mutated with their structure in mind, and two verdicts on each: tinyheads' and the library's.

The official library (0.8.0) is the reference: what it rejects must be rejected; what it accepts must have the same
names, dtypes, shapes and bytes. The exceptions, refused on purpose, stand in tinyheads/safetensors_file.py; KNOWN tells
them by tinyheads' message. The library's verdicts on some thousands of these files lie in golden/verdicts.npz, since it
is no dependency of the tests.
"""

import json
import random
import re
import zlib
from pathlib import Path

import numpy as np

import tinyheads as th
from file_writers import parse_safetensors
from tinyheads.files.array_file import map_file, read_array, stored_bytes
from tinyheads.files.safetensors_file import read_safetensors

GOLDEN = Path(__file__).parents[1] / "golden"
KNOWN = re.compile(r"has the name .* twice|does not begin with '\{'|'[^']*' needs dtype, shape and data_offsets|"
                   r"of unknown dtype \"\{'\w+': None\}\"|values, too many for a GPT-2", re.DOTALL)


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


# --- the header as lists of (key, value), both JSON text, so that it can be any text at all ---------------

ZOO = [("a", "F32", [2, 3]), ("b", "F16", [5]), ("c", "BF16", [3, 1]), ("d", "I64", [1]), ("e", "U8", [0]),
       ("f", "F32", []), ("g", "BOOL", [4]), ("h", "F64", [2]), ("i", "F32", [0, 7]), ("j", "F4", [4]),
       ("", "I16", [2])]
BITS = {"F32": 32, "F16": 16, "BF16": 16, "I64": 64, "U8": 8, "BOOL": 8, "F64": 64, "F4": 4, "I16": 16}
DTYPES = ["F32", "F16", "BF16", "F64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "F4", "F6_E2M3",
          "F8_E4M3", "F8_E5M2", "F8_E8M0", "C64", "f32", "F33", "", "F8_E4M3FNUZ"]
NUMBERS = ["0", "1", "2", "4", "-1", "-0", "8", "3.0", "2e0", "1E2", "0.5", "18446744073709551615",
           "18446744073709551616", "9223372036854775808", "4294967296", "1" + "0" * 30, "1" + "0" * 308,
           "1" + "0" * 309, "9" * 5000, "1e400", "-1e999", "1e-999", "NaN", "Infinity", "-Infinity", "01", "+1", "1.",
           ".5", "0x10", "1_0", "true", "null", '"1"', "[]", "-", ""]
AXES = ["1,", "1,1,", "1," * 70, "0,", "0,9223372036854775808,2,", "9223372036854775808,2,0,",
        "18446744073709551615,0,"]
TEXTS = ['"x"', '"\\ud800"', '"\\ude42\\ud83d"', '"\\ud83d\\ude42"', '"\\u0000"', '"\\x"', '"\\u12"', '"\\u+123"',
         '"\t"', "'x'", '"é🙂"', '"', '"\\ud83d\\u0041"', '"\\/"', '"\x7f"']
METADATA = ["null", "{}", "[]", '{"a":1}', '{"a":null}', '{"a":"1","a":"2"}', '{"a":"\\ud800"}', '"x"', '{"":"é"}']


def zoo() -> tuple[list, bytes]:
    """A small file of many dtypes: its header's rows, and its data."""
    rows, at = [('"__metadata__"', '{"format":"pt"}')], 0
    for name, dtype, shape in ZOO:
        end = at + int(np.prod(shape)) * BITS[dtype] // 8
        rows.append((json.dumps(name), fields_of(dtype, shape, at, end)))
        at = end
    return rows, bytes(i % 251 for i in range(at))


def fields_of(dtype: str, shape: list[int], begin: int, end: int) -> list[tuple[str, str]]:
    return [('"dtype"', f'"{dtype}"'), ('"shape"', json.dumps(shape)), ('"data_offsets"', f"[{begin},{end}]")]


def gpt2_rows() -> tuple[list, bytes]:
    """The golden model "one", likewise."""
    header, data = parse_safetensors((GOLDEN / "one" / "model.safetensors").read_bytes())
    rows = [(json.dumps(name), json.dumps(fields) if name == "__metadata__" else
             fields_of(fields["dtype"], fields["shape"], *fields["data_offsets"])) for name, fields in header.items()]
    return rows, data


def nested(rng: random.Random) -> str:
    """A value inside 1 to 3000 lists or objects; the library's limit is 127 in all."""
    depth = rng.choice([1, 2, 50, 120, 123, 124, 125, 126, 127, 128, 129, 200, 3000])
    opening, closing = rng.choice([("[", "]"), ('{"x":', "}"), ('[{"y":', "}]")])
    return opening * depth + rng.choice(["1", "", "null"]) + closing * rng.choice([depth, depth, depth, depth - 1])


def odd_text(rng: random.Random) -> str:
    """A value of any kind."""
    return rng.choice([rng.choice(NUMBERS), rng.choice(TEXTS), nested(rng), "{}", "[]", "null", "true", '{"a":1,"a":2}',
                       f"[{rng.choice(NUMBERS)},{rng.choice(NUMBERS)}]"])


def mutated_fields(fields: list, rng: random.Random) -> list | str:
    """One tensor's row with a number, a name or a whole field changed; or not an object any more."""
    fields = list(fields)
    i = rng.randrange(len(fields))
    key, value = fields[i]
    kind = rng.choice(["number", "number", "number", "number", "value", "dtype", "axis", "drop", "again", "extra",
                       "order", "key", "form"])
    if kind == "number" and (numbers := list(re.finditer(r"\d+", value))):
        at = rng.choice(numbers)
        near = str(int(at[0]) + rng.choice([-8, -4, -2, -1, 1, 2, 4, 8])) if len(at[0]) < 20 else "7"
        fields[i] = (key, value[:at.start()] + rng.choice([near, near, rng.choice(NUMBERS)]) + value[at.end():])
    elif kind == "value":
        fields[i] = (key, odd_text(rng))
    elif kind == "dtype":
        one, other = f'"{rng.choice(DTYPES)}"', f'"{rng.choice(DTYPES)}"'
        fields[0] = (fields[0][0], rng.choice([one, other, '{"F32":null}', "17"]))
    elif kind == "axis":  # the same size, cut otherwise
        fields[1] = (fields[1][0], fields[1][1].replace("[", "[" + rng.choice(AXES)).replace(",]", "]"))
    elif kind == "drop":
        del fields[i]
    elif kind == "again":
        fields.insert(rng.randrange(len(fields) + 1), rng.choice([fields[i], (key, odd_text(rng))]))
    elif kind == "extra":
        fields.insert(rng.randrange(len(fields) + 1), (rng.choice(['"x"', '"x"', *TEXTS]), odd_text(rng)))
    elif kind == "order":
        rng.shuffle(fields)
    elif kind == "key":
        fields[i] = (rng.choice(['"Dtype"', '"offsets"', "dtype", "1", "null", '"d\\u0074ype"', *TEXTS]), value)
    elif kind == "form":
        return rng.choice(["[" + ",".join(value for _, value in fields) + "]", odd_text(rng)])
    return fields


def shifted(fields: list, by: int) -> list:
    """The row with both offsets moved."""
    moved = [re.sub(r"\d{1,18}", lambda n: str(int(n[0]) + by), value) for _, value in fields]
    return [(key, new if "offsets" in key else value) for (key, value), new in zip(fields, moved)]


def mutated_rows(rows: list, rng: random.Random) -> list:
    """The header's rows with one to three of them changed, doubled, moved, renamed or dropped."""
    rows = list(rows)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
        (key, value), other = rows[i], rows[j]
        kind = rng.choice(["fields", "fields", "fields", "fields", "name", "drop", "again", "hole", "swap", "order",
                           "metadata", "row"])
        if kind == "fields" and isinstance(value, list) and value:
            rows[i] = (key, mutated_fields(value, rng))
        elif kind == "name":
            rows[i] = (rng.choice([other[0], '"__metadata__"', '""', "1", "null", "a", '"\\u0061"', *TEXTS]), value)
        elif kind == "drop" and len(rows) > 1:
            del rows[i]
        elif kind == "again":
            rows.insert(j, rng.choice([(key, value), (key, other[1]), ('"new"', value)]))
        elif kind == "hole":
            by = rng.choice([-4, -1, 1, 4, 8])
            rows = [(k, shifted(v, by) if isinstance(v, list) and n >= i else v) for n, (k, v) in enumerate(rows)]
        elif kind == "swap":
            rows[i], rows[j] = (key, other[1]), (other[0], value)
        elif kind == "order":
            rng.shuffle(rows)
        elif kind == "metadata":
            rows.insert(j, ('"__metadata__"', rng.choice(METADATA)))
            rows = [row for n, row in enumerate(rows) if n == j or "metadata" not in row[0] or rng.random() < 0.3]
        elif kind == "row":
            rows[i] = (key, odd_text(rng))
    return rows


def mutated_safetensors(base: tuple[list, bytes], rng: random.Random) -> bytes:
    """A file mutated in its rows, the text around them, its data's length, its header's length, or its bytes."""
    rows, data = base
    if rng.random() < 0.8:
        rows = mutated_rows(rows, rng)
    between = rng.choice([",", ",", ", ", ",\n", "\t,\r\n"])
    written = [key + ":" + (value if isinstance(value, str) else "{" + ",".join(map(":".join, value)) + "}")
               for key, value in rows]
    header = ("{" + between.join(written) + "}").encode("utf-8")
    if rng.random() < 0.15:
        header = rng.choice([header + b" " * rng.randrange(9), b" " + header, b"\xef\xbb\xbf" + header, header + b"\0",
                             header[:-1], header + b"}", header.replace(b"}", b",}", 1), b"[" + header + b"]", b"",
                             header + b"\n\t\r", header + b"\x0c", header.replace(b'"', b'"\xff', 1),
                             header.replace(b'"', b'"\xc3\xa9', 1), header.replace(b'"', b'"\xed\xa0\x80', 1)])
    if rng.random() < 0.15:
        data = rng.choice([data + b"\0", data + bytes(8), data[:-1], data[:-8], b"", data[1:], data * 2])
    n = len(header)
    if rng.random() < 0.1:
        n = rng.choice([n - 1, n + 1, n + 8, n + len(data), n + len(data) + 1, 0, 1, 2, 100_000_001, 2**31, 2**32 + n,
                        2**63, 2**64 - 1, 2**64 - 8])
    raw = (n % 2**64).to_bytes(8, "little") + header + data
    return mutated_bytes(raw, rng) if rng.random() < 0.15 else raw


def checksum(tensors: list[tuple[str, str, tuple, bytes]]) -> int:
    """One number for what a file holds, never 0."""
    return zlib.crc32(repr(sorted(tensors)).encode("utf-8")) or 1


def tinyheads_verdict(path: Path) -> tuple[int, str]:
    """0 and the message where the file is refused, else the checksum of what is in it."""
    try:
        entries = read_safetensors(path)
        mapped = map_file(path)
        found = [(name, e.dtype, tuple(e.shape), stored_bytes(e, mapped).tobytes()) for name, e in entries.items()]
        for name, e in entries.items():  # as float32, where it can be that: no exception but ours
            try:
                read_array(e, mapped, name)
            except th.CheckpointError:
                pass  # of another dtype, or of more axes than NumPy has
        return checksum(found), ""
    except th.CheckpointError as error:
        return 0, str(error)


def library_verdict(raw: bytes) -> int:
    """The same by the official library."""
    import safetensors
    try:
        found = safetensors.deserialize(raw)
        return checksum([(name, each["dtype"], tuple(each["shape"]), bytes(each["data"])) for name, each in found])
    except safetensors.SafetensorError:
        return 0


def agree(theirs: int, ours: int, message: str) -> bool:
    """Whether tinyheads' verdict is the library's, or a stricter one for a reason that is known."""
    return ours == theirs or ours == 0 and KNOWN.search(message) is not None
