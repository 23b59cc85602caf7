"""The tokenizer gives tiktoken's ids for every string, from local files alone."""

import json
import random
import socket
import tempfile

import numpy as np
import pytest
import tiktoken
import tiktoken.load
import torch

import tinyheads as th

# encoder.py of openai/gpt-2
OPENAIS_SPLIT = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
END = "<|endoftext|>"
TEXTS = [
    "", " ", "  ", "Hello world", "Hello  world ", "\n", "\r\n\r\n", "\t\t x", "a\u00A0b\u2003c\u3000d\u0085e",
    "x" * 3000,
    "don't we'll I'VE they're it's 'twas 'S ''s",
    "3.14159 1,000,000 ½ ² ٣ Ⅷ", "naïve café Ångström", "e\u0301 a\u0308\u0323 \u0301",
    "日本語のテキスト", "Привет мир", "שלום עולם", "नमस्ते दुनिया", "🙂", "👩‍👩‍👧‍👦 🇳🇱 👍🏽", 
    "\u200b\u200d\ufeff\u202e", "\0\x01\x7f\x80\xff",
    "\ud800", "a\udfffb", "\ud83d\ude42", "\udc00\ud800", "\U0010ffff\ue000\ufffe",
    "def f(x):\n    return x  # comment\n\n\n",
    " " * 1000, " " * 1000 + "a", "a" + "\n" * 501, " \n" * 300, "\t" * 255 + "end", "a  \n  b",
    "…—‘’“”", "$$$ %%% ### @@@!?", END,
    f"a{END}b", f"{END}{END}", "<|endoftext|", "<|fim_prefix|>", " <|endoftext|> "]


@pytest.fixture(scope="module")
def ours(gpt2_folder):
    return th.load_tokenizer(gpt2_folder)


@pytest.fixture(scope="module")
def theirs(gpt2_folder):
    """tiktoken's own loader of the same files, with OpenAI's own expression."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")
        ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(str(gpt2_folder / "vocab.bpe"),
                                                              str(gpt2_folder / "encoder.json"))
    return tiktoken.Encoding("reference", pat_str=OPENAIS_SPLIT, mergeable_ranks=ranks, special_tokens={END: 50256})


def random_text(rng):
    """Runs of characters from all over Unicode, white space and lone surrogates among them."""
    kinds = [lambda: chr(rng.randrange(32, 127)), lambda: chr(rng.randrange(0x250)), lambda: chr(rng.randrange(0x3000)),
             lambda: chr(rng.randrange(0x110000)), lambda: rng.choice(" \n\t\r\u00a0\u2028\u3000\x1c\x85"),
             lambda: rng.choice("'sdtmlrve "), lambda: chr(rng.randrange(0x300, 0x370)),
             lambda: chr(rng.randrange(0xD800, 0xE000)), lambda: chr(rng.randrange(0x1F300, 0x1FAFF)),
             lambda: rng.choice("0123456789²¼٠९Ⅳ"), lambda: rng.choice([END, "<|", "|>", "'ll", "'LL", " the", "ing"])]
    return "".join(rng.choice(kinds)() * 1 if rng.random() < 0.8 else rng.choice(kinds)() * rng.randrange(1, 20)
                   for _ in range(rng.randrange(1, 30)))


# --- OpenAI's files ----------------------------------------------------------------------------


def test_ids_are_tiktokens_on_every_kind_of_text(ours, theirs):
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode_ordinary(text), text[:50]


def test_ids_are_tiktokens_on_thousands_of_random_texts(ours, theirs):
    rng = random.Random(0)
    for _ in range(20_000):
        text = random_text(rng)
        assert ours.encode(text) == theirs.encode_ordinary(text), repr(text)
        assert ours.encode(text, special=True) == theirs.encode(text, allowed_special="all"), repr(text)


def test_known_ids(ours):
    assert ours.encode("Hello world") == [15496, 995]
    assert ours.encode(" Mary gave a drink to John") == [5335, 2921, 257, 4144, 284, 1757]
    assert (ours.n_vocab, ours.end_of_text) == (50257, 50256)
    assert ours.pieces(ours.encode("Hello world")) == ["Hello", " world"]


def test_end_of_text_is_special_only_where_that_is_asked_for(ours):
    assert ours.encode(f"a{END}b", special=True) == [64, 50256, 65]
    plain = ours.encode(f"a{END}b")
    assert 50256 not in plain and ours.decode(plain) == f"a{END}b"
    assert ours.decode([50256]) == END


def test_text_comes_back_from_its_ids(ours):
    rng = random.Random(1)
    for text in [*TEXTS, *(random_text(rng) for _ in range(500))]:
        valid = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # lone surrogates have no UTF-8
        for special in [False, True]:
            assert ours.decode(ours.encode(text, special)) == valid


def test_every_id_decodes_as_tiktoken_decodes_it(ours, theirs):
    assert all(ours.decode([token]) == theirs.decode([token]) for token in range(50257))


def test_very_long_runs_of_one_kind_come_back_or_are_refused_as_such(ours):
    for text in [" " * 2_000_000, "x" + "\n" * 900_000 + "x", "a" * 100_000, "!" * 100_000, "1" * 100_000,
                 "日" * 50_000]:
        assert ours.decode(ours.encode(text)) == text
    try:
        assert ours.decode(ours.encode(" " * 2_000_000 + "x")) == " " * 2_000_000 + "x"
    except th.TokenizerError as error:  # tiktoken's expression has an end
        assert "a text of 2000001 characters" in str(error)


def test_nothing_is_downloaded_and_nothing_is_cached(gpt2_folder, tmp_path, monkeypatch):
    def no_network(*arguments, **options):
        raise AssertionError("the network was asked")
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    assert tempfile.gettempdir() == str(tmp_path)
    assert th.load_tokenizer(gpt2_folder).encode("Hello world") == [15496, 995]
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    assert th.load_tokenizer(str(gpt2_folder)).encode("Hello world") == [15496, 995]
    assert [file.name for file in tmp_path.rglob("*")] == ["cache"]


def test_a_tokenizer_is_found_beside_a_weights_file(gpt2_folder):
    assert th.load_tokenizer(gpt2_folder / "model-attention.safetensors").n_vocab == 50257


# --- a vocabulary of our own ---------------------------------------------------------------------


def openais_alphabet():
    """bytes_to_unicode() of openai/gpt-2's encoder.py: the character that stands for each byte, in the order of ids."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {byte: chr(byte) for byte in visible}
    for byte in range(256):
        if byte not in alphabet:
            alphabet[byte] = chr(256 + len(alphabet) - len(visible))
    return alphabet


