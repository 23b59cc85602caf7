"""Is it a channel? Take a component away while the model runs, and see what its reader does.

A composition score says that two heads could talk; only an intervention says that they do. A head's write is
a sum over its components, w = sum_i (w . v_i) v_i, so that one of them can be taken out and nothing else:

    zero       w - (w . v) v
    mean       w - (w . v) v + mean over prompts of (w . v) v, at each position
    resample   w - (w . v) v + (w' . v) v, w' from another prompt

(Merullo et al. 2024, §4; Wang et al. 2022 on mean and resample ablation.) The inhibition score of a component is by
how much the mover heads prefer the answer less without it:

    preference = attention on the answer - attention on the other items, from END, mean over prompts and movers
    inhibition score = preference with all components - preference without this one
"""

import torch
from torch import Tensor

from tinyheads.attention import parts_of_product, queries_and_keys
from tinyheads.basis import following, project
from tinyheads.circuit import Circuit, preference_in
from tinyheads.composition import component_scores
from tinyheads.errors import HeadError, InputError
from tinyheads.files.progress import Progress
from tinyheads.heads import SVD, Component, Head, Heads, at_least_float32, check_place, ov_svd
from tinyheads.last_token import before_end, patterns_at_end, patterns_of_end_alone, run_end
from tinyheads.model import GPT2, Cache
from tinyheads.positions import changed_at
from tinyheads.prompts import Prompts
from tinyheads.scoring import correct
from tinyheads.stream import Edit, Stream
from tinyheads.upper_layers import Below, runs_below

WAYS = ("zero", "mean", "resample")
MOST_TESTED = 128  # components; where there are more, the strongest by composition and as many at random are tested


# --- edits that take something away --------------------------------------------------------------------


def remove(directions: Tensor, writer: str, how: str = "mean", seed: int = 0) -> Edit:
    """An edit that takes some components out of a head's write. directions: orthonormal [k, D]; writer: "L8.H10".

    how: "zero", "mean" or "resample" (from a random other prompt of the batch, by `seed`). Raises InputError, and
    while the model runs SubspaceError for directions that are not orthonormal or do not fit.
    """
    if how not in WAYS:
        raise InputError(f"a component is removed by {', '.join(WAYS)}, not by {how!r}")

    def change(write: Tensor) -> Tensor:
        basis = following(torch.atleast_2d(directions), write)         # [k, D]
        c = write.to(basis.dtype) @ basis.T                            # [B, T, k]
        if how == "zero":
            new = torch.zeros_like(c)
        elif how == "mean":
            several(write)
            new = c.mean(dim=0, keepdim=True).expand_as(c)
        else:
            new = c[derangement(len(c), seed)]
        return (write + (new - c) @ basis).to(write.dtype)             # [B, T, D]

    return Edit(writer, change)


def restrict(basis: Tensor, writer: str, end: int | Tensor, keep: bool = True) -> Edit:
    """An edit after which a head's write at END differs between prompts only inside a subspace, or only outside it.

    basis: orthonormal [k, D], [0, D] for nothing at all; end: END's position, or each prompt's own [B]; keep: True
    keeps what is inside (and gives the rest its mean over the prompts of the batch), False removes it. What k
    dimensions carry alone, and what is left without them.
    """

    def change(write: Tensor) -> Tensor:
        several(write)
        return changed_at(write, end, restricted)

    def restricted(here: Tensor) -> Tensor:
        mean = at_least_float32(here).mean(dim=0)                      # [B, P, D] -> [P, D]
        inside = project(here - mean, basis) if len(basis) else torch.zeros_like(here - mean)
        return mean + inside if keep else here - inside

    return Edit(writer, change)


def several(write: Tensor) -> None:
    """Raise InputError where a mean over prompts would be a prompt's own value, so that an edit would do nothing."""
    if len(write) < 2:
        raise InputError("a mean over prompts needs a batch of two at least")


