# %% [markdown]
# # 5. The positional subspace
#
# "To wash: sock, hat, coat. Done: third, first. Still to wash: the" -> " hat". At the last token, END, the
# inhibition heads look at the mentions (what is crossed off) and write something into the stream; the mover heads
# read it in their queries, and look at the item that is left (chapter 4). What is it that is written?
#
# The paper's answer (Merullo et al. 2024): a place in the list, as a point in a *subspace* of about three
# dimensions. A subspace is given by k directions of the stream, at right angles and of length 1; the k inner
# products of the stream with them are its *coordinates* there. The place is called *index*, counted from 0, and the
# coordinates that stand for an index are its *code*. Here:
#
# 1. the subspace, found from weights and found from activations, and the angles between the two;
# 2. how much of the model's skill its first k dimensions carry;
# 3. what it looks like: where each prompt lies, and which item each point of the space stands for;
# 4. the test that decides: END gets the code of a *random* index. Does the model answer with the item there?

# %%
from pathlib import Path

import torch

import tinyheads as th
from common import Result, circuit_of, is_large, model_for_lists, options, report, say, spare_threads, table
from tinyheads import plots
from tinyheads.files.command import number

arguments = options("The positional subspace: found, drawn, walked through, tested.",
                    ("--by", "ordinal", "how items are crossed off", {"choices": ["ordinal", "name"]}),
                    ("--prompts", None, "how many to judge on (default: 1000, for a large model 32)",
                     {"type": number(int, 2, 100_000)}))
out, LENGTHS, K = Path(arguments.out), (5, 8), 3
name, model, tokenizer, by = model_for_lists(arguments.model, LENGTHS, arguments.by)
spare_threads(model)
n, half, n_random, fine, coarse, n_walked = (32, 64, 3, 13, 4, 2) if is_large(model) else (1000, 1000, 20, 31, 9, 12)
n = arguments.prompts or n
lists = lambda count, seed: {N: th.laundry_list(tokenizer, count, N, by, seed) for N in LENGTHS}
judged, both, to_walk, few = lists(n, 32), lists(2 * half, 33), lists(n_walked, 34), lists(4, 32)
to_find, again = ({N: both[N].part(start, start + half) for N in LENGTHS} for start in (0, half))
earlier = {N: th.before_end(model, judged[N]) for N in LENGTHS}             # edits at END change nothing before it
say(f"{name}: lists crossed off by {by}; found on {half} lists (seed 33), judged on {n} others (seed 32), such as\n"
    f"    {judged[5].texts[0]}")
circuit = circuit_of(model, tokenizer, by, 16 if is_large(model) else 400)

# %% [markdown]
# Whatever is found is found on some lists, and judged on others.
#
# ## The subspace, two ways
#
# *From weights*: take every component of the inhibition heads as an arrow in the direction in which it writes, as long
# as its singular value times its composition score with the movers; the subspace has the directions in which these
# arrows are longest. Nothing is run. *From activations*: take what the inhibition heads write at END, its mean over
# the prompts of each index; the subspace has the directions in which these means differ most.
#
# Two subspaces are compared by their *principal angles*: 0 degrees is a direction that both have, 90 is one
# that the other lacks altogether.

# %%
ov, selected = th.ov_svd(th.Heads.of(model)), th.components_read_most(model, circuit, K)
widest = min(8, model.config.d_head * len(circuit.inhibition))
bases = {N: {"weights": th.subspace_from_weights(model, circuit, widest),                   # each [k, D]; fewer
             "activations": th.subspace_from_activations(model, to_find[N], circuit, N - 1),  # dimensions are
             "random": th.random_subspace(model.config.n_embd, widest, seed=1)} for N in LENGTHS}  # its first rows
chosen = th.subspace_of_components(ov, selected)
say(f"components that the movers read most: {', '.join(map(str, selected))}")
rows, degrees = [], lambda angles: " ".join(f"{angle:2.0f}" for angle in angles)
for N in LENGTHS:
    found = bases[N]["activations"][:K]
    others = {"activations, other lists": th.subspace_from_activations(model, again[N], circuit, K),
              "weights": bases[N]["weights"][:K], "what those components write": chosen}
    rows += [[N, what, degrees(th.principal_angles(basis, found))] for what, basis in others.items()]
    random = [th.principal_angles(th.random_subspace(model.config.n_embd, K, seed), found) for seed in range(100, 120)]
    rows.append([N, "random (mean of 20)", degrees(torch.stack(random).mean(0))])
