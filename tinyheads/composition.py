"""Composition: how strongly an earlier head writes into what a later head reads.

A writer's output is `x @ OV_w`. A later head r reads it in one of three places: as its query
("Q", through QK_r), as its key ("K", through QK_r^T) or as its value ("V", through OV_r). Call the
matrix that the output meets there M_r. The composition score is the share of the two matrices that
meets (Elhage et al. 2021; Merullo et al. 2024, §3):

    whole head:        ||OV_w M_r||_F / (||OV_w||_F ||M_r||_F)
    one component:     ||v_i^T M_r|| / ||M_r||_F        where OV_w = sum_i s_i u_i v_i^T

Random matrices score about 1 / sqrt(D). The two scores are tied together: the squared score of a
whole head is the mean of its components' squared scores, weighted by s_i^2. Where a reader takes up
only one or two components of a writer, their scores are high and the mean over all K is not.

Where positions rotate (Pythia, `pythia.py`), QK depends on how far the query stands behind the key, QK(d) = W_Q R(d)
W_K^T. No one distance will do: a reader may take up at distance 5 what it is blind to at distance 0. Nor will the
dimensions that stay still: heads that look by position use the others. And the mean of QK(d) over d tends to 0 in every
dimension that rotates fast, whatever is read there. But no length of what is read is below 0, so that the mean of the
*squared* lengths forgets nothing. The reader's matrix is therefore QK at all the distances of a context side by side
(weights alone do not say which of them matter), in the same two formulas:

    M_r = [QK(0) | QK(1) | ... | QK(n_ctx - 1)]  [D, n_ctx * D]     ||v^T M_r||^2 = sum over d of ||v^T QK(d)||^2

It is the share of the reader's attention scores, over all distances alike, that the write reaches. Where nothing
rotates all QK(d) are equal, and the score is the plain one. `at_all_distances` has it without the n_ctx matrices.

`composition_score` and `component_score` are the two formulas, for one pair of heads.
`composition_scores` and `component_scores` give the same numbers for all pairs of a model at once.

What it costs, in additions and multiplications: (LH)^2 D K^2 a mode for all components, which is the
plain product of what all components write, [LHK, D], by what all heads read, [D, LHK], for later
readers only. The scores of whole heads do without the components and cost about (LH)^2 D^2. Nothing of
size D x D is made for more than a block of rows; demos/benchmarks/sizes.py predicts and measures
time and memory up to 1558M.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyheads.config import GPT2Config
from tinyheads.errors import HeadError
from tinyheads.heads import SVD, Heads, one_thread, ov_svd
from tinyheads.pythia import cos_and_sin, quarter_turn

MODES = ("Q", "K", "V")
ROWS = 1024  # writer components at a time, so that their products stay in the processor's cache
BLOCK = 32   # rows of [D, D] matrices at a time, for the same reason


def composition_score(OV: Tensor, M: Tensor) -> Tensor:
    """The score of one writer and one reader, from 0 to 1: ||OV M|| / (||OV|| ||M||), in Frobenius norms.

    OV: [D, D], the writer's W_V @ W_O. M: [D, D], what the reader multiplies the stream by: W_Q @ W_K.T by "Q",
    W_K @ W_Q.T by "K", W_V @ W_O by "V". 0 if either is zero. Source: Elhage et al. 2021.
    """
    met = OV @ M                                                          # [D, D]
    largest = OV.norm() * M.norm()                                        # ||OV M|| can be no larger than this
    return met.norm() / safe_divisor(largest)


def component_score(write: Tensor, M: Tensor) -> Tensor:
    """The score of one component and one reader, from 0 to 1: ||v^T M|| / ||M||. The component's size cancels.

    write: [D], the unit vector v that the component writes, or several [..., D], with a score each [...].
    M: [D, D], as above; 0 if it is zero. Source: Merullo et al. 2024, §3.
    """
    met = write @ M                                                       # [..., D]
    return met.norm(dim=-1) / safe_divisor(M.norm())


def read_circuits(heads: Heads, mode: str) -> tuple[Tensor, Tensor]:
    """What each head multiplies the stream by where it reads it, as two factors [L, H, D, K]: M_r = A B^T.

    M_r is W_Q W_K^T for "Q", W_K W_Q^T for "K" and W_V W_O for "V". For "Q" and "K" of a Pythia B is [L, H, K, K], and
    A B^T has the lengths of QK at all distances (`at_all_distances`). Raises HeadError for another mode.
    """
    if mode not in MODES:
        raise HeadError(f"composition is by 'Q', 'K' or 'V', not by {mode!r}")
    if mode == "V":
        return heads.W_V, heads.W_O.transpose(2, 3)
    (A, B), sign = ((heads.W_Q, heads.W_K), -1) if mode == "Q" else ((heads.W_K, heads.W_Q), 1)
    return A, at_all_distances(B, sign, heads.config)


def at_all_distances(B: Tensor, sign: int, config: GPT2Config) -> Tensor:
    """A reader's second factor at all distances: [L, H, K, K] in place of B [L, H, D, K], for lengths alone.

    sign: 1 or -1, whether distance d rotates the rows of B by d or by -d, as M = [A B(0)^T | A B(1)^T | ...] has it.
    Lengths depend on B^T B alone, and it may be replaced by its mean over d, which is what the result F has for F^T F.
    With y for x turned by 90 degrees, a row is x cos + y sin. So the mean of B(d)^T B(d) is the sum of four matrices,
    x^T x, x^T y, y^T x and y^T y, each times the mean product of two cosines or sines. A GPT-2's B stays as it is.
    """
    r = config.n_rotary
    if r == 0:
        return B
    cos, sin = cos_and_sin(sign * torch.arange(config.n_ctx), config, B.double())    # [n_ctx, r] each
    cos, sin = F.pad(cos, (0, config.d_head - r), value=1.0), F.pad(sin, (0, config.d_head - r))   # [n_ctx, K] each
    turned = lambda G: F.pad(quarter_turn(G[..., :r]), (0, config.d_head - r))       # [L, H, K, K], its columns
    of_xx = B.double().mT @ B.double()                                               # [L, H, K, K]
    of_xy = turned(of_xx)
    of_yy = turned(of_xy.mT)
    mean = (of_xx * (cos.T @ cos) + of_xy * (cos.T @ sin) + of_xy.mT * (sin.T @ cos)
            + of_yy * (sin.T @ sin)) / config.n_ctx                                  # [L, H, K, K]
    with one_thread():
        scale, directions = torch.linalg.eigh(mean)                                  # [L, H, K], [L, H, K, K]
    return (scale.clamp_min(0).sqrt()[..., None] * directions.mT).to(B.dtype)        # [L, H, K, K]


def later(n_layer: int) -> Tensor:
    """Is the reader's layer later than the writer's? bool [L, 1, L, 1], for tables [L, H, L, H], writer by reader."""
    layer = torch.arange(n_layer)
    return (layer[:, None] < layer)[:, None, :, None]


def narrow(A: Tensor, B: Tensor) -> Tensor:
    """A matrix N [..., D, K] that gives the same lengths as M = A B^T [..., D, D]: ||v^T N|| = ||v^T M|| for every v.

    A, B: [..., D, K]. With the QR decomposition B = Q R, M = (A R^T) Q^T. The columns of Q are orthonormal, so that
    multiplying by Q^T changes no length: N = A R^T. Also ||N||_F = ||M||_F.
    """
    with one_thread():
        R = torch.linalg.qr(B, mode="r").R                                # [..., K, K]
    return A @ R.mT                                                       # [..., D, K]


def component_scores(heads: Heads, mode: str, ov: SVD | None = None) -> Tensor:
    """The score of every component of every writer with every reader: [L, H, K, L, H], from 0 to 1.

    First three axes: the component that writes; last two: the head that reads; 0 where the reader
    is not in a later layer. ov: `ov_svd(heads)` of the same heads, if it is there already. Raises HeadError.

    Nearly all of the time goes into one matrix product for each layer of readers. Its result is
    reduced to lengths piece by piece, while the piece is still in the processor's cache.
    """
    L, H, D, K = heads.W_V.shape
    A, B = read_circuits(heads, mode)
    if ov and ov.write.shape != (L, H, K, D):
        raise HeadError(f"ov is of other heads: its directions are {list(ov.write.shape)}, these heads' {[L, H, K, D]}")
    writers = (ov or ov_svd(heads)).write.reshape(L * H * K, D)
    scores = writers.new_zeros(L * H * K, L, H)
    for layer in range(1, L):
        read = narrow(A[layer], B[layer])                                 # [H, D, K]
        read = F.normalize(read, dim=(1, 2))                              # each head's of Frobenius norm 1
        read = read.transpose(0, 1).reshape(D, H * K)                     # [D, H * K]
        for start in range(0, layer * H * K, ROWS):                       # strictly earlier writers only
            some = slice(start, min(start + ROWS, layer * H * K))
            met = (writers[some] @ read).view(-1, H, K)                   # [<= ROWS, H, K]
            scores[some, layer] = torch.linalg.vector_norm(met, dim=-1)   # [<= ROWS, H]
    return scores.view(L, H, K, L, H)


def composition_scores(heads: Heads, mode: str) -> Tensor:
    """The score of every whole head with every later one: [L, H, L, H], writer by reader, from 0 to 1.

    0 where the reader is not in a later layer. With Gram matrices over the stream,

        ||OV_w M_r||_F^2 = tr(OV_w^T OV_w M_r M_r^T) = sum over d, e of  written[d, e] * read[d, e]

    so that all pairs are one matrix product, summed over blocks of the rows d. Both Gram matrices are
    symmetric: what lies left of a diagonal block equals what lies above it, and was counted there.
    Rounding: on GPT-2's weights scores are good to 1e-7. It grows where a head's two factors nearly cancel,
    ||A|| ||B|| >> ||A B^T|| (1e-4 for factors of condition 1000), and next to 0. Raises HeadError.
    """
    L, H, D, K = heads.W_Q.shape
    W, V = heads.W_O[:-1].transpose(2, 3), heads.W_V[:-1]                 # no later layer reads the last one's writes
    A, B = (factor[1:] for factor in read_circuits(heads, mode))          # and no earlier one writes to the first
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
    return scores * later(L).to(scores.device)                            # [L, H, L, H] times [L, 1, L, 1]


def gram_core(A: Tensor, B: Tensor) -> Tensor:
    """The matrix `core` in M M^T = A core A^T, for each head's M = A B^T scaled to ||M||_F = 1: [L*H, K, K].

    A, B: [L, H, D, K].
    """
    core = B.mT @ B                                                       # [L, H, K, K]
    trace = (core * (A.mT @ A)).sum(dim=(2, 3), keepdim=True)             # [L, H, 1, 1], tr(A core A^T)
    return (core / safe_divisor(trace)).flatten(0, 1)


def safe_divisor(x: Tensor) -> Tensor:
    """x to divide by, with 1 in place of 0: so a head whose matrices are zero scores 0 / 1, not 0 / 0."""
    return torch.where(x == 0, torch.ones_like(x), x)
