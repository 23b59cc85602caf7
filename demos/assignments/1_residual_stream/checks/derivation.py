"""Checks of 1.8: the logit without one write, in closed form, beside the LayerNorm computed once more."""

import torch
from torch import Generator, Tensor

from grader.comparing import close
from grader.grading import Call, Outputs
from grader.inputs import random_int
from grader.open_problems import Posed

EPSILON = 1e-5
SEE = 'the handout, "The logit without one write"'


def posed(generator: Generator, n: int, D: int, size: float, cancels: bool = False) -> Posed:
    """Random writes at one position, told by their parts and covariances alone; the writes stay with the grader."""
    writes = size * torch.randn(n, D, generator=generator).double()                 # [n, D]
    if cancels:
        writes[1] = 0.3 * writes[1] - 2.0 * writes[0]
        writes[0] = 2.5 * writes[0]
    writes += size * torch.randn(n, 1, generator=generator)                         # a mean over D, which nobody reads
    gain, bias, u = torch.randn(3, D, generator=generator).double()                 # [D] each
    centred = writes - writes.mean(1, keepdim=True)                                 # [n, D]
    covariance = centred @ centred.T / D                                            # [n, n]
    parts = centred @ (gain * u) / (covariance.sum() + EPSILON).sqrt()              # [n]
    args = parts.float(), (bias @ u).item(), covariance.float()
    return Posed(args, truth=(writes, gain, bias, u))


def calls_without(generator: Generator) -> list[Call]:
    return [posed(generator, random_int(generator, 6, 9), 32, 1.0),
            posed(generator, random_int(generator, 10, 14), 24, 0.7, cancels=True),
            posed(generator, 5, 40, 2e-3)]


def by_brute_force(writes: Tensor, gain: Tensor, bias: Tensor, u: Tensor) -> Tensor:
    """Each write left out in turn, the LayerNorm computed anew: [n]."""
    x = writes.sum(0) - writes                                                      # [n, D], row i without write i
    centred = x - x.mean(1, keepdim=True)
    scale = (centred.pow(2).mean(1, keepdim=True) + EPSILON).sqrt()                 # [n, 1]
    return ((centred / scale * gain + bias) @ u).float()


def closed_form(parts: Tensor, rest: float, C: Tensor, cross: float = 2.0, own: float = 1.0, upside_down: bool = False,
                epsilon: float = EPSILON) -> Tensor:
    """The closed form, with the slips that are made in it."""
    before = C.sum() + epsilon
    after = (before - cross * C.sum(1) + own * C.diagonal()).clamp_min(1e-9)        # [n]
    factor = (after / before).sqrt() if upside_down else (before / after).sqrt()    # [n]
    return (parts.sum() - parts) * factor + rest


def slips(parts: Tensor, rest: float, C: Tensor) -> list:
    whole = parts.sum()
    factor = (closed_form(parts, 0.0, C)) / (whole - parts)
    return [
        (whole - parts + rest, "the scale s stayed as it was for the whole stream; without a write it is another one"),
        (closed_form(parts, rest, C, cross=0, own=-1), "its variance was taken off alone: that is right only for a "
         "write that is uncorrelated with all others, for var(x - w) = var(x) - 2 cov(x, w) + var(w)"),
        (closed_form(parts, rest, C, cross=1, own=0), "its covariance with the stream counts once; var(x - w) has it "
         "twice, and var(w) besides"),
        (closed_form(parts, rest, C, own=0), "var(w) is missing in var(x - w)"),
        (closed_form(parts, rest, C, upside_down=True), "the ratio of the two scales is upside down"),
        ((whole - parts + rest) * factor, "the bias's part b.u was rescaled too; nothing divides it by s"),
        ((whole - parts) * factor, "the bias's part b.u is missing"),
        (whole * factor + rest, "the write's own part is still in the sum"),
        (closed_form(parts, rest, C, epsilon=0.0), "epsilon, 1e-5, belongs to both variances")]


def check_without(number: int):
    def check(calls: list[Call], outputs: Outputs) -> None:
        call = calls[number]
        close(outputs[number], by_brute_force(*call.truth), 1e-3, slips(*call.args), "the logits", SEE)
    return check
