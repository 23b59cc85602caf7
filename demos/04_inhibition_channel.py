# %% [markdown]
# # 4. The inhibition channel
#
# A list of things to do, all but one crossed off: which is left? To answer, some head must know what
# was crossed off, and tell the head that fetches the answer where *not* to look.
#
# 1. which heads look, from the last token (END), at what was crossed off, and which at the answer;
# 2. composition scores of single components, from weights, beside what really happens to the mover's
#    attention when that component alone is taken away while the model runs;
# 3. what is called a channel: only what both agree on, and what the model loses without it.
#
# The wording of the lists is ours: "To wash: sock, hat, coat. Done: third, first. Still to wash: the".

# %%
from pathlib import Path

import torch

import tinyheads as th
from common import Result, options, say, table, way_to_cross_off, whole_model
from tinyheads import causal, lists, plots
from tinyheads.files.progress import Progress

arguments = options("Inhibition heads, mover heads, and the components between them.",
                    ("--reader", None, "the mover head (default: the one that looks at the answer most)"))
name, model, tokenizer = whole_model(arguments.model)
out = Path(arguments.out)
config = model.config
L, H, K = config.n_layer, config.n_head, config.d_head
small = config.n_embd <= 256                       # a big model gets fewer prompts, and fewer components to test
N_ITEMS, n, n_tested, seed = 5, 400 if small else 16, 150 if small else 16, 40
by, lengths = way_to_cross_off(tokenizer, config.n_ctx, [N_ITEMS, 8])
prompts = lists.laundry_list(tokenizer, n, N_ITEMS, by, seed)
right = lists.correct(lists.logits_at_end(model, prompts), prompts).float().mean().item()
say(f"{name}: {n} lists of {N_ITEMS} items, crossed off by {by} (seed {seed}), such as\n    {prompts.texts[0]}\n"
    f"answered rightly: {right:.3f} (chance {1 / N_ITEMS:.2f})")

# %% [markdown]
# ## Who looks where?
#
# Attention from END. On the left, on all crossed-off mentions together: inhibition heads. On the
# right, on the answer's place in the list: mover heads.

# %%
on_mentions = causal.attention_on(model, prompts, prompts.mentions)            # [L, H]
on_answer = causal.attention_on(model, prompts, causal.answer_places(prompts)) # [L, H]
figure, axes = plots.new_figure(12, 4, columns=2)
for panel, attention, what in [(axes[0, 0], on_mentions, "the crossed-off mentions"), (axes[0, 1], on_answer, "the answer's place")]:
    plots.draw_map(panel, attention, "head", "layer", f"END's attention on {what} ({name})",
                   f"attention weight, mean of {n} prompts", xticks=[str(h) for h in range(H)], yticks=[str(l) for l in range(L)])
attention_map = plots.save_figure(figure, out / "04_attention.png")

# The mover is the head that looks at the answer most, and has layers before it to listen to.
if arguments.reader:
    mover = th.Head.parse(arguments.reader)
    if not 0 < mover.layer < L or mover.head >= H:
        raise th.HeadError(f"--reader: {mover} must have a layer before it: choose from L1.H0 to L{L - 1}.H{H - 1}")
elif (L, H, config.n_embd) == (12, 12, 768):
    mover = th.Head(9, 9)                                                      # GPT-2 124M's name mover
else:
    later = on_answer.clone()
    later[0] = -1
    mover = th.Head(*divmod(int(later.argmax()), H))
try:
    inhibition = causal.inhibition_heads(model, prompts, before=mover.layer)
except th.HeadError as error:
    inhibition = causal.inhibition_heads(model, prompts, least=0, before=mover.layer)[:4]
    say(f"{error}: those that come nearest are looked at, and nothing is claimed of them")
say(f"mover head: {mover} ({on_answer[mover.layer, mover.head]:.2f} on the answer); heads that look at what is crossed off: "
    + ", ".join(f"{head} ({on_mentions[head.layer, head.head]:.2f})" for head in inhibition))

# %% [markdown]
# ## Predicted from weights, measured by intervention
#
# Each component of each earlier head is taken out of that head's write, alone: set to zero, to its
# mean over the prompts, or to what it is in another prompt. Its *inhibition score* is by how much the
# mover then prefers the answer less (attention on the answer minus attention on the other items). On lists of 5 a
# mover can be so sure that no single component makes a difference; hence lists of 8, where it is not.

# %%
tested = lists.laundry_list(tokenizer, n_tested, max(lengths), by, seed + 1)   # fewer, for the many runs without a component
heads = th.Heads.of(model)
ov = th.ov_svd(heads)
composition = th.component_scores(heads, "Q", ov)[:mover.layer, :, :, mover.layer, mover.head]  # [layers, H, K]
components = [th.Component(layer, head, index) for layer in range(mover.layer) for head in range(H) for index in range(K)]
if len(components) > 128:  # too many to test one by one: the strongest by composition, and as many at random
    order = sorted(components, key=lambda c: -composition[c.layer, c.head, c.index])
    chance = torch.randperm(len(components) - 16, generator=torch.Generator().manual_seed(seed))[:16] + 16
    components = order[:16] + [order[i] for i in chance.tolist()]
