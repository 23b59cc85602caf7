"""Which edges stand out: composition, corrected for what every head does anyway.

A plain composition score is large for two dull reasons: some directions of the stream are written
and read by nearly everybody, and some pairs overlap in whatever way they are compared. So:

1. Whiten. With G the sum of what all heads write and read (as Gram matrices over the stream, every
   head scaled to size 1) and J = G^(-1/2), measure everything in the stream as seen through J:
   a direction that everybody uses counts for little.
2. Take one channel. The strength of a pair is the largest singular value of what meets, the
   strongest single message, in place of the Frobenius norm over all of them:
       S_m(w, r) = ||A_w J J B_r||_2 / (||A_w J||_F ||J B_r||_F),   A_w = OV_w,  B_r = M_r of mode m
3. Ask through which door. The score of mode m is  log S_m - (log S_Q + log S_K + log S_V) / 3.

No constant is fitted. The three steps are ours, not the paper's; how they were found, and everything
else that was tried, is told in demos/03_predict_circuit.py. `predict_edges` uses the first step alone,
component by component.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tinyheads.composition import MODES, lengths_read, nonzero, reader_rows, rows_of, unit
from tinyheads.errors import HeadError
from tinyheads.heads import SVD, Component, Head, Heads, block_of, check_place, degenerate_blocks, one_thread, ov_svd
from tinyheads.files.progress import Progress


def writer_rows(heads: Heads) -> Tensor:
    """What each head writes, as K rows over the stream: [L, H, K, D], whose Gram matrix is OV^T OV."""
    return rows_of(heads.W_O.transpose(2, 3), heads.W_V)


def whitening(heads: Heads) -> Tensor:
    """J = G^(-1/2) [D, D]: after it, the heads' writes and reads, taken together, favour no direction."""
    G = sum(torch.einsum("lhkd,lhke->de", rows, rows)                 # [D, D]
            for rows in [unit(writer_rows(heads)), *(unit(reader_rows(heads, mode)) for mode in MODES)])
    values, vectors = torch.linalg.eigh(G.double())                   # [D], [D, D]
    used = values > 1e-6 * values[-1]                                 # the mean over D, which folding took out, is not
    roots = torch.where(used, values, torch.ones_like(values)).rsqrt() * used
    return ((vectors * roots) @ vectors.T).to(G.dtype)


def channel_strengths(heads: Heads) -> dict[str, Tensor]:
    """S of every pair of heads in each mode: {"Q", "K", "V": [L, H, L, H]}, from 0 to 1; 0 where not later."""
    J = whitening(heads)
    L, H = heads.W_Q.shape[:2]
    writers = unit(writer_rows(heads) @ J)                            # [L, H, K, D]
    strengths = {}
    with Progress("channels", 3 * (L - 1), "layers") as bar:
        for mode in MODES:
            readers = unit(reader_rows(heads, mode) @ J)
            strengths[mode] = writers.new_zeros(L, H, L, H)
            for layer in range(L - 1):                                # this layer's writers, all later readers
                met = torch.einsum("wkd,lrjd->wlrkj", writers[layer], readers[layer + 1:])  # [H, later, H, K, K]
                with one_thread():
                    largest = torch.linalg.eigvalsh(met @ met.transpose(3, 4))[..., -1]     # [H, later, H]
                strengths[mode][layer, :, layer + 1:] = largest.clamp_min(0).sqrt()
                bar.add()
    return strengths


def channel_scores(heads: Heads) -> dict[str, Tensor]:
    """The score of every pair in each mode: {"Q", "K", "V": [L, H, L, H]}, a log ratio; -inf where not later.

    Above 0: this pair meets through this door more than through the other two.
    """
    strengths = channel_strengths(heads)
    logs = {mode: strength.clamp_min(1e-12).log() for mode, strength in strengths.items()}
    mean = sum(logs.values()) / len(MODES)
    layers = torch.arange(mean.shape[0])
    later = (layers[:, None] < layers)[:, None, :, None]              # [L, 1, L, 1]
    return {mode: (log - mean).masked_fill(~later, -torch.inf) for mode, log in logs.items()}


@dataclass(frozen=True)
class Edge:
    """A component that a later head reads. Prints as `L8.H6.C2 -> L9.H9 by Q`.

    score: whitened component score, 0 to 1; distance: how far above the median of everything written
    to that reader, in robust standard deviations (1.4826 times the median absolute deviation);
    block: the components that this one cannot be told apart from, itself among them.
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
    """The edges that stand out, furthest first: each pair of heads with its strongest component.

    mode: "Q", "K" or "V"; top: how many; reader: only those into this head ("L9.H9"), else into all.
    Needs weights alone, and no knowledge of any circuit. Raises HeadError.
    """
    if type(top) is not int or top < 1:
        raise HeadError(f"top must be a whole number from 1, not {top!r}")
    L, H, D, K = heads.W_Q.shape
    if reader is not None:
        reader = reader if isinstance(reader, Head) else Head.parse(reader)
        check_place(reader.layer, reader.head, L, H)
    ov = ov_svd(heads)
    blocks = degenerate_blocks(ov)
    directions, rows = whitened_sides(heads, mode, ov)
    found = []
    for into in [reader] if reader else [Head(layer, head) for layer in range(1, L) for head in range(H)]:
        if into.layer == 0:
            continue  # nothing comes before it
        met = directions[:into.layer] @ rows[into.layer, into.head].T     # [earlier layers, H, K, K]
        scores = met.norm(dim=-1)                                         # [earlier layers, H, K]
        far = distances(scores.reshape(-1, 1)).view(scores.shape)
        furthest, which = far.max(dim=2)                                  # [earlier layers, H]: each writer's best
        for layer in range(into.layer):
            for head in range(H):
                component = Component(layer, head, int(which[layer, head]))
                score = scores[layer, head, component.index].item()
                found.append((furthest[layer, head].item(), score, component, into))
    found.sort(key=lambda edge: -edge[0])
    return [Edge(component, into, mode, score, distance, tuple(block_of(blocks, component)))
            for distance, score, component, into in found[:top]]


def whitened_sides(heads: Heads, mode: str, ov: SVD) -> tuple[Tensor, Tensor]:
    """What the components write, as unit rows, and what the heads read, each of size 1: both [L, H, K, D], whitened."""
    J = whitening(heads)
    directions = ov.write @ J
    return directions / nonzero(directions.norm(dim=-1, keepdim=True)), unit(reader_rows(heads, mode) @ J)


def whitened_component_scores(heads: Heads, mode: str) -> Tensor:
    """`component_scores` in the whitened stream: [L, H, K, L, H], from 0 to 1; 0 where not later."""
    return lengths_read(*whitened_sides(heads, mode, ov_svd(heads)))


def distances(scores: Tensor) -> Tensor:
    """How far each score [N, H] stands above its column's median, in robust standard deviations."""
    median = scores.median(dim=0).values                              # [H]
    spread = 1.4826 * (scores - median).abs().median(dim=0).values    # [H]; a normal distribution's sigma
    return (scores - median) / nonzero(spread)
