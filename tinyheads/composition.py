"""Composition: how strongly an earlier head writes into what a later head reads.

A writer's output is `x @ OV_w`. A later head r reads it in one of three places: as its query
("Q", through QK_r), as its key ("K", through QK_r^T) or as its value ("V", through OV_r). Call the
circuit M_r. The composition score is the share of the two circuits that meets (Elhage et al. 2021;
Merullo et al. 2024, §3):

    whole head:        ||OV_w M_r||_F / (||OV_w||_F ||M_r||_F)
    one component:     ||v_i^T M_r|| / ||M_r||_F        where OV_w = sum_i s_i u_i v_i^T

Random circuits score about 1 / sqrt(D). The two are tied together: the squared whole-head score is
the mean of the squared component scores, weighted by s_i^2. A head's channels to another are often
one or two components strong, and vanish in the mean.

What it costs, in additions and multiplications: (LH)^2 D K^2 a mode for all components, which is the
plain product of what all components write, [LHK, D], by what all heads read, [D, LHK], for later
readers only. Whole heads need not meet component by component, and cost about (LH)^2 D^2. Nothing of
size D x D is made for more than a block of rows; demos/benchmark.py --sizes predicts and measures
time and memory up to 1558M.
"""

from typing import Iterable

import torch
from torch import Tensor

from tinyheads.errors import HeadError
from tinyheads.heads import SVD, Heads, one_thread, ov_svd

MODES = ("Q", "K", "V")
ROWS = 1024  # writer components at a time, so that their products stay in the processor's cache
BLOCK = 32   # rows of [D, D] matrices at a time, for the same reason


def read_circuits(heads: Heads, mode: str) -> tuple[Tensor, Tensor]:
    """What each head multiplies the stream by where it reads it, as two factors [L, H, D, K]: M_r = A B^T.

    M_r is W_Q W_K^T for "Q", W_K W_Q^T for "K" and W_V W_O for "V". Raises HeadError for another mode.
    """
    if mode not in MODES:
        raise HeadError(f"composition is by 'Q', 'K' or 'V', not by {mode!r}")
    return {"Q": (heads.W_Q, heads.W_K), "K": (heads.W_K, heads.W_Q),
            "V": (heads.W_V, heads.W_O.transpose(2, 3))}[mode]


def rows_of(A: Tensor, B: Tensor) -> Tensor:
    """K rows that stand for A B^T, of factors [..., D, K]: rows [..., K, D] with ||v^T A B^T|| = ||rows @ v||.

    With B = Q R, the orthonormal Q changes no length: ||v^T A B^T|| = ||v^T A R^T||.
    """
    with one_thread():
        R = torch.linalg.qr(B, mode="r").R                                # [..., K, K]
    return R @ A.transpose(-2, -1)                                        # [..., K, D]


def reader_rows(heads: Heads, mode: str) -> Tensor:
    """What each head reads in a mode: [L, H, K, D], with ||v^T M_r|| = ||rows @ v||. Raises HeadError."""
    return rows_of(*read_circuits(heads, mode))


def unit(rows: Tensor) -> Tensor:
    """Each head's rows [..., K, D] scaled to Frobenius norm 1."""
    return rows / nonzero(rows.norm(dim=(-2, -1), keepdim=True))


def component_scores(heads: Heads, mode: str, ov: SVD | None = None) -> Tensor:
    """The score of every component of every writer with every reader: [L, H, K, L, H], from 0 to 1.

    First three axes: the component that writes; last two: the head that reads; 0 where the reader
    is not in a later layer. ov: `ov_svd(heads)` of the same heads, if it is there already. Raises HeadError.
    """
    L, H, D, K = heads.W_V.shape
    A, B = read_circuits(heads, mode)
    if ov and ov.write.shape != (L, H, K, D):
        raise HeadError(f"ov is of other heads: its directions are {list(ov.write.shape)}, these heads' {[L, H, K, D]}")
    readers = (unit(rows_of(*factors)) for factors in zip(A, B))          # a layer at a time: [H, K, D] each
    return lengths_read((ov or ov_svd(heads)).write, readers)


