# %% [markdown]
# # 0. A circuit that is known
#
# Nobody knows all of what is to be found in GPT-2. So first a model whose circuit was written by hand
# (`tinyheads/planted.py`). Each method of the later chapters meets it here, and can be judged.
#
# The task is a list of six items. All but one are crossed off, in random order; the answer is the one that is left:
#
#     item_a item_b item_c item_d item_e item_f   ord_3 ord_0 ord_5 ord_1 ord_4   END   ->   item_c
#
# Three layers of four heads, no MLPs. Two heads are built, and the others are weak noise:
# - **L1.H1, the inhibition head**, looks from END at the ordinals. It writes minus their codes into three
#   directions of the stream, the *channel*. All six codes sum to zero: minus the sum of five is the sixth.
# - **L2.H2, the mover head**, reads the channel with its query, looks at the item there, and copies it.

# %%
import copy

import torch

import tinyheads as th
from common import Result, options, report, say, table
from tinyheads import plots
from tinyheads.planted import CHANNEL_SCALE, CODES, N_ITEMS, laundry_prompts, planted

out = options("Every method on one small model whose circuit is known; --model is for the other chapters.").out
truth = planted()                                                  # the model, and what was put into it
to_find, to_remove, unseen = (laundry_prompts(n, seed) for n, seed in [(300, 1), (40, 4), (400, 2)])
model, circuit = truth.model, th.find_circuit(truth.model, to_find)
say(f"accuracy {th.accuracy(model, unseen):.2f}, chance {1 / N_ITEMS:.2f}; {circuit}")

# %% [markdown]
# `find_circuit` names the two heads that were built, and no other. It went by attention alone: who looks from END
# at the mentions, who at the answer. Whether the one tells the other something is still open.
#
# ## What the weights say
#
# The singular values of the inhibition head's OV are its components' strengths. The composition scores tell which
# components, of all that are written before it, the mover's query reads.

# %%
heads, head = th.Heads.of(model), truth.inhibition
strengths = th.ov_svd(heads).scale[head.layer, head.head]                                             # [K]
say(f"singular values of {head}: " + " ".join(f"{value:.2f}" for value in strengths[:5]))
edges = th.predict_edges(heads, "Q", 5, truth.mover)
say(table([[edge, f"{edge.score:.2f}", f"{edge.distance:.1f}"] for edge in edges], ["edge", "score", "distance"]))

# %% [markdown]
# Three singular values are not zero: 3, 2.5 and 2, as built. The three components lead the table, well above the
# best of the noise. The *weakest* of them scores highest: a component's size cancels in its score, and this mover
# was built to read weak directions more. Weights predict who can talk, not how much it matters.
#
# ## What an intervention says
#
# Each component is taken out in turn (its coordinate is set to the mean over prompts). Its inhibition score is
# what that costs the mover's preference for the answer. The *channel* is what weights and intervention both name.

# %%
scores, composition = th.inhibition_scores(model, to_remove, circuit), th.composition_with_movers(model, circuit)
channel = th.channel(model, to_remove, circuit, measured={"mean": scores})
say("the channel and its inhibition scores: " + ", ".join(f"{c} {scores[c]:.2f}" for c in channel)
    + f"; largest of the others: {max(scores[c] for c in scores if c not in channel):.3f}")
built = [i for i, c in enumerate(scores) if c.of_head == head and c.index < 3]
groups = {"planted": built, "others": [i for i in range(len(scores)) if i not in built]}
figure, axes = plots.new_figure(7, 4.4)
plots.draw_scatter(axes[0, 0], *torch.tensor([(composition[c], scores[c]) for c in scores]).T, groups, {},
                   "composition score by Q", "inhibition score", f"All components before {truth.mover}")
found = plots.save_figure(figure, out / "00_channel_found.png")

# %% [markdown]
# Each of the three planted components costs the mover about half of its preference; none of the other 125 costs
# anything. Here weights and intervention agree. On trained models they do so less often (chapter 4).
#
# ## The subspace, and the code of each index
#
# The three dimensions are found from weights alone, and from how the head's writes differ by the answer's index.
# An angle of 0 is a direction shared with the channel, 90 nothing in common. The code of an index is the mean
# place of END when that index is the answer, or the point of a grid at which its item is answered most surely.

# %%
bases = {"weights": th.subspace_from_weights(model, circuit), "random": th.random_subspace(64, 3, seed=3),
         "activations": th.subspace_from_activations(model, to_find, circuit)}
