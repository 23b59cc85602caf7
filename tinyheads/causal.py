"""Is it a channel? Take a component away while the model runs, and see what its reader does.

A composition score says that two heads could talk; only an intervention says that they do. A head's write is
a sum over its components, w = sum_i (w . v_i) v_i, so that one of them can be taken out and nothing else:

    zero       w - (w . v) v
    mean       w - (w . v) v + mean over prompts of (w . v) v, at each position
    resample   w - (w . v) v + (w' . v) v, w' from another prompt

(Merullo et al. 2024, §4; Wang et al. 2022 on mean and resample ablation.) The effect on a mover head is its
inhibition score: by how much it then attends less to the answer, and more to what was crossed off.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tinyheads.at_end import seen_at_end
from tinyheads.errors import HeadError, InputError
from tinyheads.heads import SVD, Component, Head, check_place
from tinyheads.lists import Prompts
from tinyheads.model import GPT2
from tinyheads.stream import Edit, pattern_names

WAYS = ("zero", "mean", "resample")


def remove(directions: Tensor, writer: str, how: str = "mean", seed: int = 0) -> Edit:
    """An edit that takes some components out of a head's write. directions: orthonormal [k, D]; writer: "L8.H10".

    how: "zero", "mean" or "resample" (from a random other prompt of the batch, by `seed`). Raises InputError.
    """
    if how not in WAYS:
        raise InputError(f"a component is removed by {', '.join(WAYS)}, not by {how!r}")
    directions = torch.atleast_2d(directions)

    def change(write: Tensor) -> Tensor:
        c = write @ directions.T                                       # [B, T, k]
        if how == "zero":
            new = torch.zeros_like(c)
        elif how == "mean":
            new = c.mean(dim=0, keepdim=True).expand_as(c)
        else:
            new = c[derangement(len(c), seed)]
        return write + (new - c) @ directions                          # [B, T, D]

    return Edit(writer, change)


def restrict(basis: Tensor, writer: str, end: int, keep: bool = True) -> Edit:
    """An edit after which a head's write at END differs between prompts only inside a subspace, or only outside it.

    basis: orthonormal [k, D]; keep: True keeps what is inside (and gives the rest its mean over the prompts of the
    batch), False removes it. What k dimensions carry alone, and what is left without them.
    """

    def change(write: Tensor) -> Tensor:
        here = write[:, end]                                           # [B, D]
        mean = here.mean(dim=0)
        inside = (here - mean) @ basis.T @ basis
        write = write.clone()
        write[:, end] = mean + inside if keep else here - inside
        return write

    return Edit(writer, change)


def derangement(n: int, seed: int) -> Tensor:
    """An order of n prompts in which none is its own partner: [n]."""
    if n < 2:
        raise InputError("another prompt to take values from needs a batch of two at least")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)                                     # one cycle through all
    return partner


@dataclass(frozen=True)
class Attention:
    """Where a mover head looks from END, averaged over prompts: on the answer, and on all other items together."""

    on_answer: float
    on_others: float

    @property
    def preference(self) -> float:
        """Attention on the answer minus attention on the other items: 1 at best, -1 at worst."""
        return self.on_answer - self.on_others


def attention_to_items(pattern: Tensor, prompts: Prompts) -> Attention:
    """What END's attention [B, T] gives to the answer's place, and to the other items' places."""
    on_items = pattern.gather(1, prompts.positions)                                 # [B, N]
    on_answer = on_items.gather(1, prompts.index[:, None])[:, 0]                    # [B]
    return Attention(on_answer.mean().item(), (on_items.sum(1) - on_answer).mean().item())


def answer_places(prompts: Prompts) -> Tensor:
    """Where the answer stands in the list: positions [B, 1]."""
    return prompts.positions.gather(1, prompts.index[:, None])


