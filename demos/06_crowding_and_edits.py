# %% [markdown]
# # 6. Crowding, and edits that repair it
#
# A list of three items, all but one crossed off: the model names the one that is left. A list of twelve: it
# fails more often than not, although it can recall any of the twelve by its ordinal. What runs out?
#
# 1. crowding as numbers over list lengths, set against accuracy;
# 2. an edit in the stream: END is given the code of the right index, and of a random one;
# 3. an edit in the weights, with no answer given: what it mends and what it costs;
# 4. the edited model, saved and loaded again.
#
# Everything is judged on prompts that were used neither to find the subspace nor to fit the edit.

# %%
import copy
from pathlib import Path

import torch

import tinyheads as th
from common import Result, options, say, spare_threads, table, way_to_cross_off, whole_model, writable
from tinyheads import causal, edit, lists, plots, repair, subspace
from tinyheads.at_end import seen_at_end
from tinyheads.files.command import number

arguments = options("Crowding, steering, and a repair of the weights.",
                    ("--steps", None, "steps of the fit (default: 60; for a large model 2)",
                     {"type": number(int, 1, 100_000)}),
                    ("--seed", 0, "of all prompts", {"type": number(int, 0, 1_000_000)}),
                    ("--widths", "3", "dimensions of the weight edits; 3,8 makes two"))
name, model, tokenizer = whole_model(arguments.model)
out, seed = Path(arguments.out), 100 * arguments.seed
config = model.config
L, H, D = config.n_layer, config.n_head, config.n_embd
small = D * L <= 1024                                          # a large model gets few prompts: it must only run through
n, n_find, steps = (400, 1000, 60) if small else (8, 48, 2)
steps = arguments.steps or steps
try:
    widths = [int(k) for k in arguments.widths.split(",")]
except ValueError:
    raise th.InputError(f"--widths is whole numbers with commas between them, not {arguments.widths!r}") from None
if not 1 <= min(widths) <= max(widths) <= config.d_head:
    raise th.InputError(f"--widths are from 1 to {config.d_head}, a head's dimensions, not {arguments.widths!r}")
spare_threads(model)

# %% [markdown]
# Which lists can this tokenizer write, one token a word? Where there are no ordinals they go by name; where there are
# no words, nothing can be done. The subspace is found on some lists, and everything is judged on others.

# %%
LENGTHS = (3, 5, 8, 10, 12, 16) if small else (5, 8)
by, lengths = way_to_cross_off(tokenizer, config.n_ctx, LENGTHS)
laundry = lambda n, n_items, seed=0: lists.laundry_list(tokenizer, n, n_items, by, seed)
recall = lambda n, n_items, seed=0: lists.ordinal_recall(tokenizer, n, n_items, seed=seed)
recall_lengths, no_recall = writable(recall, LENGTHS, config.n_ctx)
say(f"{name}: lists of {lengths} items, crossed off by {by}" + (f"; recall of {recall_lengths} items, for {no_recall}" if no_recall else ""))
results = []
long = [n_items for n_items in lengths if n_items >= 5]        # with these the rest is done
if not long:
    raise th.TaskError(f"{name}: no lists of 5 items or more can be written, so that there is no crowding to measure; "
                       "give --model tiny, or a GPT-2 with its own tokenizer")

# %% [markdown]
# The inhibition heads: those of one layer in which END looks at what was crossed off with more than half of its
# attention. Behind that layer's attention is where END's coordinates are taken and set.

# %%
few = laundry(100 if small else 8, 5, seed=seed + 1)
on_mentions = causal.attention_on(model, few, few.mentions)                             # [L, H]
on_answer = causal.attention_on(model, few, causal.answer_places(few))                  # [L, H]
layer = int((on_mentions[:-1] * (on_mentions[:-1] > 0.5)).sum(1).argmax())              # a reader must come behind it
heads = [th.Head(layer, head) for head in range(H) if on_mentions[layer, head] > 0.5]
if not heads:
    layer, head = divmod(int(on_mentions[:-1].argmax()), H)
    heads = [th.Head(layer, head)]
    say(f"no head looks at the crossed-off mentions with half of END's attention: taking the one that does most, {heads[0]}, "
        f"{on_mentions[layer, head]:.2f}. Do not expect a channel below.")
