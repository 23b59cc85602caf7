# %% [markdown]
# # Assignment 3. Composition
#
# Fill in the functions, and hand this in as `submission.py` or `submission.ipynb`; README.md, beside it, is the
# handout. Run cell by cell, in Jupyter, Colab, or an editor that knows `# %%` cells (VS Code, Spyder), `check("3.1")`
# grades exercise 3.1 at once; elsewhere it does nothing.
#
# Use torch only: the grader runs the functions with no tinyheads to import. Row vectors, `x @ W`. Axes: L layer, H
# head, D d_model, K d_head; all counted from 0. Do not change the tensors that you are handed.
#
# A head is a dict {"W_Q": [D, K], "W_K": [D, K], "W_V": [D, K], "W_O": [K, D]}, with LayerNorm folded. All heads of a
# model are a dict of the same names, {"W_Q": [L, H, D, K], ..., "W_O": [L, H, K, D]}.

# %%
import torch
from torch import Tensor

try:
    from tinyheads.course import check                         # in a notebook check("3.1") grades exercise 3.1
except ImportError:                                            # where the grader runs this file: nothing to do
    def check(exercise):
        pass

# %% [markdown]
# ## Worked example: nothing to do

# %%
def one_head(heads: dict[str, Tensor], layer: int, head: int) -> dict[str, Tensor]:
    """A worked example. One head of all: {"W_Q": [D, K], "W_K": [D, K], "W_V": [D, K], "W_O": [K, D]}."""
    return {name: W[layer, head] for name, W in heads.items()}

# %% [markdown]
# ## 3.1 The score of two heads

# %%
def composition_score(writer: dict[str, Tensor], reader: dict[str, Tensor], mode: str) -> Tensor:
    """3.1 (parts 1 and 2). How strongly one head writes into what another reads, from 0 to 1: a 0-d tensor.

    writer, reader: heads as above; mode: "Q", "K" or "V". No [D, D] matrix is made.
    """
    raise NotImplementedError

# %%
check("3.1")

# %% [markdown]
# ## 3.2 All pairs

# %%
def composition_table(heads: dict[str, Tensor], mode: str) -> Tensor:
    """3.2 (part 3). The score of every head with every later one: [L, H, L, H], writer by reader.

    heads: all heads, as above. 0 where the reader is not in a later layer than the writer.
    """
    raise NotImplementedError

# %%
check("3.2")

# %% [markdown]
# ## 3.3 The score of one component

# %%
def component_scores(write: Tensor, reader: dict[str, Tensor], mode: str) -> Tensor:
    """3.3 (part 4). How strongly each component of one head writes into what another reads.

    write: [K, D], the unit vectors v_i that the writer's components write along; reader: a head as above;
    mode: "Q", "K" or "V". Returns [K], from 0 to 1. No [D, D] matrix is made.
    """
    raise NotImplementedError

# %%
check("3.3")

# %% [markdown]
# ## 3.4 The identity

# %%
def whole_from_components(scores: Tensor, scale: Tensor) -> Tensor:
    """3.4 (part 5). The scores of whole heads, from their components'.

    scores: [L, H, K, L, H], component (layer, head, index) by reader (layer, head); scale: [L, H, K], the sigma_i of
    each writer. Returns [L, H, L, H].
    """
    raise NotImplementedError

# %%
check("3.4")

# %% [markdown]
# ## 3.5 The edges that stand out

# %%
def top_edges(scores: Tensor, n: int) -> list[str]:
    """3.5 (part 6). The n edges with the highest scores, highest first, as "L0.H7.C1 -> L1.H0".

    scores: [L, H, K, L, H], component by reader. What stands where the reader is not in a later layer means nothing (it
    may be high), and is never listed. L0.H7.C1 is component 1 of layer 0's head 7.
    """
    raise NotImplementedError

# %%
check("3.5")

# %% [markdown]
# ## 3.6 The area under the ROC curve

