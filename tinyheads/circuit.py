"""Who inhibits, who moves: the one place that decides it.

In a list task two groups of heads work for the last token, END (Wang et al. 2022, §3; Merullo et al. 2024, §4):

    inhibition heads   look from END at what was crossed off, and write which items are out
    mover heads        in later layers, look from END at the answer, and copy it

`find_circuit` reads this off one run, by where each head looks. That is where a search begins and not what decides
it: a head that looks at the mentions need not write anything that a mover reads. The inhibition score (ablation.py)
and the test of a random index (steering.py) decide.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tinyheads.errors import HeadError, InputError
from tinyheads.heads import Head, check_place
from tinyheads.last_token import seen_at_end
from tinyheads.model import GPT2
from tinyheads.positions import WHOLE
from tinyheads.prompts import Prompts
from tinyheads.stream import Stream, pattern_names, read_behind_heads, read_names

LEAST_INHIBITION = 0.5  # of END's attention on the crossed-off mentions, all together, makes an inhibition head
LEAST_MOVER = 0.25      # of END's attention on the answer's place, and more than on all other items, makes a mover
NEAREST = 4             # how many heads stand in for inhibition heads where none is found


@dataclass(frozen=True)
class Circuit:
    """Inhibition heads and the mover heads that can read them, strongest first.

    where: the read just behind the last inhibition head, "L8.mlp": what they wrote is found, and changed, there. Left
    out, it is that of a GPT-2; where attention and MLP read the same sum (Pythia) it is "L9.attn", which
    `Circuit.of(model, ...)` knows. found: False where the heads are only the nearest to what is asked for; why: what
    was missing. Raises HeadError for a mover that is not in a later layer than every inhibition head.
    """

    inhibition: list[Head]
    movers: list[Head]
    where: str = ""
    found: bool = True
    why: str = field(default="", compare=False)

    def __post_init__(self):
        if not self.inhibition or not self.movers:
            raise HeadError("a circuit needs one inhibition head and one mover head at least")
        last = max(self.inhibition, key=lambda head: head.layer)
        first = min(self.movers, key=lambda head: head.layer)
        if not last.layer < first.layer:
            raise HeadError(f"the mover {first} cannot read what {last} writes: it is not in a later layer")
        if not self.where:
            object.__setattr__(self, "where", f"L{last.layer}.mlp")

    def __str__(self) -> str:
        inhibition, movers = (", ".join(map(str, heads)) for heads in (self.inhibition, self.movers))
        return f"inhibition heads {inhibition}; mover heads {movers}" + ("" if self.found else f" ({self.why})")

    @classmethod
    def of(cls, model: GPT2, inhibition: list[Head], movers: list[Head]) -> "Circuit":
        """A circuit by hand of this model: `where` is the first read that holds what the inhibition heads write."""
        last = max((head.layer for head in inhibition), default=0)
        return cls(inhibition, movers, read_behind_heads(model.config, last))

    def check(self, model: GPT2) -> None:
        """Raise HeadError unless the model has all of these heads, and `where` is behind the inhibition heads."""
        for head in [*self.inhibition, *self.movers]:
            check_place(head.layer, head.head, model.config.n_layer, model.config.n_head)
        last = max(self.inhibition, key=lambda head: head.layer)
        reads, first = read_names(model.config), read_behind_heads(model.config, last.layer)
        if self.where not in reads[reads.index(first):]:
            raise HeadError(f"where is {self.where!r}; the first read of this model that holds what {last} writes is "
                            f"{first!r} (Circuit.of(model, ...) takes that)")


def find_circuit(model: GPT2, prompts: Prompts) -> Circuit:
    """The inhibition and the mover heads of a model on some prompts, by END's attention in one run.

    The mover that looks at the answer most decides: inhibition heads are in layers before it, and movers are all
    heads behind the last of these that look at the answer enough. Where there are none the nearest heads are given,
    with found=False. Raises HeadError for a model of one layer.
    """
    L, H = model.config.n_layer, model.config.n_head
    if L < 2:
        raise HeadError("a model of one layer has no circuit: no head can read what another wrote")
    patterns = end_patterns(model, prompts)                                         # [L, H, B, T]
    on_mentions = attention_to(patterns, prompts.mentions)                          # [L, H]
    on_answer = attention_to(patterns, answer_places(prompts))                      # [L, H]
    on_others = attention_to(patterns, prompts.positions) - on_answer               # [L, H]
    moves = torch.where(on_answer > on_others, on_answer, torch.zeros_like(on_answer))
    moves[0] = 0                                                                    # nothing was written before layer 0
    why = []
    movers = strongest(moves, LEAST_MOVER)
    if not movers:
        later = on_answer.clone()
        later[0] = -1
        movers = [Head.at(int(later.argmax()), H)]
        why.append(f"no head looks at the answer with {LEAST_MOVER} of END's attention and more than at all other "
                   f"items; the nearest is {movers[0]} with {later.max():.2f}")
    first = movers[0].layer
    inhibition = strongest(on_mentions[:first], LEAST_INHIBITION)
    if not inhibition:
        inhibition = strongest(on_mentions[:first], 0.0)[:NEAREST]
        why.append(f"no head before {movers[0]} looks at the crossed-off mentions with {LEAST_INHIBITION} of END's "
                   f"attention; the nearest is {inhibition[0]} with {on_mentions[:first].max():.2f}")
    last = max(head.layer for head in inhibition)
    return Circuit(inhibition, [head for head in movers if head.layer > last], read_behind_heads(model.config, last),
                   not why, "; ".join(why))


def strongest(attention: Tensor, least: float) -> list[Head]:
    """The heads of a table [L, H] with `least` or more of the attention, strongest first."""
    flat = attention.flatten()                                                      # [L * H]
    order = flat.argsort(descending=True).tolist()
    return [Head.at(place, attention.shape[1]) for place in order if flat[place] >= least]


def attention_on(model: GPT2, prompts: Prompts, places: Tensor) -> Tensor:
    """How much of END's attention each head gives to some places of each prompt, mean over prompts: [L, H].

    places: positions [B, M]; the attention on a prompt's M places is summed. Raises InputError.
    """
    return attention_to(end_patterns(model, prompts), places)


@torch.no_grad()
def attention_back(model: GPT2, prompts: Prompts) -> Tensor:
    """How much attention each head gives, from a mention of an item's name, to that item: mean [L, H].

    Duplicate-token heads give most of theirs (Wang et al. 2022, §3.3). prompts: crossed off by name, or IOI. Raises
    InputError where no mention is of an item.
    """
    row, query, key = mentions_of_items(prompts)
    if not len(row):
        raise InputError("no mention in these prompts is of an item: give lists that are crossed off by name")
    stream = Stream(record=True)
    model.final(prompts.tokens, stream)
    return torch.stack([stream.patterns[name][row, :, query, key].mean(0) for name in stream.patterns])     # [L, H]


def mentions_of_items(prompts: Prompts) -> tuple[Tensor, Tensor, Tensor]:
    """The mentions that name an item: in which prompt, at which position, and where that item stands; [n] each."""
    mentioned = prompts.tokens.gather(1, prompts.mentions)                                          # [B, M]
    same = mentioned[:, :, None] == prompts.candidates[:, None]                                     # [B, M, N]
    row, mention = same.any(2).nonzero().T                                                          # [n] each
    item = same.int().argmax(2)[row, mention]                                                       # [n]
    return row, prompts.mentions[row, mention], prompts.positions[row, item]


def attention_to(patterns: Tensor, places: Tensor) -> Tensor:
    """The attention in END's patterns [..., B, T] on some places [B, M] of each prompt, mean over prompts: [...].

    Raises InputError.
    """
    B, T = patterns.shape[-2:]
    if places.dim() != 2 or len(places) != B or places.dtype not in WHOLE:
        raise InputError(f"places are positions [{B}, M], M of each prompt, not {list(places.shape)} of {places.dtype}")
    if ((places < 0) | (places >= T)).any():
        raise InputError(f"places are from 0 to {T - 1} in prompts of {T} tokens, not {places.unique().tolist()}")
    there = places.to(patterns.device).expand(*patterns.shape[:-2], -1, -1)         # [..., B, M]
    return patterns.gather(-1, there).sum(-1).mean(-1)                              # [...]


def preference_in(patterns: Tensor, prompts: Prompts) -> Tensor:
    """How much heads prefer the answer, by END's patterns [..., B, T]: mean over prompts [...], from 1 at best to -1.

    The attention on the answer's place less that on all other items together. Raises InputError.
    """
    on_answer = attention_to(patterns, answer_places(prompts))                      # [...]
    on_others = attention_to(patterns, prompts.positions) - on_answer
    return on_answer - on_others


def end_patterns(model: GPT2, prompts: Prompts) -> Tensor:
    """Every head's attention from END: [L, H, B, T]."""
    patterns = seen_at_end(model, prompts, pattern_names(model.config), "patterns")     # L of them, [B, H, T]
    return torch.stack(patterns).transpose(1, 2)                                    # [L, H, B, T]


def answer_places(prompts: Prompts) -> Tensor:
    """Where the answer stands in the list: positions [B, 1]."""
    return prompts.positions.gather(1, prompts.index[:, None])