say(table(rows, ["items", f"angles of activations' {K} dimensions with", "degrees"]))

# %% [markdown]
# TEXT
#
# ## How much do k dimensions carry?
#
# The inhibition heads' writes at END are changed so that they differ between prompts only inside the subspace (*keep
# only*), or only outside of it (*remove*); all else is the mean over the prompts. The means of eight indices differ
# in seven directions, where the subspace from activations ends.


# %%
def restricted(N, basis, keep=True):
    """Accuracy, and the movers' preference for the answer, with the inhibition heads' writes at END restricted."""
    edits = [th.restrict(basis, str(head), 0, keep) for head in circuit.inhibition]
    logits, stream = th.run_end(model, judged[N], earlier[N], edits)
    patterns = torch.stack([stream.patterns[f"L{m.layer}"][:, m.head, 0] for m in circuit.movers])    # [movers, B, T]
    return th.correct(logits, judged[N]).double().mean().item(), th.preference_in(patterns, judged[N]).mean().item()


N, nothing = max(LENGTHS), torch.zeros(0, model.config.n_embd)
levels = {"as it is": restricted(N, nothing, keep=False), "all at the mean": restricted(N, nothing)}
curves = {f"{'keep only' if keep else 'remove'} {kind}":
          torch.tensor([restricted(N, basis[:k], keep) for k in range(1, len(basis) + 1)])     # [k, 2]
          for kind, basis in bases[N].items() for keep in (True, False)}
say(f"lists of {N}: accuracy " + ", ".join(f"{accuracy:.2f} {what}" for what, (accuracy, _) in levels.items()))
say(table([[what, *(f"{x:.2f}" for x in curve[:, 0]), *[""] * (widest - len(curve))] for what, curve in curves.items()],
          ["accuracy", *(f"k={k}" for k in range(1, widest + 1))]))
figure, axes = plots.new_figure(11, 4.4, columns=2)
for column, (panel, what) in enumerate(zip(axes[0], ["accuracy", "movers' preference for the answer"])):
    plots.draw_lines(panel, {label: curve[:, column] for label, curve in curves.items()}, "dimensions k of the subspace",
                     what, f"What k dimensions carry, lists of {N} ({name}, n={n})", start=1)
    for label, level in levels.items():
        plots.draw_level(panel, level[column], label)
plots.join_legends(figure)
carried = plots.save_figure(figure, out / "05_dimensions.png")

# %% [markdown]
# TEXT
#
# ## Where every prompt lies
#
# END's coordinates in the first three dimensions from activations, seen from two sides. Each number stands at
# the mean of its index.

# %%
figure, axes = plots.new_figure(10, 9, columns=2, rows=2, subplot_kw={"projection": "3d"})
for row, N in zip(axes, LENGTHS):
    points = th.coordinates(th.stream_at_end(model, judged[N], circuit.where), bases[N]["activations"][:K])[:500]
    for panel, azimuth in zip(row, (-60, 30)):
        plots.draw_clouds(panel, points, judged[N].index[:500], f"Laundry List of {N} items, n={len(points)} ({name})",
                          (20, azimuth))
clouds = plots.save_figure(figure, out / "05_coordinates.png")

# %% [markdown]
# TEXT
#
# ## Which item does each point stand for?
#
# END's coordinates are set to each point of a plane, the third dimension at the codes' mean. Above: the item that
# the movers then look at most ("none" where none gets a tenth of their attention). Below: the item that the model
# answers with. The numbered dots are the indices' mean coordinates, which lie above and below the plane.

