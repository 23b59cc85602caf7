"""What a planted GPT-2 is put together from: codes of places, embeddings, and heads of which a part is built.

A head's OV is a sum of components s_i u_i v_i^T (heads.py). To build a part of it, the strongest of its own components
are kept, less whatever of them lies in the built directions, and the built ones come in place of the weakest. Both
parts are then orthogonal on both sides, so that the built components are components of the whole. Its QK is built
alone: what a head looks at besides would weigh the mentions unevenly, and the sum of codes would be wrong.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyheads.config import GPT2Config
from tinyheads.errors import TaskError
from tinyheads.files.tokenizer import Tokenizer
from tinyheads.heads import Head, Heads, one_thread, thin_svd
from tinyheads.model import GPT2
from tinyheads.prompts import ioi, laundry_list
from tinyheads.words import ITEMS, NAMES, single_tokens

SIZE = 1000.0                                # length of one feature in the embedding; a real head writes 10 to 50
CONSTANT = 8.0                               # of the direction that all tokens share, in features
OWN = 0.5                                    # of the direction that each token has for itself, in features
FREQUENCIES = (0.346, 0.642, 0.779, 1.263, 1.549, 1.594, 1.955, 2.011, 2.129, 2.199, 2.581, 2.613)  # radians a token,
# chosen so that no two places 4 to 99 tokens apart look alike: the mean cosine of their distance is at most 0.33
FLAGS = ("constant", "item", "name", "again", "end_list", "end_name", "first_token")

Parts = list[tuple[Tensor, Tensor, float]]  # (left [n, D], right [n, D], how much): components that are built


@dataclass(frozen=True)
class Space:
    """The built directions, orthonormal rows of mean 0 over D, by what stands along them.

    channel, listed: what END is told of the places crossed off, and of all places; place: a position's own code; seen:
    that of a word's first mention, at its second; flag: {name: [1, D]}; word: which word; phase: which position.
    """

    built: Tensor         # [all, D], all of them
    channel: Tensor       # [3, D]
    listed: Tensor        # [3, D]
    place: Tensor         # [3, D]
    seen: Tensor          # [3, D]
    flag: dict[str, Tensor]
    word: Tensor          # [W, D]
    phase: Tensor         # [2 * FREQUENCIES, D]

    @classmethod
    def drawn(cls, config: GPT2Config, draw: torch.Generator) -> "Space":
        """At random. Words have as many dimensions as a duplicate-token head's keys have beside phases and rest."""
        phases = 2 * len(FREQUENCIES)
        sizes = [3, 3, 3, 3, len(FLAGS), config.d_head - phases - 1, phases]
        drawn = torch.randn(sum(sizes), config.n_embd, generator=draw)
        built = torch.linalg.qr((drawn - drawn.mean(dim=1, keepdim=True)).T).Q.T    # [all, D]
        channel, listed, place, seen, flags, word, phase = built.split(sizes)
        return cls(built, channel, listed, place, seen, dict(zip(FLAGS, flags[:, None])), word, phase)

    @property
    def unit(self) -> float:
        """What a feature measures behind LayerNorm: a word has the constant, its code, a flag, a place and a phase."""
        return math.sqrt(self.built.shape[1]) / math.sqrt(CONSTANT**2 + 3 + OWN**2)


# --- codes, and the embedding ----------------------------------------------------------------------------------


def place_codes(capacity: int, draw: torch.Generator, orders: int = 100) -> Tensor:
    """Unit codes [capacity, 3] of places: spread evenly over the sphere, turned at random, in the best of some orders.

    On a sphere cut into slices of equal height, one point a slice, each turned by the golden angle from the last. The
    order matters because the codes of the first N places should nearly cancel, for every N.
    """
    height = 1 - (2 * torch.arange(capacity) + 1) / capacity                        # [capacity]
    angle = math.pi * (1 + 5**0.5) * (torch.arange(capacity) + 0.5)
    width = (1 - height**2).sqrt()
    points = torch.stack([width * angle.cos(), width * angle.sin(), height], dim=1)  # [capacity, 3]
    turn = torch.linalg.qr(torch.randn(3, 3, generator=draw)).Q                     # [3, 3]
    drawn = [points[torch.randperm(capacity, generator=draw)] @ turn for _ in range(orders)]
    return max(drawn, key=smallest_lead)


