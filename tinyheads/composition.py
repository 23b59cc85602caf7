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
"""

import torch
from torch import Tensor

from tinyheads.errors import HeadError
from tinyheads.heads import SVD, Heads, one_thread, ov_svd

MODES = ("Q", "K", "V")
ROWS = 1024  # writer components at a time, so that their products stay in the processor's cache


def reader_rows(heads: Heads, mode: str) -> Tensor:
    """What each head reads in a mode, as K rows over the stream: [L, H, K, D], with ||v^T M_r|| = ||rows @ v||.

    M_r = A B^T is W_Q W_K^T for "Q", W_K W_Q^T for "K" and W_V W_O for "V". With B = Q R, the orthonormal
    Q changes no length: ||v^T A B^T|| = ||v^T A R^T||. Raises HeadError for another mode.
    """
    if mode not in MODES:
        raise HeadError(f"composition is by 'Q', 'K' or 'V', not by {mode!r}")
    A, B = {"Q": (heads.W_Q, heads.W_K), "K": (heads.W_K, heads.W_Q),
            "V": (heads.W_V, heads.W_O.transpose(2, 3))}[mode]
    with one_thread():
        R = torch.linalg.qr(B, mode="r").R                                # [L, H, K, K]
    return R @ A.transpose(2, 3)                                          # [L, H, K, D]


def component_scores(heads: Heads, mode: str, ov: SVD | None = None) -> Tensor:
    """The score of every component of every writer with every reader: [L, H, K, L, H], from 0 to 1.

    First three axes: the component that writes; last two: the head that reads; 0 where the reader
    is not in a later layer. ov: `ov_svd(heads)`, if it is there already. Raises HeadError.
    """
    rows = reader_rows(heads, mode)
    return lengths_read((ov or ov_svd(heads)).write, rows / nonzero(rows.norm(dim=(2, 3), keepdim=True)))


def lengths_read(directions: Tensor, rows: Tensor) -> Tensor:
    """||rows_r v|| for each direction v [L, H, K, D] and each later reader's rows [L, H, K, D]: [L, H, K, L, H].

    Nearly all of the time goes into one matrix product a reader layer; its result is reduced to
    lengths piece by piece, while the piece is still in the processor's cache.
    """
    L, H, K, D = rows.shape
    writers = directions.reshape(L * H * K, D)
    lengths = writers.new_zeros(L * H * K, L, H)
    for layer in range(1, L):
        readers = rows[layer].reshape(H * K, D).T                         # [D, H * K]
        for start in range(0, layer * H * K, ROWS):                       # strictly earlier writers only
            some = slice(start, min(start + ROWS, layer * H * K))
            met = (writers[some] @ readers).view(-1, H, K)                # [<= ROWS, H, K]
            lengths[some, layer] = torch.linalg.vector_norm(met, dim=-1)  # [<= ROWS, H]
    return lengths.view(L, H, K, L, H)


def composition_scores(heads: Heads, mode: str) -> Tensor:
    """The score of every whole head with every later one: [L, H, L, H], writer by reader, from 0 to 1.

    0 where the reader is not in a later layer. Raises HeadError.
    """
    ov = ov_svd(heads)
    return whole_from_components(component_scores(heads, mode, ov), ov.scale)


def whole_from_components(scores: Tensor, scale: Tensor) -> Tensor:
    """Whole-head scores [L, H, L, H] from component scores [L, H, K, L, H] and the writers' scale [L, H, K].

    ||OV_w M_r||_F^2 = sum_i s_i^2 ||v_i^T M_r||^2, since the u_i are orthonormal.
    """
    weight = scale**2 / nonzero((scale**2).sum(-1, keepdim=True))         # [L, H, K], sums to 1
    return torch.einsum("lhk,lhkmn->lhmn", weight, scores**2).sqrt()


def nonzero(x: Tensor) -> Tensor:
    """x, with 1 in place of 0: a head whose circuit is zero scores 0, not nan."""
    return torch.where(x == 0, torch.ones_like(x), x)
