"""What is it worth to choose a score with the labels in view? Four scores of edges, on two sets of labels.

    python demos/study/choosing_a_score.py [--weights FILE_OR_NAME] [--out FOLDER]

The page beside this script, README.md, tells what it is about and what it found. It needs the attention weights of
GPT-2 124M: --weights, else model-attention.safetensors in the folder that TINYHEADS_GPT2 names, else `124M`. The second
set of labels is not part of this project: it is read from ../peers beside that folder, where there is such a file.

A score is a table [L, H, L, H], writer by reader, for each mode ("Q", "K", "V"). Axes as everywhere: L layer, H head,
D d_model, K d_head.
"""

import csv
import os
from pathlib import Path

import torch
from torch import Tensor

import tinyheads as th
from tinyheads import plots
from tinyheads.composition import MODES, component_score, later, narrow, read_circuits, safe_divisor
from tinyheads.heads import one_thread
from tinyheads.files.command import Parser, folder_to_write, one_line_errors
from tinyheads.known_circuits import circuit_pairs, resampled_auc, wins

FOLDER = os.environ.get("TINYHEADS_GPT2")
TRACED = Path(FOLDER or ".").resolve().parent / "peers" / "traced_ioi_edges_gpt2_124M.csv"
OFTEN = 100  # an edge counts as traced if it was found this often in the 256 prompts


# ---------------------------------------------------------------- the scores


def scaled(x: Tensor) -> Tensor:
    """Each head's matrix [..., D, K] divided by its Frobenius norm."""
    return x / safe_divisor(x.norm(dim=(-2, -1), keepdim=True))


def whitening(sides: list[Tensor]) -> Tensor:
    """J = G^(-1/2) [D, D], where G is the sum of N N^T over all that is written and read, each N [L, H, D, K].

    Multiplied by J, a direction that many heads write or read counts for little.
    """
    G = sum(torch.einsum("lhdk,lhek->de", side, side) for side in sides)          # [D, D]
    values, vectors = torch.linalg.eigh(G.double())                               # [D], [D, D]
    used = values > 1e-6 * values[-1]                                             # folding took one direction out
    roots = torch.where(used, values, torch.ones_like(values)).rsqrt() * used
    return ((vectors * roots) @ vectors.T).float()