writers = [str(head) for head in heads]
where = f"L{layer}.mlp"
mover = th.Head(layer + 1, int(on_answer[layer + 1].argmax()))
say(f"inhibition heads {', '.join(writers)}; mover {mover}, {on_answer[mover.layer, mover.head]:.2f} of END's attention on the answer")


def find(n_items, k=3):
    """The k-dimensional subspace of what the inhibition heads write, and each index's mean coordinates in it."""
    prompts = laundry(n_find, n_items, seed=seed + 2)
    means = subspace.mean_by_index(subspace.writes_at_end(model, prompts, writers), prompts.index, n_items)
    basis = subspace.principal_components(means, min(k, n_items - 1))
    return basis, subspace.index_codes(model, prompts, basis, where)


def traversed(n_items, basis, codes):
    """Each index's code [N, k] as found by walking through the subspace: where its item is answered most surely."""
    few = laundry(12 if small else 2, n_items, seed=seed + 6)
    return edit.traversed_codes(model, few, basis, codes, where, [mover], 9 if small else 2)


def accuracy(model, prompts):
    return lists.correct(lists.logits_at_end(model, prompts), prompts).double().mean().item()


found = {n_items: find(n_items) for n_items in long}
unseen = {n_items: laundry(n, n_items, seed=seed + 3) for n_items in lengths}
labels = [str(n_items) for n_items in long]

# %% [markdown]
# ## Crowding
#
# Three numbers for each length. *Apart*: d' of neighbouring indices, the distance of their two clouds at END in
# standard deviations: how well what was worked out from the crossed-off items tells neighbours apart. *Room*: END's
# coordinates are set on a grid that spans the codes; which item does the mover then look at, and how evenly is the
# space shared (1: all indices own the same; the exponential of the shares' entropy, divided by N)? *Spread*: the
# largest weight that an inhibition head gives to any one mention; one that weighed all alike would stand at 1 / (N - 1).

# %%
rows, crowd, by_place = [], {}, {}
for n_items in long:
    basis, codes = found[n_items]
    crossed = unseen[n_items]
    try:
        apart = subspace.separation(subspace.coordinates(subspace.stream_at_end(model, crossed, where), basis), crossed.index, n_items)
    except th.SubspaceError:                                  # too few prompts for every index to occur
        apart = torch.full((n_items - 1,), torch.nan)
    low, high = codes.amin(0), codes.amax(0)
    points = subspace.grid(low - 0.25 * (high - low), high + 0.25 * (high - low), 5 if small else 2)
    handful = laundry(4, n_items, seed=seed + 5)
    owners, _ = edit.traverse(model, handful, basis, points, where, mover)
    share = subspace.shares(owners, n_items)
    even = torch.exp(-(share * share.clamp_min(1e-12).log()).sum()).item() / n_items
    right = lists.correct(lists.logits_at_end(model, crossed), crossed)
    pattern = seen_at_end(model, crossed, [f"L{layer}"], "patterns")[0][:100, [head.head for head in heads]]   # [B, heads, T]
    weights = pattern.gather(2, crossed.mentions[:100, None].expand(-1, len(heads), -1))                      # [B, heads, M]
    largest = (weights.amax(-1) / weights.sum(-1)).mean().item()
    crowd[n_items] = (right.double().mean().item(), apart.median().item(), even, largest)
    by_place[n_items] = (lists.by_index(right, crossed), share)
    rows.append([n_items, f"{crowd[n_items][0]:.3f}", f"{apart.median():.2f}", f"{apart.min():.2f}", f"{even:.2f}",
                 int((share > 0).sum()), f"{largest:.2f}"])
