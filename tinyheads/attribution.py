"""Direct logit attribution: how much of a logit each write to the stream accounts for.

The logit of token t is linear in the final LayerNorm's output, and that LayerNorm is linear but
for its scale. With the scale frozen at the value it had, the logit is a plain sum over writes:

    logit_t = sum_w ((w - mean(w)) / std(stream) * gain) . unembedding[t]  +  bias . unembedding[t]

(nostalgebraist 2020, "the logit lens"; Elhage et al. 2021, "direct path"; Wang et al. 2022, §3.)
"""

import torch
from torch import Tensor

from tinyheads.config import LAYER_NORM_EPS
from tinyheads.errors import InputError, StreamError
from tinyheads.model import GPT2
from tinyheads.positions import at
from tinyheads.stream import Stream


def logit_attribution(model: GPT2, stream: Stream, token: int | Tensor,
                      position: int | Tensor | None = None) -> dict[str, Tensor]:
    """Each write's contribution to a token's logit, at every position: {name: [B, T]}, in logits.

    position: only there, {name: [B]}; one for all prompts, or each prompt's own [B], as `last` of a `Batch` or
    `prompts.end`.

    stream: recorded by `model(tokens, stream)`; token: one id; or one for each prompt, [B], as in `prompts.answer`;
    or one for each position, [B, T]. The last entry, "ln_f.bias", is the part that no write makes. They sum to the
    logit up to rounding. Raises InputError, and StreamError for a stream without a record, or whose logits are not
    those that this model now makes of it: another model's, or where the final LayerNorm, the unembedding or the
    read "unembed" was changed.
    """
    check_logits_are_of(model, stream)
    x = stream.value                                                            # [B, T, D]
    direction = model.unembedding[checked_ids(model, token, *x.shape[:2])]      # [D], [B, 1, D] or [B, T, D]
    scale = (x.var(dim=-1, correction=0) + LAYER_NORM_EPS).sqrt()               # [B, T]
    parts = {}
    for name, write in stream.writes.items():
        centred = write - write.mean(dim=-1, keepdim=True)                      # [B, T, D]
        parts[name] = (centred * model.ln_f.weight * direction).sum(-1) / scale  # [B, T]
    bias = (model.ln_f.bias * direction).sum(-1)                                # [], [B, 1] or [B, T]
    parts["ln_f.bias"] = bias.expand_as(scale)                                  # [B, T]
    if position is None:
        return parts
    return {name: at(part[:, :, None], position)[:, 0] for name, part in parts.items()}    # [B, T, 1] -> [B, 1] -> [B]


def checked_ids(model: GPT2, token: int | Tensor, B: int, T: int) -> Tensor:
    """The ids as [], [B, 1] or [B, T], on the model's device. Raises InputError for another shape, and for no ids."""
    token = torch.as_tensor(token, device=model.unembedding.device)
    if token.shape not in ((), (B,), (B, T)):
        raise InputError(f"token is one id, one for each of the {B} prompts, or [{B}, {T}], not {list(token.shape)}")
    if token.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
        raise InputError(f"token must be ids (whole numbers), not {token.dtype}")
    if token.min() < 0 or token.max() >= model.config.n_vocab:
        raise InputError(f"token must be ids from 0 to {model.config.n_vocab - 1}, not {token.tolist()}")
    return token[:, None] if token.dim() == 1 else token


@torch.no_grad()
def check_logits_are_of(model: GPT2, stream: Stream) -> None:
    """Raise StreamError unless the stream's logits are what the model's final LayerNorm and unembedding make of it."""
    if "embed" not in stream.writes or stream.last_logits is None:
        raise StreamError("nothing was recorded: run model(tokens, stream) with stream = Stream(record=True)")
    if stream.value.shape[-1] != model.config.n_embd or len(stream.last_logits) != model.config.n_vocab:
        raise StreamError(f"this stream is another model's: it is {stream.value.shape[-1]} wide and has "
                          f"{len(stream.last_logits)} logits; this model has {model.config.n_embd} and "
                          f"{model.config.n_vocab}")
    read = stream.reads["unembed"]                                              # [B, T, D]
    if not same(model.ln_f(stream.value), read):
        raise StreamError("this stream's read 'unembed' is not what this model's ln_f makes of the stream, so that its "
                          "writes do not sum to the logit: the read was edited, or the stream is another model's, or "
                          "ln_f was changed since")
    if not same(read[0, -1] @ model.unembedding.T, stream.last_logits):
        raise StreamError("this stream's logits are not those of this model's unembedding: the stream is another "
                          "model's, or the weights were changed since. Run the model again")


def same(x: Tensor, y: Tensor) -> bool:
    """Whether two computations of the same numbers agree up to rounding, in the coarser of their dtypes."""
    eps = max(torch.finfo(x.dtype).eps, torch.finfo(y.dtype).eps)
    return bool((x - y).abs().max() <= min(1000 * eps, 0.05) * y.abs().max())
