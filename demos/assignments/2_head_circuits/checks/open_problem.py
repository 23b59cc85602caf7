"""Checks of 2.9, an open problem: a head of fewer dimensions that writes nearly what the head writes.

Judged on stream vectors that were not handed in, from the same distribution: the share of what was written, squared,
that is missing. The baseline keeps the strongest components by weights; no matrix of rank m is better than the best
for the unseen vectors themselves (Eckart and Young 1936), which is 1.
"""

import torch
from torch import Generator, Tensor

import tinyheads as th
from grader.comparing import Wrong, same_shape
from grader.grading import Call, Exercise
from grader.inputs import MODEL, some_prompts
from grader.open_problems import Posed, between, scored

DIMENSIONS = 2                                      # m, of the narrow head


def calls_compress(generator: Generator) -> list[Call]:
    D, K, n = 48, 12, 500
    sizes = torch.logspace(0.6, -1.2, D)[torch.randperm(D, generator=generator)]    # [D], of the stream's directions
    turn = torch.linalg.qr(torch.randn(D, D, generator=generator)).Q
    x = torch.randn(2 * n, D, generator=generator) * sizes @ turn                   # [2n, D]
    W_V, W_O = torch.randn(2, D, K, generator=generator)
    return [posed(x, W_V, W_O.T.contiguous(), DIMENSIONS + 1, n), of_model(generator)]


def posed(x: Tensor, W_V: Tensor, W_O: Tensor, m: int, n: int) -> Posed:
    return Posed((x[:n].clone(), W_V, W_O, m), truth=x[n:])


@torch.no_grad()
def of_model(generator: Generator) -> Posed:
    """What a head of the bundled model's layer 0 picks up, at all positions of some lists."""
    model, prompts, stream = th.load(MODEL), some_prompts(generator, 60, 5), th.Stream(record=True)
    heads = th.Heads.of(model)
    head = int(torch.randint(model.config.n_head, (1,), generator=generator))
    model(prompts.tokens, stream)
    bare = torch.nn.functional.layer_norm(stream.writes["embed"], (model.config.n_embd,))       # [B, T, D]
    x = (stream.patterns["L0"][:, head] @ bare).flatten(0, 1)                                   # [B T, D]
    x = x[torch.randperm(len(x), generator=generator)]
    return posed(x, heads.W_V[0, head], heads.W_O[0, head], DIMENSIONS, len(x) // 2)


def missing(x: Tensor, OV: Tensor, narrow: Tensor) -> float:
    """The share of what is written, squared, that a matrix of rank m misses."""
    return ((x @ (OV - narrow)).pow(2).sum() / (x @ OV).pow(2).sum()).item()


def score_compress(call: Posed, output: object) -> tuple[float, str]:
    (_, W_V, W_O, m), x = call.args, call.truth
    OV, (D, _) = W_V @ W_O, W_V.shape
    if not isinstance(output, (list, tuple)) or len(output) != 2:
        raise Wrong(f"the result should be two matrices: (W_V [{D}, {m}], W_O [{m}, {D}])")
    output = [same_shape(each, shape, "", what) for each, shape, what
              in zip(output, ([D, m], [m, D]), ("the narrow W_V", "the narrow W_O"))]
    for each, what in zip(output, ("the narrow W_V", "the narrow W_O")):
        if not each.is_floating_point() or not each.isfinite().all():
            raise Wrong(f"{what} holds nan or inf, or no floats")
    U, S, Vh = torch.linalg.svd(OV)
    by_weights = missing(x, OV, U[:, :m] * S[:m] @ Vh[:m])
    written = torch.linalg.svdvals(x @ OV).pow(2)
    least = (written[m:].sum() / written.sum()).item()
    yours = missing(x, OV, output[0].float() @ output[1].float())
    told = (f"{yours:.1%} of what is written is missing with {m} dimensions; with the strongest components "
            f"{by_weights:.1%}, at best {least:.1%}")
    return between(-yours, -by_weights, -least), told


open_problem = Exercise("2.9 open: a narrower head", "narrow_head", 3, calls_compress, scored(
    3, score_compress, "the strongest components by weights", "the best for the unseen vectors themselves"))
