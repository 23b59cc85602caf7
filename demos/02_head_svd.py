# %% [markdown]
# # 2. A head's components
#
# A head moves information with OV = W_V W_O and decides where to look with QK = W_Q W_K^T. Both are large matrices, [D,
# D], of small rank, K. The singular value decomposition splits them into *components*:
#
#     OV = s_0 u_0 v_0^T + s_1 u_1 v_1^T + ...          with s_0 >= s_1 >= ... >= 0
#
# Component i reads along one direction of the residual stream, u_i, and writes along another, v_i, s_i times as
# strongly. A head does K things at once, of which a few may be all that matters. No model is run here:
#
# 1. how a head's strength is spread over its components, and which cannot be told apart;
# 2. what QK makes of positions alone: how far back each head looks, found from weights;
# 3. what a component reads and writes, in words (where the token embedding is at hand).

# %%
import torch
import torch.nn.functional as F

import tinyheads as th
from common import Result, options, report, say, table
from materials import heads_to_read, weights_file
from tinyheads import plots

arguments = options("SVD of every head.", ("--component", None, "component to look at, in words (default: L8.H10.C1)"))
name, heads = heads_to_read(arguments.model)
out = arguments.out
ov = th.ov_svd(heads)                                               # read, write: [L, H, K, D]; scale: [L, H, K]
L, H, K, D = ov.read.shape
ticks = dict(xticks=[str(head) for head in range(H)], yticks=[str(layer) for layer in range(L)])
say(f"{name}: {L} layers of {H} heads, {K} components each; OV of {L * H} heads in rank-1 parts: {L * H * K}")

# %% [markdown]
# ## How many components does a head use?
#
# On the left the share of a head's squared strength, component by component. A head of K equal components has 1/K in
# each. On the right the *effective rank*, (sum s^2)^2 / sum s^4: how many equal ones would spread alike.

# %%
share = ov.scale**2 / (ov.scale**2).sum(-1, keepdim=True)          # [L, H, K]
rank = (ov.scale**2).sum(-1) ** 2 / (ov.scale**4).sum(-1)          # [L, H]
narrow, wide = (th.Head.at(int(place), H) for place in (rank.argmin(), rank.argmax()))
lines = {f"{head} (effective rank {rank[head.layer, head.head]:.0f})": share[head.layer, head.head]
         for head in (narrow, wide)}