say("d' of neighbouring indices at END, in 3 dimensions")
say(table(rows, ["items", "accuracy", "median d'", "least", "evenness", "indices with room", "largest weight"]))
correlation = causal.rank_correlation(torch.tensor([crowd[m][0] for m in long]), torch.tensor([crowd[m][1] for m in long])) if len(long) > 2 else float("nan")
longest = max(long, key=lambda m: (m <= 12, m))
figure, axes = plots.new_figure(13, 7.6, columns=2, rows=2)
plots.draw_lines(axes[0, 0], {"accuracy": torch.tensor([crowd[m][0] for m in long]),
                              "evenness of the shares of space": torch.tensor([crowd[m][2] for m in long]),
                              "largest weight on one mention": torch.tensor([crowd[m][3] for m in long]),
                              "... if all weighed alike": torch.tensor([1 / (m - 1) for m in long])},
                 "items in the list", "share", f"Crowding, against accuracy ({name})")
plots.draw_lines(axes[0, 1], {"worked out from what is crossed off": torch.tensor([crowd[m][1] for m in long])},
                 "items in the list", "d' of neighbouring indices (median)", "How far apart neighbours stand at END, in 3 dimensions")
axes[0, 1].set_yscale("log")
axes[0, 1].axhline(1, color="#888888", linewidth=0.8)
axes[0, 1].annotate("below 1 they overlap", (1, 1), xycoords=("axes fraction", "data"), xytext=(-4, 4), ha="right",
                    textcoords="offset points", fontsize=8, color="#555555")
for panel in axes[0]:
    panel.set_xticks(range(len(long)), labels)
accuracies, _ = by_place[longest]
plots.draw_lines(axes[1, 0], {f"{m} items": by_place[m][0] for m in long}, "index of the answer", "accuracy",
                 "Accuracy by the answer's index")
plots.draw_lines(axes[1, 1], {f"{m} items": by_place[m][1] for m in long}, "index", "share of the grid",
                 f"Share of the space each index owns (by {mover}'s attention)")
crowding = plots.save_figure(figure, out / "06_crowding.png")
per_index = f"; by index at {longest} items {accuracies.nan_to_num().max():.2f} at best, {accuracies.nan_to_num().min():.2f} at worst"
results.append(Result("6 crowding", f"{long[0]} to {long[-1]} items: accuracy {crowd[long[0]][0]:.2f} to {crowd[long[-1]][0]:.2f}{per_index}; "
                      f"d' of neighbours {crowd[long[0]][1]:.2f} to {crowd[long[-1]][1]:.2f} (rank correlation with accuracy {correlation:.2f})",
                      name, f"n = {n} a length, seed {seed}", str(crowding)))

# %% [markdown]
# ## In the stream: the right index, given
#
# END's coordinates in the 3-dimensional subspace are set to the code of the right index, found on other prompts.
# If accuracy comes back, the readers were ready and END lacked the code. Two kinds of codes, as in demo 05: the mean
# coordinates of lists with that answer, and those found by traversal. A random subspace of the same width, traversed
# as well, is the control. With a *random* index the model should answer with the item at that index: that makes the
# subspace positional.

# %%
KINDS = ("mean code", "traversed code", "random, mean code", "random, traversed code")
steered = {"untouched": [], **{label: [] for label in KINDS}}
random_index = {label: [] for label in ("chance", *KINDS)}               # the same colours on both sides
for n_items in long:
    basis, codes = found[n_items]
    prompts = unseen[n_items]
    control = subspace.random_subspace(D, len(basis), seed + 6)
    control_codes = subspace.index_codes(model, laundry(n_find, n_items, seed=seed + 2), control, where)
    chosen = {"mean code": (basis, codes), "traversed code": (basis, traversed(n_items, basis, codes)),
              "random, mean code": (control, control_codes),
              "random, traversed code": (control, traversed(n_items, control, control_codes))}
    steered["untouched"].append(crowd[n_items][0])
    for label, (rows_of, values) in chosen.items():
        answers = edit.steered_answers(model, prompts, rows_of, values[prompts.index], where)
        steered[label].append((answers == prompts.index).double().mean().item())
        random_index[label].append(edit.steering_rate(model, prompts, rows_of, values, where, seed + 7))
    random_index["chance"].append(1 / n_items)