# %%
def roc_area(scores: Tensor, writers: list[tuple[int, int]], readers: list[tuple[int, int]]) -> float:
    """3.6 (part 7). How well scores rank the known edges from some writers into some readers, from 0 to 1.

    scores: [L, H, L, H], writer by reader; writers, readers: (layer, head) of each, such as (9, 6). What stands in the
    table where the reader is not in a later layer is to play no part.
    """
    raise NotImplementedError

# %%
check("3.6")

# %% [markdown]
# ## 3.7 What is a high score?

# %%
def chance_scores(reader: dict[str, Tensor], mode: str) -> tuple[float, float]:
    """3.7 ("What is a high score?"). Mean and standard deviation of the *squared* score of a random direction.

    reader: a head as above; mode: "Q", "K" or "V". The score is that of 3.3, the direction a unit vector of D
    dimensions, all directions alike. Nothing is drawn, and no [D, D] matrix is made.
    """
    raise NotImplementedError

# %%
check("3.7")

# %% [markdown]
# ## 3.8 Open: a better ranking

# %%
def edge_scores(heads: dict[str, Tensor]) -> Tensor:
    """3.8 (open). A score by Q of every pair of heads, by which the edges that were built in rank high: [L, H, L, H].

    heads: all heads of an unknown model, as above. Where the reader is not in a later layer anything may stand.
    """
    raise NotImplementedError

# %%
check("3.8")

# %% [markdown]
# ## Figures with your functions, for the reading questions
#
# Nothing to do below. The last cell draws them; as a file, `python submission.py` does.

# %%
def as_dict(heads) -> dict[str, Tensor]:
    """tinyheads' Heads as the dict that your functions take."""
    return {name: getattr(heads, name) for name in ("W_Q", "W_K", "W_V", "W_O")}


