"""The upper layers alone, again and again: what lies below the first edit is run once.

The stream just before a layer is the sum of all writes below it, whatever is changed in that layer or above. So where
many edits are tried on the same prompts, that sum is kept (`Below`), and each run begins there:

    below = run_below(model, prompts.tokens, layer=7)                    # [B, T, D], one run of the model
    x = run_above(model, below, Stream(edits=[Edit("L8.H10", torch.zeros_like)]))

In GPT-2, whose inhibition heads are in layers 7 and 8, such a run takes less than half of a whole one; where what is
asked for is known in layer 10 it ends there. `last_token.py` runs END alone, for edits at END alone.
"""

import re
from dataclasses import dataclass
from typing import Iterable

import torch
from torch import Tensor

from tinyheads.errors import StreamError
from tinyheads.model import GPT2
from tinyheads.stream import Edit, Stream


@dataclass(frozen=True)
class Below:
    """The stream just before a layer, [B, T, D], in a run without edits."""

    layer: int
    x: Tensor


@torch.no_grad()
def run_below(model: GPT2, tokens: Tensor, layer: int) -> Below:
    """Run tokens [B, T] once, and keep the stream just before a layer. Raises StreamError where there is no such."""
    return runs_below(model, tokens, [layer])[layer]


@torch.no_grad()
def runs_below(model: GPT2, tokens: Tensor, layers: Iterable[int]) -> dict[int, Below]:
    """`run_below` for several layers, in one run of the model: {layer: what was kept before it}."""
    kept = {0: Below(0, model.embed(model.checked(tokens), past=0))}

    def look_before(layer: int) -> Edit:
        def keep(x: Tensor) -> Tensor:
            kept[layer] = Below(layer, x)
            return x
        return Edit(f"L{layer}.attn", keep, of="stream")

    looks = [look_before(layer) for layer in set(layers) - {0}]
    if looks:
        run_above(model, kept[0], Stream(edits=looks), last=max(layers))
    return {layer: kept[layer] for layer in layers}


def run_above(model: GPT2, below: Below, stream: Stream, last: int | None = None) -> Tensor | None:
    """Run the layers from below.layer on: what the unembedding reads, [B, T, D], as `model.final` gives it.

    stream: with edits in these layers. last: the layer to end with, whose patterns, reads and writes an edit of the
    stream has seen by then; nothing is given back. Raises StreamError for an edit below these layers.
    """
    if (first := first_layer(stream.edits, model.config.n_layer)) < below.layer:
        raise StreamError(f"an edit in layer {first} changes what was kept before layer {below.layer}; "
                          f"run_below(model, tokens, {first}) keeps what this edit leaves as it is")
    with stream.run(model.config):
        stream.value = below.x
        for block in model.h[below.layer:None if last is None else last + 1]:
            block(stream, None)
        return stream.read("unembed", model.ln_f) if last is None else None


def first_layer(edits: Iterable[Edit], n_layer: int) -> int:
    """The lowest layer in which one of the edits changes something: n_layer where only the unembedding reads it."""
    layers = [0 if edit.name == "embed" else layer_of(edit.name, n_layer) for edit in edits]
    return min(layers, default=n_layer)


def layer_of(name: str, n_layer: int) -> int:
    """The layer of a write, read or pattern: 8 for "L8.H10", "L8.mlp" and "L8"; n_layer for "unembed"."""
    match = re.match(r"L(\d+)", name)
    return int(match[1]) if match else n_layer
