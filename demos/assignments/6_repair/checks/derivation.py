"""Checks of 6.7: the least change of W_O that sets given coordinates; beside a least-squares solver."""

import torch
from torch import Generator, Tensor

from grader.comparing import Wrong, close, same_shape
from grader.grading import Call, Outputs
from grader.inputs import random_basis

SEE = 'the handout, "The least change"'


def posed(generator: Generator, n: int, K: int, D: int, k: int, hold: float) -> Call:
    z, wanted = torch.randn(n, K, generator=generator), torch.randn(n, k, generator=generator)
    return Call((z, wanted, random_basis(generator, D, k), hold))


def calls_least(generator: Generator) -> list[Call]:
    hold = 0.5 + torch.rand(1, generator=generator).item()
    return [posed(generator, 6, 16, 32, 3, 0.0), posed(generator, 40, 8, 24, 2, hold),
            posed(generator, 5, 12, 20, 3, 2 * hold)]


def by_brute_force(z: Tensor, wanted: Tensor, basis: Tensor, hold: float) -> Tensor:
    """The least squares of both terms as one list of equations, by LAPACK's solver for those without one solution."""
    K, k = z.shape[1], wanted.shape[1]
    rows = torch.cat([z.double(), hold**0.5 * torch.eye(K).double()])               # [n + K, K]
    asked = torch.cat([wanted.double(), torch.zeros(K, k).double()])                # [n + K, k]
    inside = torch.linalg.lstsq(rows, asked, driver="gelsd").solution               # [K, k], the shortest of all
    return (inside @ basis.double()).float()                                        # [K, D]


def slips(z: Tensor, wanted: Tensor, basis: Tensor, hold: float) -> list:
    n, K = z.shape
    ridge = lambda weight: by_brute_force(z, wanted, basis, weight)                 # [K, D]
    return [(lambda: ridge(0.0), "`hold` was left out"),
            (lambda: ridge(hold * n), "the errors were averaged over the n vectors; they are summed here"),
            (lambda: ridge(hold**2), "`hold` came in squared"),
            (lambda: z.T @ wanted @ basis, "the inverse of z z^T + hold is missing: the vectors z overlap"),
            (lambda: -ridge(hold), "its sign is the opposite")]


def shape_least(calls: list[Call], outputs: Outputs) -> None:
    for call, output in zip(calls, outputs):
        (_, K), (_, D) = call.args[0].shape, call.args[2].shape
        same_shape(output, [K, D], "d_head d_model", "the change of W_O")


def exact(calls: list[Call], outputs: Outputs) -> None:
    """hold = 0 and fewer vectors than dimensions: the coordinates are set, and nothing outside the subspace."""
    z, wanted, basis, _ = calls[0].args
    change = same_shape(outputs[0], [z.shape[1], basis.shape[1]], "d_head d_model", "the change of W_O")
    written = z @ change.float()                                                    # [n, D]
    close(written @ basis.T, wanted, 1e-2, (), "with hold = 0, the coordinates that the change adds", SEE)
    if (written - written @ basis.T @ basis).norm() > 1e-2 * written.norm():
        raise Wrong(f"the change writes outside the subspace too. See {SEE}")


def check_least(*numbers: int):
    def check(calls: list[Call], outputs: Outputs) -> None:
        for number in numbers:
            close(outputs[number], by_brute_force(*calls[number].args), 1e-2, slips(*calls[number].args),
                  "the change of W_O", SEE)
    return check
