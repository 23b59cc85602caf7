"""The positional subspace: the few dimensions in which inhibition heads tell mover heads which places are out.

Inhibition heads write, at the last token (END), which items of a list are crossed off. What they write lies in a
space of a few dimensions in which the items are laid out by position: a code for each index. A mover head's query
reads the code, and its attention goes where it points (Merullo et al. 2024, §5). Such a space is found in two ways:

    from weights       the directions along which the movers read most of what the inhibition heads write
    from activations   the principal components of the inhibition heads' mean write at END, by the answer's index

Axes: B prompt, T position, D d_model, N item of the list, W writer, K component, k dimension of the subspace.
"""

import torch
from torch import Tensor

from tinyheads.ablation import check_component
from tinyheads.basis import principal_components, span
from tinyheads.circuit import Circuit
from tinyheads.composition import component_scores
from tinyheads.errors import SubspaceError
from tinyheads.heads import SVD, Component, Heads, ov_svd, at_least_float32
from tinyheads.last_token import seen_at_end
from tinyheads.model import GPT2
from tinyheads.prompts import Prompts
from tinyheads.scoring import by_index


# --- from weights ----------------------------------------------------------------------------------------


def subspace_from_weights(model: GPT2, circuit: Circuit, k: int | None = 3) -> Tensor:
    """The k directions [k, D] along which the movers read most of what the inhibition heads write, strongest first.

    Every component of the inhibition heads counts as one vector, in its write direction and as long as the movers
    read it (`lengths_read`); the principal directions of these vectors are the subspace. k: None for as many as there
    are. Nothing is run. Raises HeadError, SubspaceError.
    """
    ov, lengths = lengths_read(model, circuit)                                      # [W, K]
    writes = torch.stack([ov.write[w.layer, w.head] for w in circuit.inhibition])   # [W, K, D]
    basis = span((lengths[..., None] * writes).flatten(0, 1))                       # [rank, D]
    if k is not None and not 1 <= k <= len(basis):
        raise SubspaceError(f"what these heads write lies in 1 to {len(basis)} dimensions, not {k}")
    return basis[:k]


def components_read_most(model: GPT2, circuit: Circuit, n: int) -> list[Component]:
    """The n components of the inhibition heads that the movers read most (`lengths_read`). Raises SubspaceError."""
    _, lengths = lengths_read(model, circuit)                                       # [W, K]
    if not 1 <= n <= lengths.numel():
        raise SubspaceError(f"these heads have 1 to {lengths.numel()} components, not {n}")
    W, K = lengths.shape
    order = lengths.flatten().argsort(descending=True)[:n].tolist()
    return [Component.of(circuit.inhibition[place // K], place % K) for place in order]


def lengths_read(model: GPT2, circuit: Circuit) -> tuple[SVD, Tensor]:
    """The components of all heads, and how much of each of the inhibition heads' the movers read: [W, K].

    That is its singular value times its Q-composition scores with the movers, root of the sum of squares. Raises
    HeadError.
    """
    circuit.check(model)
    heads = Heads.of(model)
    ov = ov_svd(heads)
    scores = component_scores(heads, "Q", ov)                                       # [L, H, K, L, H]
    with_movers = torch.stack([scores[:, :, :, m.layer, m.head] for m in circuit.movers]).norm(dim=0)   # [L, H, K]
    return ov, torch.stack([(ov.scale * with_movers)[w.layer, w.head] for w in circuit.inhibition])


def subspace_of_components(ov: SVD, components: list[Component]) -> Tensor:
    """The span [k, D] of what some components write; `ov` is `ov_svd(heads)`. Raises HeadError, SubspaceError."""
    if not components:
        raise SubspaceError("name one component at least")
    for component in components:
        check_component(component, ov)
    return span(torch.stack([ov.write[c.layer, c.head, c.index] for c in components]))


# --- from activations ------------------------------------------------------------------------------------


def subspace_from_activations(model: GPT2, prompts: Prompts, circuit: Circuit, k: int = 3) -> Tensor:
    """The k directions [k, D] in which the inhibition heads' writes at END differ most between indices of the answer.

    The principal components of their mean write by index, of which there are at most N - 1. prompts: in which every
    index is the answer's at least once. Raises HeadError, SubspaceError.
    """
    check_every_index(prompts)
    means = by_index(writes_at_end(model, prompts, circuit), prompts)               # [N, D]
    return principal_components(means, k)


def writes_at_end(model: GPT2, prompts: Prompts, circuit: Circuit) -> Tensor:
    """The sum of the inhibition heads' writes at END, in each prompt, less its mean over D: [B, D].

    Raises HeadError.
    """
    circuit.check(model)
    names = [str(head) for head in circuit.inhibition]
    total = sum(map(at_least_float32, seen_at_end(model, prompts, names, "writes")))            # [B, D]
    return total - total.mean(dim=-1, keepdim=True)  # LayerNorm takes this out of whatever is read


def stream_at_end(model: GPT2, prompts: Prompts, where: str) -> Tensor:
    """The stream at END just before a read ("L1.attn", say), in each prompt: [B, D]."""
    return seen_at_end(model, prompts, [where], "stream")[0]


def check_every_index(prompts: Prompts) -> None:
    """Raise SubspaceError unless each index is the answer's in one prompt at least: else it has no mean."""
    counts = torch.bincount(prompts.index, minlength=prompts.candidates.shape[1])
    if (counts == 0).any():
        raise SubspaceError(f"every index from 0 to {len(counts) - 1} must be the answer's; they are "
                            f"{counts.tolist()} times: give more prompts")
