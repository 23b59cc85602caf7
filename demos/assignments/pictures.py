"""Draws the picture that each handout begins with: picture.png in the assignment's folder.

    python demos/assignments/pictures.py

Drawings of an idea, or of models whose truth is known: none shows what a student is to find out.
"""

from pathlib import Path

import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import tinyheads as th
from tinyheads import plots, plots_of_space
from tinyheads.planted import laundry_prompts, planted

HERE = Path(__file__).resolve().parent
DARK, GREY, PALE = "#222222", "#d9d9d9", "#f4f4f4"


def canvas(width: float, height: float, title: str):
    """An empty panel, ten units to the inch, with a title: (figure, panel)."""
    figure, axes = plots.new_figure(width, height)
    panel = axes[0, 0]
    panel.set(xlim=(0, 10 * width), ylim=(0, 10 * height))
    panel.axis("off")
    panel.text(5 * width, 10 * height - 2, title, ha="center", va="top", fontsize=11, weight="bold")
    return figure, panel


def box(panel, x, y, width, height, text, colour="white", size=9):
    """A rounded box, its lower left corner at (x, y), with a text in it."""
    panel.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.3", facecolor=colour, edgecolor=DARK))
    panel.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)


def arrow(panel, start, end, text="", at=(0.8, 0), width=1.3, bend=0.0):
    """An arrow with a note beside its middle."""
    panel.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=DARK, linewidth=width,
                                    connectionstyle=f"arc3,rad={bend}"))
    panel.text((start[0] + end[0]) / 2 + at[0], (start[1] + end[1]) / 2 + at[1], text, fontsize=8, va="center")


def residual_stream(file: Path) -> None:
    """1: what reads and what writes, in order, by the names of exercise 1.6; equations in brackets."""
    figure, panel = canvas(9, 3.6, "One position's stream: every write is added to it, and nothing is ever taken out")
    panel.add_patch(FancyBboxPatch((10, 7), 64, 4, boxstyle="square,pad=0", facecolor=GREY, edgecolor="none"))
    panel.text(1, 9, "embed", fontsize=9, va="center")
    arrow(panel, (7, 9), (10, 9), width=2)
    panel.text(42, 9, "residual stream, D numbers", fontsize=9, ha="center", va="center")
    arrow(panel, (74, 9), (78, 9), width=2)
    panel.text(78.4, 9, "$LN_f$, (6),\nunembed: logits", fontsize=9, va="center")
    for layer, x in enumerate((12, 44)):
        for head in range(2):
            box(panel, x + 5 * head, 21, 4, 4, f"L{layer}.\nH{head}", size=8)
        box(panel, x + 10, 21, 5, 4, f"L{layer}.\nattn.bias", PALE, 7)
        box(panel, x + 21, 21, 6, 4, f"L{layer}.mlp", size=8)
        arrow(panel, (x + 1, 11.2), (x + 2.5, 20.3), "LN (1)", at=(-5.6, 0))
        arrow(panel, (x + 1.2, 11.2), (x + 7, 20.3))
        for from_x, to_x in ((3, 7.5), (8, 8.5), (12.5, 9.5)):
            arrow(panel, (x + from_x, 20.5), (x + to_x, 11.3), width=1)
        arrow(panel, (x + 18.5, 11.2), (x + 22.5, 20.3), "LN", at=(-4, 1))
        arrow(panel, (x + 25.5, 20.5), (x + 27, 11.3), width=1)
        panel.text(x + 7, 27.8, "attention (3) to (5)", fontsize=8, ha="center")
        panel.text(x + 24, 27.8, "(2)", fontsize=8, ha="center")
    panel.text(42, 3, "layer 0 writes before layer 1 reads; in a layer, attention writes before the MLP reads",
               fontsize=8.5, ha="center")
    plots.save_figure(figure, file, dpi=90)