# %%
figure, axes = plots.new_figure(11, 9.4, columns=2, rows=2)
shares = {}
for column, N in zip(axes.T, LENGTHS):
    basis = bases[N]["activations"][:K]
    codes = th.mean_codes(model, to_find[N], circuit, basis)                        # [N, 3]
    middle, reach = (codes.amax(0) + codes.amin(0)) / 2, (codes.amax(0) - codes.amin(0)) / 2
    low, high = middle - 1.35 * reach, middle + 1.35 * reach                        # [3] each
    plane = th.grid(low[:2], high[:2], fine)                                        # [fine ** 2, 2]
    points = torch.cat([plane, codes.mean(0)[2].expand(len(plane), 1)], dim=1)      # [fine ** 2, 3]
    attended, answered = th.traverse(model, few[N], circuit, basis, points)         # [fine ** 2, N] each
    looked_at = attended.argmax(1).masked_fill(attended.amax(1) < 0.1, -1)
    for panel, item, what in zip(column, [looked_at, answered.argmax(1)], ["movers attend to", "the model answers"]):
        plots.draw_regions(panel, item.view(fine, fine), low[:2], high[:2], codes[:, :2], "dimension 0", "dimension 1",
                           f"Item that {what}, {N} items ({name})")
    _, answered = th.traverse(model, few[N], circuit, basis, th.grid(low, high, coarse))
    shares[N] = th.shares(answered.argmax(1), N)
    say(f"{N} items: share of the space in which each index is the answer ({coarse}^3 points, 4 lists): "
        + " ".join(f"{share:.2f}" for share in shares[N].tolist()))
regions = plots.save_figure(figure, out / "05_regions.png")

# %% [markdown]
# TEXT
#
# ## The test: a random index
#
# If the subspace is positional, then END with the code of *any* index makes the model answer with the item
# there, whatever was crossed off. The index is drawn at random for each list. Two kinds of codes: *mean*, the mean
# coordinates of the lists in which an index is the answer; and *traversed*: on a few other lists END is set
# to the points of a grid, twice as wide as the mean codes, and each index gets the point at which its item
# is answered most surely.


# %%
def steered(N, basis, codes="mean"):
    """How often the item at a random index is the answer, once END has that index's code."""
    values = th.mean_codes(model, to_find[N], circuit, basis)                       # [N, k]
    if codes == "traversed":
        values = th.traversed_codes(model, to_walk[N], circuit, basis, around=values, steps=coarse)
    return th.steering_rate(model, judged[N], circuit, basis, values, earlier=earlier[N])


def steered_random(N, codes, count):
    """The same in random subspaces, mean of so many."""
    rates = [steered(N, th.random_subspace(model.config.n_embd, K, seed), codes) for seed in range(1, count + 1)]
    return sum(rates) / count


rates = {(kind, codes): [steered(N, basis(N), codes) for N in LENGTHS]
         for kind, basis in [("weights", lambda N: bases[N]["weights"][:K]),
                             ("activations", lambda N: bases[N]["activations"][:K]),
                             ("what " + ", ".join(map(str, selected)) + " write", lambda N: chosen)]
         for codes in ("mean", "traversed")}
for codes, count in [("mean", n_random), ("traversed", 3)]:
    rates[f"random, {count} of them", codes] = [steered_random(N, codes, count) for N in LENGTHS]
say(f"random index, {K} dimensions, n = {n}: how often the item there is the answer")
say(table([[*kind, *(f"{rate:.3f}" for rate in row)] for kind, row in rates.items()]
          + [["chance", "", *(f"{1 / N:.3f}" for N in LENGTHS)]], ["subspace", "codes", *(f"{N} items" for N in LENGTHS)]))
figure, axes = plots.new_figure(11, 4.4, columns=2, sharey=True)
for panel, N in zip(axes[0], LENGTHS):
    by_width = {kind: [steered(N, basis[:k]) for k in range(1, min(6, len(basis)) + 1)] for kind, basis in bases[N].items()}
    say(table([[f"{N} items, {kind}", *(f"{rate:.2f}" for rate in row), *[""] * (6 - len(row))]
               for kind, row in by_width.items()], ["subspace", *(f"k={k}" for k in range(1, 7))]))
    plots.draw_lines(panel, by_width, "dimensions k of the subspace", "answers with the item at a random index",
                     f"Steered to a random index, {N} items ({name}, n={n})", start=1)
    plots.draw_level(panel, 1 / N, "chance")
    panel.set_ylim(0, 1.04)
steering = plots.save_figure(figure, out / "05_random_index.png")

# %% [markdown]
# TEXT

# %%
results = []
report(out, results)
