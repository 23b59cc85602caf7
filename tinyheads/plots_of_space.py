"""Pictures of a subspace: its clouds of points, and which index owns which region.

Indices are shades of viridis, which also rises in lightness, and every region and cloud carries its number.
Axes: B prompt, N item of the list.
"""

import math

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patheffects import withStroke
from torch import Tensor

from tinyheads.plots import MARKERS


def draw_clouds(axes: Axes, points: Tensor, index: Tensor, title: str, view: tuple[float, float] = (20, -60)) -> None:
    """Points [B, 3] in three dimensions, marked by index [B], each index written at its cloud's mean.

    axes: made with `new_figure(..., subplot_kw={"projection": "3d"})`; view: elevation and azimuth in degrees.
    """
    shades = colormaps["viridis"]
    count = int(index.max()) + 1
    lift = 0.05 * float(points[:, 2].max() - points[:, 2].min())
    outline = [withStroke(linewidth=3, foreground="white")]
    for i in range(count):
        cloud = np.asarray(points[index == i])
        if len(cloud):
            axes.scatter(*cloud.T, marker=MARKERS[i % len(MARKERS)], s=14, color=shades(0.9 * i / max(count - 1, 1)),
                         linewidth=0)
            x, y, z = cloud.mean(axis=0)
            up = i % 2 == 0                                             # clouds that touch keep their numbers apart
            axes.text(x, y, z + (lift if up else -lift), str(i), fontsize=13, fontweight="bold", ha="center",
                      va="bottom" if up else "top", zorder=9, path_effects=outline)
    axes.view_init(*view)
    axes.set_box_aspect(None, zoom=0.92)
    axes.set_title(title, fontsize=10, y=0.98)
    axes.set(xlabel="dimension 0", ylabel="dimension 1", zlabel="dimension 2")
    axes.tick_params(labelsize=7)


def draw_regions(axes: Axes, owners: Tensor, low: Tensor, high: Tensor, codes: Tensor, xlabel: str, ylabel: str,
                 title: str) -> None:
    """Who owns each point of a plane: regions with a black border, their index written inside.

    owners: [X, Y], the index at each point of a regular grid from `low` [2] to `high` [2], or -1 where nobody owns
    it (white); codes: [N, 2], each index's own code, drawn as a small numbered dot.
    """
    owners = np.asarray(owners)
    (x0, y0), (x1, y1) = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    step = np.array([(x1 - x0) / (owners.shape[0] - 1), (y1 - y0) / (owners.shape[1] - 1)])
    corner = np.array([x0, y0]) - step / 2                              # of the first grid point's cell
    shades = colormaps["viridis"](np.linspace(0, 1, len(codes))) * 0.45 + 0.55  # pale, so that black reads on all
    shades = np.concatenate([shades, np.ones((1, 4))])                   # index -1: white
    axes.imshow(shades[owners].transpose(1, 0, 2), origin="lower", aspect="auto", interpolation="nearest",
                extent=(corner[0], x1 + step[0] / 2, corner[1], y1 + step[1] / 2))
    across = [[(x + 1, y), (x + 1, y + 1)] for x, y in np.argwhere(owners[1:] != owners[:-1])]
    upward = [[(x, y + 1), (x + 1, y + 1)] for x, y in np.argwhere(owners[:, 1:] != owners[:, :-1])]
    axes.add_collection(LineCollection([corner + step * np.array(edge) for edge in across + upward], colors="black",
                                       linewidths=1.6))
    taken = np.zeros(owners.shape, bool)                                # around the codes' dots, no region is labelled
    for code in np.asarray(codes):
        near = [np.abs(np.arange(size) * s + low - c) < 0.05 * size * s
                for size, s, low, c in zip(owners.shape, step, (x0, y0), code)]
        taken |= near[0][:, None] & near[1]
    for place, index in inner_points(owners, taken, least=max(4, owners.size // 120)):
        axes.text(*(corner + step * (np.array(place) + 0.5)), "none" if index < 0 else str(index), fontsize=17,
                  ha="center", va="center")
    for i, code in enumerate(np.asarray(codes)):
        axes.plot(*code, "o", markersize=13, color="white", markeredgecolor="black", zorder=4)
        axes.text(*code, str(i), fontsize=8, ha="center", va="center_baseline", zorder=5)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)


def inner_points(owners: np.ndarray, taken: np.ndarray, least: int) -> list[tuple[tuple[int, int], int]]:
    """For each connected region of at least `least` cells, the free cell furthest from any border, and its index.

    owners: [X, Y]; taken: [X, Y], cells to keep clear of where a region has others.
    """
    found = []
    for index in np.unique(owners):
        left = owners == index
        while left.any():
            region, before = np.zeros_like(left), 0
            region[tuple(np.argwhere(left)[0])] = True
            while region.sum() > before:                                # grow it until it fills its region
                before, region = region.sum(), spread(region, np.logical_or) & left
            depth, shrunk = np.zeros(left.shape, int), region & ~taken if (region & ~taken).any() else region
            while shrunk.any():
                depth, shrunk = depth + shrunk, spread(shrunk, np.logical_and)
            if before >= least:
                found.append((tuple(map(int, np.unravel_index(depth.argmax(), depth.shape))), int(index)))
            left = left & ~region
    return found


def spread(mask: np.ndarray, join: np.ufunc) -> np.ndarray:
    """Each cell joined (by and, by or) with its four neighbours; all is False beyond the edge."""
    padded = np.pad(mask, 1)
    return join.reduce([mask, padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])


def draw_walk(axes: np.ndarray, attended: Tensor, answered: Tensor, corners: tuple[Tensor, Tensor], codes: Tensor,
              title: str) -> None:
    """A plane that was walked through, two panels: the item that the movers look at, and the one answered.

    attended, answered: [steps ** 2, N], as `traverse` gives them on `grid(*corners, steps)`; corners: [2] each; codes:
    [N, 2]. "none": where no item has a tenth of the attention.
    """
    steps = math.isqrt(len(attended))
    looked_at = attended.argmax(1).masked_fill(attended.amax(1) < 0.1, -1)
    for panel, owners, what in zip(axes, (looked_at, answered.argmax(1)), ("the movers look at", "the model answers")):
        draw_regions(panel, owners.view(steps, steps), *corners, codes, "dimension 0", "dimension 1",
                     f"Item that {what}, {title}")
