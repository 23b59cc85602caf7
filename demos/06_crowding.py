# %% [markdown]
# # 6. What crowds?
#
# Of a list of three items two are crossed off, and the model names the third. Of twelve it often fails, although it can
# recall any of the twelve by its ordinal. The paper's explanation (Merullo et al. 2024): more and more items crowd the
# small subspace of chapter 5. That can mean three things, which are told apart here:
#
# 1. *no room*: for some indices no place in the space makes the movers look at them, and these fail;
# 2. *too few dimensions* for that many codes;
# 3. *averaging*: a head that looks at N - 1 mentions alike writes their mean, in which each weighs 1 / (N - 1), so that
#    lists with different answers differ less, the longer they are.
#
# A control decides: `even` is of the same make as the bundled `tiny`, but saw all lengths from 2 to 20 alike, `tiny` a
# list of one more item 0.6 times as often. What is also true of `even` cannot be what makes `tiny` fail.

# %%
import torch

import tinyheads as th
from common import Result, options, rate, report, say, table
from materials import LENGTHS, amounts, circuit_of, lists_for, whole_model
from tinyheads import plots
from tinyheads.files.command import number

arguments = options("Crowding, beside a model of the same make that does not crowd.",
                    ("--seed", 0, "of all prompts", {"type": number(int, 0, 1_000_000)}))
name, model, tokenizer = whole_model(arguments.model)
out, seed = arguments.out, 100 * arguments.seed
n, n_find, steps, lengths = amounts(model, arguments.quick, (400, 1000, 7, LENGTHS), (200, 300, 9, LENGTHS),
                                    (64, 64, 5, (5, 8)))
lists = lists_for(model, tokenizer, lengths)
models = {name: model} | ({"even": th.load("even")} if name == "tiny" else {})             # the control has no other
judged, to_find, to_walk = (lists.of_all_lengths(count, seed + more) for count, more in ((n, 3), (n_find, 2), (4, 5)))
lengths = lists.lengths
circuits = {which: circuit_of(each, lists, n) for which, each in models.items()}

# %% [markdown]
# ## Room for each index
#
# In the three dimensions that are found for a length, END's coordinates are set to each point of a grid around the
# codes. An index's *share* is the part of the points at which the movers look at its item; with none, it has no room.

# %%
crowded = {which: th.crowding(each, judged, circuits[which], to_find, to_walk, steps=steps)
           for which, each in models.items()}                                               # {model: {N: Crowding}}
say(table([[which, N, rate(c.accuracy, n), int((c.shares > 0).sum()), f"{c.by_index[c.shares > 0].nanmean():.2f}",
            f"{c.by_index[c.shares == 0].nanmean():.2f}", f"{c.apart.median():.1f}"]
           for which, lines in crowded.items() for N, c in lines.items()],
          ["model", "items", "accuracy", "indices with room", "accuracy with room", "without", "median d'"]))
room = {which: torch.cat([c.shares * N for N, c in lines.items()]) for which, lines in crowded.items()}
right = {which: torch.cat([c.by_index for c in lines.values()]) for which, lines in crowded.items()}
ranks, dimensions, maps, stretched, apart = {}, list(range(1, 9)), {}, {}, {}
for which in models:
    seen = right[which].isfinite()                                                          # an index that occurs
    x, y = room[which][seen], right[which][seen].double()
    ranks[which] = "{:.2f} ({:.2f} to {:.2f})".format(th.rank_correlation(x, y),
                                                      *th.bootstrap_interval(th.rank_correlation, x, y, seed=seed))
    say(f"{which}: rank correlation of an index's share with its accuracy, {len(x)} indices: {ranks[which]}")
figure, axes = plots.new_figure(11, 4.6, columns=2)
plots.draw_shares(axes[0, 0], {which: [c.accuracy for c in lines.values()] for which, lines in crowded.items()},
                  lengths, "items in the list", f"Same make, other lengths in training ({n} lists each)", "accuracy")
plots.draw_room(axes[0, 1], room, right)
crowding = plots.save_figure(figure, out / "06_crowding.png")

# %% [markdown]
# Of lists of 20, `even` is right on 0.998 and `tiny`, of the same make, on 0.03. In `tiny` indices without room fail:
# they are right in one list of fifteen. In `even` all have room at every length, and how much says nothing. But room
# does not explain all of it: at 16 and 20 items `tiny` mostly fails on indices with room, too. To try: `steps=9`.
#
# ## Are there too few dimensions?
#
# What the inhibition heads write at END is made to differ between lists only in k dimensions; the rest is its mean. If
# lists failed for want of dimensions, more of them would help, and the control would need more of them.

# %%
for which, each in models.items():
    maps[which] = torch.full((len(dimensions), len(lengths)), torch.nan)
    for column, N in enumerate(lengths):
        earlier = th.before_end(each, judged[N])
        basis = th.subspace_from_activations(each, to_find[N], circuits[which], min(8, N - 1))      # [k, D]
        for k in range(1, len(basis) + 1):                                     # N means differ in N - 1 directions
            maps[which][k - 1, column], _ = th.carried(each, judged[N], circuits[which], basis[:k], earlier=earlier)
        where, more, three = circuits[which].where, (N - 1) / 4, basis[:3]                          # for what follows
        mean = th.stream_at_end(each, to_find[N], where).mean(0)                                    # [D]
        larger = lambda x: x + (more - 1) * th.coordinates(x - mean, three) @ three                 # [B, 1, D]
        logits, _ = th.run_end(each, judged[N], earlier, [th.Edit(where, larger, of="stream")])
        stretched.setdefault(which, []).append(th.correct(logits, judged[N]).double().mean().item())
