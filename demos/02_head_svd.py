# %% [markdown]
# # 2. A head's components
#
# A head moves information with OV = W_V W_O and decides where to look with QK = W_Q W_K^T. Both are
# large matrices of small rank, and their singular value decomposition splits a head into
# components: each reads along one direction of the residual stream and writes along another.
#
# 1. how a head's strength is spread over its components, and which cannot be told apart;
# 2. what QK makes of positions alone: how far back each head looks, found from weights;
# 3. what a component reads and writes, in words (where the token embedding is at hand).

# %%
from pathlib import Path

import torch
import torch.nn.functional as F

import tinyheads as th
from common import Result, heads_to_read, options, say, table, weights_file
from tinyheads import plots

arguments = options("SVD of every head.", ("--component", None, "component to look at, in words (default: L8.H10.C1)"))
name, heads = heads_to_read(arguments.model)
out = Path(arguments.out)
ov, qk = th.ov_svd(heads), th.qk_svd(heads)
L, H, K, D = ov.read.shape
say(f"{name}: {L} layers of {H} heads, {K} components each; OV of {L * H} heads in rank-1 parts: {L * H * K}")

# %% [markdown]
# ## How many components does a head use?
#
# The share of a head's squared strength, component by component. A head of K equal components has
# 1/K in each. The effective rank, (sum s^2)^2 / sum s^4, says how many equal ones would spread alike.

