"""Changing what is in a subspace: in the stream while the model runs, or in the weights for good.

In the stream, at chosen positions, the coordinates c = x @ basis.T of a value x are replaced:

    x  ->  x + (new - c) @ basis

which touches nothing outside the subspace. Positions are as in `positions.py`: a number, a list of them for every
prompt, or a tensor [B] of each prompt's own. In the weights, a head's W_O is followed by a small matrix M [k, k]
inside the subspace, so that whatever the head writes there is moved, mixed or scaled, for every prompt:

    W_O  ->  W_O + (W_O basis^T) (M - 1) basis              a change of rank k at most

An edit that would do nothing (a position outside the prompt, a subspace of another width, a head that is not
there) is an error.
"""

import math
from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor

from tinyheads.at_end import before_end, run_end
from tinyheads.errors import SubspaceError
from tinyheads.heads import Head, check_place, wide
from tinyheads.lists import Prompts
from tinyheads.model import GPT2
from tinyheads.files.progress import Progress
from tinyheads.positions import WHOLE, Positions, at, changed_at
from tinyheads.stream import Edit, Stream
from tinyheads.subspace import check_basis, coordinates, following, grid

Change = Callable[[Tensor], Tensor]
RUNS = 512  # prompts, times points, at once in a traversal


# --- in the stream: functions to put into an Edit ---------------------------------------------------


def set_coordinates(basis: Tensor, values: Tensor, positions: Positions) -> Change:
    """Replace the coordinates at some positions. values: [k], or one for each prompt [B, k].

    Edit("L1.attn", set_coordinates(basis, code, prompts.end), of="stream") changes the stream before layer 1.
    """
    return at_positions(basis, positions, lambda c: fitting(values, c).expand_as(c))


def add_coordinates(basis: Tensor, values: Tensor, positions: Positions) -> Change:
    """Add to the coordinates at some positions. values: [k], or one for each prompt [B, k]."""
    return at_positions(basis, positions, lambda c: c + fitting(values, c))


def scale_coordinates(basis: Tensor, factor: float, positions: Positions) -> Change:
    """Multiply the coordinates at some positions by a factor: 0 removes the subspace, 1 would do nothing."""
    if factor == 1 or not math.isfinite(factor):
        raise SubspaceError(f"a factor is a finite number, and 1 changes nothing; this is {factor}")
    return at_positions(basis, positions, lambda c: factor * c)


def swap_coordinates(basis: Tensor, order: Tensor, positions: Positions) -> Change:
    """Give prompt i of the batch the coordinates of prompt order[i]. order: whole numbers from 0, [B]."""
    order = torch.as_tensor(order)
    if order.dim() == 1 and torch.equal(order, torch.arange(len(order)).to(order)):
        raise SubspaceError("this order gives every prompt its own coordinates, which changes nothing")

    def swapped(c: Tensor) -> Tensor:
        if order.shape != c.shape[:1] or order.dtype not in WHOLE or order.min() < 0 or order.max() >= len(c):
            raise SubspaceError(f"the prompts and this order do not fit: it should be [{len(c)}], whole numbers "
                                f"from 0 to {len(c) - 1}, not {order}")
        return c[order.long()]

    return at_positions(basis, positions, swapped)


def fitting(values: Tensor, c: Tensor) -> Tensor:
    """Coordinates [k] or [B, k] as [1, k] or [B, 1, k], like the coordinates c [B, P, k]. Raises SubspaceError.

    One dimension is always k and two are always prompt by k, whatever sizes are equal.
    """
    B, _, k = c.shape
    values = torch.as_tensor(values)
    if values.shape not in ((k,), (B, k)) or not values.isfinite().all():
        raise SubspaceError(f"these values do not fit {B} prompts and {k} dimensions: they should be [{k}] or "
                            f"[{B}, {k}], without nan or inf, not {list(values.shape)}")
    return values.to(c).unsqueeze(-2)


def at_positions(basis: Tensor, positions: Positions, new: Callable[[Tensor], Tensor]) -> Change:
    """A change [B, T, D] -> [B, T, D] of the coordinates [B, P, k] at P positions, as `new` says."""
    if isinstance(positions, (list, tuple, range)) and not positions:
        raise SubspaceError("name one position at least")

    def moved(here: Tensor) -> Tensor:
        before = coordinates(here, basis)                              # [B, P, k]
        return here + (new(before) - before) @ following(basis, here)  # [B, P, D]

    return lambda x: changed_at(x, positions, moved, SubspaceError)


