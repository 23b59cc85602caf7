"""Known circuits: the heads of a circuit as published, and how well a score ranks its edges.

The circuit for indirect object identification, "When Mary and John went to the store, John gave a
drink to" -> " Mary", was found in GPT-2 124M by running it and patching activations (Wang et al. 2022,
"Interpretability in the Wild"). Pythia-160m's for the same task was found by attributing to its edges what
patching them changes (Tigges et al. 2024, "LLM Circuit Analyses Are Consistent Across Training and Scale",
Figure 4); its heads are taken here from the code of Franco et al. (2025, "Signals in the Stream: Pinpointing
Attention-Causal Communication in Language Models"), which compares circuits with it. None of that is used for
the predictions; it is only what they are compared with. The measure is the area under the ROC curve (Fawcett
2006, "An introduction to ROC analysis"): how often the score of a known edge is higher than that of another
pair of heads.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyheads.composition import later
from tinyheads.config import GPT2Config
from tinyheads.errors import HeadError
from tinyheads.heads import Head


def heads_named(text: str) -> tuple[Head, ...]:
    """"7.3 8.10", as the paper writes heads, to (L7.H3, L8.H10)."""
    return tuple(Head(*map(int, pair.split("."))) for pair in text.split())


# Wang et al. 2022, Figure 2.
PREVIOUS_TOKEN = heads_named("2.2 4.11")
DUPLICATE_TOKEN = heads_named("0.1 3.0 0.10")
INDUCTION = heads_named("5.5 6.9 5.8 5.9")
S_INHIBITION = heads_named("7.3 7.9 8.6 8.10")
NAME_MOVERS = heads_named("9.9 9.6 10.0")
ROLES = {head: role for role, group in [
    ("previous token", PREVIOUS_TOKEN), ("duplicate token", DUPLICATE_TOKEN), ("induction", INDUCTION),
    ("S-inhibition", S_INHIBITION), ("name mover", NAME_MOVERS)] for head in group}

# Pythia-160m's, from Tigges et al. 2024 as above; no duplicate-token heads are listed.
PYTHIA_PREVIOUS_TOKEN = heads_named("2.6")
PYTHIA_INDUCTION = heads_named("4.6 4.11 5.0")
PYTHIA_S_INHIBITION = heads_named("6.6 7.2 7.9")
PYTHIA_NAME_MOVERS = heads_named("8.2 8.10 9.4 10.7")
PYTHIA_ROLES = {head: role for role, group in [
    ("previous token", PYTHIA_PREVIOUS_TOKEN), ("induction", PYTHIA_INDUCTION), ("S-inhibition", PYTHIA_S_INHIBITION),
    ("name mover", PYTHIA_NAME_MOVERS)] for head in group}


@dataclass(frozen=True)
class KnownEdges:
    """Every writer of a group feeds every reader of another, through one mode ("Q", "K" or "V")."""

    writers: tuple[Head, ...]
    readers: tuple[Head, ...]


IOI_CIRCUIT = {
    "Q": KnownEdges(S_INHIBITION, NAME_MOVERS),                    # "do not look there"
    "K": KnownEdges(PREVIOUS_TOKEN, INDUCTION),                    # "the token before me was ..."
    "V": KnownEdges(DUPLICATE_TOKEN + INDUCTION, S_INHIBITION),    # "this one stood here before"
}
PYTHIA_IOI_CIRCUIT = {
    "Q": KnownEdges(PYTHIA_S_INHIBITION, PYTHIA_NAME_MOVERS),
    "K": KnownEdges(PYTHIA_PREVIOUS_TOKEN, PYTHIA_INDUCTION),
    "V": KnownEdges(PYTHIA_INDUCTION, PYTHIA_S_INHIBITION),
}


def ioi_circuit_of(config: GPT2Config) -> tuple[dict[str, KnownEdges], dict[Head, str]]:
    """The IOI circuit as published for a model of these sizes, and its heads' roles: GPT-2 124M's, Pythia-160m's.

    Both empty for other models.
    """
    if (config.n_layer, config.n_head, config.n_embd) != (12, 12, 768):
        return {}, {}
    return (PYTHIA_IOI_CIRCUIT, PYTHIA_ROLES) if config.kind == "Pythia" else (IOI_CIRCUIT, ROLES)


def circuit_pairs(n_layer: int, n_head: int, mode: str,
                  circuit: dict[str, KnownEdges] = IOI_CIRCUIT) -> tuple[Tensor, Tensor]:
    """Known and other pairs of a mode, as two bool [L, H, L, H]: writer by reader.

    Other pairs have the same readers, and any writer in a strictly earlier layer. Raises HeadError
    for a model in which the circuit's heads are not.
    """
    if mode not in tuple(circuit):
        raise HeadError(f"the circuit has edges by {', '.join(circuit)}, not by {mode!r}")
    edges = circuit[mode]
    for head in edges.writers + edges.readers:
        if not (0 <= head.layer < n_layer and 0 <= head.head < n_head):
            raise HeadError(f"the circuit has the head {head}; this model has L0.H0 to L{n_layer - 1}.H{n_head - 1}. "
                            f"IOI_CIRCUIT is that of GPT-2 124M, PYTHIA_IOI_CIRCUIT of Pythia-160m")
    known = torch.zeros(n_layer, n_head, n_layer, n_head, dtype=torch.bool)
    into_readers = torch.zeros_like(known)
    for reader in edges.readers:
        into_readers[:, :, reader.layer, reader.head] = True
        for writer in edges.writers:
            known[writer.layer, writer.head, reader.layer, reader.head] = True
    known, others = known & later(n_layer), into_readers & ~known & later(n_layer)
    if not known.any() or not others.any():
        raise HeadError(f"by {mode!r} this circuit has {int(known.sum())} edges from an earlier to a later layer, and "
                        f"{int(others.sum())} other pairs to compare them with; both are needed")
    return known, others


def circuit_auc(scores: Tensor, mode: str, circuit: dict[str, KnownEdges] = IOI_CIRCUIT) -> float:
    """Area under the ROC curve: how often a known edge scores above another pair of the same readers.

    scores: [L, H, L, H], writer by reader, of any score; ties count half. 0.5 is chance, 1 is
    perfect. With the IOI circuit: 12 known of 336 pairs by Q, 8 of 252 by K, 28 of 360 by V.
    Raises HeadError; also for axes in another order, where the scores are 0 or -inf for all but later readers.
    """
    try:
        scores = torch.as_tensor(scores)
    except (TypeError, ValueError, RuntimeError) as error:
        raise HeadError(f"scores must be numbers [L, H, L, H]: {error}") from error
    if scores.dim() != 4 or scores.shape[:2] != scores.shape[2:]:
        raise HeadError(f"scores must be [L, H, L, H], writer by reader, not {list(scores.shape)}; of component scores "
                        f"[L, H, K, L, H] take the best, scores.amax(2)")
    for order, what in [((2, 3, 0, 1), "reader by writer"), ((1, 0, 3, 2), "head before layer"),
                        ((3, 2, 1, 0), "reader by writer and head before layer")]:
        if not only_later(scores) and only_later(scores.permute(order)):
            raise HeadError(f"these scores are {what}; they should be [L, H, L, H], writer by reader: "
                            f"scores.permute{order}")
    known, others = circuit_pairs(*scores.shape[:2], mode, circuit)
    if scores[known | others].isnan().any():
        raise HeadError("some of the scores are not numbers (nan)")
    return wins(scores[known], scores[others]).mean().item()


def roc_area(scores: Tensor, known: Tensor) -> float:
    """How often a score [n] of what is known, bool [n], is above one of what is not; nan if all or none is known."""
    return wins(scores[known], scores[~known]).mean().item()


def only_later(scores: Tensor) -> bool:
    """Whether scores [L, H, L, H] are 0, -inf or nan for all pairs whose reader is not in a later layer."""
    rest = scores[~later(len(scores)).to(scores.device).expand_as(scores)]  # [pairs]
    return bool(((rest == 0) | rest.isneginf() | rest.isnan()).all())


def wins(known: Tensor, others: Tensor) -> Tensor:
    """Is each known score [N] higher than each other score [M]? float64 [N, M]: 1 yes, 0.5 a tie, 0 no.

    Their mean is the area under the ROC curve.
    """
    known, others = known.double()[:, None], others.double()              # [N, 1], [M]
    return (known > others).double() + 0.5 * (known == others).double()   # [N, M]


def resampled_auc(scores: Tensor, known: Tensor, others: Tensor, draws: int = 2000, seed: int = 0) -> Tensor:
    """The same area when the readers are drawn anew: float64 [draws], for an interval by bootstrap over readers.

    scores: [L, H, L, H], writer by reader; known, others: bool [L, H, L, H], such as `circuit_pairs` gives. Pairs of
    one reader are not independent of each other, so whole readers are drawn, with replacement, as many as have known
    pairs; a reader drawn twice counts twice. The 95 % interval is `.quantile(torch.tensor([0.025, 0.975]).double())`.
    With few readers (IOI has 3 or 4 a mode) it is rough, and too narrow if anything. Source: Efron and Tibshirani 1993.
    """
    by_reader = lambda table: table.flatten(2).flatten(0, 1).T            # [L*H readers, L*H writers]
    scores, known, others = by_reader(scores), by_reader(known), by_reader(others)
    readers = known.any(1).nonzero().flatten().tolist()                   # the R readers that have known pairs
    met = [wins(scores[a][known[a]], scores[b][others[b]]) for a in readers for b in readers]
    won = torch.stack([each.sum() for each in met])                       # [R*R], comparisons won
    made = won.new_tensor([each.numel() for each in met])                 # [R*R], comparisons made
    R, generator = len(readers), torch.Generator().manual_seed(seed)
    drawn = torch.randint(R, (draws, R), generator=generator)             # [draws, R]
    times = F.one_hot(drawn, R).sum(1).double()                           # [draws, R], how often each reader was drawn
    weights = (times[:, :, None] * times[:, None]).flatten(1)             # [draws, R*R]
    return (weights @ won) / (weights @ made)                             # [draws]
