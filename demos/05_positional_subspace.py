# %% [markdown]
# # 5. The positional subspace
#
# At END, the last token of "To wash: sock, hat, coat. Done: third, first. Still to wash: the", inhibition heads look
# at the mentions and write something; movers read it, and look at " hat" (chapter 4). What is it that they write? The
# paper's answer (Merullo et al. 2024): a place in the list, as a point in a *subspace* of about three dimensions.
# A subspace is k directions of the stream, of length 1 and at right angles; the stream's inner products with them
# are its *coordinates* there. An item's place is its *index*, from 0. The coordinates that stand for it are its *code*.

# %%
from pathlib import Path

import torch

import tinyheads as th
from common import Result, circuit_of, is_large, model_for_lists, options, report, say, table
from tinyheads import plots

arguments = options("The positional subspace.", ("--prompts", None, "how many to judge on", {"type": int}),
                    ("--by", "ordinal", "how items are crossed off", {"choices": ["ordinal", "name"]}))
out, LENGTHS, K = Path(arguments.out), (5, 8), 3                             # lengths of lists, dimensions
name, model, tokenizer, by = model_for_lists(arguments.model, LENGTHS, arguments.by)
n, half, fine, coarse, n_walk = (32, 64, 13, 4, 2) if is_large(model) else (1000, 1000, 31, 9, 12)
lists = lambda count, seed: {N: th.laundry_list(tokenizer, count, N, by, seed) for N in LENGTHS}
judged, both, to_walk, few = lists(arguments.prompts or n, 32), lists(2 * half, 33), lists(n_walk, 34), lists(4, 32)
to_find, again = ({N: both[N].part(start, start + half) for N in LENGTHS} for start in (0, half))
earlier = {N: th.before_end(model, judged[N]) for N in LENGTHS}              # edits at END change nothing before it
circuit, on = circuit_of(model, tokenizer, by, 16 if is_large(model) else 400), f"n={len(judged[5].texts)}"
say(f"{name}: lists crossed off by {by}; found on {half} lists (seed 33), judged on others (seed 32, {on})")

# %% [markdown]
# ## The subspace, found in two ways
#
# *From weights*: each component of the inhibition heads is an arrow in its write direction, as long as its singular
# value times its composition score with the movers; we take the directions in which the arrows are longest. *From
# activations*: the directions in which the inhibition heads' mean writes at END, one for each index, differ most.
# Two subspaces are compared by their *principal angles*: 0 degrees for a direction that both have, 90 for one that
# the other lacks. *Random* ones are the comparison throughout.

# %%
read_most, D = th.components_read_most(model, circuit, K), model.config.n_embd
width = min(8, model.config.d_head * len(circuit.inhibition))                # the most dimensions to look at
bases, angles = {}, {}
for N in LENGTHS:                                                            # each [k, D]; its first rows: fewer dimensions
    bases[N] = {"weights": th.subspace_from_weights(model, circuit, width), "activations": th.subspace_from_activations(
        model, to_find[N], circuit, N - 1), "random": th.random_subspace(D, width, seed=1)}
    others = {"the same from other lists": th.subspace_from_activations(model, again[N], circuit, K), **bases[N],
              "what they read most": th.subspace_of_components(th.ov_svd(th.Heads.of(model)), read_most)}
    for what in others.keys() - {"activations"}:
        angles[N, what] = th.principal_angles(others[what][:K], bases[N]["activations"][:K])
say(table([[*key, *(f"{angle:.0f}" for angle in row)] for key, row in sorted(angles.items())],
          ["items", "activations' subspace and", *(f"angle {i}" for i in range(K))]))
say(f"what they read most: the span of the components that the movers read most, {', '.join(map(str, read_most))}")

# %% [markdown]
# Found again from other lists, the subspace from activations is the same. That from weights shares a direction with
# it, half of a second, and not the third: clearly more than a random one, and far from equal. The weights know what the
# movers *can* read, and not which of it is used in this task. The three components alone do worse than all of them.
#
# ## How much do k dimensions carry?
#
# What the inhibition heads write at END is made to differ between prompts only inside the subspace (*keep*), or only
# outside (*remove*); the rest is the mean over prompts. Eight means differ in seven directions at most.

# %%
carried = lambda basis, keep: th.carried(model, judged[N], circuit, basis, keep, earlier[N])    # N: the last, 8
curves = {f"{what} {kind}": torch.tensor([carried(basis[:k], keep) for k in range(1, len(basis) + 1)])  # [k, 2]
          for kind, basis in bases[N].items() for what, keep in [("keep", True), ("remove", False)]}
intact, nothing = (carried(torch.zeros(0, D), keep) for keep in (False, True))
say(table([[what, *(f"{accuracy:.2f}" for accuracy, _ in curve)] + [""] * (width - len(curve))
           for what, curve in curves.items()], [f"accuracy, {N} items", *(f"k={k}" for k in range(1, width + 1))]))
figure, axes = plots.new_figure(11, 4.4, columns=2)
for i, what in enumerate(["accuracy", "movers' preference for the answer"]):
    plots.draw_lines(axes[0, i], {label: curve[:, i] for label, curve in curves.items()}, "dimensions k", what,
                     f"{N} items ({name}, {on})", start=1, levels={"as it is": intact[i], "all at the mean": nothing[i]})
plots.join_legends(figure)
dimensions = plots.save_figure(figure, out / "05_dimensions.png")