# --- traversing: which item does each place in the subspace stand for? --------------------------------


@torch.no_grad()
def steered_answers(model: GPT2, prompts: Prompts, basis: Tensor, values: Tensor, where: str) -> Tensor:
    """Which item the model answers with once END's coordinates are `values` [B, k]: its index in the list, [B].

    where: the read before which the stream is changed, "L2.attn" for readers in layer 2. The answer is the
    candidate with the largest logit.
    """
    edit = Edit(where, set_coordinates(basis, values, prompts.end), of="stream")
    logits = at(model(prompts.tokens, Stream(edits=[edit])), prompts.end)          # [B, V]
    candidates = prompts.candidates.to(logits.device)                              # [B, N]
    return logits.gather(1, candidates).argmax(dim=1).to(prompts.index.device)     # [B]


def steering_rate(model: GPT2, prompts: Prompts, basis: Tensor, codes: Tensor, where: str, seed: int = 0) -> float:
    """How often the model answers with the item at a *random* index once END has that index's code.

    codes: each index's coordinates [N, k]. This decides whether a subspace is positional: chance is 1 / N.
    Raises SubspaceError.
    """
    N = prompts.candidates.shape[1]
    if codes.shape != (N, len(basis)):
        raise SubspaceError(f"codes of {N} indices in {len(basis)} dimensions are [{N}, {len(basis)}], not "
                            f"{list(codes.shape)}")
    target = torch.randint(len(codes), (len(prompts.tokens),), generator=torch.Generator().manual_seed(seed))
    answers = steered_answers(model, prompts, basis, codes[target.to(codes.device)], where)         # [B]
    return (answers.to(target.device) == target).double().mean().item()


def traverse(model: GPT2, prompts: Prompts, basis: Tensor, points: Tensor, where: str,
             reader: Head) -> tuple[Tensor, Tensor]:
    """Set END's coordinates to each point [G, k] in turn: the index the reader then attends to most, and how much.

    Gives (owners [G], weights [G]): attention is averaged over prompts before the largest is taken.
    """
    attention, _ = visit(model, prompts, basis, points, where, [reader])
    weights, owners = attention.max(dim=1)
    return owners, weights