lines["median of all heads"] = share.flatten(0, 1).median(0).values
figure, axes = plots.new_figure(12, 4.2, columns=2)
plots.draw_lines(axes[0, 0], lines, "component", "share of the head's squared strength", f"OV spectra ({name})")
axes[0, 0].set_yscale("log")
plots.draw_map(axes[0, 1], rank, "head", "layer", "Effective rank of OV", "components", **ticks)
spectra = plots.save_figure(figure, out / "02_spectra.png")
blocks = th.degenerate_blocks(ov)                                   # [L, H, K], a number for each block
alike = blocks[..., :, None] == blocks[..., None, :]                # [L, H, K, K]
in_block = (alike.sum(-1) > 1).float()                              # [L, H, K]: 1 where it shares a block
middle = slice(K // 2 - 2, K // 2 + 3)
say(f"components whose singular value is within 1% of a neighbour's: {in_block.mean():.0%} of all; of each head's "
    f"first five {in_block[..., :5].mean():.0%}, middle five {in_block[..., middle].mean():.0%}, last five "
    f"{in_block[..., -5:].mean():.0%}")

# %% [markdown]
# A head whose line falls steeply says a few things only: GPT-2's L11.H8 puts nearly all of its strength into one
# direction. One with a flat line moves a whole space, and none of its components stands out. Such a head can hand on
# whatever it finds at a token; a narrow one only asks whether one thing is there.
#
# Are the components of a flat line well defined at all? The shares printed last are for this. Singular vectors are
# unique only where singular values differ: of two that are equal, any rotation would do as well. Components within 1%
# of a neighbour form a *block*, of which only the space that it spans means something. Where a share is high, do not
# read those components one by one, and do not give them names.
#
# In GPT-2 124M the shares are high in the middle of the spectrum: of all heads' components C27 to C42 about 80 % are in
# a block, of C0 2 % and of C63 1 %. In the bundled models none is. To try: `th.block_of(blocks, th.Component(8, 10,
# 1))` lists those that cannot be told apart from L8.H10.C1.
#
# ## Where a head looks by position alone
#
# Hand QK nothing but the position embeddings, as if every token were the same: how far back does each head look? (In
# a Pythia positions rotate queries and keys: those of no token at all, the biases, are rotated.) Sharper heads, such as
# GPT-2's L4.H11, which looks at the token before, need not show up: they use what earlier layers made of positions.

# %%
nearest, checkpoint = [], weights_file(arguments.model)
N, rotary = min(128, heads.config.n_ctx), heads.config.n_rotary > 0
if checkpoint and ("wpe.weight" in checkpoint or rotary):
    wpe = torch.zeros(N, D) if rotary else torch.from_numpy(checkpoint["wpe.weight"][:N].copy())    # [N, D]
    bare = F.layer_norm(wpe, (D,))                                  # gain and bias are folded into the heads
    q, k = (th.rotate(bare @ W + b[:, :, None], torch.arange(N), heads.config)                # [L, H, N, K] each
            for W, b in ((heads.W_Q, heads.b_Q), (heads.W_K, heads.b_K)))
    scores = (q @ k.mT / K**0.5).masked_fill(torch.ones(N, N).triu(1).bool(), -torch.inf)      # [L, H, N, N]
    pattern = scores.softmax(-1)                                    # [L, H, N, N]
    back = torch.stack([pattern.diagonal(offset=-d, dim1=2, dim2=3)[..., N // 2 - d:].mean(-1)
                        for d in range(N // 2)], dim=-1)            # [L, H, N/2]: weight d tokens back, later queries
    steps = torch.arange(N)[:, None] - torch.arange(N)              # [N, N]: query position - key position
    distance = (pattern * steps)[:, :, N // 2:].sum(-1).mean(-1)    # [L, H]
    order = [th.Head.at(place, H) for place in distance.flatten().argsort().tolist()]
    chosen = {"nearest": order[0], "median": order[len(order) // 2], "furthest": order[-1]}
    figure, axes = plots.new_figure(12, 4.4, columns=2)
    plots.draw_map(axes[0, 0], distance, "head", "layer", f"How far back a head looks by position alone\n({name})",
                   "mean distance (tokens)", **ticks)
    lines = {f"{which}: {head}": back[head.layer, head.head, :24] for which, head in chosen.items()}
    plots.draw_lines(axes[0, 1], lines, "tokens back", "attention weight",
                     f"Attention by position alone, queries {N // 2} to {N - 1}")
    positions = plots.save_figure(figure, out / "02_position_alone.png")
    nearest = [f"{head} ({distance[head.layer, head.head]:.1f} tokens)" for head in order[:4]]
    say(f"looking nearest by position alone: {', '.join(nearest)}")

# %% [markdown]
# A head that weighs all places alike looks half of the way back on average: 48 tokens for queries 64 to 127. Heads far
# below that attend to their neighbours whatever the tokens are. On GPT-2 they are in layers 0 to 2; on the bundled
# `named` its duplicate-token heads are. To try: compare a head's line with its real pattern on a prompt,
# `stream.patterns["L2"]` of chapter 1; where they differ, the tokens decide.
#
# ## A component in words
#
# Which tokens' embeddings lie along the direction that a component reads, and which tokens does its write push up? The
# first is asked of the embedding, behind a LayerNorm as the head reads it; the second of the unembedding. This needs
# the token embedding, which a file of attention weights alone does not hold.

# %%
component = th.Component.parse(arguments.component or "L8.H10.C1")
if component.layer >= L or component.head >= H or component.index >= K:
    if arguments.component:
        raise th.HeadError(f"--component: there is no {component}; the last one is L{L - 1}.H{H - 1}.C{K - 1}")
    say(f"there is no {component} here; looking at the strongest component in its place")
    component = th.Component.of(th.Head.at(int(ov.scale[..., 0].argmax()), H), 0)
if checkpoint and "wte.weight" in checkpoint:
    tokenizer, place = th.load_tokenizer(arguments.model or name), (component.layer, component.head, component.index)
    rows_of = lambda name: torch.from_numpy(checkpoint[name][:tokenizer.n_vocab].copy())   # [V, D], without padding
    embedding, unembedding = map(rows_of, ("wte.weight", "wte.weight" if checkpoint.config.tied else "lm_head.weight"))
    read, write = F.layer_norm(embedding, (D,)) @ ov.read[place], unembedding @ ov.write[place]         # [V], [V]
    rows = [[which, "-+"[sign > 0], " ".join(map(repr, tokenizer.pieces((sign * along).topk(8).indices.tolist())))]
            for which, along in [("reads", read), ("writes", write)] for sign in (1, -1)]
    say(table(rows, [str(component), "", "tokens furthest along"]))
else:
    say(f"{component} in words: not shown, for want of a token embedding (wte)")

# %% [markdown]
# A direction has two ends, and the sign of both together is free: the component turns what lies at the + end of *reads*
# into the + end of *writes*, and - into -. Words at an end that belong together suggest what it is about; often they do
# not, for components also speak to later heads, in directions that are no words. Chapter 3 asks who reads them. To try:
# `--component`, with one from a head whose spectrum falls steeply; and one from the middle of a flat spectrum, together
# with its neighbours. (On a model with a tied embedding both rows use the same matrix.)

# %%
results = [Result("2 spectra", f"effective rank of OV from {rank.min():.0f} ({narrow}) to {rank.max():.0f} of {K}; "
                  f"{in_block[..., :5].mean():.0%} of the first five components are degenerate", name,
                  f"{L * H} heads", str(spectra))]
if nearest:
    results.append(Result("2 position alone", f"heads that look nearest: {', '.join(nearest[:2])}", name,
                          f"{L * H} heads", str(positions)))
report(out, results)