say()
say(table([[what, label, *(f"{value:.3f}" for value in values)] for what, lines in (("right index", steered), ("random index", random_index))
           for label, values in lines.items()], ["steered to", "", *(f"{m} items" for m in long)]))
figure, axes = plots.new_figure(12, 4.4, columns=2)
plots.draw_lines(axes[0, 0], {label: torch.tensor(values) for label, values in steered.items()}, "items in the list", "accuracy",
                 f"END is given the right index's code ({name})")
plots.draw_lines(axes[0, 1], {label: torch.tensor(values) for label, values in random_index.items()}, "items in the list",
                 "answers with the item at that index", "END is given a random index's code")
for panel in axes[0]:
    panel.set_xticks(range(len(long)), labels)
    panel.set_ylim(-0.03, 1.05)
steering = plots.save_figure(figure, out / "06_steering.png")
best_label = max(KINDS[:2], key=lambda label: sum(steered[label]))
gains = [after - before for after, before in zip(steered[best_label], steered["untouched"])]
top = max(range(len(long)), key=lambda i: gains[i])
results.append(Result("6 edit in the stream", f"right index given, 3 dimensions, {best_label}: accuracy {steered['untouched'][top]:.2f} to "
                      f"{steered[best_label][top]:.2f} at {long[top]} items (random subspace: mean code {steered['random, mean code'][top]:.2f}, traversed {steered['random, traversed code'][top]:.2f}); random index followed "
                      f"{random_index[best_label][0]:.2f} at {long[0]}, {random_index[best_label][1 if len(long) > 1 else 0]:.2f} at {long[1 if len(long) > 1 else 0]}",
                      name, f"n = {n} a length, seed {seed}", str(steering)))

# %% [markdown]
# ## In the weights, with no answer given
#
# Each inhibition head's write is mixed inside the subspace by a matrix M (c becomes c @ M), fitted on a few
# hundred prompts: cross-entropy of the answer on long lists, held by the divergence from the model as it was on
# recall, IOI and text. Then M is put into W_O for good. In 3 dimensions; `--widths 3,8` compares with more.
#
# It can only mend what END was told. Heads that weigh all mentions alike tell it everything, if faintly: a linear
# readout of END's stream finds the index far more often than the movers do, and there is something to gain. Heads
# that look at one mention each ("largest weight" above near 1) leave nothing to be amplified. On the bundled model
# of before, whose heads were such, no change of OV, of the movers' QK or of whole layers gained a point.

# %%
ioi = lambda n, seed, pairs: lists.ioi(tokenizer, n, seed=seed, pairs=pairs)
others = {"IOI, unseen pairs": lambda: ioi(2 * n, seed + 8, "test")}
others.update({f"recall, {m} items": lambda m=m: recall(n, m, seed + 8) for m in recall_lengths[1::2] or recall_lengths})
judged, refused = {f"{m} items": unseen[m] for m in lengths}, []
for label, make in others.items():
    try:
        judged[label] = make()
    except th.TaskError as error:
        refused.append(f"{label} ({error})")
try:
    text, train_text = lists.everyday_text(tokenizer, n, seed + 8, "test"), lists.everyday_text(tokenizer, 12, seed + 9)
except th.TaskError as error:
    text = train_text = None
    refused.append(f"everyday text ({error})")
if refused:
    say(f"not to be had with this tokenizer: {'; '.join(refused)}")