ways = causal.WAYS if small else ("mean",)
whole = causal.preference(model, tested, mover, [])
measured = {way: torch.zeros(len(components)) for way in ways}                 # each [components]
with Progress("removing components", len(ways) * len(components), "runs") as bar:
    for way in ways:
        for i, c in enumerate(components):
            edit = causal.remove(ov.write[c.layer, c.head, c.index], f"L{c.layer}.H{c.head}", way, seed)
            measured[way][i] = whole - causal.preference(model, tested, mover, [edit])
            bar.add()
predicted = torch.tensor([composition[c.layer, c.head, c.index] for c in components])
loudness = predicted * torch.tensor([ov.scale[c.layer, c.head, c.index] for c in components])
correlations = {way: causal.rank_correlation(predicted, effect) for way, effect in measured.items()}

# %% [markdown]
# A component is called part of the channel where both say so: it is among the five highest by
# composition, and among the five highest by every way of removing it, which costs the mover a twentieth
# of its preference at least. Neither is enough. A component
# that writes where the mover reads may have nothing to say in this task; and one that matters may act
# through what lies between, such as an MLP that reads it and writes for the mover.

# %%
top = 5
best = [set(scores.topk(min(top, len(components))).indices.tolist()) for scores in [predicted, *measured.values()]]
least = torch.stack(list(measured.values())).amin(0)                           # [components], by the weakest way
channel = [components[i] for i in sorted(set.intersection(*best), key=lambda i: -float(predicted[i]))
           if whole > 0 and least[i] >= 0.05 * whole]
listed = sorted(set().union(*best), key=lambda i: -float(predicted[i]))
say(table([[components[i], f"{predicted[i]:.3f}", *(f"{measured[way][i]:+.3f}" for way in ways),
            f"{on_mentions[components[i].layer, components[i].head]:.2f}", "yes" if components[i] in channel else ""] for i in listed],
          ["component", "Q-composition", *(f"score, {way}" for way in ways), "head on mentions", "channel"]))
say(f"lists of {max(lengths)}; {mover}'s preference is {whole:.2f} with all components in place")
say(f"rank correlation over {len(components)} components: " + ", ".join(f"{way} {value:.2f}" for way, value in correlations.items())
    + "; of scale times composition: " + ", ".join(f"{way} {causal.rank_correlation(loudness, effect):.2f}" for way, effect in measured.items()))

inhibiting = {(head.layer, head.head) for head in inhibition}
groups = {"components of inhibition heads": [i for i, c in enumerate(components) if (c.layer, c.head) in inhibiting],
          "of other heads": [i for i, c in enumerate(components) if (c.layer, c.head) not in inhibiting]}
figure, axes = plots.new_figure(8.5, 5)
plots.draw_scatter(axes[0, 0], predicted, measured[ways[0] if "mean" not in ways else "mean"], groups,
                   {i: str(components[i]) for i in listed[:8]}, f"Q-composition score with {mover} (from weights)",
                   f"inhibition score (change of {mover}'s attention preference)",
                   f"Predicted and measured, by component ({name})\nrank correlation {correlations['mean']:.2f}, {n_tested} lists of {max(lengths)}")
scatter = plots.save_figure(figure, out / "04_composition_and_inhibition.png")

# %% [markdown]
# ## What is lost without the channel
#
# All components of the channel at once, beside as many random components of the same heads.


# %%
def without(removed):
    """Accuracy and the mover's preference with some components at their mean."""
    edits = [causal.remove(ov.write[c.layer, c.head, c.index], f"L{c.layer}.H{c.head}", "mean") for c in removed]
    with torch.no_grad():
        logits = model(tested.tokens, th.Stream(edits=edits))
    return lists.correct(logits, tested).float().mean().item(), causal.preference(model, tested, mover, edits)


intact = without([])
rows = [["nothing", *(f"{value:.3f}" for value in intact)]]
if channel:
    places = sorted({(c.layer, c.head) for c in channel})
    others = [c for c in (th.Component(layer, head, index) for layer, head in places for index in range(K)) if c not in channel]
    draw = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:len(channel)].tolist()
    lost, control = without(channel), without([others[i] for i in draw])
    rows += [["the channel: " + ", ".join(map(str, channel)), *(f"{value:.3f}" for value in lost)],
             [f"as many others: {', '.join(str(others[i]) for i in draw)}", *(f"{value:.3f}" for value in control)]]
    say(table(rows, ["taken away", "accuracy", f"{mover}'s preference"]))
    found = (f"{', '.join(map(str, channel))}: highest by weights and by intervention; accuracy on lists of {max(lengths)} {intact[0]:.3f}, "
             f"without them {lost[0]:.2f}, without as many others {control[0]:.2f}")
else:
    say("no component is among the highest by weights and by every intervention: no channel is claimed")
    found = "no component is highest both by weights and by intervention"

# %%
sample, tested_on = f"{n} lists of {N_ITEMS}, seed {seed}", f"{n_tested} lists of {max(lengths)}, seed {seed + 1}"
results = [
    Result("4 who looks where", f"most on crossed-off mentions: {inhibition[0]} {on_mentions[inhibition[0].layer, inhibition[0].head]:.2f}; "
           f"on the answer: {mover} {on_answer[mover.layer, mover.head]:.2f}", name, sample, str(attention_map)),
    Result(f"4 channel into {mover}", found, name, tested_on, str(scatter)),
    Result("4 weights and intervention", f"rank correlation of composition and inhibition score {correlations['mean']:.2f} over "
           f"{len(components)} components", name, tested_on, str(scatter)),
]
say(f"figures: {attention_map}, {scatter}")
