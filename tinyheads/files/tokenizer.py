"""GPT-2's byte-pair encoding: text to token ids and back, through tiktoken, from local files.

Text is split into words, each word into bytes, and neighbouring pieces are merged in the order in
which the merges were learned (Sennrich et al. 2016; on bytes: Radford et al. 2019). The files are
OpenAI's: `vocab.bpe` lists the merges, `encoder.json` maps each piece to its id. tiktoken does the
merging; here the files are read, checked against each other and handed over, so that nothing is
downloaded and nothing is cached.
"""

import json
import operator
from pathlib import Path

import tiktoken

from tinyheads.errors import TokenizerError

END_OF_TEXT = "<|endoftext|>"
# How GPT-2 splits text into words: contractions, letters, digits, other signs, white space.
# OpenAI's was '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+; tiktoken's form of it,
# below, splits every string alike and backtracks only through white space in front of a word.
SPLIT = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


class Tokenizer:
    """Text to ids and back. n_vocab: number of ids; end_of_text: the id of `<|endoftext|>`.

    ranks: each piece of text, as bytes, and its id: the 256 bytes first, then the merges in order.
    """

    def __init__(self, ranks: dict[bytes, int], files: dict[str, bytes] | None = None):
        self.n_vocab = len(ranks) + 1
        self.end_of_text = len(ranks)
        self.files = files or {}  # the originals, so that `save` can put them beside a model
        self.encoding = tiktoken.Encoding("tinyheads", pat_str=SPLIT, mergeable_ranks=ranks,
                                          special_tokens={END_OF_TEXT: self.end_of_text})

    @classmethod
    def bytes_only(cls) -> "Tokenizer":
        """A tokenizer with no merges, one id a byte: for models of random weights, where no files are."""
        return cls({bytes([byte]): i for i, byte in enumerate(byte_alphabet().values())})

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text. `<|endoftext|>` is plain text unless `special`, then one id of its own."""
        if not isinstance(text, str):
            raise TokenizerError(f"text must be a str, not {type(text).__name__}")
        try:
            return self.encoding.encode(text, allowed_special="all" if special else set(), disallowed_special=())
        except ValueError as error:  # after a million blanks in a row, tiktoken's expression gives up
            raise TokenizerError(f"a text of {len(text)} characters cannot be split into words: {error}") from error

    def decode(self, ids: list[int]) -> str:
        """The text of ids; bytes that are not valid UTF-8 come out as U+FFFD. Raises TokenizerError."""
        try:
            ids = [operator.index(token) for token in ids]
        except TypeError as error:
            raise TokenizerError(f"ids must be a list of whole numbers: {error}") from error
        for token in ids:
            if not 0 <= token < self.n_vocab:
                raise TokenizerError(f"id {token} is outside the vocabulary, 0 to {self.n_vocab - 1}")
        return self.encoding.decode(ids)

    def pieces(self, ids: list[int]) -> list[str]:
        """The text of each id by itself, for labels in figures."""
        return [self.decode([token]) for token in ids]


def read_ranks(folder: Path, vocab_bpe: bytes, encoder_json: bytes) -> dict[bytes, int]:
    """The pieces and their ids out of OpenAI's two files. Raises TokenizerError where they disagree."""
    alphabet = byte_alphabet()

    def to_bytes(written: str) -> bytes:
        return bytes(alphabet[character] for character in written)

    ranks = {bytes([byte]): i for i, byte in enumerate(alphabet.values())}
    try:
        for line in vocab_bpe.decode("utf-8").split("\n")[1:-1]:  # the first line is a version, the last is empty
            left, right = line.split()
            piece = to_bytes(left) + to_bytes(right)
            if piece in ranks:
                raise ValueError(f"the merge {line!r} makes a piece that is there already")
            ranks[piece] = len(ranks)
        written = json.loads(encoder_json.decode("utf-8"))
        by_encoder = {to_bytes(piece): token for piece, token in written.items() if piece != END_OF_TEXT}
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise TokenizerError(f"{folder}: vocab.bpe or encoder.json is damaged ({error!r})") from error
    if by_encoder != ranks or written.get(END_OF_TEXT, len(ranks)) != len(ranks):
        differing = [piece for piece in sorted({**ranks, **by_encoder}) if by_encoder.get(piece) != ranks.get(piece)]
        raise TokenizerError(f"{folder}: vocab.bpe and encoder.json do not belong together; they differ in the ids of "
                             f"{differing[:3] or END_OF_TEXT}")
    return ranks


def byte_alphabet() -> dict[str, int]:
    """The visible character that OpenAI's files write for each byte, in the order of the bytes' ids.

    Printable characters of Latin-1 stand for themselves; the others, space and control bytes
    among them, are written as the characters from U+0100 on, so that no file has white space in a piece.
    """
    printable = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + i): byte for i, byte in enumerate(others)}}
