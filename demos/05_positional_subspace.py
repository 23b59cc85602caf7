# %% [markdown]
# # 5. The positional subspace
#
# "To wash: sock, hat, coat. Done: third, first. Still to wash: the" -> " hat". The inhibition heads look from
# the last token (END) at what was crossed off, and write what they find; a mover head reads that as its query
# and looks at the item that is left. What is written in between? The paper's answer (Merullo et al. 2024): a
# place in the list, as a point in a space of about three dimensions. Here:
#
# 1. who inhibits and who moves, from one run;
# 2. the subspace, found from weights and found from activations, and the angles between the two;
# 3. how much of the effect its first k dimensions carry;
# 4. what it looks like: every prompt's coordinates, and which item each point of it stands for;
# 5. the test that decides: give END the code of a *random* index. Is the item there the answer?
#
# Indices count from 0. Subspaces are found on some prompts and judged on others, made with another seed.

# %%
from pathlib import Path

import torch

import tinyheads as th
from common import Result, options, say, spare_threads, table, way_to_cross_off, whole_model
from tinyheads import at_end, causal, edit, lists, plots, subspace
from tinyheads.files.command import number

arguments = options("The positional subspace: found, drawn, traversed, tested.",
                    ("--by", "ordinal", "how items are crossed off", {"choices": ["ordinal", "name"]}),
                    ("--prompts", None, "how many to judge on (default: 1000, for a large model 32)",
                     {"type": number(int, 2, 100_000)}))
out = Path(arguments.out)
LENGTHS, K = (5, 8), 3                                          # list lengths, dimensions
SEED_HEADS, SEED_FOUND, SEED_JUDGED, SEED_WALKED = 31, 33, 32, 34                # seeds of the prompts

# %% [markdown]
# Everything is found on some Laundry Lists and judged on others.

# %%
name, model, tokenizer = whole_model(arguments.model)
try:
    by, lengths = way_to_cross_off(tokenizer, model.config.n_ctx, LENGTHS, arguments.by)
    if len(lengths) < len(LENGTHS):
        raise th.TaskError(f"lists of {LENGTHS} items are needed, and only {lengths} can be written")
except th.TaskError as error:
    say(f"there is no Laundry List for {name}: {error}. The bundled model stands in.")
    name, model, tokenizer, by = "tiny", th.load("tiny"), th.load_tokenizer("tiny"), "ordinal"
is_large = sum(parameter.numel() for parameter in model.parameters()) > 5_000_000
spare_threads(model)
n = arguments.prompts or (32 if is_large else 1000)
n_found, n_controls, steps, coarse, n_walked = (128, 3, 13, 4, 2) if is_large else (2000, 20, 31, 9, 12)
judged = {N: lists.laundry_list(tokenizer, n, N, by, SEED_JUDGED) for N in LENGTHS}
to_find_in = {N: lists.laundry_list(tokenizer, n_found, N, by, SEED_FOUND) for N in LENGTHS}
say(f"{name}: lists crossed off by {by}; subspaces found on {n_found} lists (seed {SEED_FOUND}), "
    f"judged on {n} others (seed {SEED_JUDGED})")
earlier = {N: at_end.before_end(model, judged[N]) for N in LENGTHS}     # edits at END leave all other tokens as they are
say(f"e.g. {judged[5].texts[0]!r}")

# %% [markdown]
# ## Who inhibits, who moves
#
# One run on lists of 5. A mover looks from END at the answer's place; an inhibition head in an earlier layer
# looks from END at the crossed-off mentions.


