"""A tokenizer's vocabulary in files: OpenAI's, and the two kinds that Hugging Face's libraries write.

    tokenizer.json               everything in one file
    merges.txt and vocab.json    the merges, and each piece's id
    vocab.bpe and encoder.json   the same two as OpenAI named them

added_tokens.json and tokenizer_config.json may lie beside them. What they ask for that would give other ids than
GPT-2's way of encoding is refused by name. `tinyheads.save` writes tokenizer.json, which is complete in itself: no
two files have to fit each other.
"""

import json
from pathlib import Path

from tinyheads.errors import TokenizerError
from tinyheads.files.tokenizer import END_OF_TEXT, AddedToken, Tokenizer, byte_alphabet

KINDS = [["tokenizer.json"], ["merges.txt", "vocab.json"], ["vocab.bpe", "encoder.json"]]
FILES = [name for kind in KINDS for name in kind] + ["tokenizer_config.json", "added_tokens.json",
                                                     "special_tokens_map.json"]
SETTINGS = {  # of tokenizer.json: the values with which its ids are those of GPT-2's way of encoding
    "model.type": (None, "BPE"), "model.dropout": (None, 0), "model.continuing_subword_prefix": (None, ""),
    "model.end_of_word_suffix": (None, ""), "model.byte_fallback": (None, False), "model.ignore_merges": (None, False),
    "normalizer.type": (None, "NFC"), "pre_tokenizer.type": ("ByteLevel",), "pre_tokenizer.add_prefix_space": (False,),
    "pre_tokenizer.use_regex": (None, True), "decoder.type": ("ByteLevel",),
    "post_processor.type": (None, "ByteLevel", "TemplateProcessing")}
CONFIG_SETTINGS = {name: (None, False) for name in ["add_prefix_space", "add_bos_token", "add_eos_token"]}
ALPHABET = byte_alphabet()
WRITTEN = {byte: character for character, byte in ALPHABET.items()}
# For str.translate: each character of the alphabet becomes that of its byte's number, the rest of Latin-1 none of it.
TO_LATIN_1 = {**{number: 0xFFFF for number in range(256)}, **{ord(sign): byte for sign, byte in ALPHABET.items()}}


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a folder. Where files of several kinds are there, they must agree. Raises TokenizerError."""
    kinds = [kind for kind in KINDS if all((folder / name).exists() for name in kind)]
    if not kinds:
        there = " and ".join(name for name in FILES if (folder / name).exists())
        raise TokenizerError(f"{folder}: no tokenizer is there: a tokenizer needs "
                             f"{', or '.join(' and '.join(kind) for kind in KINDS)} in one folder; it has "
                             f"{there or 'none of them'}")
    first, *others = [read_kind(folder, kind) for kind in kinds]
    for kind, other in zip(kinds[1:], others):
        if other["ids"] != first["ids"] or other["merges"] != first["merges"]:
            differing = [piece for piece in sorted({**first["ids"], **other["ids"]})
                         if first["ids"].get(piece) != other["ids"].get(piece)]
            where = f"the ids of {differing[:3]}" if differing else "their merges"
            raise TokenizerError(f"{folder}: {' and '.join(kinds[0])} holds another tokenizer than "
                                 f"{' and '.join(kind)}; they differ in {where}. Keep the model's alone")
    try:
        return Tokenizer(**first)
    except TokenizerError as error:
        raise TokenizerError(f"{folder}: {misfit(kinds[0])}: {error}") from error


def misfit(kind: list[str]) -> str:
    """The beginning of the sentence that says why files hold no tokenizer."""
    return "tokenizer.json" if len(kind) == 1 else f"{' and '.join(kind)} do not belong together"


def read_kind(folder: Path, kind: list[str]) -> dict:
    """What files of one kind hold, with those beside them, as the arguments of `Tokenizer`."""
    try:
        found = json.loads(read_text(folder / kind[-1]))
        if kind == ["tokenizer.json"]:
            refuse_other_settings(folder / "tokenizer.json", found, SETTINGS)
            refuse_other_template(folder / "tokenizer.json", found.get("post_processor"))
            vocabulary, merges, listed = found["model"]["vocab"], found["model"]["merges"], found.get("added_tokens")
        else:
            vocabulary, merges, listed = found, merges_in(read_text(folder / kind[0])), []
        if any(type(token) is not int or not 0 <= token < 2**31 for token in vocabulary.values()):
            raise ValueError("an id is not a whole number")
        as_bytes = {written: to_bytes(written) for written in vocabulary}
        merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]
        lacking = next((piece for pair in merges for piece in pair if as_bytes.get(piece) is None), None)
        if lacking is not None:
            raise TokenizerError(f"{folder}: {misfit(kind)}: {lacking!r} is part of a merge, and no piece with an id")
        merges = [(as_bytes[left], as_bytes[right]) for left, right in merges]
        added = added_tokens(folder, vocabulary, [*(listed or []), *listed_beside(folder)])
    except TokenizerError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TokenizerError(f"{folder}: {' or '.join(kind)} is damaged ({error!r})") from error
    if END_OF_TEXT not in added and (END_OF_TEXT in vocabulary or kind != ["tokenizer.json"]):
        # As GPT-2's class in transformers does. In tokenizer.json, a complete list, it may be missing.
        added[END_OF_TEXT] = AddedToken(END_OF_TEXT, vocabulary.get(END_OF_TEXT, next_id(vocabulary, added)))
    pieces = {bytes([byte]) for byte in range(256)}.union(left + right for left, right in merges)
    ids = {}
    for written, token in vocabulary.items():
        if as_bytes[written] in pieces:
            ids[as_bytes[written]] = token
        elif written not in added:
            raise TokenizerError(f"{folder}: {misfit(kind)}: {written!r} has an id, and is neither a byte nor made by "
                                 f"a merge nor an added token")
    return {"merges": merges, "ids": ids, "added": list(added.values()),
            "nfc": kind == ["tokenizer.json"] and found.get("normalizer") is not None}


def added_tokens(folder: Path, vocabulary: dict[str, int], listed: list[dict]) -> dict[str, AddedToken]:
    """The added tokens that the files list, by their content; one that is listed twice counts once."""
    added: dict[str, AddedToken] = {}
    for entry in listed:
        content, token = entry["content"], int(entry["id"])
        content.encode("utf-8")
        for flag in ["single_word", "lstrip", "rstrip"]:
            if entry.get(flag):
                raise TokenizerError(f"{folder}: the added token {content!r} has {flag}, which tinyheads does not have")
        # Hugging Face's libraries number added tokens anew where the files say something else.
        expected = added[content].id if content in added else vocabulary.get(content, next_id(vocabulary, added))
        if token != expected or not content:
            raise TokenizerError(f"{folder}: the added token {content!r} has the id {token}; it should be {expected}")
        special = bool(entry.get("special", False))
        added.setdefault(content, AddedToken(content, token, special, bool(entry.get("normalized", not special))))
    return added


def next_id(vocabulary: dict[str, int], added: dict[str, AddedToken]) -> int:
    """The id of an added token that is not in the vocabulary."""
    return max([len(vocabulary), *(token.id + 1 for token in added.values())])


def listed_beside(folder: Path) -> list[dict]:
    """The added tokens that the files beside a vocabulary list, in the order of their ids."""
    listed = []
    if (config_path := folder / "tokenizer_config.json").exists():
        config = json.loads(read_text(config_path))
        refuse_other_settings(config_path, config, CONFIG_SETTINGS)
        listed += [{**entry, "id": int(token)} for token, entry in (config.get("added_tokens_decoder") or {}).items()]
    if (path := folder / "added_tokens.json").exists():
        listed += [{"content": content, "id": token} for content, token in json.loads(read_text(path)).items()]
    return sorted(listed, key=lambda entry: entry["id"])


def refuse_other_settings(path: Path, found: dict, settings: dict[str, tuple]) -> None:
    """Raise TokenizerError for a setting with which the ids would be others than GPT-2's way of encoding gives."""
    for name, allowed in settings.items():
        value = found
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else value
        if value not in allowed:
            raise TokenizerError(f"{path}: {name} is {str(value)[:100]!r}; tinyheads encodes as GPT-2 does, where it "
                                 f"is {' or '.join(repr(each) for each in allowed)}")


