"""Metrics and summaries: the pieces of the variants of circuit_variants.py.

A variant scores every pair of an earlier and a later head. It has up to three parts:

    metric      which directions of the stream count, and how much: a matrix J that what is written and
                what is read are multiplied with before they are compared;
    summary     the K x K products of a pair, writer's rows by reader's rows, as one number;
    levelling   that number against what this reader, this writer or this mode gets anyway
                (in variant_levellings.py).

None of them sees a label. Scores are {"Q", "K", "V": [L, H, L, H]}, writer by reader; axes as in
tinyheads.heads, K rows a head. Pairs whose reader is not in a later layer hold 0 or nothing of meaning.
"""

from dataclasses import dataclass
from typing import Callable, Iterable, Iterator

import torch
from torch import Tensor

from tinyheads.composition import lengths_read, unit
from tinyheads.heads import one_thread
from variant_levellings import WRITERS, Scores, as_it_is, by_reader, later_pairs, pair_mean


# ---------------------------------------------------------------- how a pair meets

@dataclass(frozen=True)
class Meeting:
    """How every pair meets in one mode, both heads scaled to size 1.

    singular: [L, H, L, H, K], the singular values of what meets, ascending;
    components: [L, H, K, L, H], how much the reader hears of each of the writer's rows at length 1.
    """

    singular: Tensor
    components: Tensor


def products(writers: Tensor, readers: Tensor, layer: int) -> Tensor:
    """Each earlier writer's rows by each row of this layer's readers: [layer, H, H, K, K], writer, reader, rows."""
    L, H, K, D = writers.shape
    flat = writers[:layer].reshape(-1, D) @ readers[layer].reshape(-1, D).T     # [layer * H * K, H * K]
    return flat.view(layer, H, K, H, K).transpose(2, 3)


def meet(writers: Tensor, readers: Tensor, layers: list[int] | None = None) -> Meeting:
    """How all pairs meet, from rows [L, H, K, D] on both sides; layers: only readers in these, else in all."""
    L, H, K, D = writers.shape
    writers, readers = unit(writers), unit(readers)
    lengths = writers.norm(dim=3).clamp_min(1e-12)                              # [L, H, K]
    singular, components = writers.new_zeros(L, H, L, H, K), writers.new_zeros(L, H, K, L, H)
    for layer in range(1, L) if layers is None else layers:
        met = products(writers, readers, layer)                                 # [layer, H, H, K, K]
        heard = met.norm(dim=4) / lengths[:layer, :, None]                      # [layer, H, H, K]
        components[:layer, :, :, layer] = heard.transpose(2, 3)
        with one_thread():
            squares = torch.linalg.eigvalsh(met @ met.transpose(3, 4))          # [layer, H, H, K]
        singular[:layer, :, layer] = squares.clamp_min(0).sqrt()
    return Meeting(singular, components)


def meet_in(metric: Tensor, writers: Tensor, readers: Scores) -> dict[str, Meeting]:
    """How all pairs meet in each mode, both sides seen through one metric J [D, D]."""
    seen = writers @ metric
    return {mode: meet(seen, rows @ metric) for mode, rows in readers.items()}


def meet_in_layers(metrics: list[Tensor], writers: Tensor, readers: Scores) -> dict[str, Meeting]:
    """The same with a metric for each layer of readers."""
    meetings = {mode: meet(writers, rows, layers=[]) for mode, rows in readers.items()}  # nothing yet
    for layer, metric in enumerate(metrics):
        seen = writers @ metric
        for mode, rows in readers.items():
            here = meet(seen, rows @ metric, [layer])
            meetings[mode].singular.add_(here.singular)
            meetings[mode].components.add_(here.components)
    return meetings


# ---------------------------------------------------------------- summaries: what meets, as one number

def frobenius(meeting: Meeting) -> Tensor:
    """All of it: the composition score of whole heads."""
    return meeting.singular.norm(dim=-1)


def best_component(meeting: Meeting) -> Tensor:
    """The writer's component that the reader hears best, however weak it is."""
    return meeting.components.amax(dim=2)


def spectral(meeting: Meeting) -> Tensor:
    """The strongest single channel."""
    return meeting.singular.amax(dim=-1)


def nuclear(meeting: Meeting) -> Tensor:
    """The sum of all channels: many weak ones count for more than in `frobenius`."""
    return meeting.singular.sum(dim=-1)


def schatten4(meeting: Meeting) -> Tensor:
    """Between `frobenius` and `spectral`."""
    return (meeting.singular**4).sum(dim=-1) ** 0.25


SUMMARIES = {"frob": frobenius, "best": best_component, "spec": spectral, "nuc": nuclear, "s4": schatten4}


def summarise(meetings: dict[str, Meeting], summary: str) -> Scores:
    return {mode: SUMMARIES[summary](meeting) for mode, meeting in meetings.items()}


def family(name: str, meetings: dict[str, Meeting], summaries: Iterable[str],
           levellings: dict[str, Callable] | None = None) -> Iterator[tuple[str, Scores]]:
    """The variants of one metric: every summary in every levelling, with their names."""
    for summary in summaries:
        for level, levelling in (levellings or {"": as_it_is}).items():
            yield f"{name}: {summary} {level}".strip(), levelling(summarise(meetings, summary))


