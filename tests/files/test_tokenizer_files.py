"""Tokenizers in Hugging Face's files: the ids are those that Hugging Face's libraries give, or the file is refused."""

import json
import random
import shutil

import pytest

import tinyheads as th
from tinyheads.files.tokenizer import END_OF_TEXT, AddedToken, byte_alphabet
from tinyheads.files.tokenizer_files import tokenizer_files

NAMES = ["whole", "blanks", "untidy", "pair", "lacking"]


@pytest.fixture(scope="module")
def theirs(golden):
    """The texts, and the ids that the library `tokenizers` gave: see golden/make_tokenizers.py."""
    return json.loads((golden / "tokenizers.json").read_text())


def encode(tokenizer, texts, kind):
    return [tokenizer.encode(text, special=kind == "special") for text in texts]


# --- equal ids -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "special"])  # END as plain text, and as a token of its own
@pytest.mark.parametrize("name", NAMES[:-1])
def test_ids_are_hugging_faces_on_every_kind_of_text(name, kind, golden, theirs):
    tokenizer = th.load_tokenizer(golden / "tokenizers" / name)
    for text, expected in zip(theirs["texts"], theirs["ids"][name][kind]):
        assert tokenizer.encode(text, special=kind == "special") == expected, text[:50]
        if name != "blanks":  # which normalizes
            assert tokenizer.decode(expected) == text


def test_bytes_that_a_vocabulary_lacks_are_named_where_hugging_face_drops_them(golden, theirs):
    tokenizer = th.load_tokenizer(golden / "tokenizers" / "lacking")
    there = {piece for piece in tokenizer.ids if len(piece) == 1}
    refused = 0
    for text, expected in zip(theirs["texts"], theirs["ids"]["lacking"]["plain"]):
        if {bytes([byte]) for byte in text.encode()} <= there:
            assert tokenizer.encode(text) == expected
        else:
            refused += 1
            with pytest.raises(th.TokenizerError, match="holds the byte b'.*for which this vocabulary has no token"):
                tokenizer.encode(text)
    assert 10 < refused < len(theirs["texts"]) - 10
    assert tokenizer.end_of_text == 0 and tokenizer.n_vocab == 200


def test_pairs_of_pieces_are_merges_too_and_a_byte_order_mark_is_no_text(golden, theirs, tmp_path):
    for name, files in [("whole", ["tokenizer.json"]), ("pair", ["vocab.json", "merges.txt", "added_tokens.json"])]:
        (tmp_path / name).mkdir()
        for file in files:
            text = (golden / "tokenizers" / name / file).read_text(encoding="utf-8")
            if file == "tokenizer.json":
                found = json.loads(text)
                assert isinstance(found["model"]["merges"][0], list)
                found["model"]["merges"] = [" ".join(pair) for pair in found["model"]["merges"]]
                text = json.dumps(found)
            (tmp_path / name / file).write_text("\ufeff" + text.replace("\n", "\r\n"), encoding="utf-8")
        assert encode(th.load_tokenizer(tmp_path / name), theirs["texts"], "plain") == theirs["ids"][name]["plain"]


def by_pairs(word, merges):
    """Hugging Face's rule, as plainly as it can be said: the earliest merge among all neighbours, again and again."""
    pieces = [bytes([byte]) for byte in word]
    while True:
        learned = [(merges.index(pair), i) for i, pair in enumerate(zip(pieces, pieces[1:])) if pair in merges]
        if not learned:
            return pieces
        i = min(learned)[1]
        pieces[i:i + 2] = [pieces[i] + pieces[i + 1]]


