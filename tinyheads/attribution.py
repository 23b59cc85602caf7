"""Direct logit attribution: how much of a logit each write to the stream accounts for.

The logit of token t is linear in the final LayerNorm's output, and that LayerNorm is linear but
for its scale. With the scale frozen at the value it had, the logit is a plain sum over writes:

    logit_t = sum_w ((w - mean(w)) / std(stream) * gain) . wte[t]  +  bias . wte[t]

(nostalgebraist 2020, "the logit lens"; Elhage et al. 2021, "direct path"; Wang et al. 2022, §3.)
"""

import torch
from torch import Tensor

from tinyheads.config import LAYER_NORM_EPS
from tinyheads.errors import InputError, StreamError
from tinyheads.model import GPT2
from tinyheads.stream import Stream


def logit_attribution(model: GPT2, stream: Stream, token: int | Tensor) -> dict[str, Tensor]:
    """Each write's contribution to a token's logit, at every position: {name: [B, T]}, in logits.

    stream: recorded by `model(tokens, stream)`; token: an id, or ids [B, T] (or [B, 1], one for
    each prompt). The last entry, "ln_f.bias", is the part that no write makes. They sum to the
    logit up to float32 rounding. Raises StreamError for a stream without a record, and InputError.
    """
    if "embed" not in stream.writes:
        raise StreamError("nothing was recorded: run model(tokens, stream) with stream = Stream(record=True)")
    token = torch.as_tensor(token, device=model.wte.weight.device)
    if token.is_floating_point() or token.min() < 0 or token.max() >= model.config.n_vocab:
        raise InputError(f"token must be ids from 0 to {model.config.n_vocab - 1}, not {token.tolist()}")
    x = stream.value                                                            # [B, T, D]
    scale = (x.var(dim=-1, correction=0) + LAYER_NORM_EPS).sqrt()               # [B, T]
    direction = model.wte.weight[token]                                         # [D], or [B, T or 1, D]
    parts = {}
    for name, write in stream.writes.items():
        centred = write - write.mean(dim=-1, keepdim=True)                      # [B, T, D]
        parts[name] = (centred * model.ln_f.weight * direction).sum(-1) / scale  # [B, T]
    bias = (model.ln_f.bias * direction).sum(-1)                                # [] or [B, T or 1]
    parts["ln_f.bias"] = bias.expand_as(scale)                                  # [B, T]
    return parts
