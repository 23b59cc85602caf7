"""Logit attribution: which ids it takes, and what it refuses because the parts would not sum to the logit."""

import copy

import pytest
import torch

import tinyheads as th
from helpers import random_model, random_tokens

SIZES = dict(n_vocab=50, n_ctx=16, n_embd=24, n_layer=2, n_head=3)


def test_attribution_takes_one_id_or_one_a_prompt_or_one_a_position_and_nothing_else():
    model = random_model(SIZES)
    tokens, stream = random_tokens(model.config, B=5, T=5), th.Stream(record=True)  # B == T
    logits = model(tokens, stream)
    answer = tokens[:, 2]                                                           # [B]
    parts = th.logit_attribution(model, stream, answer)
    torch.testing.assert_close(sum(parts.values()), logits[torch.arange(5), :, answer], rtol=1e-4, atol=1e-4)
    assert set(parts) == set(th.logit_attribution(model, stream, torch.tensor(3)))
    for token in (answer[:4], answer[:, None], tokens[None], tokens[:, :4], answer.float(), answer > 3):
        with pytest.raises(th.InputError, match="token"):
            th.logit_attribution(model, stream, token)


def test_attribution_refuses_what_would_not_sum_to_the_logit():
    model = random_model(SIZES)
    tokens, stream = random_tokens(model.config, B=1), th.Stream(record=True)
    model(tokens, stream)
    stranger = random_model(SIZES, seed=1)
    wider = random_model({**SIZES, "n_vocab": 51})
    for other in (stranger, wider):
        with pytest.raises(th.StreamError, match="another model"):
            th.logit_attribution(other, stream, 3)
    with torch.no_grad():
        saved = model.wte.weight.clone()
        model.wte.weight[3, 2] += 0.1
        with pytest.raises(th.StreamError, match="unembedding"):
            th.logit_attribution(model, stream, 3)
        model.wte.weight.copy_(saved)
        th.logit_attribution(copy.deepcopy(model), stream, 3)  # the same numbers: nothing is wrong
        model.ln_f.bias[0] += 0.1
    with pytest.raises(th.StreamError, match="ln_f"):
        th.logit_attribution(model, stream, 3)
    edited = th.Stream(record=True, edits=[th.Edit("unembed", lambda x: x + 0.1, of="reads")])
    model(tokens, edited)
    with pytest.raises(th.StreamError, match="edited"):
        th.logit_attribution(model, edited, 3)
