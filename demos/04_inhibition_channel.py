# %% [markdown]
# # 4. The inhibition channel
#
# "To wash: sock, hat, coat. Done: third, first. Still to wash: the" -> " hat". All items of a list but one are
# crossed off; which one is left? (The wording is ours.) The paper (Merullo et al. 2024) finds that two kinds of
# heads share this work at the last token, which we call END:
#
# - *inhibition heads* look at the *mentions*, the words behind "Done:", and write into the stream which items are out;
# - *mover heads*, in later layers, read that, look at the item that is left, and copy it.
#
# A head's write is a sum of components (chapter 2). The *inhibition channel* is the few components through
# which the inhibition heads tell a mover head where not to look. We look for it in three steps:
#
# 1. which heads look at the mentions, and which at the answer;
# 2. what the weights predict for each component, beside what happens when it is taken away;
# 3. what the model loses without the components that both name.

# %%
from pathlib import Path

import torch

import tinyheads as th
from common import Result, circuit_of, is_large, options, report, say, table, way_to_cross_off, whole_model
from tinyheads import plots
from tinyheads.ablation import WAYS, strongest_by

arguments = options("Inhibition heads and mover heads.", ("--reader", None, "the mover head (default: the strongest)"))
name, model, tokenizer = whole_model(arguments.model)
out, L, H = Path(arguments.out), model.config.n_layer, model.config.n_head
by, lengths = way_to_cross_off(tokenizer, model.config.n_ctx, [5, 8])
n, n_tested, ways = (16, 16, ["mean"]) if is_large(model) else (400, 150, WAYS)     # fewer runs of a large model
N, seed = max(lengths), 40
seen = th.laundry_list(tokenizer, n, 5, by, seed)
tested = th.laundry_list(tokenizer, n_tested, N, by, seed + 1)
say(f"{name}: {n} lists of 5 items, crossed off by {by} (seed {seed}), such as\n    {seen.texts[0]}\n"
    f"answered rightly: {th.accuracy(model, seen):.3f} (chance {1 / 5:.2f})")

# %% [markdown]
# ## Who looks where?
#
# Each cell is a head: how much of END's attention it gives to all mentions together (left), and to the answer's
# place in the list (right), mean over the lists. A head's attention adds up to 1.

# %%
on_mentions = th.attention_on(model, seen, seen.mentions)                           # [L, H]
on_answer = th.attention_on(model, seen, th.answer_places(seen))                    # [L, H]
figure, axes = plots.new_figure(12, 4, columns=2)
for panel, attention, what in zip(axes[0], [on_mentions, on_answer], ["the mentions", "the answer's place"]):
    plots.draw_map(panel, attention, "head", "layer", f"END's attention on {what} ({name})",
                   f"attention weight, mean of {n} prompts", list(map(str, range(H))), list(map(str, range(L))))
attention_map = plots.save_figure(figure, out / "04_attention.png")
circuit = circuit_of(model, tokenizer, by, n)
mover = th.Head.parse(arguments.reader) if arguments.reader else circuit.movers[0]
before = [head for head in circuit.inhibition if head.layer < mover.layer] or circuit.inhibition
circuit = th.Circuit(before, [mover])
circuit.check(model)
looks = (f"{before[0]}'s attention on the mentions {on_mentions[before[0].layer, before[0].head]:.2f}; "
         f"{mover}'s on the answer {on_answer[mover.layer, mover.head]:.2f}")
say(looks)

# %% [markdown]
# In the bundled model the work is divided by layers: all four heads of layer 0 look at the mentions, all four
# of layer 1 at the answer. `th.find_circuit` reads this off: half of END's attention on the mentions makes an
# inhibition head, a quarter on the answer a mover. Attention shows where a head looks and not what it writes, so
# these are candidates so far. We go on with one mover, the strongest. To try: another, `--reader L1.H3`.
#
# ## Predicted from weights, measured by intervention
#
# *Predicted*: each component's composition score by Q with the mover: how well the mover's query can read what
# the component writes (chapter 3). *Measured*: while the model runs, one component is taken out of its head's
# write. It is set to zero, to its mean over the prompts, or to its value in another prompt (resample). The mover's
# *preference* is END's attention there on the answer less that on all other items; a component's *inhibition
# score* is how much of it is lost without the component. All on longer lists: on 5 items the mover is too sure.

