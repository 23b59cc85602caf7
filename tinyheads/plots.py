"""Every figure: matplotlib, drawn without its global state, readable in greyscale and by the colour-blind.

Functions take plain tensors and give a `Figure`; `save_figure` writes it as PNG. Magnitudes use viridis,
which also rises in lightness; signed values carry their number in the cell, so that the sign
survives a greyscale printer; lines differ by marker as well as by colour.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from tinyheads.composition import later
from tinyheads.files.array_file import write_atomically
from tinyheads.heads import Head

# Okabe and Ito's colour-blind safe palette, dark to light, with a marker for each.
COLOURS = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure of width x height inches and its axes: an array [rows, columns]."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save_figure(figure: Figure, path: str | Path, dpi: int = 130) -> Path:
    """Write the figure as PNG; the folder is made if need be, and the file is whole or not there.

    In a notebook the picture also appears beneath its cell. These figures are not pyplot's, so none has to be closed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=dpi)
    show_in_notebook(path)
    return path


def show_in_notebook(path: Path) -> None:
    """Show a PNG file beneath the cell that is running, in Jupyter, Colab or VS Code; elsewhere do nothing."""
    ipython = sys.modules.get("IPython")                                # a notebook has imported it already
    if ipython and hasattr(ipython.get_ipython(), "kernel"):            # IPython in a terminal has no kernel
        ipython.display.display(ipython.display.Image(filename=str(path)))


def draw_lines(axes: Axes, lines: dict[str, Tensor], xlabel: str, ylabel: str, title: str = "", start: int = 0,
               levels: dict[str, float] | None = None) -> None:
    """Several lines over 0, 1, 2, ..., or from `start` on: {label: values [N]}; nan leaves a gap.

    levels: heights to compare with, such as {"chance": 0.2}: each a dashed line with its name at the right edge.
    """
    for (label, values), colour, marker in zip(lines.items(), COLOURS, MARKERS):
        axes.plot(range(start, start + len(values)), np.asarray(values), color=colour, marker=marker, markersize=5,
                  label=label)
    for label, level in (levels or {}).items():
        axes.axhline(level, color="#888888", linestyle="--", linewidth=1)
        axes.annotate(label, (1.01, level), xycoords=("axes fraction", "data"), fontsize=8, va="center")
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def draw_map(axes: Axes, values: Tensor, xlabel: str, ylabel: str, title: str, unit: str,
             xticks: list[str] | None = None, yticks: list[str] | None = None, signed: bool = False,
             top: float | None = None, written: bool = False) -> None:
    """A heat map of values [rows, columns] with its colour bar; signed values are centred and written out.

    top: where the colours end, if not at the largest value; written: for few values, rates: they stand in their cells,
    and colours go from 0 to 1; cells that are nan stay white.
    """
    values = np.asarray(values)
    limit = max(float(np.nanmax(np.abs(values))), 1e-9)
    scale = dict(cmap="PuOr_r", vmin=-limit, vmax=limit) if signed else dict(cmap="viridis", vmax=top)
    scale.update(dict(vmin=0, vmax=1) if written else {})
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
    elif written:
        for (row, column), value in np.ndenumerate(values):
            if not math.isnan(value):
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8,
                          color="white" if image.norm(value) < 0.6 else "black")


def draw_pairs(axes: Axes, scores: Tensor, title: str, unit: str, circled: Tensor | None = None) -> None:
    """A map of all pairs of heads, writer by reader, both in the order of layers: scores [L, H, L, H].

    White where the reader is not in a later layer than the writer; colours end at the 99.5th percentile.
    circled: bool [L, H, L, H], pairs to put a circle around.
    """
    L, H = scores.shape[:2]
    possible = later(L).expand(scores.shape)                            # [L, H, L, H]
    top = scores[possible].quantile(0.995).item() if possible.any() else None
    shown = scores.masked_fill(~possible, torch.nan).reshape(L * H, L * H)
    draw_map(axes, shown, "reader (layer)", "writer (layer)", title, unit, top=top)
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(range(0, L * H, H), [str(layer) for layer in range(L)])
    if circled is not None:
        writers, readers = circled.reshape(L * H, L * H).nonzero().T
        axes.plot(readers, writers, "o", markersize=5, markerfacecolor="none", markeredgecolor="white")


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


