"""From logits to text: how the next token is drawn, and prompts of unequal length in one batch.

With temperature t the next token is drawn from softmax(logits / t), among all tokens or the k likeliest. Prompts of
unequal length are padded on the right, and each goes on behind its own last token: `model.generate` runs all of them
from the shortest one's end, and a longer one is given its own tokens for as long as it has any.
"""

import math
import operator
from typing import Callable, NamedTuple, Sequence

import torch
from torch import Tensor

from tinyheads.errors import InputError


class Batch(NamedTuple):
    """Prompts of unequal length in one tensor: tokens [B, T], padded on the right, and each one's last position [B]."""

    tokens: Tensor
    last: Tensor


def batch(tokenizer: "Tokenizer", texts: Sequence[str]) -> Batch:
    """Prompts of unequal length as one batch: tokens [B, T], and where each prompt's last token stands [B].

    Padding on the right is exact: no position looks ahead, so what stands behind a prompt changes nothing in it,
    and its logits are those at `last`. Padding on the left would be wrong: it moves every token to another
    position, whose embedding is another, and lets all of them attend to the padding. The padding is `<|endoftext|>`, or
    token 0 where the tokenizer has none. Raises InputError for a text without tokens, and for a single string.
    """
    if isinstance(texts, str) or not texts:
        raise InputError(f"texts are a list of at least one prompt, not {texts!r}")
    rows = [tokenizer.encode(text) for text in texts]
    if [] in rows:
        raise InputError(f"prompt {rows.index([])} has no tokens")
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [tokenizer.end_of_text or 0] * (longest - len(row)) for row in rows])   # [B, T]
    return Batch(tokens, torch.tensor([len(row) - 1 for row in rows]))


def as_batch(ids: list[int] | Tensor | Batch, checked: Callable[[Tensor], Tensor]) -> Batch:
    """A list of ids, a tensor [B, T] or a Batch, as a Batch of `checked` tokens. Raises InputError."""
    if not isinstance(ids, Batch):
        tokens = checked([ids] if isinstance(ids, (list, tuple)) else ids)                          # [B, T]
        return Batch(tokens, torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device))
    tokens, last = checked(ids.tokens), torch.as_tensor(ids.last)
    whole = last.shape == tokens.shape[:1] and not last.is_floating_point()
    if not whole or not 0 <= last.min() <= last.max() < tokens.shape[1]:
        raise InputError(f"last is one position a prompt, [{len(tokens)}] numbers from 0 to {tokens.shape[1] - 1}, not "
                         f"{last.tolist()}")
    return Batch(tokens, last.to(tokens))


class Sampler:
    """Draws next tokens. temperature: 0 for the likeliest; top_k: how many may be drawn; seed: an int or a generator.

    Raises InputError.
    """

    def __init__(self, temperature: float, top_k: int | None, seed: int | torch.Generator, device: torch.device):
        try:
            self.temperature = float(temperature)
        except (TypeError, ValueError):
            raise InputError(f"temperature must be a number, 0 (greedy) or above, not {temperature!r}") from None
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature must be 0 (greedy) or above, not {temperature}")
        self.top_k = None if top_k is None else whole_number("top_k", top_k, least=1)
        if isinstance(seed, torch.Generator):
            self.generator = seed
        else:
            self.generator = torch.Generator(device).manual_seed(whole_number("seed", seed, least=-2**63))

    def draw(self, logits: Tensor) -> Tensor:
        """One token for each row of logits [B, V]: [B]."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[:, -1:]                                          # [B, 1]
            logits = logits.masked_fill(logits < least, -math.inf)
        logits = logits - logits.amax(dim=-1, keepdim=True)     # 0 at most: no temperature makes it infinite
        weights = (logits / max(self.temperature, torch.finfo(torch.float32).tiny)).softmax(dim=-1)  # [B, V]
        return torch.multinomial(weights, 1, generator=self.generator)[:, 0]


def stop_tokens(stop: int | Sequence[int], n_vocab: int) -> Tensor:
    """The ids behind which a text ends, one or several, as a tensor. Raises InputError."""
    try:
        ids = [operator.index(token) for token in (stop if isinstance(stop, (list, tuple, set, Tensor)) else [stop])]
    except TypeError:
        raise InputError(f"stop is a token id or a list of them, not {stop!r}") from None
    if ids and not 0 <= min(ids) <= max(ids) < n_vocab:
        raise InputError(f"stop has ids outside the vocabulary, 0 to {n_vocab - 1}: {ids}")
    return torch.tensor(ids, dtype=torch.int64)


def whole_number(name: str, value: object, least: int) -> int:
    """The value as an int, be it Python's, NumPy's or torch's. Raises InputError below `least`, and for a bool."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise InputError(f"{name}={value!r}: must be a whole number from {least}")
    return number