def test_random_merges_join_by_pairs_whatever_else_is_in_the_vocabulary():
    rng, differing = random.Random(0), 0
    for _ in range(120):
        pieces, merges = [b"a", b"b", b"c"], []
        for _ in range(rng.randrange(1, 12)):
            pair = (rng.choice(pieces), rng.choice(pieces))
            if pair[0] + pair[1] not in pieces:
                pieces.append(pair[0] + pair[1])
                merges.append(pair)
        tokenizer = th.Tokenizer(merges)
        everything = {**{bytes([byte]): i for i, byte in enumerate(byte_alphabet().values())},
                      **{left + right: 256 + i for i, (left, right) in enumerate(merges)}}
        naive = type(tokenizer.encoding)("naive", pat_str=".+", mergeable_ranks=everything, special_tokens={})
        for _ in range(15):
            word = "".join(rng.choice("abc") for _ in range(rng.randrange(1, 14)))
            expected = [everything[piece] for piece in by_pairs(word.encode(), merges)]
            assert tokenizer.encode(word) == expected, (merges, word)
            differing += naive.encode(word) != expected
    assert differing > 20  # tiktoken alone, which joins by results, would have given others


# --- several files, several tokenizers -----------------------------------------------------------


def test_files_of_two_kinds_must_be_one_tokenizer(golden, tmp_path):
    shutil.copytree(golden / "tokenizers" / "pair", tmp_path / "both")
    pair = th.load_tokenizer(tmp_path / "both")
    for name, text in tokenizer_files(pair).items():
        (tmp_path / "both" / name).write_bytes(text)
    assert th.load_tokenizer(tmp_path / "both").ids == pair.ids
    shutil.copy(golden / "tokenizers" / "whole" / "tokenizer.json", tmp_path / "both")
    (tmp_path / "both" / "added_tokens.json").unlink()
    with pytest.raises(th.TokenizerError, match="json holds another tokenizer than merges.txt and vocab.json"):
        th.load_tokenizer(tmp_path / "both")


def test_added_tokens_are_taken_from_the_config_beside(golden, tmp_path):
    shutil.copytree(golden / "tokenizers" / "pair", tmp_path / "pair")
    (tmp_path / "pair" / "added_tokens.json").unlink()
    tokens = {"320": {"content": "<pad>", "special": True}, "321": {"content": " dog", "special": False}}
    write(tmp_path / "pair" / "tokenizer_config.json", {"added_tokens_decoder": tokens})
    tokenizer = th.load_tokenizer(tmp_path / "pair")
    assert tokenizer.encode("<pad>", special=True) == [320] and tokenizer.encode("a dog")[-1] == 321
    assert tokenizer.end_of_text == 322  # as transformers' class for GPT-2 has it, where no file says so


# --- what would give other ids is refused --------------------------------------------------------


def write(path, found):
    path.write_text(json.dumps(found), encoding="utf-8")


SPLIT = {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}"}}]}
CLS = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}},
                                                {"Sequence": {"id": "A", "type_id": 0}}]}


