"""The tasks' prompts: read back from their texts by other means, then held against what the task says of them."""

import re

import pytest
import torch

import tinyheads as th
from tinyheads import prompts as prompts_module, words
from tinyheads.errors import TaskError


@pytest.fixture(scope="module")
def tiny():
    try:
        return th.load_tokenizer("tiny")
    except th.TokenizerError:
        pytest.skip("weights/tiny is not there; weights/train_tiny.py makes it")


@pytest.fixture(scope="module", params=["tiny", "gpt2"])
def tokenizer(request):
    if request.param == "tiny":
        return request.getfixturevalue("tiny")
    return th.load_tokenizer(request.getfixturevalue("gpt2_folder"))


def pieces(tokenizer, prompts, i, positions):
    """The words that stand at some positions of prompt i."""
    return [text.strip() for text in tokenizer.pieces(prompts.tokens[i, positions].tolist())]


def check_alike(tokenizer, prompts, n, N, M):
    """What holds of every task."""
    T = prompts.tokens.shape[1]
    assert prompts.tokens.shape == (n, T) and prompts.end == T - 1 and len(prompts.texts) == n
    assert prompts.candidates.shape == prompts.positions.shape == (n, N) and prompts.mentions.shape == (n, M)
    assert prompts.answer.shape == prompts.index.shape == (n,)
    for i, text in enumerate(prompts.texts):
        assert tokenizer.encode(text) == prompts.tokens[i].tolist()
        assert prompts.answer[i] == prompts.candidates[i, prompts.index[i]]
        assert prompts.tokens[i, prompts.positions[i]].tolist() == prompts.candidates[i].tolist()
        assert len(set(prompts.candidates[i].tolist())) == N


@pytest.mark.parametrize("order", ["ABBA", "BABA"])
def test_ioi_is_the_name_mentioned_once(tokenizer, order):
    prompts = th.ioi(tokenizer, 60, order, seed=1)
    check_alike(tokenizer, prompts, 60, 2, 1)
    for i, text in enumerate(prompts.texts):
        names = [word for word in re.findall(r"\w+", text) if word in words.NAMES]
        assert len(names) == 3 and len(set(names)) == 2
        assert pieces(tokenizer, prompts, i, prompts.positions[i]) == names[:2]
        assert pieces(tokenizer, prompts, i, prompts.mentions[i]) == names[2:]
        once, = [name for name in names if names.count(name) == 1]
        assert pieces(tokenizer, prompts, i, prompts.positions[i, prompts.index[i]][None]) == [once]
        assert names.index(once) == {"ABBA": 0, "BABA": 1}[order]
        assert prompts.mentions[i, 0] > prompts.positions[i].max()
    varied = rf"\b({'|'.join(words.NAMES + words.PLACES + words.THINGS)})\b"
    assert len({re.sub(varied, "_", text) for text in prompts.texts}) == len(prompts_module.IOI_TEMPLATES) == 4


def test_ioi_mixes_both_orders_and_keeps_pairs_of_names_apart(tiny):
    prompts = th.ioi(tiny, 400, seed=3, pairs="train")
    assert 150 < prompts.index.sum() < 250
    train, test = (set(prompts_module.name_pairs(tuple(words.NAMES), which)) for which in ("train", "test"))
    assert not train & test and train | test == set(prompts_module.name_pairs(tuple(words.NAMES), "all"))
    assert 0.18 < len(test) / len(train | test) < 0.22
    for which, pairs in [("train", train), ("test", test)]:
        for row in th.ioi(tiny, 200, seed=3, pairs=which).candidates.tolist():
            assert tuple(sorted(text.strip() for text in tiny.pieces(row))) in pairs


@pytest.mark.parametrize("by", ["ordinal", "name"])
@pytest.mark.parametrize("n_items", [2, 3, 7, 10])
def test_laundry_list_leaves_one_item(tokenizer, by, n_items):
    prompts = th.laundry_list(tokenizer, 40, n_items, by, seed=n_items)
    check_alike(tokenizer, prompts, 40, n_items, n_items - 1)
    for i, text in enumerate(prompts.texts):
        verb, listed, done, again = re.fullmatch(r"To (\w+): ([\w, ]+)\. Done: ([\w, ]+)\. Still to (\w+): the",
                                                 text).groups()
        items, crossed = listed.split(", "), done.split(", ")
        assert verb == again and len(items) == n_items and len(crossed) == n_items - 1
        assert pieces(tokenizer, prompts, i, prompts.positions[i]) == items
        assert pieces(tokenizer, prompts, i, prompts.mentions[i]) == crossed
        off = [items[words.ORDINALS.index(word)] if by == "ordinal" else word for word in crossed]
        left, = set(items) - set(off)
        assert tokenizer.decode([int(prompts.answer[i])]) == f" {left}" and items[prompts.index[i]] == left