# %%
ov = th.ov_svd(th.Heads.of(model))
composition = th.composition_with_movers(model, circuit)
components = th.components_to_test(model, circuit, seed)            # all, or the strongest and some at random
measured = {how: th.inhibition_scores(model, tested, circuit, how, seed, components) for how in ways}
channel = th.channel(model, tested, circuit, seed=seed, measured=measured)
highest = [strongest_by(scores, 5) for scores in ({c: composition[c] for c in components}, *measured.values())]
listed = sorted(set().union(*highest), key=lambda c: -composition[c])
say(table([[c, f"{composition[c]:.3f}", *(f"{measured[how][c]:+.3f}" for how in ways), "yes" if c in channel else ""]
           for c in listed], ["component", "composition", *(f"score, {how}" for how in ways), "channel"]))
predicted = torch.tensor([composition[c] for c in components])                     # [components]
scaled = predicted * torch.tensor([ov.scale[c.layer, c.head, c.index] for c in components])
effects = {how: torch.tensor(list(measured[how].values())) for how in ways}
for what, x in [("composition", predicted), ("composition times singular value", scaled)]:
    say(f"rank correlation of {what} with inhibition score, {len(components)} components: "
        + ", ".join(f"{how} {th.rank_correlation(x, effect):.2f}" for how, effect in effects.items()))
agreement = f"{th.rank_correlation(predicted, effects['mean']):.2f}"
groups = {"of the channel": [i for i, c in enumerate(components) if c in channel],
          "other components": [i for i, c in enumerate(components) if c not in channel]}
figure, axes = plots.new_figure(10.5, 5)
plots.draw_scatter(axes[0, 0], predicted, effects["mean"], groups, {components.index(c): str(c) for c in listed[:8]},
                   f"Q-composition score with {mover} (from weights)", "inhibition score (set to the mean)",
                   f"Predicted and measured ({name}): rank correlation {agreement}, {n_tested} lists of {N}")
scatter = plots.save_figure(figure, out / "04_composition_and_inhibition.png")

# %% [markdown]
# The table has the five highest of each column. The channel (`th.channel`) is what is among the five in every
# column, and costs the mover a twentieth of its preference at least. On the bundled model the six components that
# cost it 0.1 or more (set to the mean) are among the eight that compose with it most, and most others do nothing.
#
# But neither list is enough alone. The score leaves out how *much* a component writes, its singular value:
# L0.H0.C7 composes as well as L0.H0.C0 (0.31), writes a twelfth as much, and does nothing. With that factor the
# two rankings agree better (last line). And the way of taking away matters: L0.H2.C1 costs 0.53 if it is set to
# zero, and 0.00 if set to its mean: most of what counts there is the same in all prompts.
#
# ## What is lost without the channel?
#
# All its components are set to their mean at once; to compare, as many others of the same heads, drawn at random.


# %%
def without(removed):
    """The model's accuracy and the mover's preference with some components at their mean."""
    edits = th.remove_components(ov, removed, "mean")
    right = th.correct(model(tested.tokens, th.Stream(edits=edits)), tested)                 # [B]
    return right.double().mean().item(), th.preference(model, tested, [mover], edits)


others = [c for c in composition if c.of_head in {a.of_head for a in channel} and c not in channel]
draw = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:len(channel)].tolist()
taken = {"nothing": [], "the channel: ": channel, "as many others: ": [others[i] for i in draw]}
lost = {what: without(removed) for what, removed in taken.items()}
say(table([[what + ", ".join(map(str, taken[what])), *(f"{value:.3f}" for value in lost[what])] for what in taken],
          ["taken away", "accuracy", f"{mover}'s preference"]))
intact, cut, control = (accuracy for accuracy, _ in lost.values())
found = (f"{', '.join(map(str, channel)) or 'no component'} by weights and by intervention; accuracy on lists of {N} "
         f"{intact:.3f}, without the channel {cut:.2f}, without as many others {control:.2f}")

# %% [markdown]
# Without three components of 64 the bundled model is right in half of the lists; without three others, as often
# as before. The mover's preference turns negative: it looks more at crossed-off items than at the one left. So it
# needs the channel. What the channel tells it is the question of chapter 5.
#
# A caution: most components of these heads do nothing, so a random draw is an easy comparison. Without L0.H2.C0,
# L0.H1.C1 and L0.H0.C0, which just missed the channel, accuracy is 0.61: where a channel ends is our choice, not
# the model's. To try: `th.channel(..., top=8)`; and say what you expect before you take its components away.

# %%
on = f"{n_tested} lists of {N}, seed {seed + 1}"
results = [
    Result("4 who looks where", looks, name, f"{n} lists of 5, seed {seed}", str(attention_map)),
    Result(f"4 channel into {mover}", found, name, on, str(scatter)),
    Result("4 weights and intervention", f"rank correlation of composition and inhibition score {agreement} over "
           f"{len(components)} components", name, on, str(scatter))]
report(out, results)
