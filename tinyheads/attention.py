"""Why does a head look there? Its attention score as a sum over what was written before it.

Before the softmax, the score of a query's position with a key's is an inner product:

    score = q . k / sqrt(K),    q = LN(x_query) @ W_Q + b_Q,    k = LN(x_key) @ W_K + b_K

LayerNorm is linear but for its scale. With the scale frozen at the value it had, q is a sum over what was written to
the stream at the query, and k over what was written at the key. With the other side as it was, the score is a sum too:

    score = sum_w ((w - mean(w)) / std(x_query) * gain) @ W_Q . k / sqrt(K)  +  (bias @ W_Q + b_Q) . k / sqrt(K)

Where positions rotate (Pythia), q and k are rotated by theirs: q = (LN(x_query) @ W_Q + b_Q) R(i). What q meets may be
rotated back in its place, q . k = (LN(x_query) @ W_Q + b_Q) . k R(-i), and the rest is as it stands here.

This is for attention what direct logit attribution is for the answer (attribution.py; Elhage et al. 2021, "QK circuit";
Wang et al. 2022, §3.2). It shows what a head's query was made of on these prompts, where a composition score is of
weights alone. It does not show a cause: what is taken away may be made up for elsewhere (`inhibition_scores`).

Axes: B prompt, T position, D d_model, K d_head.
"""

import math

import torch
from torch import Tensor

from tinyheads.attribution import same
from tinyheads.config import LAYER_NORM_EPS
from tinyheads.errors import HeadError, InputError, StreamError
from tinyheads.heads import SVD, Component, Head, at_least_float32, check_place
from tinyheads.model import GPT2
from tinyheads.positions import at, places
from tinyheads.pythia import rotate
from tinyheads.stream import Stream

SIDES = ("query", "key")


def attention_attribution(model: GPT2, stream: Stream, head: str | Head, query: int | Tensor, key: int | Tensor,
                          side: str = "query", ov: SVD | None = None) -> dict[str, Tensor]:
    """What each write gives to one head's score of a query with a key, before the softmax: {name: [B]}.

    stream: recorded by `model(tokens, stream)`; head: "L2.H1"; query, key: positions, one for all prompts or each
    prompt's own [B], the key not behind the query. side: whose writes are told apart, those at the "query" or those at
    the "key"; the other side stays whole. ov: `ov_svd(Heads.of(model))`, to tell the components of each head apart:
    then "L0.H2.C1" and so on stand in place of "L0.H2". The last entry, "bias", is the part that no write makes. They
    sum to the score up to rounding.

    Raises HeadError for a head that is not there or an SVD of another model's size, InputError for positions and
    sides, StreamError for a stream without a record of whole prompts, or whose layer was edited or is of other weights.
    """
    head = Head.parse(head) if isinstance(head, str) else head
    check_place(head.layer, head.head, model.config.n_layer, model.config.n_head)
    if side not in SIDES:
        raise InputError(f"side is 'query' or 'key', not {side!r}")
    check_recorded(model, stream, head)
    asked, seen = (places(position, *stream.value.shape[:2]) for position in (query, key))      # [B, 1] each
    if (seen > asked).any():
        raise InputError("a query sees its own position and those before it: a key behind it has no score")
    q, k = queries_and_keys(model, stream, head)                                                # [B, T, K] each
    check_pattern(stream, head, q, k, query)
    here, other = (query, at(k, key)) if side == "query" else (key, at(q, query))               # other: [B, K]
    return parts_of_product(model, stream, head, side, here, other, ov)


def parts_of_product(model: GPT2, stream: Stream, head: Head, side: str, here: int | Tensor, other: Tensor,
                     ov: SVD | None) -> dict[str, Tensor]:
    """What each write at `here` gives to a head's query, or key, times any vector: {name: [B]}, divided by sqrt(K).

    other: [B, K], whole, and rotated where the model rotates; a key gives the score with it, a weighted sum of keys the
    same sum of scores. Raises StreamError, HeadError.
    """
    W, b = weights_of(model, head, side)                                                        # [D, K], [K]
    position = places(here, *stream.value.shape[:2])[:, 0].to(other.device)                     # [B]
    other = rotate(other, -position, model.config) / math.sqrt(model.config.d_head)             # [B, K]
    direction, norm = other @ W.T, model.h[head.layer].ln_1         # [B, D]: score = LN(x) . direction + b . other
    before = {name: at_least_float32(at(write, here)) for name, write in written_before(stream, head.layer)}    # [B, D]
    x = sum(before.values())                                                                    # [B, D]
    if not same(norm(x.to(norm.weight.dtype)), at(stream.reads[f"L{head.layer}.attn"], here)):
        raise StreamError(f"this stream's read 'L{head.layer}.attn' is not what this model's LayerNorm makes of what "
                          "was written, so that the writes do not sum to the score: the read was edited, or the "
                          "stream is another model's, or ln_1 was changed since")
    scale = (x.var(dim=-1, correction=0, keepdim=True) + LAYER_NORM_EPS).sqrt()                 # [B, 1]
    read = centred(direction * norm.weight) / scale                 # [B, D]: a write w gives w . read
    parts = {}
    for name, write in before.items():
        if ov is None or ".H" not in name:
            parts[name] = (write * read).sum(-1)                                                # [B]
        else:
            writer = Head.parse(name)
            v = component_directions(ov, writer, model)                                         # [K, D]
            along = (centred(write) @ v.T) * (read @ v.T)                                       # [B, K]
            parts |= {str(Component.of(writer, i)): along[:, i] for i in range(len(v))}
    parts["bias"] = (norm.bias * direction).sum(-1) + (b * other).sum(-1)                       # [B]
    return parts