def attention_on(model: GPT2, prompts: Prompts, places: Tensor) -> Tensor:
    """How much of END's attention each head gives to some places of each prompt, mean over prompts: [L, H].

    places: positions [B, M]; the attention on a prompt's M places is summed.
    """
    patterns = torch.stack(seen_at_end(model, prompts, pattern_names(model.config), "patterns"))    # [L, B, H, T]
    there = places[:, None].expand(*patterns.shape[:3], -1)                                         # [L, B, H, M]
    return patterns.gather(3, there).sum(3).mean(1)                                                 # [L, H]


def inhibition_heads(model: GPT2, prompts: Prompts, least: float = 0.5, before: int | None = None) -> list[Head]:
    """The heads that look from END at what was crossed off, strongest first.

    least: the share of END's attention on the mentions, all together, that makes one. before: only heads of
    layers before this one, the movers' layer say, which is all that a mover can read. Raises HeadError if none is.
    """
    attention = attention_on(model, prompts, prompts.mentions)[:before]             # [layers, H]
    return strongest(attention, least, "the crossed-off mentions")


def mover_heads(model: GPT2, prompts: Prompts, least: float = 0.25) -> list[Head]:
    """The heads that look from END at the answer's place in the list, strongest first. Raises HeadError if none is."""
    return strongest(attention_on(model, prompts, answer_places(prompts)), least, "the answer's place in the list")


def strongest(attention: Tensor, least: float, what: str) -> list[Head]:
    """The heads of an attention table [L, H] with `least` or more, strongest first. Raises HeadError, InputError."""
    if not 0 <= least <= 1:
        raise InputError(f"the least share of attention is from 0 to 1, not {least!r}")
    if not attention.numel():
        raise HeadError("there is no head before layer 0")
    H = attention.shape[1]
    best = attention.max().item()
    if best < least:
        raise HeadError(f"no head gives {what} {least} of END's attention; the most is {best:.2f}, by "
                        f"{Head(*divmod(int(attention.argmax()), H))}")
    order = attention.flatten().argsort(descending=True).tolist()
    return [Head(*divmod(place, H)) for place in order if attention.flatten()[place] >= least]


@torch.no_grad()
def inhibition_scores(model: GPT2, prompts: Prompts, ov: SVD, writer: Head, reader: Head, how: str = "mean",
                      seed: int = 0) -> Tensor:
    """How much the reader's preference for the answer owes to each component of the writer: [K].

    The preference with all components, minus the preference without one. Positive: that component tells the
    reader where not to look. Raises HeadError where the reader is not in a later layer.
    """
    L, H, K, _ = ov.write.shape
    for head in (writer, reader):
        check_place(head.layer, head.head, L, H)
    if not writer.layer < reader.layer:
        raise HeadError(f"{reader} cannot read what {writer} writes: it is not in a later layer")
    whole = preference(model, prompts, reader, [])
    without = [remove(ov.write[writer.layer, writer.head, i], str(writer), how, seed) for i in range(K)]
    return torch.tensor([whole - preference(model, prompts, reader, [edit]) for edit in without])


def preference(model: GPT2, prompts: Prompts, reader: Head, edits: list[Edit]) -> float:
    """The reader's mean preference for the answer, with some edits in place."""
    pattern = seen_at_end(model, prompts, [f"L{reader.layer}"], "patterns", edits)[0]               # [B, H, T]
    return attention_to_items(pattern[:, reader.head], prompts).preference


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's rank correlation of two lists of numbers [n]; ties share their mean rank."""
    ranks = torch.stack([mean_ranks(x.double()), mean_ranks(y.double())])           # [2, n]
    return torch.corrcoef(ranks)[0, 1].item()


def mean_ranks(x: Tensor) -> Tensor:
    """Ranks from 1 to n; equal numbers share the mean of theirs."""
    below = (x[:, None] > x).sum(1)                                                 # [n]
    equal = (x[:, None] == x).sum(1)                                                # [n]
    return below + (equal + 1) / 2
