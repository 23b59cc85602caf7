"""A model written by hand: an inhibition channel of known rank, at a known place, with a known positional code.

The task is the ordinal Laundry List in its barest form, tokens alone:

    item_a item_b ... item_f   ord_3 ord_0 ord_5 ord_1 ord_4   END   -> the item at the ordinal left out (here 2)

Three layers of four heads, no MLPs (their weights are zero). Two heads are built, the others are weak noise:

    inhibition head   from END attends to the ordinals; writes minus their code into a channel of 3 dimensions
    mover head        its query reads the channel, its keys the place in the list; copies the item to END

The code of index i is the i-th corner of an octahedron, so that the codes sum to zero: minus the sum of all but
one is that one. Everything else is a direction of its own, orthogonal to all others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tinyheads.config import GPT2Config
from tinyheads.heads import Head
from tinyheads.model import GPT2
from tinyheads.prompts import Prompts
from tinyheads.basis import random_subspace

N_ITEMS, N_WORDS = 6, 12                    # places in a list, item words to choose from
END_TOKEN = N_WORDS + N_ITEMS
CODES = torch.cat([torch.eye(3), -torch.eye(3)])              # [6, 3], the octahedron's corners
CHANNEL_SCALE = torch.tensor([3.0, 2.5, 2.0])                 # singular values of the inhibition head's OV
CONFIG = GPT2Config(n_vocab=END_TOKEN + 1, n_ctx=2 * N_ITEMS, n_embd=64, n_layer=3, n_head=4)


@dataclass(frozen=True)
class Planted:
    """The model, and what was put into it. channel: [3, D], the directions written to, strongest first."""

    model: GPT2
    channel: Tensor
    inhibition: Head
    mover: Head


def leave_only_noise(model: GPT2, noise: float, seed: int) -> None:
    """Make a model's heads weak noise of this deviation, drawn from the seed, its LayerNorms plain, and all else 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        gain = ".ln_" in f".{name}" and name.endswith("weight")
        parameter.fill_(1.0 if gain else 0.0)
        if name.endswith("attn.c_attn.weight") or name.endswith("attn.c_proj.weight"):
            parameter.normal_(0, noise, generator=generator)


def planted(inhibition: Head = Head(1, 1), mover: Head = Head(2, 2), with_channel: bool = True,
            noise: float = 0.02, seed: int = 0) -> Planted:
    """Build the model; with_channel=False leaves the inhibition head attending but writing noise."""
    D, K = CONFIG.n_embd, CONFIG.d_head
    rows = random_subspace(D, 3 + 3 + 3 + N_WORDS + 4, seed)
    channel, place, ordinal, word, (is_ordinal, is_end, constant, is_item) = rows.split([3, 3, 3, N_WORDS, 4])
    model = GPT2(CONFIG, seed=seed).requires_grad_(False)
    leave_only_noise(model, noise, seed)

    # Embeddings. The constant is in every token and outweighs the rest: LayerNorm divides all by about the same.
    model.wte.weight[:N_WORDS] = word + is_item + 6 * constant
    model.wte.weight[N_WORDS:END_TOKEN] = CODES @ ordinal + is_ordinal + 6 * constant
    model.wte.weight[END_TOKEN] = is_end + 6 * constant
    model.wpe.weight[:N_ITEMS] = CODES @ place
    scale = D ** 0.5 / 6.3                                      # what LayerNorm multiplies by, roughly

    def set_head(head, q=None, k=None, v=None, o=None):
        """Fill the first rows of a head's matrices: each a list of directions [n, D]."""
        c_attn, c_proj = model.h[head.layer].attn.c_attn.weight, model.h[head.layer].attn.c_proj.weight
        start = head.head * K
        for offset, directions in [(0, q), (D, k), (2 * D, v)]:
            if directions is not None:
                c_attn[:, offset + start:offset + start + K] = 0
                c_attn[:, offset + start:offset + start + len(directions)] = directions.T
        if o is not None:
            c_proj[start:start + K] = 0
            c_proj[start:start + len(o)] = o

    set_head(inhibition, q=12 * is_end[None] / scale, k=12 * is_ordinal[None] / scale,
             v=-ordinal if with_channel else None, o=CHANNEL_SCALE[:, None] * channel if with_channel else None)
    set_head(mover, q=torch.cat([16 * channel / CHANNEL_SCALE[:, None], 8 * is_end[None]]) / scale ** 0.5,
             k=torch.cat([5 * place, 3 * is_item[None]]) / scale ** 0.5, v=word, o=6 * word)
    return Planted(model, channel, inhibition, mover)


def laundry_prompts(n: int, seed: int) -> Prompts:
    """Lists of N_ITEMS different words, all places but one crossed off, in random order."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.rand(n, N_WORDS, generator=generator).argsort(1)[:, :N_ITEMS]            # [n, N]
    order = torch.rand(n, N_ITEMS, generator=generator).argsort(1)                         # [n, N]
    crossed, left = order[:, :-1], order[:, -1]
    tokens = torch.cat([words, N_WORDS + crossed, torch.full((n, 1), END_TOKEN)], dim=1)   # [n, 2N]
    positions = torch.arange(N_ITEMS).expand(n, N_ITEMS)
    mentions = torch.arange(N_ITEMS, 2 * N_ITEMS - 1).expand(n, N_ITEMS - 1)
    return Prompts(tokens, words.gather(1, left[:, None])[:, 0], words, positions, left, mentions, 2 * N_ITEMS - 1,
                   [" ".join(map(str, row)) for row in tokens.tolist()])