def entries(write_rows: Tensor, read_rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each core's largest entry and sum of fourth powers, [L, H, L, H] each, from rows [L, H, K, D]."""
    L, H = write_rows.shape[:2]
    largest, fourth = write_rows.new_zeros(L, H, L, H), write_rows.new_zeros(L, H, L, H)
    for layer in range(1, L):
        met = products(write_rows, read_rows, layer)                            # [layer, H, H, K, K]
        largest[:layer, :, layer] = met.abs().amax((3, 4))
        fourth[:layer, :, layer] = (met**4).sum((3, 4))
    return largest, fourth


def best_over_readers_usual(meetings: dict[str, Meeting]) -> Scores:
    """The best component, against the rms of all components that this reader hears."""
    return {mode: best / pair_mean(meetings[mode].components.pow(2).mean(2), WRITERS).sqrt().clamp_min(1e-9)
            for mode, best in summarise(meetings, "best").items()}


def component_by_component(meetings: dict[str, Meeting], sizes: Tensor) -> Iterator[tuple[str, Scores]]:
    """Each component against what its later readers usually hear of it; sizes [L, H, K]: the writers' spectra."""
    square = {mode: meeting.components**2 for mode, meeting in meetings.items()}    # each [L, H, K, L, H]
    n_readers = later_pairs(square["Q"][:, :, 0]).sum((2, 3)).clamp_min(1)          # [L, H]
    usual = {mode: x.sum((3, 4), keepdim=True) / n_readers[..., None, None, None] for mode, x in square.items()}
    mean_of_modes = sum(usual.values()) / len(usual)                                # [L, H, K, 1, 1]
    weight = (sizes**2)[..., None, None]                                            # [L, H, K, 1, 1]
    for which, mean in [("mode", usual), ("all modes", dict.fromkeys(usual, mean_of_modes))]:
        over = {mode: x / mean[mode].clamp_min(1e-12) for mode, x in square.items()}
        over_root = {mode: x / mean[mode].sqrt().clamp_min(1e-6) for mode, x in square.items()}
        yield f"c_i / its rms ({which}), max", {mode: x.amax(2).sqrt() for mode, x in over.items()}
        yield f"c_i / its rms ({which}), sigma2 mean", {mode: (weight * x).sum(2).sqrt() for mode, x in over.items()}
        yield f"c_i^2 / its rms ({which}), max", {mode: x.amax(2) for mode, x in over_root.items()}
        yield f"c_i^2 / its rms ({which}), sigma2 mean", {mode: (weight * x).sum(2) for mode, x in over_root.items()}


def components_found_anew(metric: Tensor, writers: Tensor, readers: Scores) -> Iterator[tuple[str, Scores]]:
    """Components of both sides as they are in the metric, where the old ones are not orthogonal."""
    with one_thread():
        _, sizes, directions = torch.linalg.svd(writers @ metric, full_matrices=False)
        sizes = (sizes / sizes.norm(dim=2, keepdim=True))[..., None]            # [L, H, K, 1]
        parts = {mode: torch.linalg.svd(unit(rows @ metric), full_matrices=False) for mode, rows in readers.items()}
    seen = {mode: part.S[..., None] * part.Vh for mode, part in parts.items()}  # each [L, H, K, D]
    heard = {mode: lengths_read(directions, rows) for mode, rows in seen.items()}  # each [L, H, K, L, H]
    weighted = {mode: sizes[..., None] * lengths for mode, lengths in heard.items()}
    variants = {"best of re-SVD": {mode: lengths.amax(2) for mode, lengths in heard.items()},
                "best sigma-weighted re-SVD": {mode: lengths.amax(2) for mode, lengths in weighted.items()},
                "max pair of re-SVDs": {mode: entries(sizes * directions, rows)[0] for mode, rows in seen.items()}}
    for variant, scores in variants.items():
        yield variant, scores
        yield f"{variant} /reader", by_reader(scores)


# ---------------------------------------------------------------- metrics: which directions count

def power(scatter: Tensor, exponent: float) -> Tensor:
    """A symmetric [D, D] to a power, on the directions that it has (folding took one out)."""
    values, vectors = torch.linalg.eigh(scatter.double())
    used = values > 1e-6 * values[-1]
    powers = torch.where(used, values, torch.ones_like(values)) ** exponent * used
    return ((vectors * powers) @ vectors.T).float()


def whole_heads(rows: Tensor) -> Tensor:
    """[L, H, K, D] as items of K rows: [L * H, K, D]."""
    return rows.flatten(0, 1)


def single_rows(rows: Tensor) -> Tensor:
    """[L, H, K, D] as items of one row: [L * H * K, 1, D]."""
    return rows.reshape(-1, 1, rows.shape[-1])


def scatter_of(items: Tensor) -> Tensor:
    """The mean Gram matrix [D, D] of items [N, rows, D]."""
    rows = items.flatten(0, 1)
    return rows.T @ rows / len(items)


def pooled(faces: list[Tensor], weights: list[float]) -> Tensor:
    """The scatters of several kinds of items, added up: [D, D]."""
    return sum(weight * scatter_of(items) for items, weight in zip(faces, weights))


def tyler(faces: list[Tensor], weights: list[float], steps: int) -> Tensor:
    """A scatter [D, D] in whose metric every item has size 1 and the items' scatter is that scatter (Tyler 1987).

    After `pooled`, items in little-used directions are larger than others; here each counts the same. At most so
    many steps: it ends once one changes the scatter by less than a ten-thousandth.
    """
    D = faces[0].shape[-1]
    scatter = torch.eye(D)
    for _ in range(steps):
        whiten, before = power(scatter, -0.5), scatter
        scatter = pooled([items / (items @ whiten).norm(dim=(1, 2), keepdim=True) for items in faces], weights)
        scatter = scatter * D / scatter.trace()
        if (scatter - before).norm() < 1e-4 * before.norm():
            break
    return scatter
