"""The paper's second model, Pythia: GPT-2 with four parts exchanged, on the same residual stream.

    stream  = wte[tokens]                                   no position embedding
    stream += attention(LayerNorm_1(stream)) + MLP(LayerNorm_2(stream))    in each layer: both read the same sum
    logits  = LayerNorm(stream) @ lm_head.T                 an unembedding of its own
    MLP                                                     with the exact gelu, x * Phi(x)

(Biderman et al. 2023, "Pythia"; Black et al. 2022, "GPT-NeoX-20B".) Positions come in by rotary embedding (Su et al.
2021, "RoFormer"): the first n_rotary dimensions of each head's queries and keys are taken in pairs, dimension p with
p + n_rotary / 2, and at position t pair p is turned by t * base^(-2p / n_rotary) radians. With R(t) for that rotation,

    q_i = (x_i W_Q + b_Q) R(i),   k_j = (x_j W_K + b_K) R(j),   q_i . k_j = (x_i W_Q + b_Q) R(i - j) (x_j W_K + b_K)^T

for rotations undo each other: R(i) R(j)^T = R(i - j). So a head's QK depends on the distance d = i - j alone:

    QK(d) = W_Q R(d) W_K^T          QK(0) = W_Q W_K^T, as in GPT-2

What that means for composition scores is derived in composition.py. OV knows nothing of positions, and is as in GPT-2.

Parameters carry GPT-2's names and orientation, so that whatever looks at weights works unchanged (`heads.py`,
`repair.py`); in files they have GPT-NeoX's, which files/neox.py translates. Axes are those of model.py.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from tinyheads.config import GPT2Config, PythiaConfig
from tinyheads.model import GPT2, MLP, Attention, Block, Cache, LayerNorm, draw_weights, unset_table
from tinyheads.stream import Stream


def rotate(x: Tensor, positions: Tensor | int, config: GPT2Config) -> Tensor:
    """Queries or keys x [..., T, K] as their positions rotate them: x R(t), for t in positions [T] or [..., T].

    positions: also one number for all. A GPT-2's stay as they are: it has no dimensions that are rotated.
    """
    r = config.n_rotary
    if r == 0:
        return x
    cos, sin = cos_and_sin(positions, config, x)                            # [..., T, r]
    turning, still = x[..., :r], x[..., r:]                                 # [..., T, r], [..., T, K - r]
    return torch.cat([turning * cos + quarter_turn(turning) * sin, still], dim=-1)


def cos_and_sin(positions: Tensor | int, config: PythiaConfig, like: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine and sine of what each rotated dimension is turned by: [..., r] each, for positions [...].

    In `like`'s dtype and on its device; computed in float32 at least, for an angle may be thousands of radians.
    """
    r, wide = config.n_rotary, torch.promote_types(like.dtype, torch.float32)
    speed = config.rotary_base ** (-torch.arange(0, r, 2, dtype=wide, device=like.device) / r)     # [r / 2]
    angles = torch.as_tensor(positions, device=like.device)[..., None] * speed.repeat(2)           # [..., r]
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def quarter_turn(x: Tensor) -> Tensor:
    """Each pair of dimensions of x [..., r] turned by 90 degrees: (first, second) becomes (-second, first)."""
    first, second = x.chunk(2, dim=-1)                                      # [..., r / 2] each
    return torch.cat([-second, first], dim=-1)


class PythiaAttention(Attention):
    """GPT-2's attention, whose queries and keys are rotated by their positions before they meet."""

    def __init__(self, config: PythiaConfig, layer: int):
        super().__init__(config, layer)
        self.config = config

    def attend(self, q: Tensor, k: Tensor, v: Tensor, stream: Stream, cache: Cache | None) -> None:
        past = 0 if cache is None else cache.length_in(self.layer)
        positions = torch.arange(past, past + q.shape[2], device=q.device)  # [T]
        q, k = rotate(torch.stack([q, k]), positions, self.config)          # [2, B, H, T, K]
        super().attend(q, k, v, stream, cache)


class PythiaMLP(MLP):
    """GPT-2's MLP, with gelu in its exact form: x * Phi(x), Phi the normal distribution's cumulative one."""

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))                            # [B, T, D] -> [B, T, 4D] -> [B, T, D]


class PythiaBlock(Block):
    """One layer: attention and MLP read the same sum, each through a LayerNorm of its own, and then both write."""

    def __init__(self, config: PythiaConfig, layer: int):
        super().__init__(config, layer)
        self.attn, self.mlp = PythiaAttention(config, layer), PythiaMLP(config)

    def forward(self, stream: Stream, cache: Cache | None) -> None:
        for_attention = stream.read(f"L{self.layer}.attn", self.ln_1)       # [B, T, D]
        for_mlp = stream.read(f"L{self.layer}.mlp", self.ln_2)              # [B, T, D]
        self.attn(for_attention, stream, cache)
        stream.write(f"L{self.layer}.mlp", self.mlp(for_mlp))


class Pythia(GPT2):
    """Pythia. `model(tokens)` gives logits [B, T, V]; `model(tokens, stream)` lets you watch and change it, as GPT-2.

    A new model's weights are drawn from `seed`, as a GPT-2's; `load` reads trained ones.
    """

    def __init__(self, config: PythiaConfig, seed: int | None = 0):
        nn.Module.__init__(self)                                            # not GPT2's, which makes GPT-2's parts
        self.config = config
        self.wte = unset_table(config.n_vocab, config.n_embd)
        self.h = nn.ModuleList(PythiaBlock(config, layer) for layer in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd)
        if not config.tied:
            self.lm_head = unset_table(config.n_vocab, config.n_embd)
        if seed is not None:
            draw_weights(self, torch.Generator().manual_seed(seed))

    def embed(self, tokens: Tensor, past: int) -> Tensor:
        """What the stream begins with, [B, T, D]: each token's vector, wherever it stands."""
        return self.wte(tokens)