def check_recorded(model: GPT2, stream: Stream, head: Head) -> None:
    """Raise StreamError unless the stream holds a run of whole prompts by a model of this size."""
    name = f"L{head.layer}"
    if name not in stream.patterns or f"{name}.attn" not in stream.reads:
        raise StreamError("this layer was not recorded: run model(tokens, stream) with stream = Stream(record=True)")
    shape, read = stream.patterns[name].shape, stream.reads[f"{name}.attn"]
    if shape[1] != model.config.n_head or read.shape[-1] != model.config.n_embd:
        raise StreamError(f"this stream is another model's: {shape[1]} heads and {read.shape[-1]} wide, where this "
                          f"model has {model.config.n_head} and {model.config.n_embd}")
    if shape[2] != shape[3]:
        raise StreamError(f"this stream holds {shape[2]} of {shape[3]} positions, for the others were in a cache: run "
                          "the prompts whole")


def check_pattern(stream: Stream, head: Head, q: Tensor, k: Tensor, query: int | Tensor) -> None:
    """Raise StreamError unless these queries and keys [B, T, K] make the pattern that was recorded, at the query."""
    asked, T = places(query, *q.shape[:2]).to(q.device), q.shape[1]                             # [B, 1]
    scores = (k @ at(q, query)[:, :, None])[:, :, 0] / math.sqrt(q.shape[2])                    # [B, T]
    scores = scores.masked_fill(torch.arange(T, device=q.device) > asked, -math.inf)
    recorded = at(stream.patterns[f"L{head.layer}"][:, head.head], query)                       # [B, T]
    if not same(scores.softmax(dim=-1), recorded):
        raise StreamError(f"this stream's pattern of {head} is not what this model makes of its read: the pattern was "
                          "edited, or the stream is another model's, or the weights were changed since")


def written_before(stream: Stream, layer: int) -> list[tuple[str, Tensor]]:
    """The writes [B, T, D] that a layer's heads read, with their names: those before the layer's own, in order."""
    names = list(stream.writes)
    before = names[:names.index(f"L{layer}.H0")]
    too_late = f"edit before L{layer}.mlp"  # in a Pythia it stands before the heads' writes, but behind their read
    return [(name, stream.writes[name]) for name in before if name != too_late]


def queries_and_keys(model: GPT2, stream: Stream, head: Head) -> tuple[Tensor, Tensor]:
    """A head's queries and keys in a recorded run, each [B, T, K], rotated where the model rotates them."""
    read = stream.reads[f"L{head.layer}.attn"]                                                  # [B, T, D]
    positions = torch.arange(read.shape[1], device=read.device)                                 # [T]
    return tuple(rotate(read @ W + b, positions, model.config)
                 for W, b in (weights_of(model, head, side) for side in SIDES))


def weights_of(model: GPT2, head: Head, side: str) -> tuple[Tensor, Tensor]:
    """A head's W_Q and b_Q for "query", W_K and b_K for "key": [D, K] and [K], not folded."""
    D, H, K = model.config.n_embd, model.config.n_head, model.config.d_head
    c_attn, which = model.h[head.layer].attn.c_attn, SIDES.index(side)
    return (c_attn.weight.view(D, 3, H, K)[:, which, head.head],                                # [D, 3D] -> [D, K]
            c_attn.bias.view(3, H, K)[which, head.head])                                        # [3D] -> [K]


def component_directions(ov: SVD, writer: Head, model: GPT2) -> Tensor:
    """What a head's components write: orthonormal [K, D]. Raises HeadError for an SVD of a model of another size."""
    wanted = [model.config.n_layer, model.config.n_head, model.config.d_head, model.config.n_embd]
    if list(ov.write.shape) != wanted:
        raise HeadError(f"ov is ov_svd(Heads.of(model)): its components write {wanted}, not {list(ov.write.shape)}")
    return ov.write[writer.layer, writer.head]


def centred(x: Tensor) -> Tensor:
    """x [..., D] less its mean over D, which LayerNorm takes out of whatever it reads."""
    return x - x.mean(dim=-1, keepdim=True)
