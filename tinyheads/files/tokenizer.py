"""GPT-2's byte-pair encoding: text to token ids and back.

Text is split into words, each word into bytes, and neighbouring pieces are merged in the order in
which the merges were learned (Sennrich et al. 2016; on bytes: Radford et al. 2019). tiktoken splits
and merges, with the vocabulary that it is given here: nothing is downloaded and nothing is cached.
`tokenizer_files.py` reads the vocabulary from OpenAI's or Hugging Face's files, and writes it.

Hugging Face's libraries merge by pairs: a merge names two pieces, and only those two are joined.
tiktoken merges by results: any two neighbours are joined whose whole is in the vocabulary. Both give
the same ids where each piece of the vocabulary can arise by its own merge alone. `reachable` gives
tiktoken the pieces for which that holds; the others never arise by Hugging Face's rule either.
"""

import operator
import re
import unicodedata
from dataclasses import dataclass
from typing import Iterator

import tiktoken

from tinyheads.errors import TokenizerError

END_OF_TEXT = "<|endoftext|>"
# How GPT-2 splits text into words: contractions, letters, digits, other signs, white space.
# OpenAI's was '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+; tiktoken's form of it,
# below, splits every string alike and backtracks only through white space in front of a word.
SPLIT = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


@dataclass(frozen=True)
class AddedToken:
    """A string that is one token, found in a text before the text is split into words.

    special: a sign to the model, as `<|endoftext|>` is, which may also stand in a text as plain text.
    normalized: looked for in the normalized text (see `Tokenizer`), not in the text as it is given.
    """

    content: str
    id: int
    special: bool = True
    normalized: bool = False


class Tokenizer:
    """Text to ids and back.

    merges: pairs of pieces that are joined, as bytes, in the order in which they were learned.
    ids: the id of each byte and of each merge's result, rising in the order of the merges; without it, GPT-2's way:
    the bytes have 0 to 255, in the order of `byte_alphabet`, and the merges go on from 256.
    added: tokens besides those; without it, `<|endoftext|>` alone, with the next id.
    nfc: whether text is normalized first (Unicode's NFC: e and a combining accent become é).
    n_vocab: ids are below it; end_of_text: the id of `<|endoftext|>`, or None. Raises TokenizerError.
    """

    def __init__(self, merges: list[tuple[bytes, bytes]], ids: dict[bytes, int] | None = None,
                 added: list[AddedToken] | None = None, nfc: bool = False):
        bytes_in_order = [bytes([byte]) for byte in byte_alphabet().values()]
        if ids is None:
            ids = {piece: i for i, piece in enumerate([*bytes_in_order, *(left + right for left, right in merges)])}
        self.merges, self.ids, self.nfc = list(merges), dict(ids), nfc
        self.added = [AddedToken(END_OF_TEXT, max(ids.values(), default=-1) + 1)] if added is None else list(added)
        self.piece_of = {}
        for piece, token in [*ids.items(), *((token.content.encode("utf-8"), token.id) for token in self.added)]:
            if self.piece_of.setdefault(token, piece) != piece:
                raise TokenizerError(f"the id {token} stands for two pieces, {self.piece_of[token]!r} and {piece!r}")
        self.n_vocab = max(self.piece_of, default=-1) + 1
        self.end_of_text = next((token.id for token in self.added if token.content == END_OF_TEXT), None)
        # A vocabulary that was trained without the 256 bytes lacks some. They get ids here that `encode` refuses.
        lacking = {piece: self.n_vocab + i for i, piece in enumerate(bytes_in_order) if piece not in ids}
        # `encode` finds the added tokens itself; tiktoken is given one that it is never asked for.
        self.encoding = tiktoken.Encoding("tinyheads", pat_str=SPLIT, special_tokens={END_OF_TEXT: self.n_vocab + 256},
                                          mergeable_ranks={**lacking, **reachable(self.merges, ids)})

    @classmethod
    def bytes_only(cls) -> "Tokenizer":
        """A tokenizer with no merges, one id a byte: for models of random weights, where no files are."""
        return cls([])

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text.

        `<|endoftext|>` and other special tokens are plain text unless `special`, then one id each: a text from
        elsewhere cannot end the document. (Hugging Face's default is the other way, as if `special` were True;
        its `split_special_tokens=True` is our False.) Added tokens that are not special are always one id.
        Raises TokenizerError.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"text must be a str, not {type(text).__name__}")
        ids = []
        for part in self.parts(text, special):
            ids.extend([part.id] if isinstance(part, AddedToken) else self.encode_plain(part))
        return ids

    def parts(self, text: str, special: bool) -> Iterator[str | AddedToken]:
        """The added tokens in a text, and the normalized text between them."""
        as_given = {token.content: token for token in self.added if not token.normalized}
        normalized = {self.normalize(token.content): token for token in self.added if token.normalized}
        for part in cut(text, as_given, special):
            if isinstance(part, AddedToken):
                yield part
            else:
                yield from cut(self.normalize(part), normalized, special)

    def normalize(self, text: str) -> str:
        """The text as it is encoded."""
        return unicodedata.normalize("NFC", text) if self.nfc else text

    def encode_plain(self, text: str) -> list[int]:
        """The ids of a text in which no added token is looked for."""
        try:
            ids = self.encoding.encode(text, allowed_special=set(), disallowed_special=())
        except ValueError as error:  # after a million blanks in a row, tiktoken's expression gives up
            raise TokenizerError(f"a text of {len(text)} characters cannot be split into words: {error}") from error
        if ids and max(ids) >= self.n_vocab:
            lacking = self.encoding.decode_single_token_bytes(max(ids))
            raise TokenizerError(f"the text {text[:50]!r} holds the byte {lacking!r} (in UTF-8), for which this "
                                 f"vocabulary has no token: it was trained without an initial alphabet")
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of ids; bytes that are not valid UTF-8 come out as U+FFFD. Raises TokenizerError."""
        try:
            ids = [operator.index(token) for token in ids]
        except TypeError as error:
            raise TokenizerError(f"ids must be a list of whole numbers: {error}") from error
        for token in ids:
            if not 0 <= token < self.n_vocab:
                raise TokenizerError(f"id {token} is outside the vocabulary, 0 to {self.n_vocab - 1}")
            if token not in self.piece_of:
                raise TokenizerError(f"id {token} stands for no text: this vocabulary leaves it out")
        return b"".join(self.piece_of[token] for token in ids).decode("utf-8", errors="replace")

    def pieces(self, ids: list[int]) -> list[str]:
        """The text of each id by itself, for labels in figures."""
        return [self.decode([token]) for token in ids]


def cut(text: str, added: dict[str, AddedToken], special: bool) -> Iterator[str | AddedToken]:
    """The text's parts: added tokens, of which the first and longest counts, and what lies between them."""
    longest_first = "|".join(re.escape(content) for content in sorted(added, key=len, reverse=True))
    start = 0
    for match in re.finditer(longest_first, text) if added else []:
        token = added[match[0]]
        if special or not token.special:
            if match.start() > start:
                yield text[start:match.start()]
            yield token
            start = match.end()
    if start < len(text):
        yield text[start:]


