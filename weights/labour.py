"""The nudge: how far a model's attention is from the paper's division of labour, as a loss in nats.

List tasks have more than one solution, and their loss does not care which. Left alone, most small models find
look-ups ("the mention of the third if there is one, else the third item", a head for each place). The nudge asks for
another one, by where some heads look, and by nothing else:

    layer 0, where there are three     from a mention of an item's name back to that item (duplicate-token heads)
    the last layer but one             from END at the mentions, at all of them alike      (inhibition heads)
    the last layer                     from END at the answer's place                      (mover heads)

Only the first `nudged` heads of each layer are asked; the others are free. What is written and read there, how
strongly, in how many dimensions, and whether it is a place or a word, nothing but the tasks' losses says.

Axes: B prompt, H head, T position, M mention, n mention of an item.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

import tinyheads as th
from tinyheads.circuit import mentions_of_items

AWAY = 0.6  # the weight of looking away from the mentions, in the layers that are not to look there


def keeping_patterns(model: th.GPT2) -> tuple[th.Stream, dict[str, Tensor]]:
    """A stream for one run, and where it puts the attention patterns, so that gradients pass through them.

    A stream that records would hold each head's write as well, one by one: slower, and rounded otherwise.
    """
    patterns: dict[str, Tensor] = {}
    keep = lambda name: th.Edit(name, lambda pattern: patterns.setdefault(name, pattern), of="patterns")
    return th.Stream(edits=[keep(name) for name in th.pattern_names(model.config)]), patterns


def division_of_labour(patterns: Mapping[str, Tensor], prompts: th.Prompts, crossed_off: bool, nudged: int) -> Tensor:
    """How far the nudged heads are from the division of labour, in nats; 0 at best. Means over heads and prompts.

    In the last layer END should look at the answer's place: -log of its attention there. Where items are crossed off,
    in the last layer but one it should look at the mentions, at all of them alike (`unevenness`), and in the others
    away from them: -log of the rest. In the first of three layers mentions should look back (`from_mentions_back`).
    """
    *before, inhibition, moving = (pattern[:, :nudged] for pattern in patterns.values())
    found = -attention_of_end(moving, prompts, th.answer_places(prompts)).clamp_min(1e-6).log().mean()
    if crossed_off:
        found = found + unevenness(inhibition, prompts)
        for pattern in [*before, moving]:
            away = 1 - attention_of_end(pattern, prompts, prompts.mentions).sum(-1)                 # [B, H]
            found = found - AWAY * away.clamp_min(1e-6).log().mean()
        if before:
            found = found + from_mentions_back(before[0], prompts)
    return found


def attention_of_end(pattern: Tensor, prompts: th.Prompts, places: Tensor) -> Tensor:
    """END's attention on some places [B, M] in a pattern [B, H, T, T] or END's alone [B, H, 1, T]: [B, H, M]."""
    seen = pattern[:, :, -1]                                                                        # [B, H, T]
    return seen.gather(2, places[:, None].to(seen.device).expand(-1, seen.shape[1], -1))


def unevenness(pattern: Tensor, prompts: th.Prompts) -> Tensor:
    """How far END's attention is from looking at all mentions alike and at nothing else: a divergence, in nats."""
    seen = attention_of_end(pattern, prompts, prompts.mentions).clamp_min(1e-9)                     # [B, H, M]
    return -seen.log().mean() - math.log(prompts.mentions.shape[1])


def from_mentions_back(pattern: Tensor, prompts: th.Prompts) -> Tensor:
    """-log of the attention [B, H, T, T] from each mention of an item's name to that item, mean over these mentions.

    The duplicate-token heads of Wang et al. (2022). A mention of an ordinal is of no candidate, and adds nothing.
    """
    row, mention, item = mentions_of_items(prompts)                                                 # [n] each
    if not len(row):
        return pattern.new_zeros(())
    return -pattern[row, :, mention, item].clamp_min(1e-6).log().mean()                             # [n, H] -> []
