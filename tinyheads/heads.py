"""What a head reads and what it writes, from its weights alone.

A head has two circuits (Elhage et al. 2021). QK = W_Q W_K^T decides where it attends; OV = W_V W_O
decides what it moves from there. Both are [D, D] and of rank K at most, and never made here in full:
with thin QR decompositions W_V = Q_1 R_1 and W_O^T = Q_2 R_2,

    OV = Q_1 (R_1 R_2^T) Q_2^T,   R_1 R_2^T = U S V^T  [K, K]   ->   OV = sum_i s_i (Q_1 u_i) (Q_2 v_i)^T

so that the SVD of a K x K core gives the head's components: component i reads along one direction of
the residual stream and writes along another, s_i times as strongly (Merullo et al. 2024, §3).

"Folding" first moves LayerNorm into the weights: its gain multiplies what is read, and the mean over
D, which LayerNorm removes, is taken out of everything read and written. Conventions: row vectors,
`x @ W`; axes L layer, H head, D d_model, K d_head; all counted from 0.
"""

import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from tinyheads.config import GPT2Config
from tinyheads.errors import HeadError
from tinyheads.model import GPT2

FACTORISING = threading.RLock()  # held while torch's number of threads is changed


@dataclass(frozen=True, order=True)
class Component:
    """One rank-1 part of a head's OV: prints as L8.H10.C1, and `Component.parse("L8.H10.C1")` reads that."""

    layer: int
    head: int
    index: int

    def __str__(self) -> str:
        return f"L{self.layer}.H{self.head}.C{self.index}"

    @classmethod
    def parse(cls, text: str) -> "Component":
        match = re.fullmatch(r"L(\d+)\.H(\d+)\.C(\d+)", text) if isinstance(text, str) else None
        if not match:
            raise HeadError(f"{text!r} is not a component; it should look like L8.H10.C1")
        return cls(*map(int, match.groups()))