def smallest_lead(codes: Tensor) -> float:
    """By how much the place that is left leads the next, at worst, in lists of 2 items to twice the codes [n, 3].

    In a list of N items END holds (code of the item left - mean of all N codes) / (N - 1); a place's score is its
    code's product with that. The lead is given without the factor 1 / (N - 1). Places that share a code are one.
    """
    worst, n = math.inf, len(codes)
    for N in range(2, 2 * n + 1):
        seen = codes[:N]                                                            # [min(N, n), 3]
        mean = codes[torch.arange(N) % n].mean(dim=0)                               # [3]
        scores = (seen - mean) @ seen.T                                             # [left, place]
        others = scores.clone().fill_diagonal_(-math.inf)
        worst = min(worst, (scores.diagonal() - others.amax(dim=1)).min().item())
    return worst


def word_codes(n: int, width: int, draw: torch.Generator) -> Tensor:
    """Unit codes [n, width] of words, pushed apart: of 480 in 39 dimensions no two have a cosine above 0.4."""
    codes = torch.nn.functional.normalize(torch.randn(n, width, generator=draw))
    for _ in range(100):
        alike = (codes @ codes.T).fill_diagonal_(0).clamp_min(0)                    # [n, n]
        codes = torch.nn.functional.normalize(codes - 0.1 * (alike / alike.max()) ** 8 @ codes)
    return codes


def outside(x: Tensor, built: Tensor) -> Tensor:
    """Rows [n, D] of length 1, along what of x [n, D] lies outside the built directions [m, D], of mean 0 over D."""
    x = x - x.mean(dim=1, keepdim=True)
    x = x - x @ built.T @ built
    return x / x.norm(dim=1, keepdim=True)


def embed(model: GPT2, tokenizer: Tokenizer, space: Space, codes: Tensor, draw: torch.Generator) -> None:
    """Fill wte [V, D] and wpe [n_ctx, D]: what the construction needs, and for each token a direction of its own.

    Raises TaskError for a tokenizer whose lists do not have their items at the same positions throughout.
    """
    lists, names = laundry_list(tokenizer, 8, 3, "name"), ioi(tokenizer, 8)
    for prompts in (lists, names):
        if (prompts.positions != prompts.positions[0]).any() or not isinstance(prompts.end, int):
            raise TaskError("this tokenizer does not put the words of all prompts at the same positions")
    wte, wpe, flag = model.wte.weight, model.wpe.weight, space.flag
    wte.copy_(OWN * outside(torch.randn(wte.shape, generator=draw), space.built) + CONSTANT * flag["constant"])
    ids = {kind: [tokenizer.encode(f" {word}")[0] for word in single_tokens(tokenizer, words, 2, f"{kind}s")]
           for kind, words in (("item", ITEMS), ("name", NAMES))}
    every = list(dict.fromkeys(ids["item"] + ids["name"]))
    wte[every] += word_codes(len(every), len(space.word), draw) @ space.word
    for kind, of_kind in ids.items():
        wte[of_kind] += flag[kind]
    wte[lists.tokens[0, lists.end]] += flag["end_list"][0]
    wte[names.tokens[0, names.end]] += flag["end_name"][0]
    turns = torch.arange(len(wpe))[:, None] * torch.tensor(FREQUENCIES)                              # [n_ctx, F]
    wpe.copy_(torch.cat([turns.cos(), turns.sin()], dim=1) / len(FREQUENCIES)**0.5 @ space.phase)
    wpe[0] = flag["first_token"][0]                                  # and no phase, so that all can rest there alike
    first, second = lists.positions[0, :2].tolist()
    of_list = {place: codes[i % len(codes)] for i, place in enumerate(range(first, len(wpe), second - first))}
    one, two = names.positions[0].tolist()
    of_names = {one: -of_list.get(two, codes[0]), two: -of_list.get(one, -codes[0])}   # opposite, where no list is
    for place, code in {**of_names, **of_list}.items():
        wpe[place] += code @ space.place
    wte.mul_(SIZE), wpe.mul_(SIZE)


# --- heads ---------------------------------------------------------------------------------------------------


def noise_heads(heads: Heads, draw: torch.Generator) -> Heads:
    """Random heads of the same sizes with spectra like GPT-2's: component i is (i + 1)^-1/4 times the first.

    The first is 6 (OV) or 3 (QK). GPT-2 124M's OVs have at C8, C24 and C56, in the mean, 0.62, 0.50 and 0.35 of their
    first; these 0.58, 0.45 and 0.36.
    """
    falling = (1 + torch.arange(heads.config.d_head)) ** -0.125                     # [K], of either factor
    D = heads.config.n_embd

    def factors(like: Tensor, largest: float) -> Tensor:                            # [L, H, D, K]
        drawn = torch.randn(like.shape, generator=draw) * falling * math.sqrt(largest / D)
        return drawn - drawn.mean(dim=2, keepdim=True)

    W_Q, W_K, W_V, W_O = (factors(heads.W_Q, largest) for largest in (3, 3, 6, 6))
    zero = {name: torch.zeros_like(getattr(heads, name)) for name in ("b_Q", "b_K", "b_V", "b_O", "bias")}
    return Heads(heads.config, W_Q, W_K, W_V, W_O.transpose(2, 3), **zero, gain=torch.ones_like(heads.gain),
                 folded=True)