def test_crossed_off_in_random_order_and_every_place_is_left_over(tiny):
    prompts = th.laundry_list(tiny, 300, 4, seed=0)
    assert prompts.index.bincount(minlength=4).min() > 40
    assert len({tuple(row) for row in prompts.tokens.gather(1, prompts.mentions).tolist()}) == 24   # 4 * 3 * 2


@pytest.mark.parametrize("n_items", [1, 2, 6, 10])
def test_ordinal_recall(tokenizer, n_items):
    prompts = th.ordinal_recall(tokenizer, 40, n_items, seed=n_items)
    check_alike(tokenizer, prompts, 40, n_items, 1)
    for i, text in enumerate(prompts.texts):
        listed, ordinal = re.fullmatch(r"To \w+: ([\w, ]+)\. The (\w+) one:", text).groups()
        assert pieces(tokenizer, prompts, i, prompts.mentions[i]) == [ordinal]
        assert tokenizer.decode([int(prompts.answer[i])]) == f" {listed.split(', ')[words.ORDINALS.index(ordinal)]}"


def test_the_bundled_vocabulary_holds_every_word(tiny):
    for word in words.ITEMS + words.ORDINALS + words.NAMES + words.PLACES + words.THINGS + words.VERBS:
        assert len(tiny.encode(f" {word}")) == 1, word
    th.laundry_list(tiny, 2, 20, seed=0), th.ordinal_recall(tiny, 2, 20, seed=0)


def test_every_word_but_late_ordinals_is_one_token_of_gpt2(gpt2_folder):
    tokenizer = th.load_tokenizer(gpt2_folder)
    for word in words.ITEMS + words.ORDINALS[:10] + words.NAMES + words.PLACES + words.THINGS + words.VERBS:
        assert len(tokenizer.encode(f" {word}")) == 1, word
    with pytest.raises(TaskError, match="splits 'eleventh': it can name 10 places"):
        th.laundry_list(tokenizer, 2, 11)
    th.laundry_list(tokenizer, 2, 30, by="name")


def test_seeds(tiny):
    make = [lambda seed: th.ioi(tiny, 9, seed=seed), lambda seed: th.laundry_list(tiny, 9, 5, seed=seed),
            lambda seed: th.ordinal_recall(tiny, 9, 5, seed=seed)]
    for task in make:
        assert task(4).texts == task(4).texts == task(torch.Generator().manual_seed(4)).texts != task(5).texts
        draw = torch.Generator().manual_seed(4)
        assert task(draw).texts != task(draw).texts
    assert torch.equal(th.everyday_text(tiny, 5, 1), th.everyday_text(tiny, 5, 1))


@pytest.mark.parametrize("call, said", [
    (lambda t: th.laundry_list(t, 0, 5), "n must be a whole number from 1, not 0"),
    (lambda t: th.ioi(t, True), "n must be a whole number"),
    (lambda t: th.laundry_list(t, 4, 1), "n_items must be a whole number from 2, not 1"),
    (lambda t: th.ordinal_recall(t, 4, 2.0), "n_items must be"),
    (lambda t: th.laundry_list(t, 4, 21), "lists of up to 20 items, not 21"),
    (lambda t: th.laundry_list(t, 4, 400, "name"), "400 items are needed, and of the 303"),
    (lambda t: th.laundry_list(t, 4, 3, items=["sock", "hat", "xylophone"]), r"splits \['xylophone'\]"),
    (lambda t: th.laundry_list(t, 4, 3, items=["sock", "hat", "hat"]), "only 2 are one token"),
    (lambda t: th.laundry_list(t, 4, 3, "number"), "by is one of 'ordinal', 'name', 'mixed', not 'number'"),
    (lambda t: th.ioi(t, 4, "AABB"), "order is one of"),
    (lambda t: th.ioi(t, 4, names=["Mary"]), "2 names are needed"),
    (lambda t: th.ioi(t, 4, pairs="some"), "pairs is one of"),
    (lambda t: th.ioi(t, 4, seed="1"), "a seed is"),
])
def test_bad_input(tiny, call, said):
    with pytest.raises(TaskError, match=said):
        call(tiny)


