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
from tinyheads.heads import SVD, Component, Head, check_place, wide
from tinyheads.lists import Prompts
from tinyheads.model import GPT2
from tinyheads.positions import WHOLE, changed_at
from tinyheads.stream import Edit, pattern_names
from tinyheads.subspace import following, project

WAYS = ("zero", "mean", "resample")


def remove(directions: Tensor, writer: str, how: str = "mean", seed: int = 0) -> Edit:
    """An edit that takes some components out of a head's write. directions: orthonormal [k, D]; writer: "L8.H10".

    how: "zero", "mean" or "resample" (from a random other prompt of the batch, by `seed`). Raises InputError, and
    while the model runs SubspaceError for directions that are not orthonormal or do not fit.
    """
    if how not in WAYS:
        raise InputError(f"a component is removed by {', '.join(WAYS)}, not by {how!r}")

    def change(write: Tensor) -> Tensor:
        basis = following(torch.atleast_2d(directions), write)         # [k, D]
        c = write.to(basis.dtype) @ basis.T                            # [B, T, k]
        if how == "zero":
            new = torch.zeros_like(c)
        elif how == "mean":
            several(write)
            new = c.mean(dim=0, keepdim=True).expand_as(c)
        else:
            new = c[derangement(len(c), seed)]
        return (write + (new - c) @ basis).to(write.dtype)             # [B, T, D]

    return Edit(writer, change)


def restrict(basis: Tensor, writer: str, end: int | Tensor, keep: bool = True) -> Edit:
    """An edit after which a head's write at END differs between prompts only inside a subspace, or only outside it.

    basis: orthonormal [k, D], [0, D] for nothing at all; end: END's position, or each prompt's own [B]; keep: True
    keeps what is inside (and gives the rest its mean over the prompts of the batch), False removes it. What k
    dimensions carry alone, and what is left without them.
    """

    def change(write: Tensor) -> Tensor:
        several(write)
        return changed_at(write, end, restricted)

    def restricted(here: Tensor) -> Tensor:
        mean = wide(here).mean(dim=0)                                  # [B, P, D] -> [P, D]
        inside = project(here - mean, basis) if len(basis) else torch.zeros_like(here - mean)
        return mean + inside if keep else here - inside

    return Edit(writer, change)


def several(write: Tensor) -> None:
    """Raise InputError where a mean over prompts would be a prompt's own value, so that an edit would do nothing."""
    if len(write) < 2:
        raise InputError("a mean over prompts needs a batch of two at least")


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
    """What END's attention [B, T] gives to the answer's place, and to the other items' places. Raises InputError."""
    if pattern.shape != prompts.tokens.shape:
        raise InputError(f"END's attention in these prompts is {list(prompts.tokens.shape)}, prompt by key, not "
                         f"{list(pattern.shape)}")
    on_items = pattern.gather(1, prompts.positions.to(pattern.device))              # [B, N]
    on_answer = on_items.gather(1, prompts.index[:, None].to(pattern.device))[:, 0] # [B]
    return Attention(on_answer.mean().item(), (on_items.sum(1) - on_answer).mean().item())


def answer_places(prompts: Prompts) -> Tensor:
    """Where the answer stands in the list: positions [B, 1]."""
    return prompts.positions.gather(1, prompts.index[:, None])


def attention_on(model: GPT2, prompts: Prompts, places: Tensor) -> Tensor:
    """How much of END's attention each head gives to some places of each prompt, mean over prompts: [L, H].

    places: positions [B, M]; the attention on a prompt's M places is summed. Raises InputError.
    """
    B, T = prompts.tokens.shape
    if places.dim() != 2 or len(places) != B or places.dtype not in WHOLE:
        raise InputError(f"places are positions [{B}, M], M of each prompt, not {list(places.shape)} of {places.dtype}")
    if ((places < 0) | (places >= T)).any():
        raise InputError(f"places are from 0 to {T - 1} in prompts of {T} tokens, not {places.unique().tolist()}")
    patterns = torch.stack(seen_at_end(model, prompts, pattern_names(model.config), "patterns"))    # [L, B, H, T]
    there = places.to(patterns.device)[:, None].expand(*patterns.shape[:3], -1)                     # [L, B, H, M]
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
    reader where not to look. ov: `ov_svd(Heads.of(model))`. Raises HeadError where the reader is not in a later layer,
    or ov is of another model.
    """
    L, H, K = model.config.n_layer, model.config.n_head, model.config.d_head
    for head in (writer, reader):
        check_place(head.layer, head.head, L, H)
    if ov.write.shape != (L, H, K, model.config.n_embd) or not is_written_by(model, writer, ov):
        raise HeadError(f"ov is not that of this model's heads: {writer} does not write along it")
    if not writer.layer < reader.layer:
        raise HeadError(f"{reader} cannot read what {writer} writes: it is not in a later layer")
    whole = preference(model, prompts, reader, [])
    without = [remove(ov.write[writer.layer, writer.head, i], str(writer), how, seed) for i in range(K)]
    return torch.tensor([whole - preference(model, prompts, reader, [edit]) for edit in without])


def is_written_by(model: GPT2, head: Head, ov: SVD) -> bool:
    """Whether a head's strongest component lies in what its W_O can write, folded (less the mean over D) or not."""
    if not ov.scale[head.layer, head.head, 0]:
        return True  # a head that writes nothing: its directions are any
    K = model.config.d_head
    W_O = wide(model.h[head.layer].attn.c_proj.weight[head.head * K:(head.head + 1) * K])           # [K, D]
    v = ov.write[head.layer, head.head, 0].to(W_O)                                                  # [D]
    Q = torch.linalg.qr((W_O - W_O.mean(dim=1, keepdim=True)).T).Q                                  # [D, K]
    v = v - v.mean()
    return bool((v - Q @ (Q.T @ v)).norm() < 1e-2)


def preference(model: GPT2, prompts: Prompts, reader: Head, edits: list[Edit]) -> float:
    """The reader's mean preference for the answer, with some edits in place. Raises HeadError."""
    check_place(reader.layer, reader.head, model.config.n_layer, model.config.n_head)
    pattern = seen_at_end(model, prompts, [f"L{reader.layer}"], "patterns", edits)[0]               # [B, H, T]
    return attention_to_items(pattern[:, reader.head], prompts).preference


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's rank correlation of two lists of numbers [n]; ties share their mean rank; nan if all are equal.

    Raises InputError for lists of other shapes, or with nan.
    """
    if x.dim() != 1 or x.shape != y.shape or len(x) < 2 or x.isnan().any() or y.isnan().any():
        raise InputError(f"a rank correlation is of two equally long lists of two numbers at least, without nan; these "
                         f"are {list(x.shape)} and {list(y.shape)}")
    ranks = torch.stack([mean_ranks(x.double()), mean_ranks(y.double())])           # [2, n]
    return torch.corrcoef(ranks)[0, 1].item()


def mean_ranks(x: Tensor) -> Tensor:
    """Ranks from 1 to n; equal numbers share the mean of theirs."""
    below = (x[:, None] > x).sum(1)                                                 # [n]
    equal = (x[:, None] == x).sum(1)                                                # [n]
    return below + (equal + 1) / 2
