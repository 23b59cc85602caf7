"""Attention attribution: it sums to the score, on either side; what it refuses; what it finds in a planted circuit."""

import math

import pytest
import torch

import tinyheads as th
from helpers import random_model, random_tokens

SIZES = dict(n_vocab=50, n_ctx=16, n_embd=24, n_layer=3, n_head=3)


def score_by_hand(model, tokens, layer, head, query, key):
    """The formula: the stream before the layer, its LayerNorm, one query and one key, one inner product. [B]"""
    K, D = model.config.d_head, model.config.n_embd
    x = model.wte(tokens) + model.wpe(torch.arange(tokens.shape[1]))
    for block in model.h[:layer]:
        stream = th.Stream()
        stream.value = x
        block(stream, None)
        x = stream.value
    q, k, _ = (model.h[layer].ln_1(x) @ model.h[layer].attn.c_attn.weight + model.h[layer].attn.c_attn.bias).split(D, 2)
    own = slice(head * K, (head + 1) * K)
    return (q[:, query, own] * k[:, key, own]).sum(-1) / math.sqrt(K)


@pytest.mark.parametrize("side", ["query", "key"])
@pytest.mark.parametrize("place", ["L0.H0", "L2.H1"])
@pytest.mark.parametrize("split", [False, True])
def test_the_parts_sum_to_the_score(side, place, split):
    for seed in range(3):
        model = random_model(SIZES, seed).double()
        tokens, stream = random_tokens(model.config, B=4, seed=seed), th.Stream(record=True)
        model(tokens, stream)
        ov = th.ov_svd(th.Heads.of(model)) if split else None
        parts = th.attention_attribution(model, stream, place, 11, 5, side, ov)
        head = th.Head.parse(place)
        torch.testing.assert_close(sum(parts.values()), score_by_hand(model, tokens, head.layer, head.head, 11, 5))
        names = ["embed"] + [name for name in th.write_names(model.config)[1:] if int(name[1]) < head.layer]
        if not split:
            assert list(parts) == [*names, "bias"]
        elif head.layer:
            assert {"L0.H0.C0", "L1.H2.C7", "L1.mlp"} < set(parts) and "L0.H0" not in parts


def test_components_sum_to_their_head():
    model = random_model(SIZES)
    stream, ov = th.Stream(record=True), th.ov_svd(th.Heads.of(model))
    model(random_tokens(model.config), stream)
    whole = th.attention_attribution(model, stream, "L2.H0", 9, 9)
    parts = th.attention_attribution(model, stream, "L2.H0", 9, 9, ov=ov)
    for head in ("L0.H0", "L1.H2"):
        total = sum(part for name, part in parts.items() if name.startswith(f"{head}."))
        torch.testing.assert_close(total, whole[head], rtol=1e-4, atol=1e-4)


def test_positions_may_be_each_prompts_own():
    model = random_model(SIZES)
    tokens, stream = random_tokens(model.config, B=3), th.Stream(record=True)
    model(tokens, stream)
    query, key = torch.tensor([15, 7, 3]), torch.tensor([2, 7, 0])
    together = th.attention_attribution(model, stream, "L1.H1", query, key)
    for i in range(3):
        alone = th.attention_attribution(model, stream, "L1.H1", int(query[i]), int(key[i]))
        for name, part in alone.items():
            torch.testing.assert_close(together[name][i], part[i])


def test_a_change_of_a_write_changes_the_score_by_its_part_where_the_scale_is_kept():
    model = random_model(SIZES).double()
    tokens, stream = random_tokens(model.config, B=2), th.Stream(record=True)
    model(tokens, stream)
    part = th.attention_attribution(model, stream, "L1.H2", 10, 4)["L0.H1"]

    def without(read):  # the LayerNorm's output with the head's write taken out, and its scale as it was
        x = sum(stream.writes[name] for name in th.write_names(model.config) if name == "embed" or name[1] == "0")
        scale = (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        write = stream.writes["L0.H1"]
        less = (write - write.mean(-1, keepdim=True)) / scale * model.h[1].ln_1.weight
        changed = read.clone()
        changed[:, 10] -= less[:, 10]
        return changed

    other = th.Stream(record=True, edits=[th.Edit("L1.attn", without, of="reads")])
    model(tokens, other)
    log_odds = lambda s: (s.patterns["L1"][:, 2, 10, 4] / s.patterns["L1"][:, 2, 10, 3]).log()
    # the normaliser of the softmax cancels between two keys, so the difference of two parts is seen in the pattern
    part_3 = th.attention_attribution(model, stream, "L1.H2", 10, 3)["L0.H1"]
    torch.testing.assert_close(log_odds(stream) - log_odds(other), part - part_3)


def test_an_edited_stream_is_one_more_write():
    model = random_model(SIZES)
    tokens = random_tokens(model.config)
    stream = th.Stream(record=True, edits=[th.Edit("L1.attn", lambda x: x + torch.arange(24.0), of="stream")])
    model(tokens, stream)
    parts = th.attention_attribution(model, stream, "L1.H0", 8, 2)
    score = sum(parts.values())
    assert parts["edit before L1.attn"].abs().min() > 0
    pattern = stream.patterns["L1"][:, 0, 8]
    other = sum(th.attention_attribution(model, stream, "L1.H0", 8, 3).values())
    torch.testing.assert_close(score - other, (pattern[:, 2] / pattern[:, 3]).log(), rtol=1e-3, atol=1e-3)


def test_what_it_refuses():
    model = random_model(SIZES)
    tokens, stream = random_tokens(model.config), th.Stream(record=True)
    with pytest.raises(th.StreamError, match="record=True"):
        th.attention_attribution(model, stream, "L1.H0", 8, 2)
    model(tokens, stream)
    for arguments, error, words in [
            (("L3.H0", 8, 2), th.HeadError, "no L3.H0"), (("8.10", 8, 2), th.HeadError, "L8.H10"),
            (("L1.H0", 8, 9), th.InputError, "behind it"), (("L1.H0", 16, 2), th.InputError, "outside"),
            (("L1.H0", [8, 9], 2), th.InputError, "one position"), (("L1.H0", 8, 2, "keys"), th.InputError, "side")]:
        with pytest.raises(error, match=words):
            th.attention_attribution(model, stream, *arguments)
    small = th.ov_svd(th.Heads.of(random_model({**SIZES, "n_layer": 2})))
    with pytest.raises(th.HeadError, match="ov_svd"):
        th.attention_attribution(model, stream, "L2.H0", 8, 2, ov=small)
    for edit, words in [(th.Edit("L1.attn", lambda x: 1.1 * x, of="reads"), "read 'L1.attn'"),
                        (th.Edit("L1", lambda p: p.roll(1, -1), of="patterns"), "pattern of L1.H0")]:
        edited = th.Stream(record=True, edits=[edit])
        model(tokens, edited)
        with pytest.raises(th.StreamError, match=words):
            th.attention_attribution(model, edited, "L1.H0", 8, 2)
    with pytest.raises(th.StreamError, match="another model"):
        th.attention_attribution(random_model(SIZES, seed=1), stream, "L1.H0", 8, 2)
    cache = th.Cache()
    model(tokens[:, :5], cache=cache)
    alone = th.Stream(record=True)
    model(tokens[:, 5:6], alone, cache)
    with pytest.raises(th.StreamError, match="cache"):
        th.attention_attribution(model, alone, "L1.H0", 0, 0)