def put_layer(model: GPT2, heads: Heads, layer: int) -> None:
    """Give a layer of the model these heads, folded ones, with their biases."""
    attn = model.h[layer].attn
    D = model.config.n_embd
    W = [getattr(heads, name)[layer].transpose(0, 1).reshape(D, D) for name in ("W_Q", "W_K", "W_V")]  # [D, H * K]
    b = [getattr(heads, name)[layer].flatten() for name in ("b_Q", "b_K", "b_V")]                      # [H * K]
    attn.c_attn.weight.copy_(torch.cat(W, dim=1))                                                     # [D, 3 * D]
    attn.c_attn.bias.copy_(torch.cat(b))
    attn.c_proj.weight.copy_(heads.W_O[layer].reshape(D, D))
    attn.c_proj.bias.copy_(heads.b_O[layer])


def put_head(model: GPT2, head: Head, W_Q: Tensor, W_K: Tensor, W_V: Tensor, W_O: Tensor) -> None:
    """Give one head of the model other weights, W_Q, W_K, W_V [D, K] and W_O [K, D], and no biases."""
    attn, D, K = model.h[head.layer].attn, model.config.n_embd, model.config.d_head
    for start, W in zip((0, D, 2 * D), (W_Q, W_K, W_V)):
        here = slice(start + head.head * K, start + (head.head + 1) * K)
        attn.c_attn.weight[:, here] = W
        attn.c_attn.bias[here] = 0
    attn.c_proj.weight[head.head * K:(head.head + 1) * K] = W_O


def own_circuit(heads: Heads, head: Head) -> tuple[Tensor, Tensor, Tensor]:
    """A head's own OV as components: read [K, D], scale [K], write [K, D]."""
    one = (slice(head.layer, head.layer + 1), slice(head.head, head.head + 1))      # [1, 1, D, K] of each matrix
    svd = thin_svd(heads.W_V[one], heads.W_O[one].transpose(2, 3))
    return svd.read[0, 0], svd.scale[0, 0], svd.write[0, 0]


def built_circuit(parts: Parts, K: int, own: tuple[Tensor, Tensor, Tensor] | None = None, built: Tensor | None = None,
                  above: int | None = None) -> tuple[Tensor, Tensor]:
    """A circuit of which some components are built: two factors [D, K], left and right. What is left over is zero, or
    the head's `own` components, as many as there is room for, less what of them lies in `built` [m, D].

    above: how many of these are to be stronger than the strongest built one, which sets how loud they all are; None:
    they stay as loud as they are.
    """
    left = torch.cat([part[0] * math.sqrt(part[2]) for part in parts])              # [n, D]
    right = torch.cat([part[1] * math.sqrt(part[2]) for part in parts])             # [n, D]
    room = K - len(left)
    if own is None:
        zero = left.new_zeros(room, left.shape[1])
        return torch.cat([left, zero]).T, torch.cat([right, zero]).T
    read, scale, write = (x[:room] for x in own)                                    # [room, D], [room], [room, D]
    read, write = read - read @ built.T @ built, write - write @ built.T @ built
    if above is not None:
        scale = scale * loudness(left.norm(dim=1) * right.norm(dim=1), read, scale, write, above)
    root = scale.sqrt()[:, None]                                                    # [room, 1]
    return torch.cat([left, root * read]).T, torch.cat([right, root * write]).T


def loudness(strengths: Tensor, read: Tensor, scale: Tensor, write: Tensor, above: int) -> float:
    """What to multiply scale [room] by for `above` of these components to be stronger than all of `strengths` [n].

    Within 5 % of that either way, the factor for which no built component is as strong as another: an SVD mixes such.
    """
    factors = [side * scale.sqrt()[:, None] for side in (read, write)]              # [room, D] each
    with one_thread():
        R = [torch.linalg.qr(factor.T).R for factor in factors]                     # [room, room] each
        own = torch.linalg.svdvals(R[0] @ R[1].T)                                   # [room]
    edge = (own[above - 1] * own[above]).sqrt() if above else 1.2 * own[0]
    tries = strengths.max() / edge * torch.linspace(0.95, 1.05, 51)                 # [51]
    gaps = ((tries[:, None, None] * own).log() - strengths.log()[:, None]).abs().amin(dim=(1, 2))      # [51]
    return tries[gaps.argmax()].item()
