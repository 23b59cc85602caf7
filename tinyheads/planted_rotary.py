"""A Pythia written by hand: a circuit of known place, whose reader tells items apart by how far behind them END stands.

The task is that of planted.py, tokens alone. There is no position embedding: an item is known by its distance from END.
The code of index i is a point on a circle, at i radians. Two heads are built, the others are weak noise:

    inhibition head   from END attends to the ordinals; writes minus their mean code into a channel of 2 dimensions
    mover head        its query reads the channel into the pair of dimensions that turns by 1 radian a token; its keys
                      there are (1, 0) for every item; copies the item to END

Seen as complex numbers, a query q meets a key at distance d as Re(q e^(i d)), largest where q has the angle -d. Item i
stands d = 11 - i before END, so that its code, turned by -11 radians, is the query that finds it. Since all keys are
alike, QK(0) reads one direction of the channel and is blind to the other; QK at all distances reads both.

The codes do not sum to zero, and minus the sum of all but one is that one less the sum of all. The mover's query bias
adds that sum again.
"""

import math

import torch
from torch import Tensor

from tinyheads.basis import random_subspace
from tinyheads.config import PythiaConfig
from tinyheads.heads import Head
from tinyheads.planted import END_TOKEN, N_ITEMS, N_WORDS, Planted, leave_only_noise
from tinyheads.pythia import Pythia

ANGLES = torch.arange(N_ITEMS).float()
CIRCLE = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)     # [N, 2], each index's code
CIRCLE_SCALE = torch.tensor([3.0, 2.0])                       # singular values of the inhibition head's OV
ROTARY_CONFIG = PythiaConfig(n_vocab=END_TOKEN + 1, n_ctx=2 * N_ITEMS, n_embd=64, n_layer=3, n_head=4)


def planted_rotary(inhibition: Head = Head(1, 1), mover: Head = Head(2, 2), with_channel: bool = True,
                   noise: float = 0.02, seed: int = 0) -> Planted:
    """Build the model; with_channel=False leaves the inhibition head attending but writing noise."""
    D, K, r = ROTARY_CONFIG.n_embd, ROTARY_CONFIG.d_head, ROTARY_CONFIG.n_rotary
    rows = random_subspace(D, 2 + 2 + N_WORDS + 4, seed)
    channel, ordinal, word, (is_ordinal, is_end, constant, is_item) = rows.split([2, 2, N_WORDS, 4])
    model = Pythia(ROTARY_CONFIG, seed=seed).requires_grad_(False)
    leave_only_noise(model, noise, seed)

    # Embeddings. The constant is in every token and outweighs the rest: LayerNorm divides all by about the same.
    model.wte.weight[:N_WORDS] = word + is_item + 6 * constant
    model.wte.weight[N_WORDS:END_TOKEN] = CIRCLE @ ordinal + is_ordinal + 6 * constant
    model.wte.weight[END_TOKEN] = is_end + 6 * constant
    model.lm_head.weight[:N_WORDS] = word
    scale = D ** 0.5 / 6.3                                      # what LayerNorm multiplies by, roughly

    def set_head(head: Head, dimensions: list[int], q: Tensor, k: Tensor, v: Tensor | None, o: Tensor | None) -> None:
        """Directions [n, D] for n dimensions of a head's queries and keys, and for its first values and outputs."""
        c_attn, c_proj = model.h[head.layer].attn.c_attn.weight, model.h[head.layer].attn.c_proj.weight
        start = head.head * K
        for offset, places, directions in [(0, dimensions, q), (D, dimensions, k), (2 * D, range(K), v)]:
            if directions is not None:
                c_attn[:, offset + start:offset + start + K] = 0
                for place, direction in zip(places, directions):
                    c_attn[:, offset + start + place] = direction
        if o is not None:
            c_proj[start:start + K] = 0
            c_proj[start:start + len(o)] = o

    set_head(inhibition, [r], 12 * is_end[None] / scale, 12 * is_ordinal[None] / scale,   # a dimension that stays still
             -ordinal if with_channel else None, CIRCLE_SCALE[:, None] * channel if with_channel else None)
    back = turn(1 - 2 * N_ITEMS)                                # [2, 2]: END stands at 11
    fast = [0, r // 2]                                          # the pair of dimensions that turns by 1 radian a token
    set_head(mover, fast, 16 * back.T @ (channel / CIRCLE_SCALE[:, None]), 8 * torch.stack([is_item, 0 * is_item]),
             word, 6 * word)
    missing = scale ** 2 * CIRCLE.sum(0) / (N_ITEMS - 1)        # [2], what the codes that were crossed off lack
    bias = model.h[mover.layer].attn.c_attn.bias
    bias[[mover.head * K + place for place in fast]] = 16 * missing @ back
    return Planted(model, channel, inhibition, mover)


def turn(angle: float) -> Tensor:
    """The matrix [2, 2] that turns points x [..., 2], as x @ turn, by an angle in radians."""
    return torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
