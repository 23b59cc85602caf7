"""Generation: prompts of unequal length, stop tokens, settings that are taken or refused."""

import numpy as np
import pytest
import torch

import tinyheads as th
from helpers import random_model, random_tokens

TEXTS = ["a man", "b", "the third one", "no"]


@pytest.fixture(scope="module")
def model():
    return random_model(dict(n_vocab=257, n_ctx=40, n_embd=24, n_layer=2, n_head=3), scale=0.1)


@pytest.fixture(scope="module")
def tokenizer():
    return th.Tokenizer.bytes_only()


def test_a_batch_of_unequal_prompts_has_each_prompts_logits_and_left_padding_would_not(model, tokenizer):
    batch = th.batch(tokenizer, TEXTS)
    assert batch.tokens.shape == (4, 13) and batch.last.tolist() == [4, 0, 12, 1]
    logits = model(batch.tokens)
    for i, text in enumerate(TEXTS):
        ids = tokenizer.encode(text)
        alone = model(torch.tensor([ids]))[0]
        torch.testing.assert_close(logits[i, :len(ids)], alone, rtol=1e-4, atol=1e-4)
        if len(ids) < 13:
            left = torch.tensor([[tokenizer.end_of_text] * (13 - len(ids)) + ids])
            assert (model(left)[0, -1] - alone[-1]).abs().max() > 0.1


@pytest.mark.parametrize("use_cache", [True, False])
def test_each_prompt_of_a_batch_goes_on_as_it_does_alone(model, tokenizer, use_cache):
    out = model.generate(th.batch(tokenizer, TEXTS), 7, temperature=0, use_cache=use_cache)
    assert isinstance(out, th.Batch) and out.last.tolist() == [11, 7, 19, 8]
    for row, last, text in zip(out.tokens, out.last, TEXTS):
        alone = model.generate(tokenizer.encode(text), 7, temperature=0)
        assert row[:last + 1].tolist() == alone
        assert (row[last:] == row[last]).all()  # behind its end the last token is repeated


def test_a_text_ends_behind_a_stop_token_in_lists_tensors_and_batches(model, tokenizer):
    batch = th.batch(tokenizer, TEXTS)
    free = model.generate(batch, 9, temperature=0)
    stop = [int(free.tokens[0, 8]), int(free.tokens[2, 15])]
    out = model.generate(batch, 9, temperature=0, stop=stop)
    for i, text in enumerate(TEXTS):
        new = free.tokens[i, batch.last[i] + 1:free.last[i] + 1].tolist()
        wanted = next((k + 1 for k, token in enumerate(new) if token in stop), 9)
        alone = model.generate(tokenizer.encode(text), 9, temperature=0, stop=tuple(stop))
        assert alone == tokenizer.encode(text) + new[:wanted]
        assert out.tokens[i, :out.last[i] + 1].tolist() == alone
    prompts = batch.tokens[:, :1]
    both = model.generate(prompts, 9, temperature=0, stop=stop)
    for row, ids in zip(both, prompts.tolist()):
        alone = model.generate(ids, 9, temperature=0, stop=stop)
        assert row[:len(alone)].tolist() == alone and (row[len(alone):] == alone[-1]).all()
    first = int(free.tokens[0, 5])
    assert model.generate(tokenizer.encode(TEXTS[0]), 9, temperature=0, stop=first)[-1] == first


def test_a_stop_token_in_the_prompt_itself_does_not_end_it(model):
    assert len(model.generate([5, 5, 5], 3, temperature=0, stop=5)) >= 4


@pytest.mark.parametrize("settings", [
    dict(temperature=1e-40), dict(temperature=np.float32(0.5)), dict(temperature=torch.tensor(0.5)),
    dict(temperature=1e30),
    dict(top_k=np.int64(3)), dict(seed=np.int64(3)), dict(n_new=np.int64(2)), dict(n_new=torch.tensor(2)),
    dict(seed=torch.Generator().manual_seed(3)), dict(stop=torch.tensor([3])), dict(stop=np.int64(3))])
def test_numbers_of_every_make_are_taken(model, settings):
    assert len(model.generate([1, 2], **{"n_new": 2, **settings})) in (3, 4)


def test_a_tiny_temperature_is_greedy(model):
    assert model.generate([1, 2], 9, temperature=1e-40) == model.generate([1, 2], 9, temperature=0)


@pytest.mark.parametrize("settings, words", [
    (dict(seed=None), "seed=None"), (dict(seed=1.5), "seed=1.5"), (dict(temperature="hot"), "temperature"),
    (dict(temperature=None), "temperature"), (dict(temperature=float("inf")), "temperature"),
    (dict(n_new=True), "n_new=True"),
    (dict(stop=257), "0 to 256"), (dict(stop=[1.5]), "token id"), (dict(stop="a"), "token id"),
    (dict(top_k=2.0), "top_k"),
    (dict(ids=th.Batch(torch.ones(2, 3, dtype=torch.int64), torch.tensor([1, 3]))), "0 to 2"),
    (dict(ids=th.Batch(torch.ones(2, 3, dtype=torch.int64), torch.tensor([1]))), r"\[2\] numbers")])
def test_others_are_refused_in_words(model, settings, words):
    with pytest.raises(th.InputError, match=words):
        model.generate(**{"ids": [1, 2], "n_new": 2, **settings})


@pytest.mark.parametrize("texts, words", [("one text", "list of at least one"), ([], "list of at least one"),
                                          (["a", ""], "prompt 1 has no tokens")])
def test_a_batch_needs_a_list_of_texts_with_tokens(tokenizer, texts, words):
    with pytest.raises(th.InputError, match=words):
        th.batch(tokenizer, texts)


def test_generation_that_fails_leaves_nothing_changed(model):
    """A generator's state aside, there is nothing that a run keeps."""
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(th.InputError):
        model.generate(random_tokens(model.config, T=30), 20)
    assert torch.is_grad_enabled() and all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