def draw_scatter(axes: Axes, x: Tensor, y: Tensor, groups: dict[str, list[int]], labels: dict[int, str], xlabel: str,
                 ylabel: str, title: str) -> None:
    """Points (x[i], y[i]), each group in its colour and marker, some of them labelled. x, y: [N]."""
    for (group, members), colour, marker in zip(groups.items(), COLOURS[2:], MARKERS):
        if members:
            axes.plot(np.asarray(x[members]), np.asarray(y[members]), marker, color=colour, markersize=6,
                      markeredgecolor="black", markeredgewidth=0.4, label=group)
    for i, label in labels.items():
        axes.annotate(label, (float(x[i]), float(y[i])), xytext=(5, 4), textcoords="offset points", fontsize=7)
    axes.margins(x=0.1)                                                 # so that labels stay inside
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


def draw_shares(axes: Axes, lines: dict[str, list[float]], ticks: list, xlabel: str, title: str,
                ylabel: str = "share") -> None:
    """Several lines of values from 0 to 1, over the same ticks: {label: as many values as ticks}."""
    draw_lines(axes, lines, xlabel, ylabel, title)
    axes.set_xticks(range(len(ticks)), [str(tick).replace(", ", ",\n") for tick in ticks])
    axes.set_ylim(-0.03, 1.05)


def draw_room(axes: Axes, room: dict[str, Tensor], accuracy: dict[str, Tensor]) -> None:
    """Each index's room beside its accuracy, {model: [indices]}; room: its share of the space, times N."""
    for (model, x), marker, colour in zip(room.items(), MARKERS, COLOURS):
        axes.plot(np.asarray(x), np.asarray(accuracy[model]), marker, color=colour, alpha=0.6, label=model)
    axes.set(xlabel="room: share of the grid's points, times N (1 if all share alike)", ylabel="accuracy",
             title="Each index of each length")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def join_legends(figure: Figure, columns: int = 3) -> None:
    """One legend below the figure, its first panel's, in place of each panel's own."""
    for panel in figure.axes:
        panel.get_legend().remove()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)


def draw_circuit(axes: Axes, n_layer: int, n_head: int, edges: dict[tuple[Head, Head], float],
                 roles: dict[Head, str], title: str) -> None:
    """Heads as boxes, a row for each layer, the first at the bottom, and edges between them by their scores.

    edges: {(writer, reader): score}: the higher, the darker and the thicker; scores from the lowest to the highest
    given. roles: {head: what it is}, written into its box.
    """
    low, high = min(edges.values()), max(edges.values())
    for (writer, reader), score in sorted(edges.items(), key=lambda edge: edge[1]):
        part = (score - low) / max(high - low, 1e-9)                    # 0 for the lowest, 1 for the highest
        axes.plot([writer.head, reader.head], [writer.layer, reader.layer], color=str(0.85 * (1 - part)),
                  linewidth=0.5 + 3.5 * part, zorder=1)
    for head in (Head.at(place, n_head) for place in range(n_layer * n_head)):
        role = roles.get(head, "")
        axes.text(head.head, head.layer, f"{head}\n{role}" if role else str(head), ha="center", va="center", fontsize=9,
                  bbox=dict(boxstyle="round", facecolor="#dddddd" if role else "white"), zorder=2)
    axes.set(xlim=(-0.6, n_head - 0.4), ylim=(-0.3, n_layer - 0.7), title=title, xticks=[], yticks=range(n_layer),
             ylabel="layer")
