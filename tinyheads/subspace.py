"""A few directions of the residual stream, as a space to take coordinates in.

Inhibition heads write, at the last token (END), which items of a list are out. What they write lies in a
space of a few dimensions in which the items are laid out by position: a code for each index. A mover
head's query reads the code and its attention goes where it points (Merullo et al. 2024). Here such a
space is found in two ways and measured:

    from weights       the span of the components that composition scores select
    from activations   the principal components of the heads' mean write at END, by the answer's index

A subspace is a tensor of k orthonormal rows over the stream, `basis` [k, D]; a vector x has the coordinates
x @ basis.T [k]. Rows are always directions: where k equals D, or N equals k, nothing could tell a transposed tensor.
A basis follows what it is used on, to its device and to the wider of both dtypes, float32 at least.
Axes: B prompt, T position, D d_model, N item of the list, k dimension of the subspace.
"""

import torch
from torch import Tensor

from tinyheads.at_end import seen_at_end
from tinyheads.errors import HeadError, SubspaceError
from tinyheads.heads import SVD, Component, Head, check_place, wide
from tinyheads.lists import Prompts
from tinyheads.model import GPT2
from tinyheads.positions import WHOLE


def span(vectors: Tensor) -> Tensor:
    """An orthonormal basis [k, D] of what n vectors [n, D] span, the widest direction first; k is their rank."""
    if vectors.dim() != 2 or 0 in vectors.shape:
        raise SubspaceError(f"vectors must be [n, D], not {list(vectors.shape)}")
    if not vectors.isfinite().all() or not vectors.any():
        raise SubspaceError("these vectors span nothing: all are zero, or some are not finite")
    _, scale, directions = torch.linalg.svd(wide(vectors), full_matrices=False)
    return directions[scale > 1e-5 * scale[0]]


def from_components(ov: SVD, components: list[Component]) -> Tensor:
    """The span [k, D] of what some components write; `ov` is `ov_svd(heads)`. Raises HeadError, SubspaceError."""
    L, H, K, _ = ov.write.shape
    for component in components:
        check_place(component.layer, component.head, L, H)
        if not 0 <= component.index < K:
            raise SubspaceError(f"{component}: a head has the components C0 to C{K - 1}")
    if not components:
        raise SubspaceError("name one component at least")
    return span(torch.stack([ov.write[c.layer, c.head, c.index] for c in components]))


def from_composition(ov: SVD, scores: Tensor, writers: list[Head], readers: list[Head], k: int) -> Tensor:
    """The k directions [k, D] that readers hear most of what writers say, from weights alone, the loudest first.

    Every component of the writers counts as one vector: its write direction, as long as its scale times its score
    with the readers (root of the sum of squares); these vectors' principal directions are the subspace. scores:
    `component_scores(heads, "Q")` [L, H, K, L, H]; ov: `ov_svd(heads)`, of the same heads. Raises HeadError,
    SubspaceError.
    """
    loudness = heard(ov, scores, writers, readers)                     # [W, K]
    writes = torch.stack([ov.write[w.layer, w.head] for w in writers]) # [W, K, D]
    basis = span((loudness[..., None] * writes).flatten(0, 1))         # [rank, D]
    if not 1 <= k <= len(basis):
        raise SubspaceError(f"what these heads say lies in 1 to {len(basis)} dimensions, not {k}")
    return basis[:k]