@pytest.mark.parametrize("change, words", [
    (("model", "type", "WordPiece"), "model.type is 'WordPiece'"), (("model", "dropout", 0.1), "dropout is '0.1'"),
    (("model", "byte_fallback", True), "byte_fallback"), (("model", "ignore_merges", True), "ignore_merges"),
    (("model", "end_of_word_suffix", "</w>"), "end_of_word_suffix is '</w>'"),
    (("model", "continuing_subword_prefix", "##"), "continuing_subword_prefix"),
    (("normalizer", None, {"type": "Lowercase"}), "normalizer.type is 'Lowercase'"),
    (("normalizer", None, {"type": "Sequence", "normalizers": []}), "normalizer.type is 'Sequence'"),
    (("pre_tokenizer", None, SPLIT), "pre_tokenizer.type is 'Sequence'"),
    (("pre_tokenizer", None, None), "pre_tokenizer.type is 'None'"),
    (("pre_tokenizer", "add_prefix_space", True), "add_prefix_space is 'True'"),
    (("pre_tokenizer", "use_regex", False), "use_regex"), (("decoder", None, None), "decoder.type is 'None'"),
    (("post_processor", None, {"type": "RobertaProcessing"}), "post_processor.type is 'RobertaProcessing'"),
    (("post_processor", None, CLS), "puts tokens of its own around a text"),
    (("added_tokens", 0, {"id": 0, "content": END_OF_TEXT, "lstrip": True}), "'<|endoftext|>' has lstrip"),
    (("added_tokens", 0, {"id": 0, "content": END_OF_TEXT, "single_word": True}), "has single_word"),
    (("added_tokens", 0, {"id": 5, "content": END_OF_TEXT}), "has the id 5; it should be 0"),
    (("added_tokens", 0, {"id": 400, "content": "new"}), "'new' has the id 400; it should be 340"),
    (("added_tokens", 0, {"id": 340, "content": "\ud800"}), "damaged"), (("added_tokens", 0, 7), "damaged"),
    (("model", "vocab", None), "damaged"), (("model", "merges", 5), "damaged"),
    (("model", "merges", [["a"]]), "damaged"),
    (("model", "merges", [["a", "b"]]), "has an id, and is neither a byte nor made by a merge"),
], ids=lambda value: str(value)[:60])
def test_other_settings_of_tokenizer_json_are_refused_by_name(change, words, golden, tmp_path):
    found = json.loads((golden / "tokenizers" / "whole" / "tokenizer.json").read_text(encoding="utf-8"))
    section, key, value = change
    if key is None:
        found[section] = value
    else:
        found[section][key] = value
    write(tmp_path / "tokenizer.json", found)
    with pytest.raises(th.TokenizerError) as caught:
        th.load_tokenizer(tmp_path)
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_template_that_adds_nothing_is_gpt2s_too(golden, tmp_path):
    found = json.loads((golden / "tokenizers" / "whole" / "tokenizer.json").read_text(encoding="utf-8"))
    found["post_processor"] = {**CLS, "single": CLS["single"][1:]}
    write(tmp_path / "tokenizer.json", found)
    assert th.load_tokenizer(tmp_path).n_vocab == 340


@pytest.mark.parametrize("config", [{"add_prefix_space": True}, {"add_bos_token": True}, {"add_eos_token": True},
                                    {"added_tokens_decoder": {"7": {"content": END_OF_TEXT}}}], ids=str)
def test_other_settings_of_the_config_beside_are_refused_by_name(config, golden, tmp_path):
    shutil.copy(golden / "tokenizers" / "whole" / "tokenizer.json", tmp_path)
    write(tmp_path / "tokenizer_config.json", config)
    with pytest.raises(th.TokenizerError, match=next(iter(config)) if "added" not in str(config) else "should be 0"):
        th.load_tokenizer(tmp_path)


def test_clips_vocabulary_which_marks_the_ends_of_words_is_refused(tmp_path):
    pieces = [*byte_alphabet(), *(f"{sign}</w>" for sign in byte_alphabet()), "th", "the</w>", END_OF_TEXT]
    write(tmp_path / "vocab.json", {piece: i for i, piece in enumerate(pieces)})
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n")
    with pytest.raises(th.TokenizerError, match="do not belong together: '!</w>' has an id"):
        th.load_tokenizer(tmp_path)


def test_an_id_that_stands_for_no_text_is_refused(golden):
    tokenizer = th.load_tokenizer(golden / "tokenizers" / "untidy")
    assert tokenizer.decode([0]) == END_OF_TEXT and tokenizer.n_vocab == 273
    with pytest.raises(th.TokenizerError, match="id 252 stands for no text"):
        tokenizer.decode([252])


def test_two_pieces_of_one_id_are_refused():
    with pytest.raises(th.TokenizerError, match="id 5 stands for two pieces"):
        th.Tokenizer([], added=[AddedToken("<x>", 5)])


def test_a_file_that_cannot_be_read_is_named(golden, tmp_path):
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(th.TokenizerError, match="tokenizer.json: cannot be read"):
        th.load_tokenizer(tmp_path)