def refuse_other_template(path: Path, post_processor: dict | None) -> None:
    """Raise TokenizerError where a template puts tokens before or behind each text."""
    single = (post_processor or {}).get("single", [])
    if any("Sequence" not in part for part in single):
        raise TokenizerError(f"{path}: post_processor puts tokens of its own around a text ({str(single)[:100]}); "
                             f"tinyheads encodes as GPT-2 does, which adds none")


def read_text(path: Path) -> str:
    """A file's text, without the byte order mark that some editors put before it. Raises TokenizerError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read ({error.strerror or error})") from error


def merges_in(text: str) -> list[str]:
    """The lines of vocab.bpe or merges.txt, without the version in the first."""
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return lines[1:] if lines[0].startswith("#version") else lines


def to_bytes(written: str) -> bytes | None:
    """The bytes of a piece as the files write it; None where it is written otherwise, as an added token may be."""
    try:
        return written.translate(TO_LATIN_1).encode("latin-1")
    except UnicodeEncodeError:
        return None


def to_text(piece: bytes) -> str:
    """A piece as the files write it."""
    return "".join(WRITTEN[byte] for byte in piece)


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files from which `read_tokenizer`, and transformers' AutoTokenizer, make a tokenizer with equal ids."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocabulary = {to_text(piece): token for piece, token in tokenizer.ids.items()}
    vocabulary.update({token.content: token.id for token in tokenizer.added})  # with an id here it keeps that id
    whole = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": token.id, "content": token.content, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": token.normalized, "special": token.special}
                         for token in tokenizer.added],
        "normalizer": {"type": "NFC"} if tokenizer.nfc else None,
        "pre_tokenizer": byte_level, "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])),
                  "merges": [f"{to_text(left)} {to_text(right)}" for left, right in tokenizer.merges]},
    }
    signs = {} if tokenizer.end_of_text is None else {f"{name}_token": END_OF_TEXT for name in ["bos", "eos", "unk"]}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **signs}
    return {"tokenizer.json": json.dumps(whole, ensure_ascii=False).encode("utf-8"),
            "tokenizer_config.json": json.dumps(config, indent=2).encode("utf-8")}
