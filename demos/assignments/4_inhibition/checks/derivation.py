"""Checks of 4.8: the pattern without a component, from the pattern with it; beside the softmax of the scores."""

import torch
from torch import Generator, Tensor

from grader.comparing import close
from grader.grading import Call, Outputs
from grader.inputs import random_int
from grader.open_problems import Posed

SEE = 'the handout, "The pattern without it"'


def posed(generator: Generator, how: str, size: float, constant: float = 0.0) -> Posed:
    """A batch of patterns at END. The scores behind them stay with the grader."""
    B, T = random_int(generator, 5, 8), random_int(generator, 6, 12)
    others = 1.5 * torch.randn(B, T, generator=generator).double()                  # what all else gives to the scores
    gain = torch.randn(B, T, generator=generator).double()
    c = size * torch.randn(B, generator=generator).double() + constant
    pattern = (others + c[:, None] * gain).softmax(1)                               # [B, T]
    return Posed((pattern.float(), c.float(), gain.float(), how), truth=(others, c, gain))


def calls_without(generator: Generator) -> list[Call]:
    return [posed(generator, "zero", 1.0), posed(generator, "mean", 1.0, 1.5), posed(generator, "mean", 0.0, 2.0)]


def by_brute_force(others: Tensor, c: Tensor, gain: Tensor, how: str) -> Tensor:
    """The scores with another coordinate, and their softmax: [B, T]."""
    new = torch.zeros_like(c) if how == "zero" else c.mean().expand_as(c)
    return (others + new[:, None] * gain).softmax(1).float()


def slips(pattern: Tensor, c: Tensor, gain: Tensor, how: str) -> list:
    change = -c if how == "zero" else c.mean() - c                                  # [B]
    by = (change[:, None] * gain).exp()                                             # [B, T]
    normal = lambda x: x / x.sum(1, keepdim=True)
    other = -c if how == "mean" else c.mean() - c
    return [(pattern * by, "each row must sum to 1 again: the softmax's denominator changes too"),
            (normal(pattern / by), "the exponent has the opposite sign"),
            (normal(pattern * (other[:, None] * gain).exp()),
             "this is what the other way of removing gives: `zero` sets c to 0, `mean` to its mean over the prompts"),
            (normal(pattern * (1 + change[:, None] * gain)), "this is right to first order only: a softmax is no "
             "linear function of its scores"),
            (pattern + change[:, None] * gain, "the scores change by this, not the pattern"),
            ((pattern + change[:, None] * gain).softmax(1), "this takes the pattern for the scores"),
            (pattern, "nothing was removed")]


def check_without(*numbers: int):
    def check(calls: list[Call], outputs: Outputs) -> None:
        for number in numbers:
            call = calls[number]
            close(outputs[number], by_brute_force(*call.truth, call.args[3]), 1e-4, slips(*call.args), "the pattern",
                  SEE)
    return check
