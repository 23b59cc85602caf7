"""Checks of 5.8: how much two random subspaces overlap, in closed form; beside many that were drawn."""

import torch
from torch import Generator, Tensor

from grader.comparing import close, pair
from grader.grading import Call, Outputs
from grader.inputs import random_int
from grader.open_problems import Posed

SEE = 'the handout, "What chance gives"'
N = 60_000


def calls_chance(generator: Generator) -> list[Call]:
    sizes = [(1, random_int(generator, 2, 4), random_int(generator, 7, 9)), (3, 3, random_int(generator, 10, 14)),
             (4, 2, random_int(generator, 8, 9))]
    return [Posed(size, truth=random_int(generator, 0, 10**6)) for size in sizes]


def overlaps(k: int, m: int, D: int, seed: int) -> Tensor:
    """Overlaps of one subspace with N random ones: [N]. No direction is special: the one is the first k axes."""
    drawn = torch.linalg.qr(torch.randn(N, D, m, generator=torch.Generator().manual_seed(seed))).Q     # [N, D, m]
    return drawn[:, :k].pow(2).sum((1, 2)).double()


def check_mean(*numbers: int):
    def check(calls: list[Call], outputs: Outputs) -> None:
        for number in numbers:
            (k, m, D), seed = calls[number].args, calls[number].truth
            slips = [(max(k, m) / D, "this is the mean of one squared cosine; asked for is that of their sum"),
                     (k / D, "this is for m = 1"), (m / D, "this is for k = 1"),
                     (k * m / (D - 1), "with D - 1: that is for directions of mean 0 over D")]
            close(pair(outputs[number])[0], overlaps(k, m, D, seed).mean().item(), 1e-2, slips, "the mean", SEE)
    return check


def check_deviation(*numbers: int):
    def check(calls: list[Call], outputs: Outputs) -> None:
        for number in numbers:
            (k, m, D), seed = calls[number].args, calls[number].truth
            one = 2 * m * (D - m) / (D**2 * (D + 2))                                # the variance for k = 1
            variance = one * k * (D - k) / (D - 1)
            slips = [(variance, "this is the variance; asked for is its square root"),
                     ((k * one)**0.5, "the k directions are at right angles, so that their parts are not independent: "
                      "what one has, another cannot have (their sum over all D directions is m, always)"),
                     (k * one**0.5, "this takes the k parts for equal, as if they rose and fell together")]
            close(pair(outputs[number])[1], overlaps(k, m, D, seed).std().item(), 2e-2, slips,
                  "the standard deviation", SEE)
    return check
