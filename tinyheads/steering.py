"""Steering: set END's coordinates in a subspace, walk through it, and see which item each place in it stands for.

At chosen positions, the coordinates c = x @ basis.T of a value x are replaced, and nothing outside the subspace is:

    x  ->  x + (new - c) @ basis

Given the code of an index, the model should answer with the item there: if it does so for a *random* index, the
subspace is positional (`steering_rate`; Merullo et al. 2024, §5). An index's code is known in two ways: the mean
coordinates of the prompts whose answer it is (`mean_codes`), or the point, of a grid that is walked through, at which
its item is answered most surely (`traversed_codes`). How much room each index has there is `crowding`.

Positions are as in `positions.py`: a number, a list of them for every prompt, or a tensor [B] of each prompt's own. An
edit that would do nothing (a position outside the prompt, a subspace of another width) is an error.
Axes: B prompt, P position, D d_model, N item of the list, W writer, G point, k dimension of the subspace.
"""

import math
from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor

from tinyheads.basis import coordinates, following
from tinyheads.circuit import Circuit
from tinyheads.errors import SubspaceError
from tinyheads.files.progress import Progress
from tinyheads.heads import at_least_float32
from tinyheads.last_token import (before_end, logits_with_edits, patterns_at_end, patterns_of_end_alone, run_end)
from tinyheads.model import GPT2, Cache
from tinyheads.positions import WHOLE, Positions, at, changed_at
from tinyheads.prompts import Prompts
from tinyheads.scoring import by_index, correct, logits_at_end
from tinyheads.stream import Edit, Stream
from tinyheads.subspace import check_every_index, stream_at_end, subspace_from_activations

Change = Callable[[Tensor], Tensor]
RUNS = 512                # prompts, times points, at once in a traversal,
MEMORY = 500_000_000      # or fewer, so that their keys and values take about so many bytes


# --- functions to put into an Edit ------------------------------------------------------------------------


def set_coordinates(basis: Tensor, values: Tensor, positions: Positions) -> Change:
    """Replace the coordinates at some positions. values: [k], or one for each prompt [B, k].

    Edit("L1.attn", set_coordinates(basis, code, prompts.end), of="stream") changes the stream before layer 1.
    """
    return at_positions(basis, positions, lambda c: fitting(values, c).expand_as(c))


def add_coordinates(basis: Tensor, values: Tensor, positions: Positions) -> Change:
    """Add to the coordinates at some positions. values: [k], or one for each prompt [B, k]."""
    return at_positions(basis, positions, lambda c: c + fitting(values, c))


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


# --- the test of a random index ---------------------------------------------------------------------------


@torch.no_grad()
def steered_answers(model: GPT2, prompts: Prompts, circuit: Circuit, basis: Tensor, values: Tensor,
                    earlier: Cache | None = None) -> Tensor:
    """Which item the model answers with once END's coordinates are `values` [B, k]: its index in the list, [B].

    The stream is changed at END just before the read `circuit.where`; the answer is the candidate with the largest
    logit. earlier: `before_end(model, prompts)`, where the same prompts are steered many times: then END runs alone.
    Raises SubspaceError, HeadError.
    """
    circuit.check(model)
    change = lambda position: Edit(circuit.where, set_coordinates(basis, values, position), of="stream")
    if earlier is None:
        logits = logits_with_edits(model, prompts, [change(prompts.end)])                           # [B, V]
    else:
        logits, _ = run_end(model, prompts, earlier, [change(0)])                                   # [B, V]
    candidates = prompts.candidates.to(logits.device)                                               # [B, N]
    return logits.gather(1, candidates).argmax(dim=1).to(prompts.index.device)                      # [B]


def steering_rate(model: GPT2, prompts: Prompts, circuit: Circuit, basis: Tensor, codes: Tensor, seed: int = 0,
                  earlier: Cache | None = None) -> float:
    """How often the model answers with the item at a *random* index once END has that index's code, from 0 to 1.

    codes: each index's coordinates [N, k]; seed: of the indices. This decides whether a subspace is positional:
    chance is 1 / N. earlier: as in `steered_answers`. Source: Merullo et al. 2024, §5. Raises SubspaceError.
    """
    N = prompts.candidates.shape[1]
    if codes.shape != (N, len(basis)):
        raise SubspaceError(f"codes of {N} indices in {len(basis)} dimensions are [{N}, {len(basis)}], not "
                            f"{list(codes.shape)}")
    target = torch.randint(N, (len(prompts.tokens),), generator=torch.Generator().manual_seed(seed))        # [B]
    answers = steered_answers(model, prompts, circuit, basis, codes[target.to(codes.device)], earlier)      # [B]
    return (answers.to(target.device) == target).double().mean().item()


