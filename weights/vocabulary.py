"""The bundled model's vocabulary: a byte-pair encoding in which every word of the tasks is one token."""

from tiktoken._educational import bpe_train

import tinyheads as th
from tinyheads import words
from tinyheads.files.tokenizer import SPLIT

OTHER_WORDS = ("To : . , Done Still to the The one is When After While Then and went were at gave a found took from "
               "Then").split()


def make_tokenizer(n_frequent: int = 200) -> th.Tokenizer:
    """A byte-pair vocabulary in which every word of the tasks is one token, behind a blank and at a text's start.

    tiktoken's own trainer makes the first merges, by frequency; then each word that is still in pieces has them
    merged from left to right. Later merges cannot undo earlier ones, which always go first.
    """
    vocabulary = [f" {word}" for word in words.ITEMS + words.ORDINALS + words.NAMES + words.PLACES + words.THINGS
                  + words.VERBS + OTHER_WORDS] + words.NAMES + OTHER_WORDS
    trained = bpe_train("".join(vocabulary), 256 + n_frequent, SPLIT, visualise=None)
    merges: dict[bytes, tuple[bytes, bytes]] = {}  # a new token, and the two that make it, in the order of ranks
    for piece in sorted((piece for piece in trained if len(piece) > 1), key=trained.get):
        merges[piece] = tuple(pieces(piece, merges))
    for word in dict.fromkeys(vocabulary):
        parts = pieces(word.encode(), merges)
        while len(parts) > 1:
            merges[parts[0] + parts[1]] = parts[0], parts[1]
            parts[:2] = [parts[0] + parts[1]]
    tokenizer = th.Tokenizer(list(merges.values()))
    split = [word for word in vocabulary if len(tokenizer.encode(word)) != 1]
    assert not split, f"words in more than one token: {split}"
    return tokenizer


def pieces(word: bytes, merges: dict[bytes, tuple[bytes, bytes]]) -> list[bytes]:
    """The tokens that these merges make of a word's bytes: again and again, the earliest merge that fits."""
    ranks = {made: rank for rank, made in enumerate(merges)}
    parts = [bytes([byte]) for byte in word]
    while fitting := [(ranks[a + b], i) for i, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in ranks]:
        _, i = min(fitting)
        parts[i:i + 2] = [parts[i] + parts[i + 1]]
    return parts