def loudest(ov: SVD, scores: Tensor, writers: list[Head], readers: list[Head], n: int) -> list[Component]:
    """The n components of the writers that the readers hear most, by scale times score. Arguments as above."""
    loudness = heard(ov, scores, writers, readers)                     # [W, K]
    if not 1 <= n <= loudness.numel():
        raise SubspaceError(f"these heads have 1 to {loudness.numel()} components, not {n}")
    K = loudness.shape[1]
    return [Component(writers[place // K].layer, writers[place // K].head, place % K)
            for place in loudness.flatten().argsort(descending=True)[:n].tolist()]


def heard(ov: SVD, scores: Tensor, writers: list[Head], readers: list[Head]) -> Tensor:
    """How loudly the readers hear each component of the writers: its scale times its score over all of them, [W, K]."""
    L, H, K, _ = ov.write.shape
    if scores.shape != (L, H, K, L, H):
        raise SubspaceError(f"component scores with these heads are {[L, H, K, L, H]}, not {list(scores.shape)}")
    if not writers or not readers:
        raise SubspaceError("name one writer and one reader at least")
    for head in [*writers, *readers]:
        check_place(head.layer, head.head, L, H)
    if min(head.layer for head in writers) >= max(head.layer for head in readers):
        raise HeadError(f"no reader is in a later layer than a writer: {', '.join(map(str, readers))} cannot read what "
                        f"{', '.join(map(str, writers))} write")
    score = torch.stack([scores[:, :, :, r.layer, r.head] for r in readers]).norm(dim=0)          # [L, H, K]
    return torch.stack([(ov.scale * score)[w.layer, w.head] for w in writers])


def writes_at_end(model: GPT2, prompts: Prompts, writers: list[str]) -> Tensor:
    """The sum of some heads' writes at END, in each prompt, less its mean over D: [B, D]. writers: "L0.H3", ..."""
    if not writers:
        raise SubspaceError("name one writer at least")
    total = sum(map(wide, seen_at_end(model, prompts, writers, "writes")))          # [B, D]
    return total - total.mean(dim=-1, keepdim=True)  # LayerNorm takes this out of whatever is read


def stream_at_end(model: GPT2, prompts: Prompts, where: str) -> Tensor:
    """The stream at END just before a read ("L1.attn", say), in each prompt: [B, D]."""
    return seen_at_end(model, prompts, [where], "stream")[0]


def index_codes(model: GPT2, prompts: Prompts, basis: Tensor, where: str) -> Tensor:
    """Each index's code: the mean coordinates at END, just before a read, by the answer's index. [N, k]"""
    points = coordinates(stream_at_end(model, prompts, where), basis)               # [B, k]
    return mean_by_index(points, prompts.index, prompts.candidates.shape[1])


def mean_by_index(writes: Tensor, index: Tensor, n_items: int) -> Tensor:
    """The mean of writes [B, D] for each index [B] of the answer: [N, D]. Raises SubspaceError if one never occurs."""
    if writes.dim() != 2 or index.shape != writes.shape[:1] or index.dtype not in WHOLE:
        raise SubspaceError(f"writes are [B, D], with a whole number for each as index [B]; these are "
                            f"{list(writes.shape)} and {list(index.shape)} of {index.dtype}")
    index, writes = index.to(writes.device), wide(writes)
    counts = torch.bincount(index.clamp(-1, n_items) + 1, minlength=n_items + 2)     # from "below 0" to "N or above"
    if counts[0] or counts[-1] or (counts[1:-1] == 0).any():
        raise SubspaceError(f"every index from 0 to {n_items - 1} must occur, and no other; they occur "
                            f"{counts[1:-1].tolist()} times, others {int(counts[0] + counts[-1])} times")
    total = writes.new_zeros(n_items, writes.shape[1]).index_add(0, index, writes)
    return total / counts[1:-1, None]


def principal_components(means: Tensor, k: int) -> Tensor:
    """The k directions [k, D] along which mean writes [N, D] differ most. At most N - 1 of them exist."""
    if means.dim() != 2 or not means.isfinite().all():
        raise SubspaceError(f"mean writes are [N, D], of finite numbers, not {list(means.shape)}"
                            f"{' with nan or inf' if means.dim() == 2 else ''}")
    most = min(len(means) - 1, means.shape[1])
    if not 1 <= k <= most:
        raise SubspaceError(f"{len(means)} means differ along 1 to {most} directions, not {k}")
    means = wide(means)
    _, scale, directions = torch.linalg.svd(means - means.mean(dim=0), full_matrices=False)
    rank = int((scale > 1e-6 * means.norm()).sum())
    if rank < k:
        raise SubspaceError(f"these {len(means)} means differ along {rank} directions only: there are no {k}")
    basis = directions[:k]
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))              # [k, 1]
    return basis * largest.sign()                       # an SVD leaves the sign open: the largest entry is positive