def best_component_in(J: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """Each writer's best component score, seen through J: [L, H, L, H]. write: [L, H, K, D]; read: [L, H, D, K]."""
    L, H = write.shape[:2]
    seen, read = write @ J, J @ read
    seen = seen / safe_divisor(seen.norm(dim=-1, keepdim=True))
    scores = write.new_zeros(L, H, L, H)
    for layer in range(1, L):
        for head in range(H):
            scores[:layer, :, layer, head] = component_score(seen[:layer], read[layer, head]).amax(-1)
    return scores


def strongest_channel_in(J: Tensor, written: Tensor, read: Tensor) -> Tensor:
    """The largest singular value of what meets, both sides seen through J and scaled: [L, H, L, H]."""
    L, H = written.shape[:2]
    written, read = scaled(J @ written), scaled(J @ read)                         # [L, H, D, K]
    strengths = written.new_zeros(L, H, L, H)
    with one_thread():
        for layer in range(L - 1):
            met = torch.einsum("wdk,lrdj->wlrkj", written[layer], read[layer + 1:])   # [H, later layers, H, K, K]
            largest = torch.linalg.eigvalsh(met @ met.mT)[..., -1]                # [H, later layers, H]
            strengths[layer, :, layer + 1:] = largest.clamp_min(0).sqrt()
    return strengths


def four_scores(heads: th.Heads) -> dict[str, dict[str, Tensor]]:
    """{score: {mode: [L, H, L, H]}}. The first two are plain, the last is the one that was chosen among 498."""
    write = th.ov_svd(heads).write                                                # [L, H, K, D]
    written = scaled(narrow(heads.W_O.mT, heads.W_V))                             # [L, H, D, K]
    read = {mode: scaled(narrow(*read_circuits(heads, mode))) for mode in MODES}  # each [L, H, D, K]
    J = whitening([written, *read.values()])
    strongest = {mode: strongest_channel_in(J, written, read[mode]).clamp_min(1e-12).log() for mode in MODES}
    return {"whole head": {mode: th.composition_scores(heads, mode) for mode in MODES},
            "best component": {mode: th.component_scores(heads, mode).amax(2) for mode in MODES},
            "best component, whitened": {mode: best_component_in(J, write, read[mode]) for mode in MODES},
            "chosen among 498": {mode: log - sum(strongest.values()) / len(MODES) for mode, log in strongest.items()}}


# ---------------------------------------------------------------- the labels


def traced_pairs(mode: str, L: int, H: int) -> tuple[Tensor, Tensor]:
    """Pairs traced OFTEN or more, and pairs with the same readers that were never traced: two bool [L, H, L, H]."""
    counts = torch.zeros(L, H, L, H, dtype=torch.long)
    with open(TRACED, newline="") as file:
        for row in csv.DictReader(file):
            if row["mode"] == mode:
                writer, reader = th.Head.parse(row["writer"]), th.Head.parse(row["reader"])
                counts[writer.layer, writer.head, reader.layer, reader.head] = int(row["count"])
    known = counts >= OFTEN
    return known, (counts == 0) & known.any(0).any(0) & later(L)


def interval(values: Tensor) -> list[float]:
    """Between which two numbers the middle 95 % of `values` lie."""
    return values.quantile(torch.tensor([0.025, 0.975]).double()).tolist()


# ---------------------------------------------------------------- the comparison


def main() -> None:
    """Print the areas and draw them."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", default=Path(FOLDER) / "model-attention.safetensors" if FOLDER else "124M")
    parser.add_argument("--out", type=folder_to_write, default="out", help="folder of the figure (default: out)")
    arguments = parser.parse_args()
    heads = th.load_heads(arguments.weights)
    L, H = heads.W_Q.shape[:2]
    labels = {f"IOI circuit, {mode}": (mode, *circuit_pairs(L, H, mode)) for mode in MODES}
    if TRACED.exists():
        labels |= {f"traced, {mode}": (mode, *traced_pairs(mode, L, H)) for mode in "QK"}
    else:
        print(f"the traced edges are not here (looked for {TRACED}): only the circuit's labels are compared")
    scores = four_scores(heads)
    figure, axes = plots.new_figure(9, 4.2)
    for place, (label, (mode, known, others)) in enumerate(labels.items()):
        readers = int(known.any(0).any(0).sum())
        print(f"\n{label}: {int(known.sum())} known edges, {int(others.sum())} other pairs, {readers} readers")
        plain = resampled_auc(scores["whole head"][mode], known, others)
        for number, (name, tables) in enumerate(scores.items()):
            area = wins(tables[mode][known], tables[mode][others]).mean()
            drawn = resampled_auc(tables[mode], known, others)
            (low, high), (below, above) = interval(drawn), interval(drawn - plain)
            print(f"  {name:26}{area:.3f}   95 % {low:.2f} to {high:.2f}   minus whole {below:+.2f} to {above:+.2f}")
            x, colour = place + 0.15 * (number - 1.5), plots.COLOURS[number]
            axes[0, 0].plot([x, x], [low, high], color=colour, alpha=0.6)
            axes[0, 0].plot([x], [area], plots.MARKERS[number], color=colour, label=name if place == 0 else None)
    axes[0, 0].axhline(0.5, color="#888888", linewidth=0.8)
    axes[0, 0].set_xticks(range(len(labels)), list(labels))
    axes[0, 0].set(ylabel="area under the ROC curve", ylim=(0.3, 1.02),
                   title="Four scores of edges on two sets of labels, 95 % intervals (GPT-2 124M)")
    axes[0, 0].legend(frameon=False, loc="lower center", ncols=4)
    print(f"\nfigure: {plots.save_figure(figure, arguments.out / 'choosing_a_score.png')}")


if __name__ == "__main__":
    with one_line_errors(Path(__file__).name):
        main()
