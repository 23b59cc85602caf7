"""Checks of 1.4 and 1.5, attention: the pattern, and what each head writes.

Expected values are closed forms in plain torch, on random models of two sizes and on the bundled one.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

import tinyheads as th
from grader.comparing import Wrong, same_shape
from grader.grading import Call
from grader.inputs import random_int

from .layers import draw_models, draw_tokens


def read_by_attention(generator: torch.Generator, model: th.GPT2) -> tuple[Tensor, Tensor, th.Heads, int]:
    """What the heads of some layer are handed, their pattern, all heads as they are stored, and the layer."""
    layer = random_int(generator, 0, model.config.n_layer - 1)
    stream = th.Stream(record=True)
    model(draw_tokens(generator, model), stream)
    return stream.reads[f"L{layer}.attn"], stream.patterns[f"L{layer}"], th.Heads.of(model, fold=False), layer


# --- 1.4 ------------------------------------------------------------------------------------------------


def pattern_calls(generator: torch.Generator) -> list[Call]:
    calls = []
    for model in draw_models(generator):
        x, _, heads, layer = read_by_attention(generator, model)
        calls.append(Call((x, heads.W_Q[layer], heads.b_Q[layer], heads.W_K[layer], heads.b_K[layer])))
    return calls


def queries_and_keys(x, W_Q, b_Q, W_K, b_K) -> tuple[Tensor, Tensor]:
    return x.unsqueeze(1) @ W_Q + b_Q.unsqueeze(1), x.unsqueeze(1) @ W_K + b_K.unsqueeze(1)    # each [B, H, T, K]


def pattern(*arguments: Tensor) -> Tensor:
    """torch's own attention, of values that are the identity: what comes out is the pattern."""
    q, k = queries_and_keys(*arguments)
    eye = torch.eye(q.shape[2]).expand(*q.shape[:2], -1, -1)                                   # [B, H, T, T]
    return F.scaled_dot_product_attention(q, k, eye, is_causal=True)


def wrong_pattern(scale=None, mask="causal", axis=-1, after=False, swap=False, hide_with=-math.inf):
    """The pattern made wrong in one way."""
    def wrong(*arguments: Tensor) -> Tensor:
        q, k = queries_and_keys(*arguments)
        if swap:
            q, k = k, q
        T = q.shape[2]
        scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale(*arguments))
        hidden = {"causal": torch.ones(T, T).triu(1), "none": torch.zeros(T, T), "past": torch.ones(T, T).tril(-1),
                  "itself": torch.ones(T, T).triu(0)}[mask].bool()
        if after:
            return scores.softmax(axis).masked_fill(hidden, 0.0)
        return scores.masked_fill(hidden, hide_with).softmax(axis)
    return wrong


PATTERN_MISTAKES = [
    (wrong_pattern(scale=lambda *a: 1.0), "the scores are not divided by sqrt(d_head) (equation 4)"),
    (wrong_pattern(scale=lambda x, *a: x.shape[-1] ** -0.5),
     "the scores are divided by sqrt(d_model); it should be sqrt(d_head), K = D / H (equation 4)"),
    (wrong_pattern(scale=lambda x, W_Q, *a: 1 / W_Q.shape[-1]),
     "the scores are divided by d_head; it should be by its square root (equation 4)"),
    (wrong_pattern(mask="none"), "queries see the future: the causal mask is missing (equation 4, s <= t)"),
    (wrong_pattern(mask="past"), "the mask hides the past and shows the future: it is the other triangle"),
    *((wrong_pattern(mask="itself", hide_with=hidden),
       "a position should see itself: the mask hides s = t too (an offset by one: triu(1), not triu(0))")
      for hidden in (-math.inf, -1e9)),
    (wrong_pattern(axis=-2),
     "the softmax runs over the queries; it should run over the keys, so that each query's row sums to 1"),
    (wrong_pattern(after=True),
     "future positions are set to 0 behind the softmax, so the rows no longer sum to 1: mask the scores with -inf "
     "before it"),
    (lambda *a: pattern(*a).transpose(2, 3), "it is key by query; query by key is wanted (swap the last two axes)"),
    (wrong_pattern(swap=True), "queries and keys have changed places: k q^T in place of q k^T"),
    (lambda x, W_Q, b_Q, W_K, b_K: pattern(x, W_Q, 0 * b_Q, W_K, 0 * b_K),
     "the biases b_Q and b_K are missing (equation 3)"),
    (lambda x, W_Q, b_Q, W_K, b_K: pattern(x, W_Q, 0 * b_Q, W_K, b_K), "the bias b_Q is missing (equation 3)"),
]


def rows_are_distributions(calls: list[Call], outputs) -> None:
    """A pattern's first duty, and which way it fails."""
    x, W_Q = calls[0].args[:2]
    answer = same_shape(outputs[0], [len(x), len(W_Q), x.shape[1], x.shape[1]], "batch head query key")
    is_one = lambda sums: bool(((sums - 1).abs() < 1e-4).all())
    if not is_one(answer.sum(-1)):
        told = "is the future masked before the softmax, and is the softmax over the keys?"
        if is_one(answer.sum(-2)):
            told = ("the sum over the queries is 1 everywhere: the softmax runs over the wrong axis, or the last two "
                    "axes are swapped")
        raise Wrong(f"the sum over the keys (the last axis) is not 1 for each query; {told}")


# --- 1.5 ------------------------------------------------------------------------------------------------


def write_calls(generator: torch.Generator) -> list[Call]:
    calls = []
    for model in draw_models(generator):
        x, attention, heads, layer = read_by_attention(generator, model)
        calls.append(Call((x, attention, heads.W_V[layer], heads.b_V[layer], heads.W_O[layer])))
    return calls


def writes(x: Tensor, A: Tensor, W_V: Tensor, b_V: Tensor, W_O: Tensor) -> Tensor:
    """Head by head and in float64: another way than the handout's. [B, T, H, D]"""
    x, A, W_V, b_V, W_O = (each.double() for each in (x, A, W_V, b_V, W_O))
    each = [torch.bmm(A[:, h], x @ W_V[h] + b_V[h]) @ W_O[h] for h in range(len(W_V))]
    return torch.stack(each, dim=2).float()


WRITES_MISTAKES = [
    (lambda x, A, W_V, b_V, W_O: writes(x, A, W_V, 0 * b_V, W_O), "the bias b_V is missing (equation 3)"),
    (lambda x, A, W_V, b_V, W_O: writes(x, A.transpose(2, 3), W_V, b_V, W_O),
     "the pattern is used transposed: sum over the keys (the last axis), for each query (equation 5)"),
    (lambda x, A, *rest: writes(x, torch.eye(x.shape[1]).expand_as(A), *rest),
     "the pattern is not used: each position writes its own value (equation 5)"),
    (lambda *a: writes(*a).sum(2), "the heads are summed; they are to be kept apart: [B, T, H, D]"),
    (lambda *a: writes(*a).transpose(1, 2), "its axes are [B, H, T, D]; [B, T, H, D] is wanted"),
    (lambda x, A, W_V, b_V, W_O: writes(x, A, W_V, b_V, W_O.flip(0)), "the heads' W_O are in the reversed order"),
]