@torch.no_grad()
def visit(model: GPT2, prompts: Prompts, basis: Tensor, points: Tensor, where: str,
          readers: list[Head]) -> tuple[Tensor, Tensor]:
    """Set END's coordinates to each point [G, k] in turn: what the readers attend to, and what the model answers.

    Gives each item's share of the readers' attention, [G, N], and its candidate's probability, [G, N], both averaged
    over prompts (and readers). Raises HeadError, SubspaceError.
    """
    if points.dim() != 2 or points.shape[1] != len(basis) or not len(points):
        raise SubspaceError(f"points in {len(basis)} dimensions are [G, {len(basis)}], not {list(points.shape)}")
    if not readers:
        raise SubspaceError("name one reader at least")
    for reader in readers:
        check_place(reader.layer, reader.head, model.config.n_layer, model.config.n_head)
    attended, answered, earlier, B = [], [], before_end(model, prompts), len(prompts.tokens)
    with Progress("traversing", len(points), "points") as bar:
        for some in points.split(max(1, RUNS // B)):
            G = len(some)
            change = set_coordinates(basis, some.repeat(B, 1), 0)                          # each prompt, G times
            logits, stream = run_end(model, prompts, earlier, [Edit(where, change, of="stream")], copies=G)
            looks = torch.stack([stream.patterns[f"L{reader.layer}"][:, reader.head, 0] for reader in readers]).mean(0)
            for kept, values, places in [(attended, looks, prompts.positions),             # [B * G, T]
                                         (answered, wide(logits).softmax(-1), prompts.candidates)]:        # [B * G, V]
                found = values.gather(1, places.to(values.device).repeat_interleave(G, dim=0))     # [B * G, N]
                kept.append(found.view(B, G, -1).mean(0))                                  # [G, N]
            bar.add(G)
    return torch.cat(attended), torch.cat(answered)


def codes_by_traversal(points: Tensor, answered: Tensor) -> Tensor:
    """Each index's code [N, k]: of the points [G, k] visited, the one at which its item is answered most surely.

    answered: [G, N], what `visit` gives. A mean over prompts tells where END usually is when an index is the answer;
    this tells where it would have to be. Raises SubspaceError.
    """
    if answered.dim() != 2 or len(answered) != len(points) or not len(points):
        raise SubspaceError(f"answers {list(answered.shape)} are not those at {len(points)} points, [G, N]")
    return points[answered.argmax(dim=0).to(points.device)]


def traversed_codes(model: GPT2, prompts: Prompts, basis: Tensor, codes: Tensor, where: str, readers: list[Head],
                    steps: int) -> Tensor:
    """Each index's code [N, k] by traversal: a grid of steps ** k points, twice as wide as the codes [N, k] reach."""
    middle = codes.mean(dim=0)                                                     # [k]
    reach = 2 * (codes - middle).abs().max()
    points = grid(middle - reach, middle + reach, steps)                           # [steps ** k, k]
    return codes_by_traversal(points, visit(model, prompts, basis, points, where, readers)[1])


# --- in the weights: for good -------------------------------------------------------------------------


@dataclass(frozen=True)
class WeightEdit:
    """What a change of one head's W_O was: its rank, its size relative to W_O, and the factors in the subspace.

    relative_norm: ||change||_F / ||W_O||_F; factors: singular values of M [k]: 1 leaves a direction as it was.
    """

    head: Head
    rank: int
    relative_norm: float
    factors: tuple[float, ...]

    def __str__(self) -> str:
        factors = ", ".join(f"{factor:.2f}" for factor in self.factors)
        return f"{self.head}: rank {self.rank}, {self.relative_norm:.1%} of W_O's norm, factors {factors}"


def change_inside(x: Tensor, basis: Tensor, M: Tensor) -> Tensor:
    """What x [..., D] must change by for its coordinates c in the subspace to become c @ M: [..., D].

    A row vector times M: M[i, j] is how much of coordinate i goes into coordinate j.
    """
    c = coordinates(x, basis)                                                  # [..., k]
    M = M.to(c)
    return c @ (M - torch.eye(len(M)).to(M)) @ following(basis, x)             # [..., k] @ [k, k] @ [k, D]


@torch.inference_mode()
def edit_output(model: GPT2, head: Head, basis: Tensor, M: Tensor) -> WeightEdit:
    """Change what a head writes inside a subspace: coordinates c become c @ M. Changes the model in place.

    basis: [k, D]; M: [k, k], coordinate by new coordinate. W_O [K, D] of the head becomes
    W_O + (W_O basis^T) (M - 1) basis, computed in float32 at least and rounded once to the model's dtype.
    Raises SubspaceError, HeadError.
    """
    check_place(head.layer, head.head, model.config.n_layer, model.config.n_head)
    check_basis(basis, model.config.n_embd)
    k, K = len(basis), model.config.d_head
    if M.shape != (k, k) or not M.is_floating_point() or not M.isfinite().all():
        raise SubspaceError(f"M must be of finite floating-point numbers and [{k}, {k}], as wide as the subspace, not "
                            f"{list(M.shape)} of {M.dtype}")
    rows = slice(head.head * K, (head.head + 1) * K)
    W_O = model.h[head.layer].attn.c_proj.weight[rows]                  # [K, D]
    change = change_inside(W_O, basis, M)                               # [K, D]
    size = (change.norm() / wide(W_O).norm().clamp_min(1e-12)).item()
    new = (W_O + change).to(W_O.dtype)                                  # [K, D]
    if size < 1e-6 or torch.equal(new, W_O):
        raise SubspaceError(f"{head} writes nothing in this subspace, or M is the identity: the edit would do nothing")
    if not new.isfinite().all():
        raise SubspaceError(f"with this M, {head}'s W_O is no longer finite in {W_O.dtype}")
    W_O.copy_(new)
    rank = int((torch.linalg.svdvals(change) > 1e-6 * change.norm()).sum())
    return WeightEdit(head, rank, size, tuple(torch.linalg.svdvals(wide(M)).tolist()))