@dataclass(frozen=True)
class Head:
    """A head by its place: prints as L8.H10, and `Head.parse("L8.H10")` reads that."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}.H{self.head}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        match = re.fullmatch(r"L(\d+)\.H(\d+)", text) if isinstance(text, str) else None
        if not match:
            raise HeadError(f"{text!r} is not a head; it should look like L8.H10")
        return cls(*map(int, match.groups()))


@dataclass(frozen=True)
class Heads:
    """All heads of a model. W_Q, W_K, W_V [L, H, D, K]; W_O [L, H, K, D]; b_Q, b_K, b_V [L, H, K]; b_O [L, D].

    folded: whether LayerNorm is in the weights. Then a head's query is `n @ W_Q + b_Q`, where n is the
    stream minus its mean, divided by its standard deviation (LayerNorm without gain and bias).
    """

    config: GPT2Config
    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor
    b_Q: Tensor
    b_K: Tensor
    b_V: Tensor
    b_O: Tensor
    folded: bool

    @classmethod
    def of(cls, model: GPT2, fold: bool = True) -> "Heads":
        """The heads of a model in memory."""
        tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
        return heads_from(model.config, tensors, fold)


def heads_from(config: GPT2Config, tensors: Mapping[str, Tensor | np.ndarray], fold: bool) -> Heads:
    """Split the fused attention matrices by head, and fold LayerNorm into them. In float32, or the tensors' float64.

    Layer by layer, so that a file's tensors are never all in memory beside the result. Raises HeadError for a matrix
    of another shape, a transposed one among them.
    """
    L, H, D, K = config.n_layer, config.n_head, config.n_embd, config.d_head

    def tensor(layer: int, name: str, *shape: int) -> Tensor:
        found = tensors[f"h.{layer}.{name}"]
        if tuple(found.shape) != shape:
            raise HeadError(f"h.{layer}.{name} should be {list(shape)}, not {list(found.shape)}")
        return wide(found) if isinstance(found, Tensor) else torch.tensor(found)      # a file's array is copied

    zeros = tensor(0, "attn.c_proj.bias", D).new_zeros                                # on the tensors' device
    W_QKV, b_QKV, W_O, b_O = zeros(3, L, H, D, K), zeros(3, L, H, K), zeros(L, H, K, D), zeros(L, D)
    for layer in range(L):
        W = tensor(layer, "attn.c_attn.weight", D, 3 * D).view(D, 3, H, K).permute(1, 2, 0, 3)    # [3, H, D, K]
        b = tensor(layer, "attn.c_attn.bias", 3 * D).view(3, H, K)
        W_out = tensor(layer, "attn.c_proj.weight", D, D).view(H, K, D)
        b_out = tensor(layer, "attn.c_proj.bias", D)                                  # [D]
        if fold:
            b = b + torch.einsum("d,nhdk->nhk", tensor(layer, "ln_1.bias", D), W)     # [3, H, K]
            W = W * tensor(layer, "ln_1.weight", D)[:, None]                          # row d times gain d
            W = W - W.mean(dim=2, keepdim=True)                                       # columns of mean 0 over D
            W_out = W_out - W_out.mean(dim=2, keepdim=True)                           # rows of mean 0 over D
            b_out = b_out - b_out.mean()
        W_QKV[:, layer], b_QKV[:, layer], W_O[layer], b_O[layer] = W, b, W_out, b_out
    return Heads(config, *W_QKV, W_O, *b_QKV, b_O, folded=fold)


@dataclass(frozen=True)
class SVD:
    """A circuit of every head as components: circuit = sum_i scale[i] * outer(read[i], write[i]).

    read, write: unit rows [L, H, K, D], orthogonal within a head; scale: [L, H, K], descending.
    For OV, `read` is what is picked up and `write` what is put down. For QK, `read` is on the query's
    side and `write` on the key's. The largest entry of each `write` row is positive.
    """

    read: Tensor
    scale: Tensor
    write: Tensor


def ov_svd(heads: Heads) -> SVD:
    """The SVD of OV = W_V W_O for all heads."""
    return thin_svd(heads.W_V, heads.W_O.transpose(2, 3))


def qk_svd(heads: Heads) -> SVD:
    """The SVD of QK = W_Q W_K^T for all heads."""
    return thin_svd(heads.W_Q, heads.W_K)


def thin_svd(A: Tensor, B: Tensor) -> SVD:
    """The SVD of A B^T, with A and B [L, H, D, K], without ever making the [D, D] product.

    Layer by layer, so that little is held beside the factors and the result.
    """
    L, H, D, K = A.shape
    read, scale, write = A.new_empty(L, H, K, D), A.new_empty(L, H, K), A.new_empty(L, H, K, D)
    with one_thread():
        for layer in range(L):
            Q_1, R_1 = torch.linalg.qr(A[layer])                                 # [H, D, K], [H, K, K]
            Q_2, R_2 = torch.linalg.qr(B[layer])
            U, scale[layer], Vt = torch.linalg.svd(R_1 @ R_2.transpose(1, 2))    # [H, K, K], [H, K], [H, K, K]
            rows = Vt @ Q_2.transpose(1, 2)                                      # [H, K, D]
            largest = rows.abs().argmax(dim=-1, keepdim=True)                    # [H, K, 1]
            sign = rows.gather(-1, largest).sign()                               # an SVD leaves a pair's signs open
            read[layer], write[layer] = (Q_1 @ U).transpose(1, 2) * sign, rows * sign
    return SVD(read, scale, write)


@contextmanager
def one_thread() -> Iterator[None]:
    """For many small factorisations: threads gain nothing there, and on a busy machine wait for each other.

    Measured for the SVDs of a layer of 124M on two busy cores: 0.02 s, and 0.12 to 0.24 s with two threads. The number
    of threads is the whole process's, so one factorisation at a time changes it, and puts it back, also after an error.
    """
    with FACTORISING:
        n = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(n)


def wide(x: Tensor) -> Tensor:
    """x in float32 at least: torch has no SVD in half precision, and long sums go wrong there."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def degenerate_blocks(svd: SVD, within: float = 0.01) -> Tensor:
    """Which components cannot be told apart: block numbers, int64 [L, H, K], from 0 within each head.

    Singular vectors are unique only where singular values are apart. A component whose value lies
    within 1% of its neighbour's shares that one's number: only the block's subspace means something.
    """
    if not 0 <= within < 1:
        raise HeadError(f"within is a share from 0 to 1, not {within}")
    apart = svd.scale[..., 1:] < (1 - within) * svd.scale[..., :-1]   # [L, H, K - 1]
    return torch.cat([torch.zeros_like(apart[..., :1]) if apart.shape[-1] else apart.new_zeros(*apart.shape[:-1], 1),
                      apart], dim=-1).cumsum(-1)                      # [L, H, K]


def block_of(blocks: Tensor, component: Component) -> list[Component]:
    """The components of its head that share a block with this one, itself among them."""
    L, H, K = blocks.shape
    check_place(component.layer, component.head, L, H)
    if not 0 <= component.index < K:
        raise HeadError(f"{component}: a head has the components C0 to C{K - 1}")
    row = blocks[component.layer, component.head]
    same = (row == row[component.index]).nonzero().flatten().tolist()
    return [Component(component.layer, component.head, index) for index in same]


def check_place(layer: int, head: int, n_layer: int, n_head: int) -> None:
    """Raise HeadError unless the model has this head."""
    if not (0 <= layer < n_layer and 0 <= head < n_head):
        raise HeadError(f"there is no L{layer}.H{head}: the model has L0.H0 to L{n_layer - 1}.H{n_head - 1}")
