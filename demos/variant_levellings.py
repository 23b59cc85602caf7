"""Levellings: a pair's score against what its reader, its writer or its mode gets anyway.

Each takes scores and gives scores, {"Q", "K", "V": [L, H, L, H]}, writer by reader, and sees no label.
Means run over the pairs that there are: readers in a later layer than their writer.
"""

from typing import Callable

import torch
from torch import Tensor

Scores = dict[str, Tensor]  # mode -> [L, H, L, H]
WRITERS, READERS = (0, 1), (2, 3)  # the axes that writers and readers run along


def later_pairs(x: Tensor) -> Tensor:
    """1 where the reader is in a later layer, else 0, in the shape of x: [L, H, L, H]."""
    layers = torch.arange(x.shape[0])
    return (layers[:, None] < layers)[:, None, :, None].expand(x.shape).to(x.dtype)


def pair_mean(x: Tensor, along: tuple[int, int]) -> Tensor:
    """The mean of x [L, H, L, H] over each reader's WRITERS, or each writer's READERS (axes stay, of length 1)."""
    there = later_pairs(x)
    return (x * there).sum(along, keepdim=True) / there.sum(along, keepdim=True).clamp_min(1)


def pair_rms(x: Tensor, along: tuple[int, int]) -> Tensor:
    return pair_mean(x**2, along).sqrt().clamp_min(1e-12)


def safe_log(x: Tensor) -> Tensor:
    return x.clamp_min(1e-12).log()


def as_it_is(scores: Scores) -> Scores:
    return scores


def by_reader(scores: Scores) -> Scores:
    """Some readers hear everybody: divide by the reader's rms over its writers."""
    return {mode: x / pair_rms(x, WRITERS) for mode, x in scores.items()}


def by_writer(scores: Scores) -> Scores:
    """Some writers are heard by everybody: divide by the writer's rms over its readers in this mode."""
    return {mode: x / pair_rms(x, READERS) for mode, x in scores.items()}


def writers_usual(scores: Scores) -> Tensor:
    """A writer's rms over its readers in all modes: [L, H, 1, 1]."""
    return (sum(pair_mean(x**2, READERS) for x in scores.values()) / len(scores)).sqrt().clamp_min(1e-12)


def by_writer_all_modes(scores: Scores) -> Scores:
    return {mode: x / writers_usual(scores) for mode, x in scores.items()}


def by_root_of_writer(scores: Scores) -> Scores:
    """Half of that correction."""
    return {mode: x / writers_usual(scores).sqrt() for mode, x in scores.items()}


def by_both(scores: Scores) -> Scores:
    return by_writer_all_modes(by_reader(scores))


def mean_log(scores: Scores) -> Tensor:
    """What a pair has in all modes alike: [L, H, L, H]."""
    return sum(safe_log(x) for x in scores.values()) / len(scores)


def by_mode(scores: Scores) -> Scores:
    """Some pairs overlap however they are compared: through which of the three doors more than through the others?"""
    return {mode: safe_log(x) - mean_log(scores) for mode, x in scores.items()}


def by_half_mode(scores: Scores) -> Scores:
    return {mode: safe_log(x) - 0.5 * mean_log(scores) for mode, x in scores.items()}


def standardised(x: Tensor, along: tuple[int, int]) -> Tensor:
    centred = x - pair_mean(x, along)
    return centred / pair_rms(centred, along)


def z_in_reader(scores: Scores) -> Scores:
    return {mode: standardised(x, WRITERS) for mode, x in scores.items()}


def z_in_writer(scores: Scores) -> Scores:
    return {mode: standardised(x, READERS) for mode, x in scores.items()}


def z_in_both(scores: Scores) -> Scores:
    return {mode: standardised(x, WRITERS) + standardised(x, READERS) for mode, x in scores.items()}


def double_centred(scores: Scores) -> Scores:
    """Observed over expected: log score = writer + reader + rest, the two fitted by least squares, the rest kept."""
    rests = {}
    for mode, x in scores.items():
        log, of_reader = safe_log(x), 0.0
        for _ in range(200):  # alternating, to convergence
            of_writer = pair_mean(log - of_reader, READERS)
            of_reader = pair_mean(log - of_writer, WRITERS)
        rests[mode] = log - of_writer - of_reader
    return rests


def over_layer_pair(scores: Scores) -> Scores:
    """Against the mean of all pairs from this writer's layer to this reader's layer."""
    return {mode: safe_log(x) - safe_log(x).mean((1, 3), keepdim=True) for mode, x in scores.items()}


def over_writers_layer(scores: Scores) -> Scores:
    """Against what this reader hears from all heads of the writer's layer."""
    return {mode: safe_log(x) - safe_log(x).mean(1, keepdim=True) for mode, x in scores.items()}


def double_centred_in_layer_pair(scores: Scores) -> Scores:
    """Writer and reader effects taken out within each pair of layers."""
    rests = {}
    for mode, x in scores.items():
        log = safe_log(x)
        rests[mode] = log - log.mean(1, keepdim=True) - log.mean(3, keepdim=True) + log.mean((1, 3), keepdim=True)
    return rests


def over_distance(scores: Scores) -> Scores:
    """Against the mean of all pairs as many layers apart."""
    rests = {}
    for mode, x in scores.items():
        log, layers = safe_log(x), torch.arange(x.shape[0])
        apart = (layers - layers[:, None])[:, None, :, None].expand(x.shape)
        rests[mode] = log.clone()
        for distance in range(1, len(layers)):
            rests[mode][apart == distance] -= log[apart == distance].mean()
    return rests


def geometric_in_reader(scores: Scores) -> Scores:
    """`by_reader` with the geometric mean."""
    return {mode: safe_log(x) - pair_mean(safe_log(x), WRITERS) for mode, x in scores.items()}


def median_in_reader(scores: Scores) -> Scores:
    """`by_reader` with the median."""
    return {mode: among_writers(x, lambda column: column / column.median(dim=0).values) for mode, x in scores.items()}


def rank_in_reader(scores: Scores) -> Scores:
    """Only the order of a reader's writers counts: 0 for the last, 1 for the first."""
    return {mode: among_writers(x, lambda column: column.argsort(0).argsort(0) / (len(column) - 1))
            for mode, x in scores.items()}


def among_writers(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `change` to each reader layer's columns [writers, H], of all writers that come before it."""
    changed = torch.zeros_like(x)
    for layer in range(1, x.shape[0]):
        before = x[:layer, :, layer]                                            # [layer, H, H]
        changed[:layer, :, layer] = change(before.flatten(0, 1)).view_as(before)
    return changed
