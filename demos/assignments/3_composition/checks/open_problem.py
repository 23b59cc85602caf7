"""Checks of 3.8, an open problem: rank the edges that were put into a model among all pairs.

All heads write along two directions that all read, more or less, which says nothing of a pair; eight pairs have a
direction of their own besides, at places that the seed draws. Composition as such sees the first alone.
"""

import torch
from torch import Generator, Tensor

from grader.comparing import Wrong, same_shape
from grader.grading import Call, Exercise
from grader.open_problems import Posed, between, scored
from tinyheads.known_circuits import roc_area

L, H, D, K, N_EDGES, SHARED = 4, 4, 48, 6, 8, 2
LATER = (torch.arange(L)[:, None] < torch.arange(L))[:, None, :, None].expand(L, H, L, H)


def heads_with_edges(generator: Generator) -> tuple[dict[str, Tensor], Tensor]:
    """Heads [L, H, D, K], and which pairs have an edge by Q: bool [L, H, L, H]."""
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    heads = {name: normal(L, H, D, K) / D**0.5 for name in ("W_Q", "W_K", "W_V")}
    heads["W_O"] = 0.3 * normal(L, H, K, D) / K**0.5
    common = torch.linalg.qr(normal(D, SHARED)).Q.T                                 # [2, D]
    loud, listening = 3 * torch.rand(2, L, H, 1, 1, generator=generator)            # [L, H, 1, 1] each
    heads["W_O"][:, :, :SHARED] += loud * common
    heads["W_Q"][:, :, :, :SHARED] += listening * common.T
    edges = torch.zeros(L, H, L, H, dtype=torch.bool)
    pairs = LATER.nonzero()                                                         # [pairs, 4]
    for l, h, m, r in pairs[torch.randperm(len(pairs), generator=generator)[:N_EDGES]].tolist():
        edges[l, h, m, r] = True
        i, j = (SHARED + torch.randint(K - SHARED, (2,), generator=generator)).tolist()
        direction = torch.nn.functional.normalize(normal(D), dim=0)
        heads["W_O"][l, h, i] += 1.3 * direction
        heads["W_Q"][m, r, :, j] += 1.3 * direction
    mix = torch.linalg.qr(normal(L, H, K, K)).Q                                     # its place in a head is hidden
    heads["W_V"], heads["W_O"] = heads["W_V"] @ mix, mix.mT @ heads["W_O"]
    mix = torch.linalg.qr(normal(L, H, K, K)).Q
    return heads | {"W_Q": heads["W_Q"] @ mix, "W_K": heads["W_K"] @ mix}, edges


def calls_edges(generator: Generator) -> list[Call]:
    posed = []
    for _ in range(2):
        heads, edges = heads_with_edges(generator)
        posed.append(Posed((heads,), truth=edges))
    return posed


def plain(heads: dict[str, Tensor]) -> Tensor:
    """The composition scores of whole heads by Q, by their definition: [L, H, L, H]."""
    OV, M = heads["W_V"] @ heads["W_O"], heads["W_Q"] @ heads["W_K"].mT             # [L, H, D, D]
    met = torch.einsum("lhde,mref->lhmrdf", OV, M).flatten(4).norm(dim=4)           # [L, H, L, H]
    return met / OV.flatten(2).norm(dim=2)[:, :, None, None] / M.flatten(2).norm(dim=2)


def score_edges(call: Posed, output: object) -> tuple[float, str]:
    output = same_shape(output, [L, H, L, H], "writer's layer, head, reader's layer, head", "the scores")
    if not output.is_floating_point() or output[LATER].isnan().any():
        raise Wrong("the scores should be floats, without nan where the reader is in a later layer")
    yours, by_composition = (roc_area(each[LATER], call.truth[LATER]) for each in (output, plain(*call.args)))
    return between(yours, by_composition, 1.0), f"an area of {yours:.3f}; of composition scores {by_composition:.3f}"


open_problem = Exercise("3.8 open: a better ranking", "edge_scores", 3, calls_edges, scored(
    3, score_edges, "the area of the composition scores of 3.2", "every edge above every other pair"))
