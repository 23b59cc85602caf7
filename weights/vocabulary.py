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
    merges: list[tuple[bytes, bytes]] = []

    def pieces(piece: bytes) -> list[bytes]:
        return [encoding.decode_single_token_bytes(token) for token in encoding._encode_single_piece(piece)]

    encoding = th.Tokenizer(merges).encoding
    for piece in sorted((piece for piece in trained if len(piece) > 1), key=trained.get):
        merges.append(tuple(pieces(piece)))
        encoding = th.Tokenizer(merges).encoding
    for word in dict.fromkeys(vocabulary):
        parts = pieces(word.encode())
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
        encoding = th.Tokenizer(merges).encoding
    tokenizer = th.Tokenizer(merges)
    split = [word for word in vocabulary if len(tokenizer.encode(word)) != 1]
    assert not split, f"words in more than one token: {split}"
    return tokenizer