def derangement(n: int, seed: int) -> Tensor:
    """An order of n prompts in which none is its own partner: [n]."""
    if n < 2:
        raise InputError("another prompt to take values from needs a batch of two at least")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)                                     # one cycle through all
    return partner


def remove_components(ov: SVD, components: list[Component], how: str = "mean", seed: int = 0) -> list[Edit]:
    """Edits that take single components out of their heads' writes; `ov` is `ov_svd(heads)`. Raises HeadError."""
    for component in components:
        check_component(component, ov)
    return [remove(ov.write[c.layer, c.head, c.index], str(c.of_head), how, seed) for c in components]


def check_component(component: Component, ov: SVD) -> None:
    """Raise HeadError unless there is such a component."""
    L, H, K, _ = ov.write.shape
    check_place(component.layer, component.head, L, H)
    if not 0 <= component.index < K:
        raise HeadError(f"{component}: a head has the components C0 to C{K - 1}")


# --- what the movers lose ------------------------------------------------------------------------------


def preference(model: GPT2, prompts: Prompts, movers: list[Head], edits: list[Edit] = (),
               below: Below | None = None) -> float:
    """How much the movers prefer the answer, with some edits in place: from 1 at best to -1. Raises HeadError.

    END's attention on the answer's place less that on all other items together, mean over prompts and movers. below:
    `run_below(model, prompts.tokens, layer)`, where many edits in that layer or above are tried on the same prompts.
    """
    patterns = patterns_at_end(model, prompts, movers, edits, below)                        # [movers, B, T]
    return preference_in(patterns, prompts).mean().item()


def carried(model: GPT2, prompts: Prompts, circuit: Circuit, basis: Tensor, keep: bool = True,
            earlier: Cache | None = None) -> tuple[float, float]:
    """The accuracy and the movers' preference with the inhibition heads' writes at END restricted to a subspace.

    basis [k, D] and keep: as for `restrict`; with keep=False, without that subspace. accuracy: among the candidates,
    from 0 to 1. earlier: `before_end(model, prompts)`, where many subspaces are tried on the same prompts. Raises
    HeadError, InputError.
    """
    circuit.check(model)
    edits = [restrict(basis, str(head), 0, keep) for head in circuit.inhibition]
    logits, stream = run_end(model, prompts, earlier or before_end(model, prompts), edits)           # [B, V]
    patterns = patterns_of_end_alone(stream, circuit.movers)                                # [movers, B, T]
    return correct(logits, prompts).double().mean().item(), preference_in(patterns, prompts).mean().item()


def inhibition_scores(model: GPT2, prompts: Prompts, circuit: Circuit, how: str = "mean", seed: int = 0,
                      components: list[Component] | None = None) -> dict[Component, float]:
    """The inhibition score of each component: how much of the movers' preference for the answer is lost without it.

    Positive: that component tells the movers where not to look. how: "zero", "mean" or "resample"; components: those
    to test, `components_to_test(model, circuit)` if left out. One run each, of the layers from its own to the movers'.
    Source: Merullo et al. 2024, §4. Raises HeadError, InputError.
    """
    circuit.check(model)
    ov = ov_svd(Heads.of(model))
    components = components_to_test(model, circuit, seed) if components is None else components
    edits = remove_components(ov, components, how, seed)
    below = runs_below(model, prompts.tokens, {c.layer for c in components})
    whole, scores = preference(model, prompts, circuit.movers), {}
    with Progress(f"removing components ({how})", len(components), "runs") as bar:
        for component, edit in zip(components, edits):
            scores[component] = whole - preference(model, prompts, circuit.movers, [edit], below[component.layer])
            bar.add()
    return scores