def head_circuits(file: Path) -> None:
    """2: a head's OV as a thin product, and as a sum of components."""
    heads = th.load_heads("tiny")
    ov = th.ov_svd(heads)
    W_V, W_O = heads.W_V[0, 0], heads.W_O[0, 0]                                     # [D, K], [K, D]
    read, scale, write = ov.read[0, 0], ov.scale[0, 0], ov.write[0, 0]              # [K, D], [K], [K, D]
    parts = [scale[i] * torch.outer(read[i], write[i]) for i in range(3)]           # each [D, D]
    whole = W_V @ W_O                                                               # [D, D]
    D, K = W_V.shape
    panels = [(W_V, "$W_V$\n[D, K]"), (W_O, "$W_O$\n[K, D]"), (whole, "OV\n[D, D]"),
              *((part, f"component {i}\nrank 1") for i, part in enumerate(parts))]
    figure, axes = plots.new_figure(11, 2.6, columns=6, gridspec_kw={"width_ratios": [K, D, D, D, D, D]})
    for k, (panel, (matrix, name)) in enumerate(zip(axes[0], panels)):
        panel.imshow(matrix.abs().numpy(), cmap="Greys", vmin=0, vmax=0.7 * float(matrix.abs().max()))
        panel.set(xticks=[], yticks=[])
        panel.set_xlabel(name, fontsize=9)
        sign = {1: "×", 2: "=", 3: "=", 4: "+", 5: "+"}.get(k)
        if sign:
            panel.text(-0.13, 0.5, sign, transform=panel.transAxes, fontsize=16, ha="center", va="center")
    axes[0, 5].text(1.04, 0.5, "+ ...", transform=axes[0, 5].transAxes, fontsize=12, va="center")
    figure.suptitle(f"A head's OV circuit is a thin product, and a sum of components (D = {D}, K = {K}; dark entries "
                    "are large)", fontsize=10)
    plots.save_figure(figure, file, dpi=90)


def composition(file: Path) -> None:
    """3: the three places where a later head reads what an earlier one wrote."""
    figure, panel = canvas(9, 3.5, "Three ways in: where a later head can read what an earlier one wrote")
    for y, label in ((25, "stream where\nr looks from"), (7, "stream where\nr looks to")):
        panel.add_patch(FancyBboxPatch((15, y), 68, 4, boxstyle="square,pad=0", facecolor=GREY, edgecolor="none"))
        panel.text(14, y + 2, label, fontsize=8.5, ha="right", va="center")
    box(panel, 22, 16, 11, 4, "writer w: $OV_w$", size=8.5)
    arrow(panel, (25, 20.6), (25, 24.8), "writes", at=(-5.5, 0))
    arrow(panel, (29, 15.4), (29, 11.2), "or here", at=(-5.8, 0))
    box(panel, 50, 16, 24, 4, "reader r, in a later layer", size=8.5)
    arrow(panel, (53, 24.8), (53, 20.6), "query: Q\n$M_r = W_Q W_K^T$", at=(1, 0))
    arrow(panel, (53, 11.2), (53, 15.4), "key: K\n$W_K W_Q^T$", at=(1, 0))
    arrow(panel, (66, 11.2), (66, 15.4), "value: V\n$W_V W_O$", at=(1, 0))
    arrow(panel, (71, 20.6), (71, 24.8), "adds what it moved", at=(1, 0))
    panel.text(45, 2.5, "score(w, r): how large the product $OV_w M_r$ is, relative to the two", fontsize=8.5,
               ha="center")
    plots.save_figure(figure, file, dpi=90)


def inhibition(file: Path) -> None:
    """4: where two heads look from END, in the planted model."""
    built, prompts = planted(), laundry_prompts(200, 0)
    stream = th.Stream(record=True)
    built.model(prompts.tokens, stream)
    here = int(((prompts.index == 2).nonzero())[0])                                 # a prompt whose answer is item 2
    done = [int(token) - 12 for token in prompts.tokens[here, 6:11]]
    names = [f"item {i}" for i in range(6)] + [f"not {i}" for i in done] + ["END"]
    figure, axes = plots.new_figure(9, 3.5, columns=2)
    for panel, head, what in zip(axes[0], (built.inhibition, built.mover), ("An inhibition head", "The mover head")):
        row = stream.patterns[f"L{head.layer}"][here, head.head, prompts.end]       # [T]
        panel.bar(range(len(row)), row.numpy(), color="#555555", edgecolor="black", width=0.75)
        panel.set_xticks(range(len(row)), names, rotation=60, ha="right", fontsize=8)
        panel.set(ylabel="attention from END", ylim=(0, 1), title=f"{what} ({head})")
        panel.grid(axis="y", alpha=0.3)
    figure.suptitle("The planted model: one head looks at what is crossed off, a later one at what is left",
                    fontsize=10)
    plots.save_figure(figure, file, dpi=90)


