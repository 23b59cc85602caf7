# %% [markdown]
# # Assignment 2. A head's circuits
#
# Fill in the functions, and hand this in as `submission.py` or `submission.ipynb`; README.md, beside it, is the
# handout. Run cell by cell, in Jupyter, Colab, or an editor that knows `# %%` cells (VS Code, Spyder), `check("2.1")`
# grades exercise 2.1 at once; elsewhere it does nothing.
#
# Use torch only: the grader runs the functions with no tinyheads to import. Row vectors, `x @ W`. Axes: T position, H
# head, D d_model, K d_head; all counted from 0. Do not change the tensors that you are handed.

# %%
import torch
from torch import Tensor

try:
    from tinyheads.course import check                         # in a notebook check("2.1") grades exercise 2.1
except ImportError:                                            # where the grader runs this file: nothing to do
    def check(exercise):
        pass

# %% [markdown]
# ## Worked example: nothing to do

# %%
def split_bias(bias: Tensor, n_head: int) -> tuple[Tensor, Tensor, Tensor]:
    """A worked example. c_attn's bias [3D] by head: b_Q, b_K, b_V, each [H, K].

    All queries' biases come first, then all keys', then all values'; among each, head 0's K come first.
    """
    b_QKV = bias.view(3, n_head, -1)                      # [3, H, K]: slowest first, as they lie in memory
    b_Q, b_K, b_V = b_QKV                                 # each [H, K]
    return b_Q, b_K, b_V

# %% [markdown]
# ## 2.1 Split the heads