figure, axes = plots.new_figure(6 * len(maps), 4.4, columns=len(maps))
for panel, (which, values) in zip(axes[0], maps.items()):
    plots.draw_map(panel, values, "items in the list", "dimensions kept, k", f"{which}: what k dimensions carry",
                   "accuracy", list(map(str, lengths)), list(map(str, dimensions)), written=True)
kept = plots.save_figure(figure, out / "06_dimensions.png")

# %% [markdown]
# There are not. In `even` three dimensions carry all of it, to 20 items. In `tiny` accuracy grows a little from three
# to four (0.48 to 0.56 at 12 items) and no more: where it fails in four it fails in eight. (White: N means differ in N
# - 1 directions only.) To try: `th.subspace_from_weights` in its place. How many dimensions does it take?
#
# ## What averaging does
#
# With S the sum of all N codes, a head that weighs the N - 1 mentions alike writes (S - code) / (N - 1): two answers'
# writes lie 1 / (N - 1) of their codes' distance apart. We take the mean distance of two indices three times: in what
# the inhibition heads *write*; in what the *MLP* behind them reads; and in what the *movers* read. Both reads are
# behind a LayerNorm, which divides by the length of all that is there. Does anything make up for the averaging? And
# where what differs at END is made (N - 1) / 4 times as large, as it is in lists of 5: are the answers right again?

# %%
for which, each in models.items():
    places = [circuits[which].where, f"L{circuits[which].movers[-1].layer}.attn"]           # "L0.mlp", "L1.attn"
    for N in lengths:
        seen = [th.writes_at_end(each, to_find[N], circuits[which]), *th.seen_at_end(each, to_find[N], places, "reads")]
        for where, x in zip(("written", f"read by {places[0]}", "read by the movers"), seen):          # x: [B, D]
            apart.setdefault((which, where), []).append(torch.pdist(th.by_index(x, to_find[N])).mean().item())
say("\n" + table([[*key, *(f"{value:.3f}" for value in values)] for key, values in apart.items()]
                 + [["1 / (N - 1)", "", *(f"{1 / (N - 1):.3f}" for N in lengths)]]
                 + [[f"accuracy, {which}", "stretched", *map("{:.3f}".format, stretched[which])] for which in models],
                 ["mean distance of two indices", "", *(f"{N} items" for N in lengths)]))
lines = {f"{which}, {where}": [value / values[0] for value in values] for (which, where), values in apart.items()}
figure, axes = plots.new_figure(8, 4.6)
plots.draw_shares(axes[0, 0], lines | {"1 / (N - 1)": [(lengths[0] - 1) / (N - 1) for N in lengths]}, lengths,
                  "items in the list, N", "Mean distance of two indices at END", f"distance, {lengths[0]} items = 1")
axes[0, 0].set(yscale="log", ylim=(0.05, 2))
averaging = plots.save_figure(figure, out / "06_averaging.png")

# %% [markdown]
# What is written shrinks as averaging says, from 3 items to 20 to 0.07 (`tiny`) and 0.10 (`even`) of its distance. In
# `even` the LayerNorm before the MLP makes up for a third of it and the MLP for the rest: what the movers read lies as
# far apart at 20 items as at 3 (0.92). In `tiny` this works to 8 items; from 10 on nothing makes up for it (0.07). But
# size is not all: stretched, `tiny` is right on 0.58 of lists of 12 in place of 0.55, and on 0.24 of 16 for 0.16.
#
# What is true of these models, then: `even` has the same dimensions and averages as much, so neither is the limit as
# such. `tiny` never learned where END should be for lists that it rarely saw. Places for them exist in its space, as
# chapter 7 shows: END is not there. The paper says of GPT-2 that items crowd a small space. What would decide it there:
# the map and the figure above, which run with `--model 124M`; and whether training on long lists lifts the limit. How
# often must a list be seen? `weights/README.md` has this for six ratios. To try: `--seed 1`.

# %%
each = lambda values: ", ".join(f"{value:.2f}" for value in values)
sizes, sample = f"{', '.join(map(str, lengths))} items", f"n = {n} a length, seed {arguments.seed}"
report(out, [
    Result("6 crowding", f"accuracy at {sizes}: " + "; ".join(f"{which} {each(c.accuracy for c in lines.values())}"
                                                              for which, lines in crowded.items()),
           name, sample, str(crowding)),
    Result("6 room", "rank correlation of an index's share of the space with its accuracy: "
           + "; ".join(f"{which} {value}" for which, value in ranks.items()), name, sample, str(crowding)),
    Result("6 dimensions", f"accuracy in 3 dimensions at {sizes}: " + "; ".join(
        f"{which} {each(values[2].tolist())}" for which, values in maps.items()), name, sample, str(kept)),
    Result("6 averaging", f"mean distance of two indices at {lengths[-1]} items, of that at {lengths[0]}: " + "; ".join(
        f"{which}, {where} {values[-1] / values[0]:.2f}" for (which, where), values in apart.items()),
        name, sample, str(averaging))])
