"""How well a model does: right answers, by index and by length of the list, perplexity, and ranks compared.

A rate of n prompts is known up to chance only. Wilson's interval (1927) holds the rates p for which the one that was
counted is no further off than chance takes it in 95 of 100 samples: |rate - p| <= 1.96 sqrt(p (1 - p) / n), solved
for p. It stays inside 0 to 1, and is no point where all n were right.

Axes: B prompt, T position, N candidate, V vocabulary.
"""

import math
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyheads.errors import InputError, TaskError
from tinyheads.heads import at_least_float32
from tinyheads.model import GPT2
from tinyheads.positions import at, places
from tinyheads.prompts import Prompts, check_choice, check_count

AT_ONCE = 100_000_000  # logits of a text that are held at once, 400 MB of them

@torch.no_grad()
def logits_at_end(model: GPT2, prompts: Prompts, batch: int = 256) -> Tensor:
    """What the model says behind the prompts: logits [B, V] at END, computed `batch` prompts at a time."""
    check_count("batch", batch, 1)
    ends = places(prompts.end, *prompts.tokens.shape)[:, 0]                                         # [B]
    batches = zip(prompts.tokens.split(batch), ends.split(batch))
    return torch.cat([(at(model.final(tokens), end) @ model.unembedding.T).cpu() for tokens, end in batches])


def correct(logits: Tensor, prompts: Prompts, among: str = "candidates") -> Tensor:
    """Which prompts are answered rightly: bool [B]. logits: [B, V] at END, or [B, T, V].

    among: the answer has the highest logit of the "candidates", or of the whole "vocabulary". Raises TaskError.
    """
    check_choice("among", among, ("candidates", "vocabulary"))
    logits = logits_of_end(logits, prompts)
    if among == "vocabulary":
        return logits.argmax(dim=-1) == prompts.answer
    return logits.gather(1, prompts.candidates).argmax(dim=-1) == prompts.index


def logits_of_end(logits: Tensor, prompts: Prompts) -> Tensor:
    """Logits [B, T, V] or [B, V] as [B, V]. Raises TaskError where they are not of these prompts, or not numbers."""
    B, T = prompts.tokens.shape
    if logits.dim() == 3 and logits.shape[:2] == (B, T):
        logits = at(logits, prompts.end)
    if logits.dim() != 2 or len(logits) != B or logits.shape[1] <= int(prompts.candidates.max()):
        raise TaskError(f"logits of these prompts are [{B}, {T}, V] or [{B}, V], not {list(logits.shape)}")
    if logits.isnan().any():
        raise TaskError("some of the logits at END are not numbers (nan)")
    return logits.to(prompts.tokens.device)


def accuracy(model: GPT2, prompts: Prompts, among: str = "candidates") -> float:
    """The share of the prompts that the model answers rightly, from 0 to 1. Raises TaskError."""
    return correct(logits_at_end(model, prompts), prompts, among).double().mean().item()


def accuracy_by_length(model: GPT2, task: Callable[[int], Prompts], lengths: list[int],
                       among: str = "candidates") -> dict[int, float]:
    """Accuracy by list length; task: makes the prompts of a length, `lambda N: laundry_list(tokenizer, 500, N)`."""
    return {n_items: accuracy(model, task(n_items), among) for n_items in lengths}


def by_index(values: Tensor, prompts: Prompts) -> Tensor:
    """The mean of one value a prompt, [B] or [B, D], by the answer's index: [N] or [N, D]; nan where none has it.

    Raises TaskError.
    """
    B, N = prompts.candidates.shape
    if values.dim() not in (1, 2) or len(values) != B:
        raise TaskError(f"one value a prompt is [{B}] or [{B}, D], not {list(values.shape)}")
    index, values = prompts.index.to(values.device), values.to(torch.promote_types(values.dtype, torch.float32))
    total = values.new_zeros(N, *values.shape[1:]).index_add(0, index, values)                      # [N] or [N, D]
    counts = torch.bincount(index, minlength=N)                                                     # [N]
    return total / counts.view(N, *[1] * (values.dim() - 1))


def wilson_interval(rate: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a rate that was counted on n prompts: its lowest and highest value.

    z: standard deviations of a normal distribution on either side, 1.96 for 95 %. Source: Wilson 1927. Raises
    InputError.
    """
    check_count("n", n, 1)
    if not 0 <= rate <= 1:
        raise InputError(f"a rate is from 0 to 1, not {rate}")
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def bootstrap_interval(statistic: Callable[..., float], *values: Tensor, seed: int = 0,
                       draws: int = 1000) -> tuple[float, float]:
    """The middle 95 % of a statistic of n observations, when n of them are drawn anew, with repetition, `draws` times.

    statistic: of as many tensors as are given, such as `rank_correlation`; values: each [n], the same observations in
    the same order. Draws for which it is nan are left out. Source: Efron 1979. Raises InputError.
    """
    n = len(values[0]) if values else 0
    if n < 2 or any(len(each) != n for each in values):
        raise InputError("a bootstrap is of equally long lists of two observations at least")
    draw = torch.Generator().manual_seed(seed)
    which = torch.randint(n, (draws, n), generator=draw)                            # [draws, n]
    found = torch.tensor([statistic(*(each[rows] for each in values)) for rows in which]).double()
    if (found := found[~found.isnan()]).numel() == 0:
        return math.nan, math.nan
    low, high = found.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return low, high


@torch.no_grad()
def perplexity(model: GPT2, tokens: Tensor) -> float:
    """exp of the mean cross-entropy of each next token of texts [B, T], T from 2. Raises TaskError, InputError."""
    if tokens.shape[1] < 2:
        raise TaskError("a text of one token has no next one to be surprised by")
    surprise = []                                                      # of each next token, a few texts at a time
    for some in tokens.split(max(1, AT_ONCE // (tokens.shape[1] * model.config.n_vocab))):
        logits = at_least_float32(model(some)[:, :-1])                                              # [b, T - 1, V]
        surprise.append(F.cross_entropy(logits.transpose(1, 2), some[:, 1:].to(logits.device), reduction="none"))
    return torch.cat(surprise).mean().exp().item()                                                  # [B, T - 1] -> []


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
