"""Changing what is in a subspace: in the stream while the model runs, or in the weights for good.

In the stream, at chosen positions, the coordinates c = x @ basis.T of a value x are replaced:

    x  ->  x + (new - c) @ basis

which touches nothing outside the subspace. In the weights, a head's W_O is followed by a small matrix M [k, k]
inside the subspace, so that whatever the head writes there is moved, mixed or scaled, for every prompt:

    W_O  ->  W_O + (W_O basis^T) (M - 1) basis              a change of rank k at most

An edit that would do nothing (a position outside the prompt, a subspace of another width, a head that is not
there) is an error.
"""

from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor

from tinyheads.at_end import before_end, run_end
from tinyheads.errors import SubspaceError
from tinyheads.heads import Head, check_place
from tinyheads.lists import Prompts
from tinyheads.model import GPT2
from tinyheads.files.progress import Progress
from tinyheads.stream import Edit, Stream
from tinyheads.subspace import check_basis, coordinates, grid

Change = Callable[[Tensor], Tensor]
RUNS = 512  # prompts, times points, at once in a traversal


# --- in the stream: functions to put into an Edit ---------------------------------------------------


def set_coordinates(basis: Tensor, values: Tensor, positions: int | list[int]) -> Change:
    """Replace the coordinates at some positions. values: [k], or one for each prompt [B, k].

    Edit("L1.attn", set_coordinates(basis, code, prompts.end), of="stream") changes the stream before layer 1.
    """
    return at_positions(basis, positions, lambda c: values.to(c).unsqueeze(-2).expand_as(c))


def add_coordinates(basis: Tensor, values: Tensor, positions: int | list[int]) -> Change:
    """Add to the coordinates at some positions. values: [k], or one for each prompt [B, k]."""
    return at_positions(basis, positions, lambda c: c + values.to(c).unsqueeze(-2))


def scale_coordinates(basis: Tensor, factor: float, positions: int | list[int]) -> Change:
    """Multiply the coordinates at some positions by a factor: 0 removes the subspace, 1 would do nothing."""
    if factor == 1:
        raise SubspaceError("a factor of 1 changes nothing")
    return at_positions(basis, positions, lambda c: factor * c)


def swap_coordinates(basis: Tensor, order: Tensor, positions: int | list[int]) -> Change:
    """Give each prompt the coordinates of another of the batch. order: [B], the prompt to take them from."""
    if sorted(order.tolist()) == order.tolist():
        raise SubspaceError("this order gives every prompt its own coordinates, which changes nothing")
    return at_positions(basis, positions, lambda c: c[order])


def at_positions(basis: Tensor, positions: int | list[int], new: Callable[[Tensor], Tensor]) -> Change:
    """A change [B, T, D] -> [B, T, D] of the coordinates [B, P, k] at P positions, as `new` says."""
    chosen = [positions] if isinstance(positions, int) else list(positions)
    if not chosen:
        raise SubspaceError("name one position at least")

    def change(x: Tensor) -> Tensor:
        check_basis(basis, x.shape[-1])
        outside = [position for position in chosen if not 0 <= position < x.shape[1]]
        if outside:
            raise SubspaceError(f"position {outside[0]} is outside the prompt, 0 to {x.shape[1] - 1}")
        here = x[:, chosen]                                            # [B, P, D]
        before = coordinates(here, basis)                              # [B, P, k]
        try:
            after = new(before)                                        # [B, P, k]
        except (RuntimeError, IndexError) as error:
            raise SubspaceError(f"these values do not fit {x.shape[0]} prompts and {len(basis)} dimensions: "
                                f"{error}") from error
        if after.shape != before.shape:
            raise SubspaceError(f"the new coordinates are {list(after.shape)}, the old ones {list(before.shape)}")
        x = x.clone()
        x[:, chosen] = here + (after - before) @ basis
        return x

    return change


# --- traversing: which item does each place in the subspace stand for? --------------------------------


@torch.no_grad()
def steered_answers(model: GPT2, prompts: Prompts, basis: Tensor, values: Tensor, where: str) -> Tensor:
    """Which item the model answers with once END's coordinates are `values` [B, k]: its index in the list, [B].

    where: the read before which the stream is changed, "L2.attn" for readers in layer 2. The answer is the
    candidate with the largest logit.
    """
    edit = Edit(where, set_coordinates(basis, values, prompts.end), of="stream")
    logits = model(prompts.tokens, Stream(edits=[edit]))[:, prompts.end]           # [B, V]
    return logits.gather(1, prompts.candidates).argmax(dim=1)                      # [B]


def steering_rate(model: GPT2, prompts: Prompts, basis: Tensor, codes: Tensor, where: str, seed: int = 0) -> float:
    """How often the model answers with the item at a *random* index once END has that index's code.

    codes: each index's coordinates [N, k]. This decides whether a subspace is positional: chance is 1 / N.
    """
    target = torch.randint(len(codes), (len(prompts.tokens),), generator=torch.Generator().manual_seed(seed))
    return (steered_answers(model, prompts, basis, codes[target], where) == target).double().mean().item()


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
    over prompts (and readers).
    """
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
                                         (answered, logits.softmax(-1), prompts.candidates)]:      # [B * G, V]
                found = values.gather(1, places.repeat_interleave(G, dim=0))               # [B * G, N]
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
    return points[answered.argmax(dim=0)]


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
    """What x [..., D] must change by for its coordinates c in the subspace to become c @ M: [..., D]."""
    return coordinates(x, basis) @ (M - torch.eye(len(M)).to(M)) @ basis       # [..., k] @ [k, k] @ [k, D]


@torch.no_grad()
def edit_output(model: GPT2, head: Head, basis: Tensor, M: Tensor) -> WeightEdit:
    """Change what a head writes inside a subspace: coordinates c become c @ M. Changes the model in place.

    basis: [k, D]; M: [k, k]. W_O [K, D] of the head becomes W_O + (W_O basis^T) (M - 1) basis.
    Raises SubspaceError, HeadError.
    """
    check_place(head.layer, head.head, model.config.n_layer, model.config.n_head)
    check_basis(basis, model.config.n_embd)
    k, K = len(basis), model.config.d_head
    if M.shape != (k, k) or not M.isfinite().all():
        raise SubspaceError(f"M must be finite and [{k}, {k}], as wide as the subspace, not {list(M.shape)}")
    rows = slice(head.head * K, (head.head + 1) * K)
    W_O = model.h[head.layer].attn.c_proj.weight[rows]                  # [K, D]
    change = change_inside(W_O, basis, M)                               # [K, D]
    size = (change.norm() / W_O.norm().clamp_min(1e-12)).item()
    if size < 1e-6:
        raise SubspaceError(f"{head} writes nothing in this subspace, or M is the identity: the edit would do nothing")
    W_O += change
    rank = int((torch.linalg.svdvals(change) > 1e-6 * change.norm()).sum())
    return WeightEdit(head, rank, size, tuple(torch.linalg.svdvals(M).tolist()))
