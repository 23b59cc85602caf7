"""A subspace of the residual stream as a basis: a few orthonormal directions to take coordinates in.

A subspace is a tensor of k orthonormal rows over the stream, `basis` [k, D]; a vector x has the coordinates

    c = x @ basis.T  [k],      and the part of x that lies in the subspace is  c @ basis  [D]

Rows are always directions: where k equals D nothing could tell a transposed basis. A basis follows what it is used
on, to its device and to the wider of both dtypes, float32 at least.
Axes: B prompt, T position, D d_model, N item of the list, k dimension of the subspace.
"""

import torch
from torch import Tensor

from tinyheads.errors import SubspaceError
from tinyheads.heads import at_least_float32


def coordinates(x: Tensor, basis: Tensor) -> Tensor:
    """Where x [..., D] lies in the subspace: [..., k]."""
    basis = following(basis, x)
    return x.to(basis.dtype) @ basis.T


def project(x: Tensor, basis: Tensor) -> Tensor:
    """The part of x [..., D] that lies in the subspace: [..., D], in x's dtype."""
    return (coordinates(x, basis) @ following(basis, x)).to(x.dtype)


def check_basis(basis: Tensor, D: int) -> None:
    """Raise SubspaceError unless the rows [k, D] are orthonormal, up to rounding, and as wide as the stream."""
    if basis.dim() != 2 or basis.shape[1] != D or not len(basis):
        raise SubspaceError(f"the subspace is {list(basis.shape)}; it should be [k, {D}], as wide as the stream")
    if not basis.is_floating_point():
        raise SubspaceError(f"the rows of a subspace are of floating-point numbers, not of {basis.dtype}")
    rows = at_least_float32(basis)
    error = (rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).abs().max()
    if not error < max(1e-3, torch.finfo(basis.dtype).eps):            # half precision rounds by more
        raise SubspaceError(f"the rows of a subspace must be orthonormal; these are off by {error:.2g}")


def following(basis: Tensor, x: Tensor) -> Tensor:
    """The basis [k, D] on the device of x [..., D], in the wider dtype of both, float32 at least. Checks it first."""
    check_basis(basis, x.shape[-1])
    return at_least_float32(basis.to(x.device, torch.promote_types(basis.dtype, x.dtype)))


def span(vectors: Tensor) -> Tensor:
    """An orthonormal basis [k, D] of what n vectors [n, D] span, the widest direction first; k is their rank."""
    if vectors.dim() != 2 or 0 in vectors.shape:
        raise SubspaceError(f"vectors must be [n, D], not {list(vectors.shape)}")
    if not vectors.isfinite().all() or not vectors.any():
        raise SubspaceError("these vectors span nothing: all are zero, or some are not finite")
    _, scale, directions = torch.linalg.svd(at_least_float32(vectors), full_matrices=False)
    return directions[scale > 1e-5 * scale[0]]


def principal_components(means: Tensor, k: int) -> Tensor:
    """The k directions [k, D] along which mean writes [N, D] differ most. At most N - 1 of them exist."""
    if means.dim() != 2 or not means.isfinite().all():
        raise SubspaceError(f"mean writes are [N, D], of finite numbers, not {list(means.shape)}"
                            f"{' with nan or inf' if means.dim() == 2 else ''}")
    most = min(len(means) - 1, means.shape[1])
    if not 1 <= k <= most:
        raise SubspaceError(f"{len(means)} means differ along 1 to {most} directions, not {k}")
    means = at_least_float32(means)
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


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """The angles between two subspaces [k, D] and [m, D], in degrees, smallest first: [min(k, m)].

    0: a direction that both have; 90: nothing in common (Björck and Golub 1973).
    """
    check_basis(first, second.shape[1])
    check_basis(second, first.shape[1])
    cosines = torch.linalg.svdvals(first.double() @ second.to(first.device).double().T)
    return torch.rad2deg(torch.arccos(cosines.clamp(0, 1)))


def procrustes(moved: Tensor, onto: Tensor) -> tuple[Tensor, float, Tensor]:
    """The turn [k, k], scale and shift [k] that bring points [N, k] nearest to other points [N, k], each to its own.

    They minimise || scale * moved @ turn + shift - onto ||; the turn is orthogonal, and may mirror. So two models'
    codes of the same indices can be laid one onto the other: distances keep their ratios, whatever the models' bases
    are. Source: Schönemann 1966. Raises SubspaceError.
    """
    if moved.dim() != 2 or moved.shape != onto.shape or len(moved) < 2:
        raise SubspaceError(f"points to lay onto each other are two or more each, both [N, k], not "
                            f"{list(moved.shape)} and {list(onto.shape)}")
    x, y = moved.double(), onto.to(moved.device).double()
    centre_x, centre_y = x.mean(dim=0), y.mean(dim=0)                               # [k]
    U, S, Vt = torch.linalg.svd((x - centre_x).T @ (y - centre_y))                  # [k, k], [k], [k, k]
    size = (x - centre_x).pow(2).sum()
    if not torch.isfinite(S).all() or size == 0:
        raise SubspaceError("points to be moved must be finite and not all the same")
    turn, scale = U @ Vt, (S.sum() / size).item()
    return turn.to(moved.dtype), scale, (centre_y - scale * centre_x @ turn).to(moved.dtype)