rows = []
for name, basis in bases.items():
    codes = th.mean_codes(model, to_find, circuit, basis)                                             # [N, k]
    walked = th.traversed_codes(model, to_find.first(8), circuit, basis, around=codes, steps=7)       # [N, k]
    rates = [f"{th.steering_rate(model, unseen, circuit, basis, given):.2f}" for given in (codes, walked)]
    rows.append([name, f"{th.principal_angles(basis, truth.channel).max():.1f}", *rates])
say(table(rows, ["subspace from", "largest angle", "random index followed: mean codes", "traversed codes"]))
codes = th.mean_codes(model, to_find, circuit, truth.channel)                    # [N, 3], in the planted directions
figure, axes = plots.new_figure(7, 4.4)
plots.draw_scatter(axes[0, 0], (CODES * CHANNEL_SCALE).flatten(), (codes - codes.mean(dim=0)).flatten(),
                   {"three coordinates of six codes": list(range(codes.numel()))}, {}, "planted",
                   "found (mean codes, less their mean)", "Codes found against codes planted")
codes_figure = plots.save_figure(figure, out / "00_codes_found.png")
edit = th.Edit(circuit.where, th.set_coordinates(truth.channel, codes[4], unseen.end), of="stream")
first = model(unseen.tokens, th.Stream(edits=[edit]))[0, -1, unseen.candidates[0]].argmax()
say(f"a list with its answer at {unseen.index[0]}; with the code of 4 in END's stream the answer is at {first}")

# %% [markdown]
# *Random index followed*: END gets the code of an index drawn at random; is the answer the item there? This test
# decides whether a space holds positions. Both spaces that were found pass it in every list, the random one is at
# chance. The codes found lie on a line with the planted ones.
#
# ## Damage, and its repair
#
# Now the inhibition head is damaged: a quarter turn of the first two coordinates, so that it writes one index's
# code for another. Indices 2 and 5 lie on the third axis and should not suffer. `fit_repair` looks, on other
# lists, for a 3 x 3 matrix that undoes it, and changes the head's weights for good.

# %%
turn = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
broken = copy.deepcopy(model)
th.edit_output(broken, truth.inhibition, truth.channel, turn)
before = th.by_index(th.correct(th.logits_at_end(broken, unseen), unseen), unseen)                    # [N]
th.fit_repair(broken, circuit, truth.channel, [laundry_prompts(60, 5)], steps=60, rate=0.1).apply(broken)
after = th.by_index(th.correct(th.logits_at_end(broken, unseen), unseen), unseen)                     # [N]
say(table([["damaged", *before.tolist()], ["repaired", *after.tolist()]], ["accuracy by index", *"012345"]))

# %% [markdown]
# Damaged, the model answers only indices 2 and 5 rightly, as expected; repaired, all again, on lists that the fit
# never saw. To try: how few lists and how few steps of the fit are enough?
#
# ## Nothing is found where nothing is
#
# The same model, but the inhibition head writes noise. It still looks at every ordinal. What do the methods say?

# %%
empty = planted(head, truth.mover, with_channel=False).model
edge = th.predict_edges(th.Heads.of(empty), "Q", 1, truth.mover)[0]
lost = th.inhibition_scores(empty, to_remove, circuit, components=[c for c in scores if c.of_head == head])
named = th.channel(empty, to_remove, circuit, measured={"mean": lost})
basis = th.subspace_from_activations(empty, to_find, circuit)
rate = th.steering_rate(empty, unseen, circuit, basis, th.mean_codes(empty, to_find, circuit, basis))
say(f"{th.find_circuit(empty, to_find)}\naccuracy {th.accuracy(empty, unseen):.2f}; best edge {edge}, score "
    f"{edge.score:.2f}; largest inhibition score {max(lost.values()):.3f}; channel: {named or 'none'}; its subspace is "
    f"{th.principal_angles(basis, truth.channel).min():.0f} degrees off at least; random index followed {rate:.2f}")

# %% [markdown]
# Some edge is always the best, and some subspace always comes out: methods that rank do not say no by themselves.
# Those that intervene do. So in all chapters that follow: compare with a control, and let intervention decide.
# To try: plant the heads elsewhere, `planted(th.Head(0, 3), th.Head(1, 0))`, and run this again.

# %%
followed = ", ".join(f"{name} {rate}" for name, _, rate, _ in rows)
report(out, [
    Result("0 channel", f"found: {', '.join(map(str, channel))}; where it was taken out: {named or 'none'}",
           "written by hand", f"{len(to_remove.texts)} lists", str(found)),
    Result("0 steering", f"random index followed: {followed}; chance {1 / N_ITEMS:.2f}",
           "written by hand", f"{len(unseen.texts)} lists", str(codes_figure))])
