"""END alone, again and again: what stands before it is run once.

An edit at the last token changes nothing before it, since no position looks ahead. So the keys and values of all
earlier tokens are kept (`Cache`), and each edited run is of one token: as many times faster as a prompt is long.

    earlier = before_end(model, prompts)
    logits, stream = run_end(model, prompts, earlier, [Edit("L1.attn", set_coordinates(basis, code, 0), of="stream")])

In such a run END is position 0: of edits, of writes and reads [B, 1, D], of patterns' queries [B, H, 1, T].
It takes prompts that all end at T - 1. `seen_at_end` takes any: it looks at one thing at END while the whole prompt
runs, up to the layer that is looked at, and keeps nothing else.
"""

from typing import Sequence

import torch
from torch import Tensor

from tinyheads.errors import TaskError
from tinyheads.heads import Head, check_place
from tinyheads.model import GPT2, Cache
from tinyheads.positions import at
from tinyheads.prompts import Prompts
from tinyheads.stream import Edit, Stream
from tinyheads.upper_layers import Below, layer_of, run_above, run_below


@torch.no_grad()
def before_end(model: GPT2, prompts: Prompts) -> Cache:
    """Keys and values of all tokens before END, to be given to `run_end` any number of times. Raises TaskError."""
    B, T = prompts.tokens.shape
    if (torch.as_tensor(prompts.end) != T - 1).any():
        raise TaskError("prompts of unequal length do not end together, so that END cannot be run alone; run them "
                        "whole, with edits at prompts.end")
    if T == 1:
        raise TaskError("nothing stands before END in prompts of one token")
    cache = Cache()
    model.final(prompts.tokens[:, :-1], cache=cache)
    return cache


@torch.no_grad()
def run_end(model: GPT2, prompts: Prompts, earlier: Cache, edits: Sequence[Edit] = (),
            copies: int = 1) -> tuple[Tensor, Stream]:
    """Run END with some edits: logits [B, V], and the stream of this one token, recorded. `earlier` stays as it is.

    copies: each prompt that many times, one after another, [B * copies, ...]: for trying as many values on each.
    Raises TaskError for an `earlier` of other prompts, as far as their sizes tell.
    """
    B, T = prompts.tokens.shape
    if earlier.length != T - 1 or any(len(keys) != B for keys, _ in earlier.kept.values()):
        raise TaskError(f"`earlier` is not before_end(model, prompts) of these {B} prompts of {T} tokens")
    kept = {layer: tuple(x.repeat_interleave(copies, dim=0) for x in pair) if copies > 1 else pair
            for layer, pair in earlier.kept.items()}
    stream = Stream(record=True, edits=edits)
    end = prompts.tokens[:, -1:].repeat_interleave(copies, dim=0)                    # [B * copies, 1]
    logits = model(end, stream, Cache(kept))                                         # [B * copies, 1, V]
    return logits[:, 0], stream


def logits_with_edits(model: GPT2, prompts: Prompts, edits: Sequence[Edit],
                      below: Below | None = None) -> Tensor:
    """What the model says behind the prompts in a run with some edits: logits [B, V] at END, and at no other position.

    below: `run_below(model, prompts.tokens, layer)`, for a run of the layers from there on.
    """
    stream = Stream(edits=edits)
    x = run_above(model, below, stream) if below else model.final(prompts.tokens, stream)      # [B, T, D]
    return at(x, prompts.end) @ model.unembedding.T                                            # [B, V]


@torch.no_grad()
def seen_at_end(model: GPT2, prompts: Prompts, names: Sequence[str], of: str, edits: Sequence[Edit] = (),
                below: Below | None = None) -> list[Tensor]:
    """What a run with some edits has at END, for each name. Raises StreamError for a name that is not there.

    of="writes": what is written ("L8.H10"), [B, D]; of="stream": what is there before a read ("L1.attn"), [B, D];
    of="reads": what that read hands on, behind its LayerNorm, [B, D]; of="patterns": END's attention in a layer ("L1"),
    [B, H, T]. The run ends with the layer of the last name. below: `run_below(model, prompts.tokens, layer)`, for one
    that begins in that layer.
    """
    seen = {}

    def look(name: str) -> Edit:
        def keep(value: Tensor) -> Tensor:
            seen[name] = at(value, prompts.end)
            return value
        return Edit(name, keep, of=of)

    stream = Stream(edits=[*edits, *(look(name) for name in names)])
    if any(edit.name == "embed" for edit in stream.edits):
        model.final(prompts.tokens, stream)
    else:
        last = max((layer_of(name, model.config.n_layer) for name in names), default=0)
        below = below or run_below(model, prompts.tokens, 0)
        run_above(model, below, stream, last if last < model.config.n_layer else None)
    return [seen[name] for name in names]


def patterns_at_end(model: GPT2, prompts: Prompts, heads: Sequence[Head], edits: Sequence[Edit] = (),
                    below: Below | None = None) -> Tensor:
    """Some heads' attention from END, in one run of the prompts with some edits: [heads, B, T]. Raises HeadError.

    below: as in `seen_at_end`.
    """
    for head in heads:
        check_place(head.layer, head.head, model.config.n_layer, model.config.n_head)
    layers = sorted({head.layer for head in heads})
    patterns = seen_at_end(model, prompts, [f"L{layer}" for layer in layers], "patterns", edits, below)
    by_layer = dict(zip(layers, patterns))                                           # [B, H, T] each
    return torch.stack([by_layer[head.layer][:, head.head] for head in heads])


def patterns_of_end_alone(stream: Stream, heads: Sequence[Head]) -> Tensor:
    """Some heads' attention in the stream that `run_end` gives: [heads, B, T]."""
    by_layer = {layer: stream.patterns[f"L{layer}"] for layer in {head.layer for head in heads}}     # [B, H, 1, T] each
    return torch.stack([by_layer[head.layer][:, head.head, 0] for head in heads])