ALPHABET = openais_alphabet()
MERGES = ["t h", "Ġ th", "Ġth e", "i n", "in g", "Ã ©", "Ġ Ġ", "ĠĠ ĠĠ"]


def write_files(folder, merges=MERGES, encoder=None, version="#version: 0.2\n"):
    pieces = [*ALPHABET.values(), *(merge.replace(" ", "") for merge in merges), END]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.bpe").write_text(version + "".join(merge + "\n" for merge in merges), encoding="utf-8")
    encoder = {piece: i for i, piece in enumerate(pieces)} if encoder is None else encoder
    (folder / "encoder.json").write_text(encoder if isinstance(encoder, str) else json.dumps(encoder), encoding="utf-8")
    return folder


def merged_by_hand(word, merges=MERGES):
    """The pieces of one word: again and again the merge that was learned first (Sennrich et al. 2016)."""
    pieces = [ALPHABET[byte] for byte in word.encode()]
    while True:
        learned = [(merges.index(f"{a} {b}"), i)
                   for i, (a, b) in enumerate(zip(pieces, pieces[1:])) if f"{a} {b}" in merges]
        if not learned:
            return pieces
        first = min(learned)[0]
        i = next(i for rank, i in learned if rank == first)
        pieces[i:i + 2] = [pieces[i] + pieces[i + 1]]


def test_a_small_vocabulary_merges_as_the_algorithm_says(tmp_path):
    tokenizer = th.load_tokenizer(write_files(tmp_path / "tiny"))
    ids = json.loads((tmp_path / "tiny" / "encoder.json").read_text(encoding="utf-8"))
    assert (tokenizer.n_vocab, tokenizer.end_of_text) == (265, 264)
    for word in ["the", " the", " then", " there", "thing", " thinging", "ininging", "théé", "     ", "hti", " theth"]:
        assert tokenizer.encode(word) == [ids[piece] for piece in merged_by_hand(word)], word
        assert tokenizer.decode(tokenizer.encode(word)) == word
    assert tokenizer.encode(f"the{END}", special=True)[-1] == 264
    assert tokenizer.decode(tokenizer.encode("\ud800x")) == "\ufffdx"


def test_a_tokenizer_of_bytes_alone(monkeypatch):
    tokenizer = th.Tokenizer.bytes_only()
    assert (tokenizer.n_vocab, tokenizer.end_of_text) == (257, 256)
    text = "Any text, é 日本 🙂\n" + "".join(map(chr, range(256)))
    ids = tokenizer.encode(text)
    order = list(ALPHABET)  # ids follow OpenAI's order of bytes, "!" first
    assert ids == [order.index(byte) for byte in text.encode()] and tokenizer.decode(ids) == text


