"""Prompts of unequal length in one batch: each is answered, attributed and edited as it is alone."""

import pytest
import torch

import tinyheads as th
from tinyheads import prompts as prompts_module

TEMPLATES = ("When {A} and {B} went to the {place}, {S} gave a {thing} to",
             "While {A} and {B} were at the {place}. Then {S} went to the {place}, {S} gave a {thing} to")


@pytest.fixture(scope="module")
def model():
    return th.load("tiny")


@pytest.fixture
def prompts(monkeypatch):
    """Two templates of unequal length."""
    monkeypatch.setattr(prompts_module, "IOI_TEMPLATES", TEMPLATES)
    made = th.ioi(th.load_tokenizer("tiny"), 12, seed=3)
    assert len(set(made.end.tolist())) == 2 and made.tokens.shape[1] == made.end.max() + 1
    return made


def alone(prompts, i):
    """Prompt i by itself, unpadded."""
    end = int(prompts.end[i])
    return prompts.tokens[i:i + 1, :end + 1]


def test_answers_and_attention_are_those_of_each_prompt_alone(model, prompts):
    logits = th.logits_at_end(model, prompts)
    looks = th.seen_at_end(model, prompts, ["L1"], "patterns")[0]                      # [B, H, T]
    for i in range(12):
        stream = th.Stream(record=True)
        expected = model(alone(prompts, i), stream)[0, -1]
        torch.testing.assert_close(logits[i], expected, rtol=1e-4, atol=1e-4)
        assert th.correct(logits, prompts)[i] == (expected[prompts.candidates[i]].argmax() == prompts.index[i])
        pattern = stream.patterns["L1"][0, :, -1]
        torch.testing.assert_close(looks[i, :, :pattern.shape[1]], pattern, rtol=1e-4, atol=1e-5)
        assert not looks[i, :, pattern.shape[1]:].any()  # nothing looks ahead, into the padding


def test_attribution_at_each_prompts_end_sums_to_its_own_logit(model, prompts):
    stream = th.Stream(record=True)
    logits = model(prompts.tokens, stream)
    parts = th.logit_attribution(model, stream, prompts.answer, prompts.end)
    expected = logits[torch.arange(12), prompts.end, prompts.answer]
    assert all(part.shape == (12,) for part in parts.values())
    torch.testing.assert_close(sum(parts.values()), expected, rtol=1e-4, atol=1e-4)
    at_two = th.logit_attribution(model, stream, 5, 2)
    torch.testing.assert_close(sum(at_two.values()), logits[:, 2, 5], rtol=1e-4, atol=1e-4)
    with pytest.raises(th.InputError, match="outside the prompt"):
        th.logit_attribution(model, stream, 5, prompts.tokens.shape[1])


def test_an_edit_at_each_prompts_end_is_the_edit_of_each_prompt_alone(model, prompts):
    basis, values = th.random_subspace(model.config.n_embd, 3, seed=0), torch.tensor([3.0, -2.0, 1.0])
    edit = lambda position: th.Edit("L1.attn", th.set_coordinates(basis, values, position), of="stream")
    logits = model(prompts.tokens, th.Stream(edits=[edit(prompts.end)]))
    for i in range(12):
        tokens = alone(prompts, i)
        expected = model(tokens, th.Stream(edits=[edit(tokens.shape[1] - 1)]))[0, -1]
        torch.testing.assert_close(logits[i, prompts.end[i]], expected, rtol=1e-4, atol=1e-4)