def random_heads(heads: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Gaussian heads of the same size."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(W.shape, generator=generator) for name, W in heads.items()}


def all_components(heads: dict[str, Tensor], write: Tensor, reader: tuple[int, int], mode: str) -> Tensor:
    """Every component's score with one reader, by your component_scores: [L, H, K]; 0 where it is not later."""
    L, H, K, _ = write.shape
    scores = torch.zeros(L, H, K)
    for layer in range(reader[0]):
        for head in range(H):
            scores[layer, head] = component_scores(write[layer, head], one_head(heads, *reader), mode)
    return scores


def draw_maps(tables: dict[str, Tensor], plots, folder: str) -> None:
    """The tables of the three modes, writers by readers."""
    L, H = tables["Q"].shape[:2]
    figure, axes = plots.new_figure(15, 4.8, columns=3)
    for panel, (mode, table) in zip(axes[0], tables.items()):
        plots.draw_map(panel, table.reshape(L * H, L * H), "reader (layer)", "writer (layer)", f"{mode}-composition",
                       "score")
        for set_ticks in (panel.set_xticks, panel.set_yticks):
            set_ticks(range(0, L * H, H), [str(layer) for layer in range(L)])
    plots.save_figure(figure, f"{folder}/maps.png")


def draw_random(table: Tensor, of_random: Tensor, D: int, plots, folder: str) -> None:
    """All scores from the highest down, of the model and of random heads, and 1 / sqrt(D)."""
    figure, axes = plots.new_figure(7, 4.2)
    for (label, scores), style in zip({"the model": table, "random heads": of_random}.items(), ("-", "--")):
        ranked = scores[scores > 0].sort(descending=True).values
        axes[0, 0].plot(ranked, style, label=f"{label}, median {ranked.median():.3f}")
    axes[0, 0].axhline(D**-0.5, color="grey", linewidth=0.8, label=f"1 / sqrt(D) = {D**-0.5:.3f}")
    axes[0, 0].set(xlabel="rank among all pairs", ylabel="score by Q")
    axes[0, 0].legend()
    plots.save_figure(figure, f"{folder}/random.png")


def draw_components(scores: Tensor, reader: tuple[int, int], name: str, plots, folder: str) -> None:
    """The components that a head reads, from the highest down. scores: [L, H, K]."""
    _, H, K = scores.shape
    labels = [f"L{layer}.H{head}.C{i}" for layer in range(reader[0]) for head in range(H) for i in range(K)]
    figure, axes = plots.new_figure(7, 4.8)
    plots.draw_outliers(axes[0, 0], scores[:reader[0]].flatten(), labels, "rank", "score by Q",
                        f"Components that L{reader[0]}.H{reader[1]} reads as its query", top=10)
    plots.save_figure(figure, f"{folder}/{name}.png")


def gpt2(th, plots, path: str, folder: str) -> None:
    """Optional: the IOI circuit's edges by Q in OpenAI's GPT-2, from its attention weights."""
    loaded = th.load_heads(f"{path}/model-attention.safetensors")
    heads, write = as_dict(loaded), th.ov_svd(loaded).write                                    # [L, H, K, D]
    writers, readers = [(7, 3), (7, 9), (8, 6), (8, 10)], [(9, 9), (9, 6), (10, 0)]
    whole, best = torch.zeros(2, 12, 12, 12, 12)
    for reader in readers:
        components = all_components(heads, write, reader, "Q")                                  # [L, H, K]
        best[..., reader[0], reader[1]] = components.amax(-1)
        for layer in range(reader[0]):
            for head in range(12):
                pair = one_head(heads, layer, head), one_head(heads, *reader)
                whole[(layer, head, *reader)] = composition_score(*pair, "Q")
        if reader == (9, 9):
            draw_components(components, reader, "mover", plots, folder)
    print(f"GPT-2, the IOI circuit by Q: area of whole heads {roc_area(whole, writers, readers):.3f}, of best "
          f"components {roc_area(best, writers, readers):.3f}")


@torch.no_grad()
def main(folder: str = "figures_3") -> None:
    import os

    import tinyheads as th
    from tinyheads import plots

    loaded = th.load_heads("tiny")
    heads, ov = as_dict(loaded), th.ov_svd(loaded)
    L, H, D, K = heads["W_Q"].shape
    tables = {mode: composition_table(heads, mode) for mode in "QKV"}                           # [L, H, L, H]
    draw_maps(tables, plots, folder)
    draw_random(tables["Q"], composition_table(random_heads(heads), "Q"), D, plots, folder)
    strongest = tuple(int(i) for i in torch.unravel_index(tables["Q"].argmax(), tables["Q"].shape))
    print("strongest pair by Q: L{}.H{} -> L{}.H{};".format(*strongest),
          ", ".join(f"{mode} {table[strongest]:.3f}" for mode, table in tables.items()))
    components = torch.stack([torch.stack([all_components(heads, ov.write, (layer, head),
                                                          "Q") for head in range(H)], dim=-1)
                              for layer in range(L)], dim=-2)                                   # [L, H, K, L, H]
    difference = (whole_from_components(components, ov.scale) - tables["Q"]).abs().max()
    print(f"the identity, largest difference from your table by Q: {difference:.7f}")
    for edge in top_edges(components, 12):
        print("  ", edge)
    reader = strongest[2:]
    into = components[..., reader[0], reader[1]]                                                # [L, H, K]
    draw_components(into, reader, "components", plots, folder)
    layer, head, i = (int(i) for i in torch.unravel_index(into.argmax(), into.shape))
    share = ov.scale[layer, head, i]**2 / (ov.scale[layer, head]**2).sum()
    print(f"first into L{reader[0]}.H{reader[1]}: L{layer}.H{head}.C{i}, score {into[layer, head, i]:.3f}, sigma^2 "
          f"share {share:.3f}, its head's whole score {tables['Q'][layer, head, reader[0], reader[1]]:.3f}")
    if os.environ.get("TINYHEADS_GPT2"):
        gpt2(th, plots, os.environ["TINYHEADS_GPT2"], folder)
    print(f"figures are in {folder}")

# %%
if __name__ == "__main__":
    main()