def test_ids_may_be_a_tensor_or_an_array():
    tokenizer = th.Tokenizer.bytes_only()
    ids = tokenizer.encode("tensor")
    for same in (torch.tensor(ids), np.array(ids), tuple(ids)):
        assert tokenizer.decode(same) == "tensor"


# --- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("ids, words", [
    ([257], "id 257 is outside the vocabulary, 0 to 256"), ([0, -1], "id -1 is outside"), ([2**70], "is outside"),
    ([1.5], "whole numbers"), (["a"], "whole numbers"), ([None], "whole numbers"), (5, "whole numbers"),
    ("ab", "whole numbers"),
    (torch.tensor([1.0]), "whole numbers"), (torch.zeros(2, 2, dtype=torch.long), "whole numbers")], ids=str)
def test_ids_that_are_none_are_refused(ids, words):
    with pytest.raises(th.TokenizerError, match=words):
        th.Tokenizer.bytes_only().decode(ids)


def test_half_a_character_decodes_to_the_replacement_sign():
    tokenizer = th.Tokenizer.bytes_only()
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == "\ufffd"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("text", [b"bytes", None, 7, ["a"]], ids=repr)
def test_what_is_no_text_is_refused(text):
    with pytest.raises(th.TokenizerError, match=f"must be a str, not {type(text).__name__}"):
        th.Tokenizer.bytes_only().encode(text)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(th.TokenizerError, match="nowhere"):
        th.load_tokenizer(tmp_path / "nowhere")
    write_files(tmp_path / "tiny")
    (tmp_path / "tiny" / "encoder.json").unlink()
    with pytest.raises(th.TokenizerError,
                       match="needs .* or vocab.bpe and encoder.json in one folder; it has vocab.bpe$"):
        th.load_tokenizer(tmp_path / "tiny")


ENCODER = {piece: i for i, piece in enumerate([*ALPHABET.values(), *(merge.replace(" ", "") for merge in MERGES), END])}


@pytest.mark.parametrize("files", [
    dict(encoder="{"), dict(encoder="[]"), dict(encoder="[" * 100_000), dict(merges=[*MERGES, "a"]),
    dict(merges=[*MERGES, "a b c"]), dict(encoder={**ENCODER, "a": [1]}), dict(encoder={**ENCODER, "a": -1}),
    dict(encoder={**ENCODER, "a": 64.0}), dict(encoder={**ENCODER, "a": True}),
], ids=lambda files: str(files)[:40])
def test_damaged_files_are_refused(files, tmp_path):
    with pytest.raises(th.TokenizerError, match="tiny: vocab.bpe or encoder.json is damaged"):
        th.load_tokenizer(write_files(tmp_path / "tiny", **files))


@pytest.mark.parametrize("files, words", [
    (dict(encoder="{}"), "'t' is part of a merge"), (dict(encoder={**ENCODER, "th": 999}), "the ids do not rise"),
    (dict(encoder={**ENCODER, "new": 1000}), "'new' has an id"),
    (dict(encoder={**ENCODER, END: 7}), "id 7 stands for two"),
    (dict(encoder={**ENCODER, "日": 1000}), "'日' has an id"), (dict(merges=[*MERGES, "日 本"]), "'日' is part of a merge"),
    (dict(merges=[*MERGES, "t h"]), "stands there twice"), (dict(merges=[*MERGES, "th th"]), "b'thth' has no id"),
    (dict(merges=MERGES[:-1], encoder=ENCODER), "'ĠĠĠĠ' has an id"),
    (dict(merges=MERGES[::-1], encoder=ENCODER), "merge of b'  ' and b'  ' is impossible"),
], ids=lambda value: str(value)[:40])
def test_files_that_do_not_belong_together_are_refused(files, words, tmp_path):
    files = {"encoder": ENCODER, **files}
    with pytest.raises(th.TokenizerError, match="do not belong together") as caught:
        th.load_tokenizer(write_files(tmp_path / "tiny", **files))
    assert words in str(caught.value)


def test_a_truncated_file_of_merges_is_refused(tmp_path):
    path = write_files(tmp_path / "tiny") / "vocab.bpe"
    intact = path.read_bytes()
    for n in range(len(intact) - 1):  # all that the last byte does is end the last line
        path.write_bytes(intact[:n])
        with pytest.raises(th.TokenizerError):
            th.load_tokenizer(path.parent)