def subspace(file: Path) -> None:
    """5: the regions of the planted model, whose space and codes are known."""
    built, prompts = planted(), laundry_prompts(300, 0)
    circuit = th.Circuit([built.inhibition], [built.mover])
    along = torch.tensor([[1, -1, 0], [1, 1, -2], [1, 1, 1]]) / torch.tensor([2, 6, 3]).sqrt()[:, None]
    basis = along @ built.channel                                                   # [3, D]: seen along its diagonal
    codes = th.mean_codes(built.model, prompts, circuit, basis)                     # [N, 3]
    steps, corner = 61, 1.5 * codes[:, :2].abs().max().repeat(2)
    plane = th.steering.grid(-corner, corner, steps)                                # [G, 2]
    points = torch.cat([plane, codes[:, 2].mean().expand(len(plane), 1)], dim=1)    # [G, 3]
    attended, _ = th.traverse(built.model, laundry_prompts(12, 1), circuit, basis, points)
    figure, axes = plots.new_figure(6, 4.4)
    plots_of_space.draw_regions(axes[0, 0], attended.argmax(1).view(steps, steps), -corner, corner, codes[:, :2],
                                "coordinate 0", "coordinate 1", "The planted model: the item that the mover looks at\n"
                                "with END at each point of a plane; dots: the codes")
    plots.save_figure(figure, file, dpi=90)


def repair(file: Path) -> None:
    """6: codes written by a damaged head, and what M has to do."""
    generator = torch.Generator().manual_seed(5)
    angle = torch.tensor(1.1)
    R = torch.tensor([[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]]) @ torch.tensor([[0.9, 0.2], [0.0, 0.6]])
    ring = torch.linspace(0, 2 * torch.pi, 6)[:5]
    codes = torch.stack([ring.cos(), ring.sin()], dim=1)
    codes = codes + 0.12 * torch.randn(codes.shape, generator=generator)            # [N, 2]
    M = torch.linalg.inv(R)
    noise = 0.09 * torch.randn(40, 5, 2, generator=generator)                       # [prompts, N, 2]
    written = (codes + noise) @ R
    figure, axes = plots.new_figure(10, 4, columns=3)
    for panel, points, title in zip(axes[0], (codes + noise, written, written @ M),
                                    ("as the reader expects: c", "damaged: c R", "repaired: c R M, M near $R^{-1}$")):
        for i in range(5):
            panel.plot(*points[:, i].T, plots.MARKERS[i], color="#888888", markersize=4)
            panel.plot(*codes[i], "o", markersize=12, color="white", markeredgecolor="black")
            panel.text(*codes[i], str(i), ha="center", va="center_baseline", fontsize=8)
            middle = points[:, i].mean(0)
            if (middle - codes[i]).norm() > 0.3:
                panel.annotate("", codes[i].tolist(), middle.tolist(),
                               arrowprops={"arrowstyle": "->", "linestyle": ":"})
        panel.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", title=title, xlabel="coordinate 0")
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel("coordinate 1")
    figure.suptitle("A head's writes in the subspace, by the answer's place; circles: the codes that its reader knows",
                    fontsize=10)
    plots.save_figure(figure, file, dpi=90)


DRAWN = (residual_stream, head_circuits, composition, inhibition, subspace, repair)

if __name__ == "__main__":
    torch.set_grad_enabled(False)
    for number, draw in enumerate(DRAWN, start=1):
        path = next(HERE.glob(f"{number}_*")) / "picture.png"
        draw(path)
        print(path, f"{path.stat().st_size / 1000:.0f} kB")