def test_a_tokenizer_that_splits_everything():
    with pytest.raises(TaskError, match="are needed"):
        th.ioi(th.Tokenizer.bytes_only(), 4)


@pytest.mark.parametrize("make", [lambda t: th.laundry_list(t, 6, 4), lambda t: th.ordinal_recall(t, 6, 3)])
def test_the_first_prompts(tiny, make):
    prompts = make(tiny)
    first = prompts.first(2)
    assert first.texts == prompts.texts[:2] and first.end == prompts.end and len(prompts.texts) == 6
    for name in ("tokens", "answer", "candidates", "positions", "index", "mentions"):
        assert torch.equal(getattr(first, name), getattr(prompts, name)[:2]), name
    assert first.first(10).texts == prompts.texts[:2]                   # as many as there are


def test_the_first_prompts_of_unequal_ones_keep_their_own_ends():
    tokens, places = torch.arange(12).view(3, 4), torch.tensor([[0, 1]] * 3)
    prompts = th.Prompts(tokens, tokens[:, 0], tokens[:, :2], places, torch.zeros(3, dtype=torch.long), places[:, :1],
                         torch.tensor([3, 2, 1]), ["a", "b", "c"])
    assert prompts.first(2).end.tolist() == [3, 2] and prompts.first(2).texts == ["a", "b"]


def test_mixed_lists_are_crossed_off_by_ordinal_by_name_or_both(tiny):
    prompts = th.laundry_list(tiny, 600, 6, "mixed", seed=3)
    mentioned = prompts.tokens.gather(1, prompts.mentions)                              # [B, M]
    by_name = (mentioned[:, :, None] == prompts.candidates[:, None]).any(2)             # [B, M]
    share = by_name.double().mean(1)
    ordinals = {tiny.encode(f" {word}")[0]: k for k, word in enumerate(words.ORDINALS)}
    for b in range(600):                                                # in whichever way, all but the answer
        places = {prompts.candidates[b].tolist().index(token) if name else ordinals[token]
                  for token, name in zip(mentioned[b].tolist(), by_name[b].tolist())}
        assert places == set(range(6)) - {prompts.index[b].item()}
    assert 0.27 < (share == 0).double().mean() < 0.42 and 0.27 < (share == 1).double().mean() < 0.42
    assert 0.4 < share[(share > 0) & (share < 1)].mean() < 0.6


@pytest.mark.parametrize("wording, form", [
    ("list", r"To \w+: (.*)\. Done: (.*)\. Still to \w+: the"),
    ("note", r"Things to \w+: (.*)\. Things that are done: (.*)\. The one thing that is left to \w+ is the"),
    ("sentence", r"I had to \w+ the (.*)\. I am done with the (.*)\. So I still have to \w+ the"),
    ("story", r"Mary had to \w+ the (.*)\. John did the (.*)\. So Mary only had to \w+ the")])
def test_every_wording_leaves_one_item(gpt2_folder, wording, form):
    tokenizer = th.load_tokenizer(gpt2_folder)
    prompts = th.laundry_list(tokenizer, 12, 4, "name", seed=1, wording=wording)
    check_alike(tokenizer, prompts, 12, 4, 3)
    for i, text in enumerate(prompts.texts):
        items, done = (re.split(r", (?:the )?", part) for part in re.fullmatch(form, text).groups())
        assert pieces(tokenizer, prompts, i, prompts.positions[i]) == items
        assert pieces(tokenizer, prompts, i, prompts.mentions[i]) == done
        assert set(items) - set(done) == {tokenizer.decode([int(prompts.answer[i])]).strip()} and len(done) == 3


def test_a_wording_that_is_not_there(tiny):
    with pytest.raises(TaskError, match="wording"):
        th.laundry_list(tiny, 1, 3, wording="poem")