# %%
def split_heads(c_attn: Tensor, c_proj: Tensor, n_head: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """2.1 (part 1). A layer's attention matrices by head.

    c_attn: [D, 3D]; c_proj: [D, D]; n_head: H. Returns W_Q, W_K, W_V, each [H, D, K], and W_O [H, K, D].
    """
    raise NotImplementedError

# %%
check("2.1")

# %% [markdown]
# ## 2.2 Fold LayerNorm into what is read

# %%
def fold_reading(W: Tensor, b: Tensor, gain: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """2.2 (part 2). LayerNorm's gain and bias moved into what the heads of a layer read, and the mean over D taken out.

    W: [H, D, K] and b: [H, K], W_Q and b_Q, or those of K or V; gain, bias: [D]. Returns W' [H, D, K] and b' [H, K],
    such that bare(x) @ W'[h] + b'[h] is LayerNorm(x) @ W[h] + b[h], and every column of every W'[h] has mean 0 over D.
    """
    raise NotImplementedError

# %%
check("2.2")

# %% [markdown]
# ## 2.3 Take the mean out of what is written

# %%
def fold_writing(W_O: Tensor, b_O: Tensor) -> tuple[Tensor, Tensor]:
    """2.3 (part 3). The mean over D taken out of what the heads of a layer write.

    W_O: [H, K, D]; b_O: [D]. Returns the same shapes.
    """
    raise NotImplementedError

# %%
check("2.3")

# %% [markdown]
# ## 2.4 A pattern from folded weights

# %%
def attention_pattern(x: Tensor, W_Q: Tensor, W_K: Tensor, b_Q: Tensor, b_K: Tensor) -> Tensor:
    """2.4 (parts 1 and 4). One head's pattern, from folded weights.

    x: [T, D], the stream before the layer, *before* any LayerNorm; W_Q, W_K: [D, K] and b_Q, b_K: [K], folded.
    Returns [T, T], query by key: each row sums to 1, and is 0 where the key comes after the query.
    """
    raise NotImplementedError

# %%
check("2.4")

# %% [markdown]
# ## 2.5 The SVD of a thin product

# %%
def thin_svd(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """2.5 (part 5). The components of A @ B.T, without making that matrix.

    A, B: [D, K], with D at least K. Returns read [K, D], scale [K] descending, write [K, D]: unit rows, with
    A @ B.T = sum over i of scale[i] * outer(read[i], write[i]).
    """
    raise NotImplementedError

# %%
check("2.5")

# %% [markdown]
# ## 2.6 The norm of a circuit

# %%
def circuit_norm(A: Tensor, B: Tensor) -> Tensor:
    """2.6 (part 6). The Frobenius norm of A @ B.T, without making that matrix. A, B: [D, K]. Returns a 0-d tensor."""
    raise NotImplementedError

# %%
check("2.6")

# %% [markdown]
# ## 2.7 One component of a write

# %%
def split_write(x: Tensor, read: Tensor, scale: Tensor, write: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """2.7 (part 7). A head's write, as what one component adds, and the rest.

    x: [T, D], what the head picks up; read [K, D], scale [K], write [K, D]: all of its OV's components, as thin_svd
    gives them; index: which one, from 0. Returns (part, rest), both [T, D]: their sum is x @ OV.
    """
    raise NotImplementedError

# %%
check("2.7")

# %% [markdown]
# ## 2.8 How many components?

# %%
def effective_components(gram_A: Tensor, gram_B: Tensor) -> Tensor:
    """2.8 ("How many components?"). How many components A @ B.T has, effectively: a 0-d tensor from 1 to K.

    gram_A = A.T @ A and gram_B = B.T @ B, both [K, K]: A and B themselves are not handed in.
    """
    raise NotImplementedError

# %%
check("2.8")

# %% [markdown]
# ## 2.9 Open: a narrower head

# %%
def narrow_head(x: Tensor, W_V: Tensor, W_O: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """2.9 (open). A head of m dimensions that writes nearly what a head of K dimensions writes.

    x: [n, D], what the head picked up in n places; W_V: [D, K]; W_O: [K, D]; m: less than K. Returns the narrow head's
    W_V [D, m] and W_O [m, D].
    """
    raise NotImplementedError

# %%
check("2.9")

# %% [markdown]
# ## Figures with your functions, for the reading questions
#
# Nothing to do below. The last cell draws them; as a file, `python submission.py` does.

# %%
def circuits_of_model(model) -> list[dict]:
    """The folded weights of each layer of a tinyheads model, by your functions: [H, D, K] and so on."""
    layers = []
    for block in model.h:
        attn, norm = block.attn, block.ln_1
        *reading, W_O = split_heads(attn.c_attn.weight, attn.c_proj.weight, model.config.n_head)
        biases = split_bias(attn.c_attn.bias, model.config.n_head)
        layer = {"raw": dict(zip("QKV", zip(reading, biases)))}
        for mode, (W, b) in layer["raw"].items():
            layer["W_" + mode], layer["b_" + mode] = fold_reading(W, b, norm.weight, norm.bias)
        layer["W_O"], layer["b_O"] = fold_writing(W_O, attn.c_proj.bias)
        layers.append(layer)
    return layers


def draw_spectra(layers: list[dict], plots, folder: str) -> tuple[int, int]:
    """The narrowest and the widest OV, one between them, and a random one's; returns the place of the one between."""
    H, D, K = layers[0]["W_V"].shape
    share = {}
    for number, layer in enumerate(layers):
        for head in range(H):
            scale = thin_svd(layer["W_V"][head], layer["W_O"][head].T)[1]                       # [K]
            share[number, head] = scale**2 / (scale**2).sum()
    order = sorted(share, key=lambda place: float((share[place]**2).sum()))                     # flat ones first
    generator = torch.Generator().manual_seed(0)
    scale = thin_svd(*torch.randn(2, D, K, generator=generator))[1]
    middle = order[len(order) // 2]
    lines = {f"{which}: L{place[0]}.H{place[1]}": share[place] for which, place in
             [("narrowest", order[-1]), ("between", middle), ("widest", order[0])]}
    lines["random"] = scale**2 / (scale**2).sum()
    figure, axes = plots.new_figure(7, 4.2)
    plots.draw_lines(axes[0, 0], {label: line.cumsum(0) for label, line in lines.items()},
                     "components, strongest first",
                     "share of the squared strength, summed up", "Spectra of OV", start=1)
    plots.save_figure(figure, f"{folder}/spectra.png")
    return middle


def draw_patterns(x: Tensor, own: Tensor, layer: dict, head: int, title: str, plots, folder: str) -> None:
    """The model's own pattern [T, T], yours from folded weights, and what unfolded ones give."""
    raw = [layer["raw"][mode][i][head] for i in (0, 1) for mode in "QK"]                       # W_Q, W_K, b_Q, b_K
    folded = [layer[name][head] for name in ("W_Q", "W_K", "b_Q", "b_K")]
    maps = {"the model's own": own, "folded": attention_pattern(x, *folded), "not folded": attention_pattern(x, *raw)}
    figure, axes = plots.new_figure(15, 4.4, columns=3)
    for panel, (name, pattern) in zip(axes[0], maps.items()):
        plots.draw_map(panel, pattern, "key position", "query position", f"{title}: {name}", "attention", top=0.8)
        print(f"{title}, {name}: largest difference from the model's own {(pattern - own).abs().max():.6f}")
    plots.save_figure(figure, f"{folder}/patterns.png")


def draw_shares(picked_up: Tensor, layer: dict, head: int, title: str, plots, folder: str) -> None:
    """Each component's share of the squared strength, and of what was written. picked_up: [N, D]."""
    read, scale, write = thin_svd(layer["W_V"][head], layer["W_O"][head].T)
    parts = [split_write(picked_up, read, scale, write, i)[0] for i in range(len(scale))]       # K of [N, D]
    parts = torch.stack([part.square().sum() for part in parts])                                # [K]
    figure, axes = plots.new_figure(7, 4.2)
    plots.draw_lines(axes[0, 0], {"of the weights (sigma squared)": scale**2 / (scale**2).sum(),
                                  "of what was written": parts / parts.sum()}, "component", "share", title)
    plots.save_figure(figure, f"{folder}/shares.png")


def draw_times(plots, folder: str) -> None:
    """How long the thin and the full SVD take, by D."""
    from time import perf_counter
    sizes = [128, 256, 512, 1024]
    times = {"thin": [], "full": []}
    for D in sizes:
        A, B = torch.randn(2, D, 16, generator=torch.Generator().manual_seed(D))
        for name, run in [("thin", lambda: thin_svd(A, B)), ("full", lambda: torch.linalg.svd(A @ B.T))]:
            spent = []
            for _ in range(3 if name == "full" else 20):
                start = perf_counter()
                run()
                spent.append(perf_counter() - start)
            times[name].append(min(spent))
    figure, axes = plots.new_figure(6, 4.2)
    for (name, values), marker in zip(times.items(), "os"):
        axes[0, 0].loglog(sizes, values, marker=marker, label=name)
    axes[0, 0].set(xlabel="d_model", ylabel="seconds", title="The SVD of a rank-16 circuit")
    axes[0, 0].grid(which="both", alpha=0.3)
    axes[0, 0].legend()
    plots.save_figure(figure, f"{folder}/time.png")


@torch.no_grad()
def main(folder: str = "figures_2") -> None:
    import tinyheads as th
    from tinyheads import plots

    model, tokenizer = th.load("tiny"), th.load_tokenizer("tiny")
    layers = circuits_of_model(model)
    number, head = draw_spectra(layers, plots, folder)
    prompts = th.laundry_list(tokenizer, 64, n_items=5, seed=0)
    stream = th.Stream(record=True)
    model(prompts.tokens, stream)
    names = list(stream.writes)
    before = sum(stream.writes[name] for name in names[:names.index(f"L{number}.H0")])          # [B, T, D]
    title = f"L{number}.H{head}"
    own, layer = stream.patterns[f"L{number}"][:, head], layers[number]                         # [B, T, T]
    draw_patterns(before[0], own[0], layer, head, title, plots, folder)
    bare = torch.nn.functional.layer_norm(before, before.shape[-1:])
    draw_shares((own @ bare).flatten(0, 1), layer, head, title, plots, folder)
    draw_times(plots, folder)
    print(f"figures: {folder}/spectra.png, patterns.png, shares.png, time.png")

# %%
if __name__ == "__main__":
    main()
