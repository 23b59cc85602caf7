"""Which edges stand out: the components that write most into what a later head reads.

An edge is one component of a head, and a later head that reads it. Edges are ranked by the paper's score of a component
(Merullo et al. 2024, §3; `composition.component_score`) and by nothing else:

    score = ||v_i^T M_r|| / ||M_r||_F         v_i what the component writes, M_r where the reader reads it (Q, K or V)

Beside the score stands its distance from the reader's other writers: how far it lies above the median of all that is
written to this reader, in robust standard deviations. It does not change the order among one reader's edges, and says
whether the first of them stands apart from the rest.
"""

from dataclasses import dataclass

from torch import Tensor

from tinyheads.composition import component_score, narrow, read_circuits, safe_divisor
from tinyheads.errors import HeadError
from tinyheads.heads import Component, Head, Heads, block_of, check_place, degenerate_blocks, ov_svd


@dataclass(frozen=True)
class Edge:
    """A component that a later head reads. Prints as `L8.H6.C2 -> L9.H9 by Q`.

    score: the component's composition score with the reader, from 0 to 1; distance: how far the score lies above the
    median of all components before the reader, in robust standard deviations; block: the components that this one
    cannot be told apart from, because their singular values are alike, itself among them (`heads.degenerate_blocks`).
    """

    component: Component
    reader: Head
    mode: str
    score: float
    distance: float
    block: tuple[Component, ...]

    def __str__(self) -> str:
        return f"{self.component} -> {self.reader} by {self.mode}"


def predict_edges(heads: Heads, mode: str, top: int = 20, reader: Head | str | None = None) -> list[Edge]:
    """The edges with the highest score, highest first, from weights alone.

    mode: "Q", "K" or "V"; top: how many; reader: only edges into this head (`Head(9, 9)` or "L9.H9"), else into any.
    Every component of every head in an earlier layer makes an edge of its own, so that one pair of heads can appear
    several times; and since a component's size cancels in its score, a weak component as well as a strong one. Into a
    reader in layer 0 there are no edges. Raises HeadError for an unknown mode, for a reader that the model does not
    have, and for a top that is not a whole number from 1. Source: Merullo et al. 2024, §3 (the score).
    """
    if type(top) is not int or top < 1:
        raise HeadError(f"top must be a whole number from 1, not {top!r}")
    L, H, D, K = heads.W_Q.shape
    if reader is not None:
        reader = reader if isinstance(reader, Head) else Head.parse(reader)
        check_place(reader.layer, reader.head, L, H)
    read = narrow(*read_circuits(heads, mode))                            # [L, H, D, K]
    ov = ov_svd(heads)
    best = []
    for into in [reader] if reader else [Head(layer, head) for layer in range(L) for head in range(H)]:
        written = ov.write[:into.layer].flatten(0, 2)                     # [N, D], the N components before this reader
        scores = component_score(written, read[into.layer, into.head])    # [N]
        far = distances(scores)                                           # [N]
        for i in scores.argsort(descending=True, stable=True)[:top].tolist():
            component = Component(i // (H * K), i // K % H, i % K)
            best.append((scores[i].item(), far[i].item(), component, into))
    best.sort(key=lambda edge: -edge[0])
    blocks = degenerate_blocks(ov)
    return [Edge(component, into, mode, score, distance, tuple(block_of(blocks, component)))
            for score, distance, component, into in best[:top]]


def distances(scores: Tensor) -> Tensor:
    """How far each of the scores [N] lies above their median, in robust standard deviations: [N].

    One robust standard deviation is 1.4826 times the median distance from the median: for normally distributed scores
    the standard deviation itself, and hardly changed by a few scores that lie far off.
    """
    if scores.numel() == 0:
        return scores
    above = scores - scores.median()
    return above / safe_divisor(1.4826 * above.abs().median())