def lengths_read(directions: Tensor, rows: Iterable[Tensor]) -> Tensor:
    """||rows_r v|| for each direction v [L, H, K, D] and each later reader: [L, H, K, L, H].

    rows: what the readers of each layer in turn read, [H, K, D]; one tensor [L, H, K, D] will do.
    Nearly all of the time goes into one matrix product a reader layer; its result is reduced to
    lengths piece by piece, while the piece is still in the processor's cache.
    """
    L, H, K, D = directions.shape
    writers = directions.reshape(L * H * K, D)
    lengths = writers.new_zeros(L * H * K, L, H)
    for layer, layer_rows in enumerate(rows):
        readers = layer_rows.reshape(H * K, D).T                          # [D, H * K]
        for start in range(0, layer * H * K, ROWS):                       # strictly earlier writers only
            some = slice(start, min(start + ROWS, layer * H * K))
            met = (writers[some] @ readers).view(-1, H, K)                # [<= ROWS, H, K]
            lengths[some, layer] = torch.linalg.vector_norm(met, dim=-1)  # [<= ROWS, H]
    return lengths.view(L, H, K, L, H)


def composition_scores(heads: Heads, mode: str) -> Tensor:
    """The score of every whole head with every later one: [L, H, L, H], writer by reader, from 0 to 1.

    0 where the reader is not in a later layer. With Gram matrices over the stream,

        ||OV_w M_r||_F^2 = tr(OV_w^T OV_w M_r M_r^T) = sum over d, e of  written[d, e] * read[d, e]

    so that all pairs are one matrix product, summed over blocks of the rows d. Both Gram matrices are
    symmetric: what lies left of a diagonal block was counted already, as its mirror image.
    Rounding: on GPT-2's weights scores are good to 1e-7. It grows where a head's two factors nearly cancel,
    ||A|| ||B|| >> ||A B^T|| (1e-4 for factors of condition 1000), and next to 0. Raises HeadError.
    """
    L, H, D, K = heads.W_Q.shape
    W, V = heads.W_O[:-1].transpose(2, 3), heads.W_V[:-1]                 # the last layer's writes are read by none
    A, B = (factor[1:] for factor in read_circuits(heads, mode))          # and the first layer has none to read
    written_core, read_core = gram_core(W, V), gram_core(A, B)            # [(L-1)*H, K, K]
    W, A = W.flatten(0, 1), A.flatten(0, 1)                               # [(L-1)*H, D, K]
    squares = W.new_zeros(len(W), len(A))                                 # [(L-1)*H, (L-1)*H]
    for start in range(0, D, BLOCK):
        block = slice(start, start + BLOCK)
        written = W[:, block] @ written_core @ W[:, start:].mT            # [(L-1)*H, BLOCK, D - start]
        read = A[:, block] @ read_core @ A[:, start:].mT                  # [(L-1)*H, BLOCK, D - start]
        read[:, :, BLOCK:] *= 2                                           # right of the diagonal block: twice
        squares += written.flatten(1) @ read.flatten(1).T                 # [(L-1)*H, (L-1)*H]
    scores = squares.new_zeros(L, H, L, H)
    scores[:-1, :, 1:] = squares.clamp_min(0).sqrt().view(L - 1, H, L - 1, H)
    layers = torch.arange(L, device=scores.device)
    return scores * (layers[:, None] < layers)[:, None, :, None]          # [L, H, L, H] times [L, 1, L, 1]


def gram_core(A: Tensor, B: Tensor) -> Tensor:
    """The core of M M^T = A core A^T for each head's M = A B^T, scaled to trace ||M||_F^2 = 1: [L*H, K, K].

    A, B: [L, H, D, K].
    """
    core = B.mT @ B                                                       # [L, H, K, K]
    trace = (core * (A.mT @ A)).sum(dim=(2, 3), keepdim=True)             # [L, H, 1, 1], tr(A core A^T)
    return (core / nonzero(trace)).flatten(0, 1)


def nonzero(x: Tensor) -> Tensor:
    """x, with 1 in place of 0: a head whose circuit is zero scores 0, not nan."""
    return torch.where(x == 0, torch.ones_like(x), x)