# %%
def strongest_heads(find, places, layers, n_heads):
    """What `find` finds; where it finds nothing, the heads that come nearest, and a word that they are no more."""
    try:
        return find()
    except th.HeadError as error:
        table = causal.attention_on(model, seen, places)[layers]         # [layers, H]
        order = table.flatten().argsort(descending=True)[:n_heads].tolist()
        nearest = [th.Head((layers.start or 0) + place // table.shape[1], place % table.shape[1]) for place in order]
        say(f"{error}. What follows shows the way, and no circuit: going on with {', '.join(map(str, nearest))}")
        return nearest


seen = lists.laundry_list(tokenizer, min(n, 300), 5, by, SEED_HEADS)   # other lists than those judged on
if model.config.n_layer < 2:
    raise th.HeadError(f"{name} has one layer: no head can read what another wrote")
answer_place = causal.answer_places(seen)                       # [B, 1]
movers = strongest_heads(lambda: causal.mover_heads(model, seen), answer_place, slice(1, None), 1)
mover = next((head for head in movers if head.layer > 0), th.Head(1, 0))
movers = [head for head in movers if head.layer == mover.layer]
inhibitors = strongest_heads(lambda: causal.inhibition_heads(model, seen, before=mover.layer), seen.mentions,
                             slice(0, mover.layer), 4)
where = f"L{max(head.layer for head in inhibitors)}.mlp"        # the stream is changed right after they wrote
attention = [causal.attention_on(model, seen, places) for places in (seen.mentions, answer_place)]
say("inhibition heads, attention on the mentions: " + ", ".join(f"{h} {attention[0][h.layer, h.head]:.2f}" for h in inhibitors))
say("mover heads, attention on the answer's place: " + ", ".join(f"{h} {attention[1][h.layer, h.head]:.2f}" for h in movers))

# %% [markdown]
# ## The subspace, two ways
#
# From weights: the components of the inhibition heads, each as long as its scale times its composition score
# with the movers; their principal directions. From activations: the principal directions of the inhibition
# heads' mean write at END, by index. The second is found on one half of the prompts; the other half gives the
# same. Between random subspaces of three dimensions the angles are large.

# %%
heads = th.Heads.of(model)
ov, scores = th.ov_svd(heads), th.component_scores(heads, "Q")
names = [str(head) for head in inhibitors]
selected = subspace.loudest(ov, scores, inhibitors, movers, K)
say("components that the movers hear most: " + ", ".join(map(str, selected)))


def mean_write(N, half):
    """The inhibition heads' mean write at END, by index [N, D], in one half of the prompts."""
    return subspace.mean_by_index(writes[N][half], to_find_in[N].index[half], N)


first, second = slice(0, n_found // 2), slice(n_found // 2, None)
writes = {N: subspace.writes_at_end(model, to_find_in[N], names) for N in LENGTHS}         # each [n_found, D]
means = {N: mean_write(N, first) for N in LENGTHS}


def from_weights(N, k):
    return subspace.from_composition(ov, scores, inhibitors, movers, k)


def from_activations(N, k):
    return subspace.principal_components(means[N], k)


def random(N, k, seed=1):
    return subspace.random_subspace(model.config.n_embd, k, seed)


def degrees(a, b):
    return " ".join(f"{angle:2.0f}" for angle in subspace.principal_angles(a, b))


rows = []
for N in LENGTHS:
    other_half = subspace.principal_components(mean_write(N, second), K)
    controls = torch.stack([subspace.principal_angles(random(N, K, seed), from_activations(N, K)) for seed in range(100, 120)])
    rows += [[N, "activations, the two halves", degrees(from_activations(N, K), other_half)],
             [N, "weights and activations", degrees(from_weights(N, K), from_activations(N, K))],
             [N, "span of those components and activations", degrees(subspace.from_components(ov, selected), from_activations(N, K))],
             [N, "random and activations (mean of 20)", " ".join(f"{angle:2.0f}" for angle in controls.mean(0))]]
say()
say(table(rows, ["items", f"two subspaces of {K} dimensions", "principal angles (degrees)"]))
angles = {N: subspace.principal_angles(from_weights(N, K), from_activations(N, K)) for N in LENGTHS}

# %% [markdown]
# ## How much do k dimensions carry?
#
# The inhibition heads' writes at END are made to differ between prompts only inside the subspace (keep), or only
# outside it (remove), everything else being the mean. Eight means differ along seven directions, so the
# subspace from activations ends there.


# %%
def behaviour(N, basis, keep=True):
    """Accuracy among the candidates, and the movers' mean preference for the answer, with restricted writes."""
    edits = [causal.restrict(basis, writer, 0, keep) for writer in names] if basis is not None else []
    logits, stream = at_end.run_end(model, judged[N], earlier[N], edits)
    looks = [causal.attention_to_items(stream.patterns[f"L{head.layer}"][:, head.head, 0], judged[N]).preference for head in movers]
    return lists.correct(logits, judged[N]).double().mean().item(), sum(looks) / len(looks)


N = max(LENGTHS)
whole, nothing = behaviour(N, None), behaviour(N, torch.zeros(0, model.config.n_embd))
widest = min(8, len(subspace.span(torch.cat([ov.write[h.layer, h.head] for h in inhibitors]))))
curves = {}
for kind, basis in [("weights", from_weights), ("activations", from_activations), ("random", random)]:
    for keep in (True, False):
        curves[kind, keep] = torch.tensor([behaviour(N, basis(N, k), keep) if basis is not from_activations or k < N
                                           else (torch.nan, torch.nan) for k in range(1, widest + 1)])     # [k, 2]
say()
say(f"lists of {N}, n = {n}: accuracy {whole[0]:.2f} as it is, {nothing[0]:.2f} with all the heads' writes at their mean")
say(table([[("keep only " if keep else "remove ") + kind, *(f"{value:.2f}" for value in curve[:, 0])]
           for (kind, keep), curve in curves.items()], ["accuracy", *(f"k={k}" for k in range(1, widest + 1))]))
figure, axes = plots.new_figure(11, 4.4, columns=2)
for panel, column, what in zip(axes[0], (0, 1), ("accuracy", "movers' preference for the answer")):
    plots.draw_lines(panel, {("keep only" if keep else "remove") + f" k, {kind}": curve[:, column]
                             for (kind, keep), curve in curves.items()}, "dimensions k of the subspace", what,
                     f"What k dimensions carry, lists of {N} ({name}, n={n})", start=1)
    for level, label in [(whole[column], "as it is"), (nothing[column], "all at the mean")]:
        panel.axhline(level, color="#888888", linestyle="--", linewidth=1)
        panel.annotate(label, (1.01, level), xycoords=("axes fraction", "data"), fontsize=7, va="center")
for legend in [panel.get_legend() for panel in axes[0]]:
    legend.remove()
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
carried = plots.save_figure(figure, out / "05_dimensions.png")
span_of_effect = whole[0] - nothing[0]
share = (curves["activations", True][min(K, widest) - 1, 0].item() - nothing[0]) / span_of_effect if abs(span_of_effect) > 0.02 else None

# %% [markdown]
# ## Where every prompt lies
#
# Coordinates at END in the three dimensions found from activations, from two sides, of short lists and of long
# ones: the longer the list, the nearer its clouds. Each number stands at the mean of its index.

# %%
figure, axes = plots.new_figure(10, 9, columns=2, rows=2, subplot_kw={"projection": "3d"})
for row, N in zip(axes, LENGTHS):
    points = subspace.coordinates(subspace.stream_at_end(model, judged[N], where), from_activations(N, K))[:500]
    for panel, view in zip(row, [(20, -60), (20, 30)]):
        plots.draw_clouds(panel, points, judged[N].index[:500], f"Laundry List of {N} items, n={len(points)} ({name})", view)
clouds = plots.save_figure(figure, out / "05_coordinates.png")

# %% [markdown]
# ## Traversal
#
# END's coordinates are set to each point of a plane (the third dimension at the codes' mean). Above: the item
# that the movers then attend to most ("none" where no item gets a tenth of their attention). Below: the item
# that the model answers with. Small numbers in circles are the indices' mean coordinates, which lie above and below
# the plane. A coarse grid of the whole space gives the share of it that each index owns.


# %%
def traverse(prompts, basis, points):
    """The item that the movers attend to most, -1 if to none, and the item answered, at each point [G, k]: two [G]."""
    attention, answers = edit.visit(model, prompts, basis, points, where, movers)          # two [G, N]
    return attention.argmax(1).masked_fill(attention.amax(1) < 0.1, -1), answers.argmax(1)


centres = {N: subspace.mean_by_index(subspace.stream_at_end(model, to_find_in[N], where)[first], to_find_in[N].index[first], N)
           for N in LENGTHS}                                                   # the mean stream at END by index, [N, D]
figure, axes = plots.new_figure(11, 9.4, columns=2, rows=2)
shares, sample = {}, 4
for column, N in zip(axes.T, LENGTHS):
    basis = from_activations(N, K)
    codes = subspace.coordinates(centres[N], basis)                            # [N, 3]
    reach = 1.35 * (codes.amax(0) - codes.amin(0)) / 2
    middle = (codes.amax(0) + codes.amin(0)) / 2
    low, high = middle - reach, middle + reach                                 # [3]
    plane = subspace.grid(low[:2], high[:2], steps)                            # [steps ** 2, 2]
    points = torch.cat([plane, codes.mean(0)[2].expand(len(plane), 1)], dim=1)
    few = lists.laundry_list(tokenizer, sample, N, by, SEED_JUDGED)
    for panel, owners, what in zip(column, traverse(few, basis, points), ("movers attend to", "the model answers")):
        plots.draw_regions(panel, owners.view(steps, steps), low[:2], high[:2], codes[:, :2], "dimension 0", "dimension 1",
                           f"Item that {what}, {N} items ({name})")
    answered = traverse(few, basis, subspace.grid(low, high, coarse))[1]
    shares[N] = subspace.shares(answered, N)
    say(f"{N} items: share of the space in which each index is the answer ({coarse}^3 points, {sample} lists): "
        + " ".join(f"{share:.2f}" for share in shares[N].tolist()))
regions = plots.save_figure(figure, out / "05_regions.png")

# %% [markdown]
# ## The test: a random index
#
# If the subspace is positional, then END with the code of *any* index makes the model answer with the item
# there, whatever was crossed off. The target index is drawn at random (seed 0); the lists were not used to find
# anything. Chance is one in the number of items. Two kinds of codes: the *mean* coordinates of the lists in which an
# index is the answer, and the *traversed*: a grid of twice the means' reach is walked through on a dozen other
# lists, and each index gets the point at which its item is answered most surely.


# %%
def mean_codes(N, basis):
    return subspace.coordinates(centres[N], basis)                             # [N, k]


def traversed_codes(N, basis):
    """Each index's code [N, k], found by walking through the subspace."""
    few = lists.laundry_list(tokenizer, n_walked, N, by, SEED_WALKED)
    return edit.traversed_codes(model, few, basis, mean_codes(N, basis), where, movers, coarse)


def steer(N, basis, codes_of=mean_codes):
    """How often the item at a random index is the answer, once END's coordinates are that index's code."""
    target = torch.randint(N, (n,), generator=torch.Generator().manual_seed(0))
    change = edit.set_coordinates(basis, codes_of(N, basis)[target], 0)
    logits, _ = at_end.run_end(model, judged[N], earlier[N], [th.Edit(where, change, of="stream")])
    return (logits.gather(1, judged[N].candidates).argmax(1) == target).double().mean().item()


rates, rows = {}, []
for N in LENGTHS:
    rates[N] = {}
    for kind, basis in [("weights", from_weights(N, K)), ("activations", from_activations(N, K)),
                        (f"span of {', '.join(map(str, selected))}", subspace.from_components(ov, selected))]:
        rates[N][kind, "mean"], rates[N][kind, "traversed"] = steer(N, basis), steer(N, basis, traversed_codes)
    for codes_of, kind, count in [(mean_codes, "mean", n_controls), (traversed_codes, "traversed", 3)]:
        controls = [steer(N, random(N, K, seed), codes_of) for seed in range(1, count + 1)]
        rates[N][f"random, {count} of them", kind] = sum(controls) / count
for kind, codes in rates[LENGTHS[0]]:
    rows.append([kind, codes, *(f"{rates[N][kind, codes]:.3f}" for N in LENGTHS)])
say()
say(f"random index, {K} dimensions, n = {n}: how often the item there is the answer")
say(table(rows + [["chance", "", *(f"{1 / N:.3f}" for N in LENGTHS)], ["target", "", "0.900", "0.700"]],
          ["subspace", "codes", *(f"{N} items" for N in LENGTHS)]))
by_width = {}
for N in LENGTHS:
    for kind, basis in [("weights", from_weights), ("activations", from_activations), ("random", random)]:
        by_width[N, kind] = [steer(N, basis(N, k)) if (k < N or basis is not from_activations) and k <= widest
                             else float("nan") for k in range(1, 7)]
say()
say(f"the same by the number of dimensions, n = {n}")
say(table([[f"{N} items, {kind}", *(f"{rate:.2f}" for rate in row)] for (N, kind), row in by_width.items()],
          ["subspace", *(f"k={k}" for k in range(1, 7))]))
figure, axes = plots.new_figure(11, 4.4, columns=2, sharey=True)
for panel, N, target in zip(axes[0], LENGTHS, (0.9, 0.7)):
    plots.draw_lines(panel, {kind: by_width[N, kind] for kind in ("weights", "activations", "random")},
                     "dimensions k of the subspace", "answers with the item at a random index",
                     f"Steered to a random index, {N} items ({name}, n={n})", start=1)
    panel.axhline(1 / N, color="#888888", linestyle="--", linewidth=1)
    panel.annotate("chance", (1.01, 1 / N), xycoords=("axes fraction", "data"), fontsize=8, va="center")
    panel.plot([K], [target], "*", color="black", markersize=11)
    panel.annotate("target", (K, target), xytext=(7, -10), textcoords="offset points", fontsize=8)
    panel.set_ylim(0, 1.04)
steering = plots.save_figure(figure, out / "05_random_index.png")

# %%
for N, target in zip(LENGTHS, (0.9, 0.7)):
    for kind in ("activations", "weights"):
        rate = rates[N][kind, "traversed"]
        say(f"{N} items, subspace from {kind}, codes by traversal: {rate:.3f}, " + (f"the target of {target} is reached" if rate >= target else
                                                               f"the target of {target} is missed by {target - rate:.3f}"))
on = f"n={n}, seeds {SEED_HEADS} and {SEED_FOUND} to find, {SEED_JUDGED} to judge"
pair = lambda *kind: " and ".join(f"{rates[N][kind]:.2f}" for N in LENGTHS)
results = [
    Result("5 random index", f"END set to the code of a random index in {K} dimensions: the item there is the answer in "
           f"{pair('activations', 'traversed')} of lists of 5 and 8 (subspace from activations, codes by traversal; mean codes "
           f"{pair('activations', 'mean')}), {pair('weights', 'traversed')} (subspace from weights alone; mean codes {pair('weights', 'mean')}), "
           f"{pair('random, 3 of them', 'traversed')} (random; chance 0.20 and 0.12)", name, on, str(steering)),
    Result("5 two ways", "principal angles between the subspaces from weights and from activations: "
           + "; ".join(f"{' '.join(f'{angle:.0f}' for angle in angles[N])} degrees at {N} items" for N in LENGTHS),
           name, f"n={n_found // 2}, seed {SEED_FOUND}", str(clouds)),
    Result("5 dimensions", f"accuracy on lists of {max(LENGTHS)}: {whole[0]:.2f}; with only {K} dimensions of what the inhibition "
           f"heads write at END {curves['activations', True][min(K, widest) - 1, 0]:.2f} (from activations), "
           f"{curves['weights', True][min(K, widest) - 1, 0]:.2f} (from weights), random "
           f"{curves['random', True][min(K, widest) - 1, 0]:.2f}, none {nothing[0]:.2f}"
           + (f": {share:.0%} of the effect from activations" if share is not None else ""), name, f"n={n}, seed {SEED_JUDGED}", str(carried)),
    Result("5 traversal", "share of the space in which an index is the answer, least and most: "
           + "; ".join(f"{shares[N].min():.2f} to {shares[N].max():.2f} at {N} items" for N in LENGTHS),
           name, f"{coarse}^3 points, {sample} lists, seed {SEED_JUDGED}", str(regions)),
]
say(f"figures: {', '.join(result.figure for result in results)}")