def attributed_scores(model: GPT2, prompts: Prompts, circuit: Circuit) -> dict[str, float]:
    """How much of what the movers' queries read speaks for the answer, on these prompts: {"L0.H2.C1", "L0.mlp", ...}.

    What a component, or any other write, gives to a mover's attention score of END with the answer's place, before the
    softmax, less the mean of what it gives to the scores with the other items (`attention_attribution`). Mean over
    prompts and movers. Direct parts alone: what an MLP makes of a component counts as the MLP's. Nothing is taken away.
    Raises HeadError.
    """
    circuit.check(model)
    ov, stream = ov_svd(Heads.of(model)), Stream(record=True)
    B, N = prompts.candidates.shape
    weight = torch.full((B, N), -1 / (N - 1)).scatter(1, prompts.index[:, None], 1.0)       # [B, N]
    scores: dict[str, float] = {}
    with torch.no_grad():
        model.final(prompts.tokens, stream)
        for mover in circuit.movers:
            _, keys = queries_and_keys(model, stream, mover)                                # [B, T, K]
            of_items = keys[torch.arange(B)[:, None], prompts.positions]                    # [B, N, K]
            lead = (weight[..., None].to(keys) * of_items).sum(1)                           # [B, K]
            for name, part in parts_of_product(model, stream, mover, "query", prompts.end, lead, ov).items():   # [B]
                scores[name] = scores.get(name, 0.0) + part.mean().item() / len(circuit.movers)
    return scores


def composition_with_movers(model: GPT2, circuit: Circuit) -> dict[Component, float]:
    """The Q-composition score of every component in a layer before the movers with them, from weights alone.

    For several movers the root of the mean of their squared scores. Raises HeadError.
    """
    circuit.check(model)
    scores = component_scores(Heads.of(model), "Q")                                         # [L, H, K, L, H]
    with_movers = torch.stack([scores[:, :, :, mover.layer, mover.head] for mover in circuit.movers])
    together = with_movers.pow(2).mean(dim=0).sqrt()                                        # [L, H, K]
    first = min(mover.layer for mover in circuit.movers)
    return {Component(layer, head, index): together[layer, head, index].item()
            for layer in range(first) for head in range(together.shape[1]) for index in range(together.shape[2])}


def components_to_test(model: GPT2, circuit: Circuit, seed: int = 0) -> list[Component]:
    """All components in layers before the movers; where those are more than MOST_TESTED, 32 of them.

    These are the 16 that compose most with the movers, and 16 of the others at random, by `seed`.
    """
    composition = composition_with_movers(model, circuit)
    if len(composition) <= MOST_TESTED:
        return list(composition)
    order = sorted(composition, key=lambda component: -composition[component])
    others = torch.randperm(len(order) - 16, generator=torch.Generator().manual_seed(seed))[:16] + 16
    return order[:16] + [order[place] for place in others.tolist()]


def channel(model: GPT2, prompts: Prompts, circuit: Circuit, top: int = 5, least: float = 0.05, seed: int = 0,
            measured: dict[str, dict[Component, float]] | None = None) -> list[Component]:
    """The components that weights and intervention both name, strongest by weights first; none is a possible answer.

    Such a component is among the `top` by composition with the movers and among the `top` by its inhibition score, in
    every way of removing it, and costs the movers a share `least` of their preference at least. Neither is enough: a
    component that writes where a mover reads may have nothing to say in this task, and one that matters may act
    through what lies between. measured: {way: `inhibition_scores(..., way)`} where they are there already, else all
    three ways are measured. Raises HeadError, InputError.
    """
    if measured is None:
        components = components_to_test(model, circuit, seed)
        measured = {how: inhibition_scores(model, prompts, circuit, how, seed, components) for how in WAYS}
    composition = composition_with_movers(model, circuit)
    components = list(next(iter(measured.values())))
    named = [strongest_by({c: scores[c] for c in components}, top) for scores in [composition, *measured.values()]]
    whole = preference(model, prompts, circuit.movers)
    agreed = set.intersection(*map(set, named))
    return [c for c in named[0] if c in agreed and min(scores[c] for scores in measured.values()) >= least * whole > 0]


def strongest_by(scores: dict[Component, float], n: int) -> list[Component]:
    """The n components with the highest scores, in that order."""
    return sorted(scores, key=lambda component: -scores[component])[:n]
