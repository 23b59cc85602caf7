"""Checks of 2.4: a head's pattern, compared with the formula and with the model's own."""

import torch
import torch.nn.functional as F
from torch import Tensor

import tinyheads as th
from grader.comparing import same_shape
from grader.grading import Call, Check, Exercise, Part, agrees, all_of
from grader.inputs import random_int

from .weights import TOLERANCE, heads, model, some_head, without_mean


def stream_before(layer: int, tokens: Tensor) -> Tensor:
    """The stream before a layer's attention [T, D], of one prompt [T]."""
    stream = th.Stream(record=True)
    with torch.no_grad():
        model()(tokens[None], stream)
    names = th.write_names(model().config)
    before = names[:names.index(f"L{layer}.H0")]
    return sum(stream.writes[name] for name in before)[0]


def pattern_calls(generator: torch.Generator) -> list[Call]:
    """Streams of two sizes, then one of the model's; last, vectors whose variance is about epsilon."""
    calls = []
    for T, D, K, size in [(6, 18, 4, 2), (9, 20 + random_int(generator, 0, 3), 5, 2), (7, 18, 4, 0.003)]:
        W = without_mean(torch.randn(2, D, K, generator=generator) * D**-0.5, 1)
        x = size * (torch.randn(T, D, generator=generator) + 0.75)
        calls.append(Call((x, *W, *(0.7 * torch.randn(2, K, generator=generator)))))
    layer, head = some_head(generator)
    tokens = torch.randint(0, model().config.n_vocab, (12,), generator=generator)
    of = heads(True)
    of_model = Call((stream_before(layer, tokens), of.W_Q[layer, head], of.W_K[layer, head], of.b_Q[layer, head],
                     of.b_K[layer, head]))
    return [*calls[:2], of_model, calls[2]]


def bare(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-5)


def later(T: int) -> Tensor:
    return torch.ones(T, T).triu(1).bool()


def attend(n: Tensor, W_Q: Tensor, W_K: Tensor, b_Q: Tensor, b_K: Tensor, scale: float | None = None, masked=later,
           axis: int = -1) -> Tensor:
    """A pattern from whatever n is read; the knobs make the mistakes."""
    q, k = n @ W_Q + b_Q, n @ W_K + b_K                                                            # [T, K]
    scores = q @ k.T / (W_Q.shape[1]**0.5 if scale is None else scale)                             # [T, T]
    return scores.masked_fill(masked(len(n)), -torch.inf).softmax(axis)


def zeros_in_place_of_mask(x: Tensor, W_Q: Tensor, W_K: Tensor, b_Q: Tensor, b_K: Tensor) -> Tensor:
    scores = (bare(x) @ W_Q + b_Q) @ (bare(x) @ W_K + b_K).T / W_Q.shape[1]**0.5
    return scores.tril().softmax(-1)


PATTERN = [
    (lambda x, *w: attend(bare(x), *w, scale=1), "the scores are not divided by the square root of d_head"),
    (lambda x, *w: attend(bare(x), *w, scale=w[0].shape[1]),
     "the scores are divided by d_head; it should be its square root"),
    (lambda x, *w: attend(bare(x), *w, scale=x.shape[1]**0.5),
     "the scores are divided by the square root of d_model (D); it should be that of d_head (K)"),
    (lambda x, *w: attend(bare(x), w[1], w[0], w[3], w[2]),
     "this is the pattern of the transposed QK: your queries and keys are exchanged"),
    (lambda x, *w: attend(bare(x), *w).T, "it is transposed: rows are queries, columns are keys"),
    (lambda x, *w: attend(bare(x), *w, axis=0),
     "the softmax runs over the queries (dim=0); each query's row should sum to 1"),
    (lambda x, *w: attend(bare(x), *w, masked=lambda T: later(T) & False),
     "keys after the query are attended to: mask them before the softmax"),
    (lambda x, *w: attend(bare(x), *w, masked=lambda T: later(T) & False).tril(),
     "you set the later keys to 0 after the softmax, so the rows no longer sum to 1: mask the scores before it, with "
     "-inf"),
    (zeros_in_place_of_mask, "you set the scores of later keys to 0 before the softmax; exp(0) is 1, so they are "
                             "attended to. Use -inf"),
    (lambda x, *w: attend(bare(x), *w, masked=lambda T: later(T).T),
     "the mask is the wrong way round: a query may look at EARLIER keys"),
    (lambda x, *w: attend(bare(x), *w, masked=lambda T: torch.ones(T, T).triu(2).bool()),
     "a query attends to the position just after it, too: mask all that is strictly later (triu with diagonal=1)"),
    (lambda x, *w: attend(bare(x), *w, masked=lambda T: torch.ones(T, T).triu().bool()),
     "a query may look at its own position too: mask what is strictly later (triu with diagonal=1)"),
    (lambda x, *w: attend(F.layer_norm(x, x.shape[-1:], eps=0.0), *w),
     "epsilon (1e-5) is missing: on vectors of small variance it matters"),
    (lambda x, *w: attend(x, *w), "x was not normalised: folding puts LayerNorm's gain and bias into the weights, but "
                                  "subtracting the mean and dividing by the standard deviation is still to be done"),
    (lambda x, *w: attend(x - x.mean(-1, keepdim=True), *w),
     "the mean of x was removed but x was not divided by its standard deviation"),
    (lambda x, *w: attend(without_mean(x, -1) / x.std(-1, keepdim=True), *w),
     "the standard deviation is that of a sample (divided by D - 1): LayerNorm divides by D, torch's unbiased=False"),
    (lambda x, *w: attend(x / x.square().mean(-1, keepdim=True).sqrt(), *w),
     "you divided by the root mean square of x, without taking the mean out first"),
    (lambda x, *w: attend(F.layer_norm(x.T, x.shape[:1]).T, *w),
     "you normalised over positions; LayerNorm is over D, at each position by itself"),
    (lambda x, Q, K, b, c: attend(bare(x), Q, K, 0 * b, c), "the bias b_Q is missing")]


def own_pattern(x: Tensor, W_Q: Tensor, *_) -> Tensor:
    """The pattern that the head with this W_Q makes in the model itself, from its unfolded weights."""
    layer, head = ((heads(True).W_Q == W_Q).all(-1).all(-1)).nonzero()[0].tolist()
    block, H = model().h[layer], model().config.n_head
    q, k, _ = block.attn.c_attn(block.ln_1(x)).view(len(x), 3, H, -1)[:, :, head].unbind(1)         # [T, K]
    return (q @ k.T / q.shape[1]**0.5).masked_fill(later(len(x)), -torch.inf).softmax(-1)


def pattern(number: int, expected=lambda x, *w: attend(bare(x), *w)) -> Check:
    return agrees(number, expected, TOLERANCE, PATTERN, "the pattern", "the handout, parts 1 and 4")


attention_pattern = Exercise("2.4 a pattern from folded weights", "attention_pattern", 3, pattern_calls, [
    Part("shape", 0.5, lambda calls, outputs: same_shape(outputs[0], [6, 6], "query key", "the pattern")),
    Part("values", 1.5, pattern(0)), Part("another size, and small vectors", 0.5, all_of(pattern(1), pattern(3))),
    Part("the model's own pattern", 0.5, pattern(2, own_pattern))])
