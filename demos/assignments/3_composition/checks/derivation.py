"""Checks of 3.7: which scores random directions have, in closed form; beside half a million directions drawn."""

import torch
from torch import Generator, Tensor

from grader.comparing import close, pair
from grader.grading import Call, Exercise, Outputs, Part
from grader.open_problems import Posed

SEE = 'the handout, "What is a high score?"'
N = 500_000


def posed(generator: Generator, D: int, K: int, mode: str, decay: float) -> Posed:
    reader = {f"W_{name}": torch.randn(D, K, generator=generator) * decay ** torch.arange(K) for name in "QKV"}
    reader["W_O"] = torch.randn(K, D, generator=generator)
    return Posed((reader, mode), truth=int(torch.randint(10**6, (1,), generator=generator)))


def calls_chance(generator: Generator) -> list[Call]:
    return [posed(generator, 8, 3, "Q", 0.7), posed(generator, 12, 4, "V", 1.0), posed(generator, 11, 4, "K", 0.9)]


def read_matrix(reader: dict[str, Tensor], mode: str) -> Tensor:
    Q, K, V, O = (reader[f"W_{name}"].double() for name in "QKVO")
    return {"Q": Q @ K.T, "K": K @ Q.T, "V": V @ O}[mode]                           # [D, D]


def squared_scores(reader: dict[str, Tensor], mode: str, seed: int) -> Tensor:
    """The squared scores of random unit vectors, each by the definition: [N]."""
    M = read_matrix(reader, mode)
    v = torch.randn(N, len(M), generator=torch.Generator().manual_seed(seed)).double()
    v = v / v.norm(dim=1, keepdim=True)                                             # [N, D]
    return (v @ M).pow(2).sum(1) / M.pow(2).sum()


def check_mean(*numbers: int):
    def check(calls: list[Call], outputs: Outputs) -> None:
        for number in numbers:
            call = calls[number]
            D = len(read_matrix(*call.args))
            scores = squared_scores(*call.args, call.truth)
            slips = [(D**-0.5, "this is about the mean of the scores; asked for is that of their squares"),
                     (1 / (D - 1), "with D - 1: that is for directions of mean 0 over D; here all directions count"),
                     (1 / len(call.args[0]["W_O"]), "this is 1 / K; a direction lies in D dimensions")]
            close(pair(outputs[number])[0], scores.mean().item(), 1e-2, slips, "the mean", SEE)
    return check


def check_deviation(*numbers: int):
    def check(calls: list[Call], outputs: Outputs) -> None:
        for number in numbers:
            call = calls[number]
            M = read_matrix(*call.args)
            D, S = len(M), M @ M.T / M.pow(2).sum()
            p = S.pow(2).sum().item()
            variance = 2 * (p * D - 1) / (D**2 * (D + 2))
            slips = [(variance, "this is the variance; asked for is its square root"),
                     ((2 * p)**0.5 / D, "this is for Gaussian vectors, whose length varies; these are unit vectors"),
                     (((2 * p + 1) / (D * (D + 2)))**0.5, "the squared mean was not taken off: var = E[s^2] - E[s]^2"),
                     ((2 * (D - 1) / (D**2 * (D + 2)))**0.5, "this is for a reader of one direction only (p = 1)")]
            close(pair(outputs[number])[1], squared_scores(*call.args, call.truth).std().item(), 1e-2, slips,
                  "the standard deviation", SEE)
    return check


derivation = Exercise("3.7 what is a high score?", "chance_scores", 2, calls_chance, [
    Part("the mean", 0.5, check_mean(0, 1, 2)), Part("the standard deviation, by Q", 0.75, check_deviation(0)),
    Part("... by V and K", 0.75, check_deviation(1, 2))])