# --- each index's code ------------------------------------------------------------------------------------


def mean_codes(model: GPT2, prompts: Prompts, circuit: Circuit, basis: Tensor) -> Tensor:
    """Each index's code: the mean coordinates at END, just before `circuit.where`, by the answer's index. [N, k]

    This tells where END usually is when an index is the answer. Raises SubspaceError, HeadError.
    """
    circuit.check(model)
    check_every_index(prompts)
    return by_index(coordinates(stream_at_end(model, prompts, circuit.where), basis), prompts)


def traversed_codes(model: GPT2, prompts: Prompts, circuit: Circuit, basis: Tensor, around: Tensor | None = None,
                    steps: int = 9) -> Tensor:
    """Each index's code: the point of a grid at which the item at that index is answered most surely. [N, k]

    This tells where END would have to be. around: codes [N, k] about which the grid of steps ** k points lies, twice
    as wide as they reach; the prompts' `mean_codes` if left out. A dozen prompts will do. Raises SubspaceError.
    """
    around = mean_codes(model, prompts, circuit, basis) if around is None else around
    middle = around.mean(dim=0)                                                    # [k]
    reach = 2 * (around - middle).abs().max()
    points = grid(middle - reach, middle + reach, steps)                           # [steps ** k, k]
    _, answered = traverse(model, prompts, circuit, basis, points)                 # [steps ** k, N]
    return points[answered.argmax(dim=0).to(points.device)]


