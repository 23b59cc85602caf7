"""What a head reads and what it writes, from its weights alone.

A head has two circuits (Elhage et al. 2021). QK = W_Q W_K^T decides where it attends; OV = W_V W_O
decides what it moves from there. Both are [D, D] and of rank K at most, and never made here in full:
with thin QR decompositions W_V = Q_1 R_1 and W_O^T = Q_2 R_2,

    OV = Q_1 (R_1 R_2^T) Q_2^T,   R_1 R_2^T = U S V^T  [K, K]   ->   OV = sum_i s_i (Q_1 u_i) (Q_2 v_i)^T

so that the SVD of a K x K core gives the head's components: component i reads along one direction of
the residual stream and writes along another, s_i times as strongly (Merullo et al. 2024, §3).

`fold` first moves LayerNorm into the weights. Conventions: row vectors, `x @ W`; axes L layer, H head,
D d_model, K d_head; all counted from 0.
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
from tinyheads.pythia import rotate

FACTORISING = threading.RLock()  # held while torch's number of threads is changed


@dataclass(frozen=True, order=True)
class Head:
    """A head by its place: prints as L8.H10, and `Head.parse("L8.H10")` reads that."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}.H{self.head}"

    @classmethod
    def at(cls, place: int, n_head: int) -> "Head":
        """The head at a place of a table [L, H] that was flattened to [L * H]."""
        return cls(*divmod(place, n_head))

    @classmethod
    def parse(cls, text: str) -> "Head":
        """The head that a text like "L8.H10" names. Raises HeadError."""
        match = re.fullmatch(r"L(\d+)\.H(\d+)", text) if isinstance(text, str) else None
        if not match:
            raise HeadError(f"{text!r} is not a head; it should look like L8.H10")
        return cls(*map(int, match.groups()))


@dataclass(frozen=True, order=True)
class Component:
    """One rank-1 part of a head's OV: prints as L8.H10.C1, and `Component.parse("L8.H10.C1")` reads that."""

    layer: int
    head: int
    index: int

    @classmethod
    def of(cls, head: Head, index: int) -> "Component":
        """A head's component with this index."""
        return cls(head.layer, head.head, index)

    @property
    def of_head(self) -> Head:
        """The head whose component this is."""
        return Head(self.layer, self.head)

    def __str__(self) -> str:
        return f"L{self.layer}.H{self.head}.C{self.index}"

    @classmethod
    def parse(cls, text: str) -> "Component":
        """The component that a text like "L8.H10.C1" names. Raises HeadError."""
        match = re.fullmatch(r"L(\d+)\.H(\d+)\.C(\d+)", text) if isinstance(text, str) else None
        if not match:
            raise HeadError(f"{text!r} is not a component; it should look like L8.H10.C1")
        return cls(*map(int, match.groups()))