# %% [markdown]
# On the bundled model three dimensions from activations carry nearly all: accuracy is 0.87 with them alone (0.94 as it
# is), and 0.10 without them, as low as with all writes at their mean. From weights it takes five. Random ones carry
# nothing. So the code is in few dimensions. But is it a code of *places*?
#
# ## What does it look like?
#
# First, END's coordinates in the three dimensions from activations, from two sides. Then END is moved: its coordinates
# are set to each point of a plane (the third is the codes' mean). Above: the item that the movers look at most ("none":
# no item has a tenth of their attention). Below: the model's answer. Dots: the mean coordinates of each index.

# %%
clouds, cloud_axes = plots.new_figure(10, 9, columns=2, rows=2, subplot_kw={"projection": "3d"})
regions, region_axes = plots.new_figure(11, 9.4, columns=2, rows=2)
shares = {}
for N, row, column in zip(LENGTHS, cloud_axes, region_axes.T):
    basis = bases[N]["activations"][:K]
    points = th.coordinates(th.stream_at_end(model, judged[N], circuit.where), basis)[:500]
    for panel, azimuth in zip(row, (-60, 30)):
        plots.draw_clouds(panel, points, judged[N].index[:500], f"{N} items, n={len(points)} ({name})", (20, azimuth))
    codes = th.mean_codes(model, to_find[N], circuit, basis)                            # [N, 3]
    middle, reach = (codes.amax(0) + codes.amin(0)) / 2, 1.35 * (codes.amax(0) - codes.amin(0)) / 2
    low, high = middle - reach, middle + reach                                          # [3] each
    plane = th.grid(low[:2], high[:2], fine)                                            # [fine ** 2, 2]
    plane = torch.cat([plane, codes.mean(0)[2].expand(len(plane), 1)], dim=1)           # [fine ** 2, 3]
    looked_at, answered = th.traverse(model, few[N], circuit, basis, plane)             # [fine ** 2, N] each
    owners = looked_at.argmax(1).masked_fill(looked_at.amax(1) < 0.1, -1), answered.argmax(1)
    for panel, owner, what in zip(column, owners, ("the movers look at", "the model answers")):
        plots.draw_regions(panel, owner.view(fine, fine), low[:2], high[:2], codes[:, :2], "dimension 0", "dimension 1",
                           f"Item that {what}, {N} items ({name})")
    _, answered = th.traverse(model, few[N], circuit, basis, th.grid(low, high, coarse))
    shares[N] = " ".join(f"{share:.2f}" for share in th.shares(answered.argmax(1), N))
    say(f"{N} items: share of the space in which each index is the answer ({coarse}^3 points): {shares[N]}")
clouds = plots.save_figure(clouds, out / "05_coordinates.png")
regions = plots.save_figure(regions, out / "05_regions.png")

# %% [markdown]
# Each index has a cloud of its own, and a region of the plane around or near its dot. What the movers look at is
# what the model answers. At 8 items the clouds touch, and indices 4 and 7 own 0.04 and 0.03 of the space: chapter 6.
#
# ## The test: a random index
#
# If the subspace is positional, END with the code of *any* index makes the model answer with the item there, whatever
# was crossed off. The index is drawn at random. Codes are *mean* coordinates, or *traversed*: on a few other lists END
# is set to the points of a grid; an index's code is the point at which its item is answered most surely.

# %%
rates = {}
for N in LENGTHS:
    rate = lambda basis, codes: th.steering_rate(model, judged[N], circuit, basis, codes, earlier=earlier[N])
    for kind, basis in bases[N].items():
        codes = th.mean_codes(model, to_find[N], circuit, basis)                        # [N, k]
        walked = th.traversed_codes(model, to_walk[N], circuit, basis[:K], codes[:, :K], coarse)    # [N, 3]
        by_width = [rate(basis[:k], codes[:, :k]) for k in range(1, min(6, len(basis)) + 1)]
        rates[N, kind] = [*by_width, *[torch.nan] * (6 - len(by_width)), rate(basis[:K], walked)]
say(table([[*key, *(f"{rate:.3f}" for rate in row)] for key, row in rates.items()],
          ["items", "subspace", *(f"k={k}" for k in range(1, 7)), f"traversed, k={K}"]))
figure, axes = plots.new_figure(11, 4.4, columns=2, sharey=True)
for panel, N in zip(axes[0], LENGTHS):
    plots.draw_lines(panel, {kind: rates[N, kind][:6] for kind in bases[N]}, "dimensions k", "answers with that item",
                     f"A random index's mean code, {N} items ({name}, {on})", start=1, levels={"chance": 1 / N})
steering = plots.save_figure(figure, out / "05_random_index.png")
results = [
    Result("5 random index", f"END set to an index's code in {K} dimensions, by mean and by traversed codes: that item is "
           "the answer in " + "; ".join(f"{row[K - 1]:.2f} and {row[-1]:.2f} ({N} items, {kind})"
                                        for (N, kind), row in rates.items()), name, on, str(steering)),
    Result("5 two ways", "principal angles of the subspaces from activations and from weights: " + "; ".join(
           f"{' '.join(f'{a:.0f}' for a in angles[N, 'weights'])} degrees at {N} items" for N in LENGTHS), name, on, str(clouds)),
    Result("5 dimensions", f"accuracy, {K} dimensions: " + ", ".join(
           f"{curve[K - 1, 0]:.2f} {what}" for what, curve in curves.items()), name, on, str(dimensions)),
    Result("5 traversal", "share of the space of each index: " + "; ".join(shares.values()), name, on, str(regions))]
report(out, results)

# %% [markdown]
# TEXT
