"""Checks of 2.8: the effective number of components, from two Gram matrices; beside the SVD of the full matrix."""

import torch
from torch import Generator, Tensor

from grader.comparing import close
from grader.grading import Call, Exercise, Outputs, Part
from grader.inputs import random_int
from grader.open_problems import Posed

SEE = 'the handout, "How many components?"'


def posed(generator: Generator, D: int, K: int, decay: float) -> Posed:
    """Two thin matrices, the columns of one ever weaker; only their Gram matrices are handed in."""
    A, B = torch.randn(2, D, K, generator=generator)
    A = A * decay ** torch.arange(K)
    mix = torch.randn(K, K, generator=generator)
    A, B = A @ mix, B @ torch.linalg.inv(mix).T                                     # A @ B.T stays, its factors do not
    return Posed((A.T @ A, B.T @ B), truth=A @ B.T)


def calls_effective(generator: Generator) -> list[Call]:
    return [posed(generator, random_int(generator, 20, 30), 6, 0.6), posed(generator, 40, 8, 1.0),
            posed(generator, 30, 5, 0.2)]


def squares(M: Tensor) -> Tensor:
    return torch.linalg.svdvals(M.double()).pow(2)                                  # [min(D, D)]


def check_effective(*numbers: int):
    def check(calls: list[Call], outputs: Outputs) -> None:
        for number in numbers:
            A, B = (gram.double() for gram in calls[number].args)
            s = squares(calls[number].truth)
            right, G = s.sum()**2 / s.pow(2).sum(), A @ B
            slips = [(s.sqrt().sum()**2 / s.sum(), "this counts the sigma, not their squares"),
                     (G.trace()**2 / G.pow(2).sum(), "the sum of sigma^4 is trace(G G), with G the product of both "
                      "Gram matrices; G is not symmetric, so that it is not the sum of G's squared entries"),
                     (s.pow(2).sum() / s.sum()**2, "it is upside down"),
                     (s.sum() / s.pow(2).sum().sqrt(), "this is its square root"),
                     (torch.tensor(float(len(A))), "this is K, whatever the components' sizes"),
                     (s.sum() / s.max(), "this is the sum of the squares by the largest of them")]
            close(outputs[number], right.float(), 1e-3, slips, "the effective number", SEE)
    return check


derivation = Exercise("2.8 how many components?", "effective_components", 2, calls_effective, [
    Part("a steep spectrum", 1, check_effective(0)), Part("other spectra", 1, check_effective(1, 2))])