@dataclass(frozen=True)
class Heads:
    """All heads of a model. W_Q, W_K, W_V [L, H, D, K]; W_O [L, H, K, D]; b_Q, b_K, b_V [L, H, K]; b_O [L, D].

    gain, bias: of the LayerNorm that the heads read through, [L, D]. folded: whether `fold` has put it into the
    weights; then gain is 1 and bias is 0.
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
    gain: Tensor
    bias: Tensor
    folded: bool = False

    @classmethod
    def of(cls, model: GPT2, fold: bool = True) -> "Heads":
        """The heads of a model in memory."""
        tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
        return heads_from(model.config, tensors, fold)


def fold(heads: Heads) -> Heads:
    """The same heads with LayerNorm in their weights, so that they read the normalised stream without gain and bias.

    A head reads LN(x) = n * gain + bias, where n is x less its mean, divided by its standard deviation. Then

        LN(x) @ W_Q + b_Q  =  n @ (gain[:, None] * W_Q)  +  (bias @ W_Q + b_Q)

    Also, n has mean 0 over D, so that the mean of each column of W_Q changes nothing and is taken out; and the mean
    over D of what a head writes is taken out by whatever reads it. Heads that are folded already stay as they are.
    (TransformerLens calls this fold_layer_norm, with center_writing_weights.)
    """
    if heads.folded:
        return heads

    def read(W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        b = b + torch.einsum("ld,lhdk->lhk", heads.bias, W)               # [L, H, K]
        W = W * heads.gain[:, None, :, None]                              # [L, H, D, K]
        return W - W.mean(dim=2, keepdim=True), b

    (W_Q, b_Q), (W_K, b_K), (W_V, b_V) = (read(getattr(heads, f"W_{part}"), getattr(heads, f"b_{part}"))
                                          for part in "QKV")
    W_O = heads.W_O - heads.W_O.mean(dim=3, keepdim=True)                 # [L, H, K, D]
    b_O = heads.b_O - heads.b_O.mean(dim=1, keepdim=True)                 # [L, D]
    gain, bias = torch.ones_like(heads.gain), torch.zeros_like(heads.bias)
    return Heads(heads.config, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O, gain, bias, folded=True)


def heads_from(config: GPT2Config, tensors: Mapping[str, Tensor | np.ndarray], folded: bool) -> Heads:
    """All heads out of a model's named tensors, in float32 or the tensors' float64; `folded`: as `fold` gives them.

    Layer by layer, so that a file's tensors are never all in memory beside the result. Raises HeadError for a matrix
    of another shape, a transposed one among them.
    """
    whole = {}
    for layer in range(config.n_layer):
        one = heads_of_layer(config, tensors, layer)
        one = fold(one) if folded else one
        for name, value in vars(one).items():
            if isinstance(value, Tensor):                                 # [1, ...] into [L, ...]
                whole.setdefault(name, value.new_empty(config.n_layer, *value.shape[1:]))[layer] = value[0]
    return Heads(config, **whole, folded=folded)


def heads_of_layer(config: GPT2Config, tensors: Mapping[str, Tensor | np.ndarray], layer: int) -> Heads:
    """The heads of one layer, L = 1: its fused matrices split by head. Raises HeadError."""
    H, D, K = config.n_head, config.n_embd, config.d_head

    def tensor(name: str, *shape: int) -> Tensor:
        stored = tensors[f"h.{layer}.{name}"]
        if tuple(stored.shape) != shape:
            raise HeadError(f"h.{layer}.{name} should be {list(shape)}, not {list(stored.shape)}")
        array = not isinstance(stored, Tensor)                            # a file's, which is copied
        return torch.tensor(stored) if array else at_least_float32(stored)

    W = tensor("attn.c_attn.weight", D, 3 * D).view(1, D, 3, H, K).permute(2, 0, 3, 1, 4)  # [3, 1, H, D, K]
    b = tensor("attn.c_attn.bias", 3 * D).view(1, 3, H, K).transpose(0, 1)                 # [3, 1, H, K]
    W_O = tensor("attn.c_proj.weight", D, D).view(1, H, K, D)
    b_O, gain, bias = (tensor(name, D)[None] for name in ("attn.c_proj.bias", "ln_1.weight", "ln_1.bias"))  # [1, D]
    return Heads(config, *W, W_O, *b, b_O, gain, bias)


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


def qk_svd(heads: Heads, distance: int = 0) -> SVD:
    """The SVD of QK = W_Q W_K^T for all heads.

    distance: of the query behind the key, in tokens, which matters where positions rotate (Pythia): there QK is
    W_Q R(distance) W_K^T, and W_Q W_K^T at distance 0. Composition scores take all distances (`composition.py`).
    """
    return thin_svd(rotate(heads.W_Q, distance, heads.config), heads.W_K)


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


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32 at least: torch has no SVD in half precision, and long sums go wrong there."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def degenerate_blocks(svd: SVD, within: float = 0.01) -> Tensor:
    """Which components cannot be told apart: block numbers, int64 [L, H, K], from 0 within each head.

    Singular vectors are unique only where singular values are apart. A component whose value lies
    within 1% of its neighbour's shares that one's number: only the block's subspace means something.
    within: that share, 0.01 for 1%. Raises HeadError.
    """
    if not 0 <= within < 1:
        raise HeadError(f"within is a share from 0 to 1, not {within}")
    apart = svd.scale[..., 1:] < (1 - within) * svd.scale[..., :-1]   # [L, H, K - 1]
    return torch.cat([torch.zeros_like(apart[..., :1]) if apart.shape[-1] else apart.new_zeros(*apart.shape[:-1], 1),
                      apart], dim=-1).cumsum(-1)                      # [L, H, K]


def block_of(blocks: Tensor, component: Component) -> list[Component]:
    """The components of its head that share a block with this one, itself among them. Raises HeadError.

    blocks: [L, H, K], from `degenerate_blocks`.
    """
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