@torch.no_grad()
def traverse(model: GPT2, prompts: Prompts, circuit: Circuit, basis: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Set END's coordinates to each point [G, k] in turn: what the movers attend to, and what the model answers.

    Gives each item's share of the movers' attention, [G, N], and its candidate's probability, [G, N], both averaged
    over prompts (and movers). Raises HeadError, SubspaceError.
    """
    circuit.check(model)
    if points.dim() != 2 or points.shape[1] != len(basis) or not len(points):
        raise SubspaceError(f"points in {len(basis)} dimensions are [G, {len(basis)}], not {list(points.shape)}")
    attended, answered, earlier, B = [], [], before_end(model, prompts), len(prompts.tokens)
    with Progress("traversing", len(points), "points") as bar:
        a_run = sum(2 * keys[0].numel() * keys.element_size() for keys, _ in earlier.kept.values())   # bytes
        for some in points.split(max(1, min(RUNS, MEMORY // a_run) // B)):
            G = len(some)
            change = set_coordinates(basis, some.repeat(B, 1), 0)                          # each prompt, G times
            logits, stream = run_end(model, prompts, earlier, [Edit(circuit.where, change, of="stream")], copies=G)
            looks = patterns_of_end_alone(stream, circuit.movers).mean(0)                  # [B * G, T]
            says = at_least_float32(logits).softmax(-1)                                    # [B * G, V]
            for kept, values, places in [(attended, looks, prompts.positions), (answered, says, prompts.candidates)]:
                on_items = values.gather(1, places.to(values.device).repeat_interleave(G, dim=0))  # [B * G, N]
                kept.append(on_items.view(B, G, -1).mean(0))                               # [G, N]
            bar.add(G)
    return torch.cat(attended), torch.cat(answered)


def grid(low: Tensor, high: Tensor, steps: int) -> Tensor:
    """Points of a regular grid between two corners [k]: [steps ** k, k]. Raises SubspaceError."""
    if low.dim() != 1 or low.shape != high.shape or not len(low) or steps < 1:
        raise SubspaceError(f"a grid has two corners [k] and a step at least, not corners {list(low.shape)} and "
                            f"{list(high.shape)} and {steps} steps")
    dtype = at_least_float32(low).dtype
    axes = [torch.linspace(float(a), float(b), steps, dtype=dtype, device=low.device) for a, b in zip(low, high)]
    return torch.cartesian_prod(*axes).reshape(-1, len(axes))


# --- crowding ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crowding:
    """How crowded the subspace is at one length of list, N items.

    accuracy: the model's, among the candidates; by_index: the same by the answer's index [N], nan where none occurs;
    apart: d' of the codes of neighbouring indices [N - 1], nan where an index does not occur; shares: the part of the
    space walked through in which the movers look at each index [N]; largest_weight: the largest part of its attention
    to the mentions that an inhibition head gives to one of them (1 / (N - 1) where it weighs all alike).
    """

    accuracy: float
    by_index: Tensor
    apart: Tensor
    shares: Tensor
    largest_weight: float

    @property
    def evenness(self) -> float:
        """How evenly the space is shared: the exponential of the shares' entropy, divided by N; 1 if all own alike."""
        entropy = -(self.shares * self.shares.clamp_min(1e-12).log()).sum().item()
        return math.exp(entropy) / len(self.shares)


def crowding(model: GPT2, prompts: dict[int, Prompts], circuit: Circuit, to_find: dict[int, Prompts] | None = None,
             to_walk: dict[int, Prompts] | None = None, k: int = 3, steps: int = 5) -> dict[int, Crowding]:
    """The crowding of lists by their length, {N: prompts}: each length in the subspace that is found for it.

    to_find: other prompts in which each length's subspace is found, else in the same ones; to_walk: a few prompts on
    which the space is walked through, on a grid of steps ** k points around the codes, else the first four. At N items
    the space has N - 1 dimensions at most. Raises SubspaceError, HeadError.
    """
    table = {}
    for N, judged in prompts.items():
        source, few = (to_find or prompts)[N], (to_walk or {}).get(N) or judged.first(4)
        basis = subspace_from_activations(model, source, circuit, min(k, N - 1))
        codes = mean_codes(model, source, circuit, basis)                                  # [N, k]
        low, high = codes.amin(0), codes.amax(0)
        points = grid(low - 0.25 * (high - low), high + 0.25 * (high - low), steps)        # [steps ** k, k]
        attended, _ = traverse(model, few, circuit, basis, points)                         # [G, N]
        right = correct(logits_at_end(model, judged), judged)                              # [B]
        points_at_end = coordinates(stream_at_end(model, judged, circuit.where), basis)    # [B, k]
        table[N] = Crowding(right.double().mean().item(), by_index(right, judged), separation(points_at_end, judged),
                            shares(attended.argmax(dim=1), N), largest_weight(model, judged.first(100), circuit))
    return table


def largest_weight(model: GPT2, prompts: Prompts, circuit: Circuit) -> float:
    """The largest part of its attention to the mentions that an inhibition head gives to one, mean over both."""
    patterns = patterns_at_end(model, prompts, circuit.inhibition)                         # [W, B, T]
    mentions = prompts.mentions.to(patterns.device).expand(len(patterns), -1, -1)          # [W, B, M]
    on_mentions = patterns.gather(2, mentions)                                             # [W, B, M]
    return (on_mentions.amax(dim=2) / on_mentions.sum(dim=2)).mean().item()


def separation(points: Tensor, prompts: Prompts) -> Tensor:
    """How well neighbouring indices can be told apart: d' of i and i + 1, [N - 1]; nan where one does not occur.

    points: coordinates [B, k]. d' is the distance of the two mean points, in standard deviations of the points around
    their means along the line between them (both pooled). Below 1 they overlap.
    """
    means = by_index(points, prompts)                                  # [N, k]
    points, index = points.to(means.dtype), prompts.index.to(points.device)
    apart = means[1:] - means[:-1]                                     # [N - 1, k]
    distance = apart.norm(dim=-1)                                      # [N - 1]
    result = torch.empty(len(apart))
    for i in range(len(apart)):
        line = apart[i] / distance[i].clamp_min(1e-12)                 # [k]
        scatter = [((points[index == j] - means[j]) @ line).pow(2).mean() for j in (i, i + 1)]
        result[i] = distance[i] / (sum(scatter) / 2).sqrt().clamp_min(1e-12)
    return result


def shares(owners: Tensor, n_items: int) -> Tensor:
    """The share of a traversed space that each index owns: [N]. owners: the index at every grid point, [...].

    Raises SubspaceError.
    """
    if owners.dtype not in WHOLE or not owners.numel() or owners.min() < 0 or owners.max() >= n_items:
        raise SubspaceError(f"owners are whole numbers from 0 to {n_items - 1}, one at least, not {owners}")
    return torch.bincount(owners.flatten(), minlength=n_items).double() / owners.numel()
