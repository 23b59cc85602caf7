"""Draws the figures that a right submission draws: target.png in an assignment's folder, for its handout to show.

    python demos/assignments/targets.py [NUMBER ...]

The functions are the worked solution's (tests/assignments/), the rest is the starter's own `main`. Assignment 1 has
none; its figure is that of reading question 2. Assignment 6 draws nothing.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Callable

import torch

from grader.checkout import ASSIGNMENTS, REPOSITORY, load_module

import tinyheads as th
from tinyheads import plots, plots_of_space

FIGURES = {2: ("spectra", "shares"), 3: ("random", "components"), 4: ("inhibition",), 5: ("regions",)}  # of `main`'s


def answered(number: int):
    """An assignment's starter with the worked solution's functions, as a module."""
    starter = load_module(f"starter_{number}", next(ASSIGNMENTS.glob(f"{number}_*")) / "starter.py")
    solution = load_module(f"reference_{number}", REPOSITORY / "tests" / "assignments" / f"reference_{number}.py")
    for name, each in vars(solution).items():
        if callable(each) and hasattr(starter, name):
            setattr(starter, name, each)
    if number == 5:
        starter.draw_regions = readable(starter.draw_regions)
    return starter


def readable(draw_regions: Callable) -> Callable:
    """5.7's own answer, drawn as the library draws regions: it can be read in grey."""
    def drawn(model, found_on, shown_on, basis, circuit, steps, path):
        codes, points, owners, picture = draw_regions(model, found_on, shown_on, basis, circuit, steps, path)
        figure, axes = plots.new_figure(6, 4.6)
        plots_of_space.draw_regions(axes[0, 0], owners.view(steps, steps), points[0, :2], points[-1, :2], codes[:, :2],
                                    "coordinate 0", "coordinate 1", f"Item that {circuit.movers[0]} looks at most from "
                                    "END; dots: the codes")
        plots.save_figure(figure, path, dpi=90)
        return codes, points, owners, picture
    return drawn


def drawn_by_main(number: int, target: Path) -> None:
    """Some of what the starter's `main` draws, on one sheet."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            answered(number).main()
        finally:
            os.chdir(here)
        found = [next(Path(folder).rglob(f"{name}.png")) for name in FIGURES[number]]
        if len(found) == 1:
            target.write_bytes(found[0].read_bytes())
        else:
            plots.save_figure(plots.contact_sheet(found, columns=len(found)), target, dpi=80)


@torch.no_grad()
def lengths(target: Path) -> None:
    """Reading question 2 of assignment 1: the length of the stream and of each layer's writes, at the last position."""
    model, tokenizer = th.load("tiny"), th.load_tokenizer("tiny")
    prompts = th.laundry_list(tokenizer, n=100, n_items=5, seed=0)
    stream = th.Stream(record=True)
    model(prompts.tokens, stream)
    here = {name: write[:, prompts.end] for name, write in stream.writes.items()}   # each [B, D]
    length = lambda x: x.norm(dim=-1).mean()
    L, H = model.config.n_layer, model.config.n_head
    attention = [sum(here[f"L{layer}.H{head}"] for head in range(H)) + here[f"L{layer}.attn.bias"]
                 for layer in range(L)]
    mlp, x, before = [here[f"L{layer}.mlp"] for layer in range(L)], here["embed"], []
    for layer in range(L):
        before.append(length(x))
        x = x + attention[layer] + mlp[layer]
    figure, axes = plots.new_figure(6, 4)
    plots.draw_lines(axes[0, 0], {"stream before the layer": torch.stack([*before, length(x)]),
                                  "attention's write": torch.stack([length(each) for each in attention]),
                                  "MLP's write": torch.stack([length(each) for each in mlp])},
                     f"layer (at {L}: before the last LayerNorm)", "length (L2), mean of 100 lists of 5",
                     "At END, in the bundled model tiny")
    plots.save_figure(figure, target, dpi=90)


if __name__ == "__main__":
    for number in [int(each) for each in sys.argv[1:]] or [1, *FIGURES]:
        path = next(ASSIGNMENTS.glob(f"{number}_*")) / "target.png"
        lengths(path) if number == 1 else drawn_by_main(number, path)
        print(path, f"{path.stat().st_size / 1000:.0f} kB")