def reachable(merges: list[tuple[bytes, bytes]], ids: dict[bytes, int]) -> dict[bytes, int]:
    """The pieces that can arise when text is merged, and their ids. Raises TokenizerError.

    Refused are a merge of pieces that no merge before it makes, one whose result has no id, one that stands there
    twice, and ids that do not rise in the order of the merges (tiktoken takes the lower id for the earlier merge).
    """
    made_at = {piece: -1 for byte in range(256) if (piece := bytes([byte])) in ids}  # -1: in the beginning
    made_by, named, last = {}, set(made_at), -1
    if len(set(merges)) < len(merges):
        raise TokenizerError("a merge stands there twice")
    for left, right in merges:
        whole = left + right
        if left not in named or right not in named or whole not in ids:
            raise TokenizerError(f"the merge of {left!r} and {right!r} is impossible: " + (
                f"{whole!r} has no id" if whole not in ids else "they are not both bytes or made by merges before it"))
        named.add(whole)
        if whole in made_at or left not in made_at or right not in made_at:
            continue  # it is made already, or is never made
        if become_neighbours(left, right, made_by, made_at):
            if ids[whole] <= last:
                raise TokenizerError(f"the ids do not rise in the order of the merges: {whole!r} has {ids[whole]}, and "
                                     f"a merge before it {last}")
            made_at[whole], made_by[whole], last = len(made_by), (left, right), ids[whole]
    return {piece: ids[piece] for piece in made_at}


def become_neighbours(left: bytes, right: bytes, made_by: dict[bytes, tuple[bytes, bytes]],
                      made_at: dict[bytes, int]) -> bool:
    """Whether two pieces can stand side by side in a text once all merges in `made_by` have been made, in order.

    They cannot where one of those merges takes something of both. To see that, the merges that made the two pieces
    are undone at the border between them, the latest first: ab|cd, ab|c, b|c. At each step the two that meet there
    must not have been joined while they stood there, that is, before the merge that was undone last.
    """
    until, at_left, at_right = len(made_by), made_at[left], made_at[right]
    while made_at.get(left + right, until) >= until:
        if at_left > at_right:
            until, left = at_left, made_by[left][1]
            at_left = made_at[left]
        elif at_right >= 0:  # of two pieces by the same merge the left one is made first
            until, right = at_right + 1, made_by[right][0]
            at_right = made_at[right]
        else:
            return True  # single bytes, as in the beginning
    return False


def byte_alphabet() -> dict[str, int]:
    """The visible character that the files write for each byte, in the order of the bytes' ids in GPT-2.

    Printable characters of Latin-1 stand for themselves; the others, space and control bytes
    among them, are written as the characters from U+0100 on, so that no file has white space in a piece.
    """
    printable = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + i): byte for i, byte in enumerate(others)}}
