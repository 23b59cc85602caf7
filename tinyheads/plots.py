"""Every figure: matplotlib, drawn without its global state, readable in greyscale and by the colour-blind.

Functions take plain tensors and give a `Figure`; `save_figure` writes it as PNG. Magnitudes use viridis,
which also rises in lightness; signed values carry their number in the cell, so that the sign
survives a greyscale printer; lines differ by marker as well as by colour.
"""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from tinyheads.array_file import write_atomically

# Okabe and Ito's colour-blind safe palette, dark to light, with a marker for each.
COLOURS = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure of width x height inches and its axes: an array [rows, columns]."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save_figure(figure: Figure, path: str | Path, dpi: int = 130) -> Path:
    """Write the figure as PNG; the folder is made if need be, and the file is whole or not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=dpi)
    return path


def draw_lines(axes: Axes, lines: dict[str, Tensor], xlabel: str, ylabel: str, title: str = "") -> None:
    """Several lines over 0, 1, 2, ...: {label: values [N]}."""
    for (label, values), colour, marker in zip(lines.items(), COLOURS, MARKERS):
        axes.plot(np.asarray(values), color=colour, marker=marker, markersize=5, label=label)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def draw_map(axes: Axes, values: Tensor, xlabel: str, ylabel: str, title: str, unit: str,
             xticks: list[str] | None = None, yticks: list[str] | None = None, signed: bool = False,
             top: float | None = None) -> None:
    """A heat map of values [rows, columns] with its colour bar; signed values are centred and written out.

    top: where the colours end, if not at the largest value; cells that are nan stay white.
    """
    values = np.asarray(values)
    limit = max(float(np.nanmax(np.abs(values))), 1e-9)
    scale = dict(cmap="PuOr_r", vmin=-limit, vmax=limit) if signed else dict(cmap="viridis", vmax=top)
    image = axes.imshow(values, aspect="auto", interpolation="nearest", **scale)
    axes.figure.colorbar(image, ax=axes, label=unit, shrink=0.85, extend="neither" if top is None else "max")
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    for ticks, set_ticks in [(xticks, axes.set_xticks), (yticks, axes.set_yticks)]:
        if ticks is not None:
            set_ticks(range(len(ticks)), ticks, fontsize=7)
    if signed:
        decimals = max(0, 1 - math.floor(math.log10(limit)))  # two digits of the largest value
        for (row, column), value in np.ndenumerate(values):
            if abs(value) >= 0.05 * limit:
                axes.text(column, row, f"{value:+.{decimals}f}", ha="center", va="center", fontsize=5.5,
                          color="white" if abs(value) > 0.6 * limit else "black")


def draw_outliers(axes: Axes, scores: Tensor, labels: list[str], xlabel: str, ylabel: str, title: str,
                  top: int = 8, marked: dict[str, str] | None = None) -> None:
    """Scores [N] from the highest down, on a logarithmic rank axis, the `top` ones labelled.

    marked: {label: what it is known as}: these get a square of another colour, wherever they rank.
    """
    scores = torch.as_tensor(scores)
    order = scores.argsort(descending=True)
    ranked = scores[order]
    axes.plot(range(1, len(ranked) + 1), np.asarray(ranked), ".", color="#999999", markersize=4)
    marked, shown = marked or {}, {}
    for rank, place in enumerate(order.tolist(), start=1):
        known = labels[place] in marked
        if rank <= top or known:
            axes.plot([rank], [ranked[rank - 1]], "s" if known else "o", markersize=6,
                      color=COLOURS[2] if known else COLOURS[1], label=None)
            shown[rank] = labels[place] + (f"  ({marked[labels[place]]})" if known else "")
    for line, (rank, text) in enumerate(shown.items()):  # labels stand in a column, tied to their points
        axes.annotate(text, (rank, float(ranked[rank - 1])), xytext=(0.5, 0.96 - 0.048 * line),
                      textcoords="axes fraction", fontsize=7, va="center",
                      arrowprops=dict(arrowstyle="-", color="#bbbbbb", linewidth=0.6))
    axes.set(xscale="log", xlabel=xlabel, ylabel=ylabel, title=title, ylim=(0, 1.15 * float(ranked[0])))
    axes.grid(alpha=0.3)


def draw_strips(axes: Axes, values: dict[str, Tensor], named: dict[str, dict[str, float]], targets: dict[str, float],
                ylabel: str, title: str) -> None:
    """Many values in each of a few columns, as grey dots, with some named ones and a target line.

    values: {column: [N]}; named: {label: {column: value}}; targets: {column: value}.
    """
    generator = torch.Generator().manual_seed(0)  # the sideways scatter, which means nothing
    for place, (column, dots) in enumerate(values.items()):
        sideways = place + 0.5 * (torch.rand(len(dots), generator=generator) - 0.5)
        axes.plot(np.asarray(sideways), np.asarray(dots), ".", color="#bbbbbb", markersize=4, zorder=1)
        axes.hlines(targets[column], place - 0.35, place + 0.35, color="black", linestyle="--", linewidth=1,
                    label="target" if place == 0 else None)
    for (label, row), colour, marker in zip(named.items(), COLOURS[1:], MARKERS):
        sideways = 0.12 * (list(named).index(label) - (len(named) - 1) / 2)
        axes.plot([place + sideways for place in range(len(values))], [row[column] for column in values], marker,
                  color=colour, markersize=9, markeredgecolor="black", label=label, zorder=3)
    axes.axhline(0.5, color="#888888", linewidth=0.8)
    axes.annotate("chance", (-0.45, 0.51), fontsize=8, color="#555555")
    axes.set_xticks(range(len(values)), list(values))
    axes.set(xlabel="mode of composition", ylabel=ylabel, title=title)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def draw_scatter(axes: Axes, x: Tensor, y: Tensor, groups: dict[str, list[int]], labels: dict[int, str], xlabel: str,
                 ylabel: str, title: str) -> None:
    """Points (x[i], y[i]), each group in its colour and marker, some of them labelled. x, y: [N]."""
    for (group, members), colour, marker in zip(groups.items(), COLOURS[2:], MARKERS):
        if members:
            axes.plot(np.asarray(x[members]), np.asarray(y[members]), marker, color=colour, markersize=6,
                      markeredgecolor="black", markeredgewidth=0.4, label=group)
    for i, label in labels.items():
        axes.annotate(label, (float(x[i]), float(y[i])), xytext=(5, 4), textcoords="offset points", fontsize=7)
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def contact_sheet(paths: list[Path], columns: int = 3) -> Figure:
    """Several PNG figures side by side, each under its file's name."""
    rows = math.ceil(len(paths) / columns)
    figure, axes = new_figure(6 * columns, 3.6 * rows, columns, rows)
    for panel in axes.flat:
        panel.axis("off")
    for panel, path in zip(axes.flat, paths):
        panel.imshow(imread(path))
        panel.set_title(path.stem, fontsize=9)
    return figure
