# %% [markdown]
# # 4. The inhibition channel
#
# "To wash: sock, hat, coat. Done: third, first. Still to wash: the" -> " hat". All items of a list but one are crossed
# off; which one is left? (The wording is ours.) The paper (Merullo et al. 2024) finds that two kinds of heads share
# this work at the last token, which we call END:
#
# - *inhibition heads* look at the *mentions*, the words behind "Done:", and write into the stream which items are out;
# - *mover heads*, in later layers, read that, look at the item that is left, and copy it.
#
# A head's write is a sum of components (chapter 2). The *inhibition channel* is the few components through which the
# inhibition heads tell a mover head where not to look. We look for it in three steps:
#
# 1. which heads look at the mentions, which at the answer, and which do neither;
# 2. three answers for each component: predicted from weights, attributed on data, measured by taking it away;
# 3. what the model loses without the components that weights and intervention both name.

# %%
import torch

import tinyheads as th
from common import Result, options, rate, report, say, table
from materials import amounts, circuit_of, lists_for, whole_model
from tinyheads import plots
from tinyheads.ablation import WAYS, strongest_by
from tinyheads.known_circuits import roc_area

arguments = options("Inhibition heads and mover heads.", ("--reader", None, "the mover head (default: the strongest)"),
                    ("--by", None, "how items are crossed off", {"choices": ["ordinal", "name"]}))
name, model, tokenizer = whole_model(arguments.model)
out, L, H = arguments.out, model.config.n_layer, model.config.n_head
lists = lists_for(model, tokenizer, [5, 8], arguments.by)
n, n_tested, ways = amounts(model, arguments.quick, (400, 150, WAYS), (200, 200, WAYS), (64, 64, ["mean"]))
N, seed = max(lists.lengths), 40
seen, tested = lists.write(n, 5, seed), lists.write(n_tested, N, seed + 1)
say(f"{name}: {n} lists of 5 items, crossed off by {lists.by} (seed {seed}), such as\n    {seen.texts[0]}\n"
    f"answered rightly: {rate(th.accuracy(model, seen), n)} (chance {1 / 5:.2f})")

# %% [markdown]
# ## Who looks where?
#
# Each cell is a head: its attention from END on all mentions together (left) and on the answer's place (right), mean.

# %%
on_mentions = th.attention_on(model, seen, seen.mentions)                           # [L, H]
on_answer = th.attention_on(model, seen, th.answer_places(seen))                    # [L, H]
figure, axes = plots.new_figure(12, 4, columns=2)
for panel, attention, what in zip(axes[0], [on_mentions, on_answer], ["the mentions", "the answer's place"]):
    plots.draw_map(panel, attention, "head", "layer", f"END's attention on {what} ({name})",
                   f"attention weight, mean of {n} prompts", list(map(str, range(H))), list(map(str, range(L))),
                   written=L * H <= 48)
attention_map = plots.save_figure(figure, out / "04_attention.png")
circuit = circuit_of(model, lists, n)
mover = th.Head.parse(arguments.reader) if arguments.reader else circuit.movers[0]
before = [head for head in circuit.inhibition if head.layer < mover.layer] or circuit.inhibition
circuit = th.Circuit.of(model, before, [mover])
circuit.check(model)
looks = (f"{before[0]}'s attention on the mentions {on_mentions[before[0].layer, before[0].head]:.2f}; "
         f"{mover}'s on the answer {on_answer[mover.layer, mover.head]:.2f}")

# %% [markdown]
# In the bundled model three of the four heads of layer 0 look at the mentions, and three of layer 1 at the answer:
# those that were nudged to look there in training (`weights/README.md`). H3 of each layer was free, and does neither.
# Where a head looks is not what it writes, so these are candidates. To try: `--model named --by name`.
#
# ## Three answers for each component
#
# *Predicted*, from weights: its composition score by Q with the mover (chapter 3). *Attributed*, on data: what it gives
# to the mover's attention score with the answer, before the softmax, less what it gives to those with the other items
# (`th.attention_attribution`). *Measured*: the component is set to zero, to its mean over the prompts, or to its value
# in another prompt (resample). The mover's *preference* is END's attention there on the answer less that on all other
# items; the *inhibition score* is how much of it is lost. On longer lists: on 5 items the mover is too sure.

# %%
ov, composition = th.ov_svd(th.Heads.of(model)), th.composition_with_movers(model, circuit)
components = th.components_to_test(model, circuit, seed)            # all, or the strongest and some at random
parts = th.attributed_scores(model, tested, circuit)                # of every write before the mover, and its bias
attributed = {c: parts[str(c)] for c in composition}
measured = {how: th.inhibition_scores(model, tested, circuit, how, seed, components) for how in ways}
channel = th.channel(model, tested, circuit, seed=seed, measured=measured)          # named by weights and removal
answers = {"composition": composition, "attributed": attributed, **{f"removed, {how}": measured[how] for how in ways}}
highest = [strongest_by({c: scores[c] for c in components}, 5) for scores in answers.values()]
listed = sorted(set().union(*highest), key=lambda c: -composition[c])
say(table([[c, *(f"{scores[c]:+.3f}" for scores in answers.values()), "yes" if c in channel else ""] for c in listed],
          ["component", *answers, "channel"]))