def random_subspace(D: int, k: int, seed: int) -> Tensor:
    """k random orthonormal directions of mean 0 over D: [k, D]. The control that a real subspace must beat."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(k, D, generator=generator)
    return torch.linalg.qr((vectors - vectors.mean(dim=1, keepdim=True)).T).Q.T


def coordinates(x: Tensor, basis: Tensor) -> Tensor:
    """Where x [..., D] lies in the subspace: [..., k]."""
    basis = following(basis, x)
    return x.to(basis.dtype) @ basis.T


def project(x: Tensor, basis: Tensor) -> Tensor:
    """The part of x [..., D] that lies in the subspace: [..., D], in x's dtype."""
    return (coordinates(x, basis) @ following(basis, x)).to(x.dtype)


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """The angles between two subspaces [k, D] and [m, D], in degrees, smallest first: [min(k, m)].

    0: a direction that both have; 90: nothing in common (Björck and Golub 1973).
    """
    check_basis(first, second.shape[1])
    check_basis(second, first.shape[1])
    cosines = torch.linalg.svdvals(first.double() @ second.to(first.device).double().T)
    return torch.rad2deg(torch.arccos(cosines.clamp(0, 1)))


def separation(points: Tensor, index: Tensor, n_items: int) -> Tensor:
    """How well neighbouring indices can be told apart: d' of i and i + 1, [N - 1].

    points: coordinates [B, k]; index: [B]. d' is the distance of the two mean points, in standard deviations of
    the points around their means along the line between them (both pooled). Below 1 they overlap.
    """
    means = mean_by_index(points, index, n_items)                      # [N, k]
    points, index = points.to(means.dtype), index.to(points.device)
    apart = means[1:] - means[:-1]                                     # [N - 1, k]
    distance = apart.norm(dim=-1)                                      # [N - 1]
    result = torch.empty(n_items - 1)
    for i in range(n_items - 1):
        line = apart[i] / distance[i].clamp_min(1e-12)                 # [k]
        scatter = [((points[index == j] - means[j]) @ line).pow(2).mean() for j in (i, i + 1)]
        result[i] = distance[i] / (sum(scatter) / 2).sqrt().clamp_min(1e-12)
    return result


def shares(owners: Tensor, n_items: int) -> Tensor:
    """The share of a traversed space that each index owns: [N]. owners: the index at every grid point, [...]."""
    if owners.dtype not in WHOLE or not owners.numel() or owners.min() < 0 or owners.max() >= n_items:
        raise SubspaceError(f"owners are whole numbers from 0 to {n_items - 1}, one at least, not {owners}")
    return torch.bincount(owners.flatten(), minlength=n_items).double() / owners.numel()


def grid(low: Tensor, high: Tensor, steps: int) -> Tensor:
    """Points of a regular grid between two corners [k]: [steps ** k, k]."""
    if low.dim() != 1 or low.shape != high.shape or not len(low) or steps < 1:
        raise SubspaceError(f"a grid has two corners [k] and a step at least, not corners {list(low.shape)} and "
                            f"{list(high.shape)} and {steps} steps")
    dtype = wide(low).dtype
    axes = [torch.linspace(float(a), float(b), steps, dtype=dtype, device=low.device) for a, b in zip(low, high)]
    return torch.cartesian_prod(*axes).reshape(-1, len(axes))


def following(basis: Tensor, x: Tensor) -> Tensor:
    """The basis [k, D] on the device of x [..., D], in the wider dtype of both, float32 at least. Checks it first."""
    check_basis(basis, x.shape[-1])
    return wide(basis.to(x.device, torch.promote_types(basis.dtype, x.dtype)))


def check_basis(basis: Tensor, D: int) -> None:
    """Raise SubspaceError unless the rows [k, D] are orthonormal, up to rounding, and as wide as the stream."""
    if basis.dim() != 2 or basis.shape[1] != D or not len(basis):
        raise SubspaceError(f"the subspace is {list(basis.shape)}; it should be [k, {D}], as wide as the stream")
    if not basis.is_floating_point():
        raise SubspaceError(f"the rows of a subspace are of floating-point numbers, not of {basis.dtype}")
    rows = wide(basis)
    error = (rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).abs().max()
    if not error < max(1e-3, torch.finfo(basis.dtype).eps):            # half precision rounds by more
        raise SubspaceError(f"the rows of a subspace must be orthonormal; these are off by {error:.2g}")