# %%
share = ov.scale**2 / (ov.scale**2).sum(-1, keepdim=True)          # [L, H, K]
rank = (ov.scale**2).sum(-1) ** 2 / (ov.scale**4).sum(-1)          # [L, H]
narrow, wide = rank.argmin().item(), rank.argmax().item()
figure, axes = plots.new_figure(12, 4.2, columns=2)
lines = {f"L{i // H}.H{i % H} (effective rank {rank.flatten()[i]:.0f})": share[i // H, i % H] for i in (narrow, wide)}
lines["median of all heads"] = share.flatten(0, 1).median(0).values
plots.draw_lines(axes[0, 0], lines, "component", "share of the head's squared strength", f"OV spectra ({name})")
axes[0, 0].set_yscale("log")
plots.draw_map(axes[0, 1], rank, "head", "layer", "Effective rank of OV", "components",
               xticks=[str(h) for h in range(H)], yticks=[str(l) for l in range(L)])
spectra = plots.save_figure(figure, out / "02_spectra.png")

# %% [markdown]
# Singular vectors are unique only where singular values differ. Components within 1% of a neighbour
# form a block, of which only the subspace means something.

# %%
blocks = th.degenerate_blocks(ov)                                   # [L, H, K]
sizes = torch.stack([(blocks == number).sum(-1) for number in range(K)], dim=-1)  # [L, H, K]: size of block `number`
in_block = sizes.gather(-1, blocks) > 1                             # [L, H, K]
say(f"{in_block.float().mean():.0%} of all components share a block with another; of the first five of each head, "
    f"{in_block[..., :5].float().mean():.0%}: the strong ones are well defined, the weak ones often are not")

# %% [markdown]
# ## Where a head looks by position alone
#
# Hand QK nothing but the position embeddings, as if every token were the same: how far back does
# each head look? Some of the early heads attend to their neighbours by position alone. (Sharper
# ones, such as L4.H11, which looks at exactly the token before, do not show up here: they use what
# earlier layers made of the positions, not the embeddings themselves.)

# %%
positions = None
checkpoint = weights_file(arguments.model)
if checkpoint and "wpe.weight" in checkpoint:
    N = min(128, checkpoint.config.n_ctx)
    wpe = torch.from_numpy(checkpoint["wpe.weight"][:N].copy())     # [N, D]
    bare = F.layer_norm(wpe, (D,))                                  # gain and bias are folded into the heads
    q = bare @ heads.W_Q + heads.b_Q[:, :, None]                    # [L, H, N, K]
    k = bare @ heads.W_K + heads.b_K[:, :, None]                    # [L, H, N, K]
    scores = q @ k.transpose(2, 3) / K**0.5                         # [L, H, N, N]
    scores = scores.masked_fill(torch.ones(N, N).triu(1).bool(), -torch.inf)
    pattern = scores.softmax(-1)                                    # [L, H, N, N]
    back = torch.stack([pattern.diagonal(offset=-d, dim1=2, dim2=3)[..., N // 2 - d:].mean(-1)
                        for d in range(N // 2)], dim=-1)            # [L, H, N/2]: weight d tokens back, later half of queries
    steps = torch.arange(N)[:, None] - torch.arange(N)              # [N, N]: query position - key position
    distance = (pattern * steps)[:, :, N // 2:].sum(-1).mean(-1)    # [L, H]
    order = distance.flatten().argsort()
    figure, axes = plots.new_figure(12, 4.4, columns=2)
    plots.draw_map(axes[0, 0], distance, "head", "layer", f"How far back a head looks by position alone\n({name})",
                   "mean distance (tokens)", xticks=[str(h) for h in range(H)], yticks=[str(l) for l in range(L)])
    chosen = {"nearest": order[0].item(), "median": order[len(order) // 2].item(), "furthest": order[-1].item()}
    plots.draw_lines(axes[0, 1], {f"{which}: L{i // H}.H{i % H}": back[i // H, i % H, :24] for which, i in chosen.items()},
                     "tokens back", "attention weight", f"Attention by position alone, queries {N // 2} to {N - 1}")
    positions = plots.save_figure(figure, out / "02_position_alone.png")
    nearest = [f"L{i // H}.H{i % H} ({distance.flatten()[i]:.1f} tokens)" for i in order[:4].tolist()]
    say(f"looking nearest by position alone: {', '.join(nearest)}")

# %% [markdown]
# ## A component in words
#
# Which tokens' embeddings lie along the direction that a component reads, and which tokens does its
# write push up? Needs the token embedding, which a file of attention weights alone does not hold.

# %%
component = th.Component.parse(arguments.component or "L8.H10.C1")
if component.layer >= L or component.head >= H or component.index >= K:
    if arguments.component:
        raise th.HeadError(f"--component: there is no {component}; the last one is L{L - 1}.H{H - 1}.C{K - 1}")
    strongest = int(ov.scale[..., 0].argmax())
    say(f"there is no {component} here; looking at the strongest component in its place")
    component = th.Component(strongest // H, strongest % H, 0)
if checkpoint and "wte.weight" in checkpoint:
    tokenizer = th.load_tokenizer(arguments.model or name)
    wte = torch.from_numpy(checkpoint["wte.weight"].copy())         # [V, D]
    read = F.layer_norm(wte, (D,)) @ ov.read[component.layer, component.head, component.index]    # [V]
    write = wte @ ov.write[component.layer, component.head, component.index]                       # [V]
    rows = [[which, sign, " ".join(repr(piece) for piece in tokenizer.pieces((sign_ * along).topk(8).indices.tolist()))]
            for which, along in [("reads", read), ("writes", write)] for sign, sign_ in [("+", 1), ("-", -1)]]
    say(table(rows, [str(component), "", "tokens furthest along"]))
else:
    say(f"{component} in words: not shown, for want of a token embedding (wte)")

# %%
results = [Result("2 spectra", f"effective rank of OV from {rank.min():.0f} (L{narrow // H}.H{narrow % H}) to {rank.max():.0f} "
                  f"of {K}; {in_block[..., :5].float().mean():.0%} of the first five components are degenerate", name,
                  f"{L * H} heads", str(spectra))]
if positions:
    results.append(Result("2 position alone", f"heads that look nearest: {', '.join(nearest[:2])}", name, f"{L * H} heads",
                          str(positions)))
say(f"figures: {', '.join(result.figure for result in results)}")