values = {what: torch.tensor([scores[c] for c in components]) for what, scores in answers.items()}      # [components]
whole = {"heads": sum(attributed.values()), **{what: part for what, part in parts.items() if ".C" not in what}}
say(f"the answer's score leads the others' by {sum(parts.values()):.2f}: "
    + ", ".join(f"{what} {part:+.2f}" for what, part in sorted(whole.items(), key=lambda item: -abs(item[1]))[:6]))
sizes = torch.tensor([ov.scale[c.layer, c.head, c.index] for c in components])
values["composition x size"] = values["composition"] * sizes
effect, costly = values["removed, mean"], values["removed, mean"] >= 0.05 * th.preference(model, tested, [mover])
agree = {}
for what in ("composition", "composition x size", "attributed"):
    ends = th.bootstrap_interval(th.rank_correlation, values[what], effect, seed=seed)
    agree[what] = "{:.2f} ({:.2f} to {:.2f})".format(th.rank_correlation(values[what], effect), *ends)
    say(f"{what} beside removal (mean), {len(components)} components: rank correlation {agree[what]}; ROC area for the "
        f"{int(costly.sum())} that cost a twentieth of the preference or more: {roc_area(values[what], costly):.2f}")
groups = {what: [i for i, c in enumerate(components) if (c in channel) == inside]
          for what, inside in (("of the channel", True), ("other components", False))}
figure, axes = plots.new_figure(13, 5, columns=2)
for panel, what, label in ((axes[0, 0], "composition", f"Q-composition score with {mover} (from weights)"),
                           (axes[0, 1], "attributed", f"part of {mover}'s score for the answer (on data)")):
    named = {components.index(c): str(c) for c in [*channel, *listed[:2]]}
    plots.draw_scatter(panel, values[what], effect, groups, named, label, "inhibition score (set to the mean)",
                       f"{name}, {n_tested} lists of {N}: rank correlation {agree[what].split()[0]}")
scatter = plots.save_figure(figure, out / "04_composition_and_inhibition.png")

# %% [markdown]
# On the bundled model three components cost the mover 0.2 of its preference or more (set to the mean), and weights have
# them second to fourth. The first, L0.H3.C0, is of the free head and costs nothing: it writes where the mover reads,
# but the same in all lists. And nearly all of the lead, 22.3 of 23.1, comes from layer 0's *MLP*, which reads the
# heads' code and hands it on. Composition is of the direct way alone; removal counts all ways. So all three are asked.
#
# ## What is lost without the channel?
#
# All its components are set to their mean at once; to compare, as many others of the same heads, drawn at random.

# %%
def without(removed):
    """The model's accuracy and the mover's preference with some components at their mean."""
    edits = th.remove_components(ov, removed, "mean")
    right = th.correct(th.logits_with_edits(model, tested, edits), tested)                   # [B]
    return right.double().mean().item(), th.preference(model, tested, [mover], edits)


others = [c for c in composition if c.of_head in {a.of_head for a in channel} and c not in channel]
draw = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:len(channel)].tolist()
taken = {"nothing": [], "the channel: ": channel, "as many others: ": [others[i] for i in draw]}
lost = {what: without(removed) for what, removed in taken.items()}
say(table([[what + ", ".join(map(str, taken[what])), rate(right, n_tested), f"{prefers:.3f}"]
           for what, (right, prefers) in lost.items()], ["taken away", "accuracy", f"{mover}'s preference"]))
found = (f"{', '.join(map(str, channel)) or 'no component'} by weights and by intervention; accuracy on lists of {N}, "
         f"without it, without as many others: {', '.join(f'{right:.2f}' for right, _ in lost.values())}")

# %% [markdown]
# Without three components of 32 the bundled model is right on 0.35 of the lists, without three others on all. The
# mover's preference turns negative: it looks more at crossed-off items than at the one left. A caution: most components
# of these heads do nothing, so a random draw is an easy comparison. To try: `th.channel(..., top=8)`; where does a
# channel end?

# %%
on = f"{n_tested} lists of {N}, seed {seed + 1}"
report(out, [
    Result("4 who looks where", looks, name, f"{n} lists of 5, seed {seed}", str(attention_map)),
    Result(f"4 channel into {mover}", found, name, on, str(scatter)),
    Result("4 three answers", f"rank correlation with inhibition scores over {len(components)} components: "
           + "; ".join(f"{what} {value}" for what, value in agree.items()), name, on, str(scatter))])