per = 128 if small else 4
train = [laundry(per, m, seed=seed + 9) for m in long if 8 <= m <= 12] or [laundry(per, long[-1], seed=seed + 9)]
keep = [recall(per // 2, m, seed + 9) for m in recall_lengths[-1:]]
if "IOI, unseen pairs" in judged:
    keep.append(ioi(per // 2, seed + 9, "train"))
keep += [train_text] if train_text is not None else []


def measured(model):
    """Accuracy on everything, and perplexity."""
    return {label: accuracy(model, prompts) for label, prompts in judged.items()}, repair.perplexity(model, text) if text is not None else float("nan")


before, perplexity_before = measured(model)
edited, reports, after = {}, {}, {}
wide = min(config.d_head, longest - 1)
for k in dict.fromkeys(min(k, wide) for k in widths):
    basis, _ = find(longest, k)
    fitted = repair.fit_repair(model, heads, basis, train, keep, hold=4.0, steps=steps, rate=0.1)
    edited[k] = copy.deepcopy(model)
    reports[k] = fitted.apply(edited[k])
    after[k] = measured(edited[k])
    say(f"\nthe edit in {k} dimensions, fitted on {sum(len(p.tokens) for p in train)} lists in {steps} steps:")
    for report in reports[k]:
        say(f"  {report}")
say()
say(table([[label, f"{before[label]:.3f}", *(f"{after[k][0][label]:.3f} ({100 * (after[k][0][label] - before[label]):+.1f})" for k in after)]
           for label in before] + [["perplexity", f"{perplexity_before:.3f}", *(f"{after[k][1]:.3f} ({after[k][1] / perplexity_before - 1:+.2%})" for k in after)]],
          ["accuracy", "before", *(f"edit in {k} dimensions (points)" for k in after)]))

# %% [markdown]
# Before and after, everywhere.

# %%
figure, axes = plots.new_figure(12, 4.8, columns=2, gridspec_kw={"width_ratios": [1, 1]})
series = {"before": before, **{f"edit in {k} dimensions": after[k][0] for k in after}}
rest = [label for label in before if label not in {f"{m} items" for m in lengths}] or [f"{lengths[0]} items"]
plots.draw_lines(axes[0, 0], {label: torch.tensor([values[f"{m} items"] for m in lengths]) for label, values in series.items()},
                 "items in the list", "accuracy", f"Laundry List, weights edited ({name})")
axes[0, 0].set_xticks(range(len(lengths)), [str(m) for m in lengths])
plots.draw_lines(axes[0, 1], {label: torch.tensor([values[other] for other in rest]) for label, values in series.items()},
                 "", "accuracy", "What should stay as it was; perplexity " + ", ".join(
                     [f"{perplexity_before:.2f}", *(f"{after[k][1] / perplexity_before - 1:+.2%}" for k in after)]))
axes[0, 1].set_xticks(range(len(rest)), [label.replace(", ", ",\n") for label in rest], fontsize=7)
for panel in axes[0]:
    panel.set_ylim(-0.03, 1.05)
weights_figure = plots.save_figure(figure, out / "06_weight_edit.png")

# %% [markdown]
# Saved, loaded, compared: the edited model is a model like any other.

# %%
gain = {k: max((after[k][0][f"{m} items"] - before[f"{m} items"], m) for m in (m for m in long if m >= 8 or m == max(long))) for k in after}
best = max(gain, key=lambda k: gain[k])
folder = th.save(edited[best], out / "edited_model", tokenizer)
again = th.load(folder)
with torch.no_grad():
    difference = (again(unseen[long[-1]].tokens[:50]) - edited[best](unseen[long[-1]].tokens[:50])).abs().max().item()
say(f"\nsaved as {folder} and loaded again: logits differ by {difference:.0e} at most")
points, at = 100 * gain[best][0], gain[best][1]
reached = points >= 10
say(f"the best gain at 8 items or more: {points:+.1f} points, at {at} items; the target was +10: {'reached' if reached else 'missed'}")
worst = min((after[best][0][label] - before[label] for label in rest), default=0)
results.append(Result("6 edit in the weights", f"fitted, {best} dimensions, no answer given: {points:+.1f} points at {at} items (target +10 "
                      f"{'reached' if reached else 'missed'}); recall and IOI {100 * worst:+.1f} at worst, perplexity "
                      f"{after[best][1] / perplexity_before - 1:+.2%}; rank {reports[best][0].rank} a head, "
                      f"{max(report.relative_norm for report in reports[best]):.0%} of W_O at most; loads again within {difference:.0e}",
                      name, f"n = {n} a length, seed {seed}", str(weights_figure)))
say()
say(table([[result.chapter, result.measured, result.model, result.sample] for result in results], ["chapter", "measured", "model", "sample"]))
say(f"figures: {', '.join(result.figure for result in results)}")
