# %% [markdown]
# # Assignment 4. Inhibition heads and mover heads
#
# Fill in the functions, and hand this in as `submission.py` or `submission.ipynb`; README.md, beside it, is the
# handout. Run cell by cell, in Jupyter, Colab, or an editor that knows `# %%` cells (VS Code, Spyder), `check("4.1")`
# grades exercise 4.1 at once; elsewhere it does nothing.
#
# Axes: B prompt, T position, L layer, H head, D d_model, K d_head, N item of the list, M mention. All counted from 0.
# `prompts` has .tokens [B, T], .positions [B, N], .index [B], .mentions [B, M], .candidates [B, N], .end (an int).
# While you are graded the library makes models, heads and prompts, and runs them; of what it has for the analysis,
# only the functions that a docstring below says you may use are there.

# %%
import torch

import tinyheads as th

try:
    from tinyheads.course import check                         # in a notebook check("4.1") grades exercise 4.1
except ImportError:                                            # where the grader runs this file: nothing to do
    def check(exercise):
        pass

torch.set_grad_enabled(False)

# %% [markdown]
# ## Worked examples: nothing to do

# %%
def attention_at_end(model, prompts, layer):
    """Where each head of a layer looks from END, in each prompt: [B, H, T]. (Done for you.)"""
    stream = th.Stream(record=True)                          # keeps all that is read, written and attended to
    model(prompts.tokens, stream)
    pattern = stream.patterns[f"L{layer}"]                   # [B, H, T, T], query by key
    return pattern[:, :, prompts.end]                        # [B, H, T]

# %%
def accuracy_without(model, prompts, head):
    """The share of prompts answered rightly with one head writing nothing. (Done for you: so an edit is used.)"""
    stream = th.Stream(edits=[th.Edit(str(head), lambda write: torch.zeros_like(write))])
    logits = model(prompts.tokens, stream)[:, prompts.end]   # [B, V]
    among_candidates = logits.gather(1, prompts.candidates)  # [B, N]
    return (among_candidates.argmax(dim=1) == prompts.index).float().mean().item()

# %% [markdown]
# ## 4.1 Who looks where

# %%
def where_heads_look(model, prompts):
    """How much of END's attention each head gives to the mentions, and to the answer: (on_mentions, on_answer).

    Both [L, H]. on_mentions: the sum over a prompt's M mentions; on_answer: the position at which the answer
    stands in the list. Each is a mean over the B prompts.
    """
    raise NotImplementedError("4.1 where_heads_look")

# %%
check("4.1")

# %% [markdown]
# ## 4.2 The strongest of them

# %%
def pick_heads(attention, least, before):
    """The heads with at least `least`, of the layers 0 to before - 1: a list of pairs (layer, head), strongest first.

    attention: [L, H]; least: a float; before: an int from 0 to L. The list is empty if there is no such head.
    """
    raise NotImplementedError("4.2 pick_heads")

# %%
check("4.2")

# %% [markdown]
# ## 4.3 Take components out of a write

# %%
def remove(write, directions, how, partner):
    """A head's write without its parts along some directions: a new [B, T, D].

    write: [B, T, D]; directions: k orthonormal rows [k, D]; how: "zero", "mean" or "resample".
    partner: int64 [B], for "resample": prompt b gets the parts of prompt partner[b], at the same position.
    """
    raise NotImplementedError("4.3 remove")

# %%
check("4.3")

# %% [markdown]
# ## 4.4 What a mover prefers

# %%
def preference(pattern, prompts):
    """Attention on the answer minus attention on the N - 1 other items together, mean over prompts: a float.

    pattern: [B, T], one head's attention at END.
    """
    raise NotImplementedError("4.4 preference")

# %%
check("4.4")

# %% [markdown]
# ## 4.5 The inhibition score

# %%
def inhibition_scores(model, prompts, writer, reader, how):
    """How much the reader's preference owes to each component of the writer: [K], in the order of the SVD.

    writer, reader: th.Head, the reader in a later layer; how: "zero" or "mean". Each component is removed alone, at
    all positions. You may use th.ov_svd, th.Heads.of; your own functions above; also
    th.remove(directions, "L0.H3", how), which gives the Edit that `remove` is for, and
    th.preference_in(pattern, prompts), which is 4.4, as a tensor.
    """
    raise NotImplementedError("4.5 inhibition_scores")

# %%
check("4.5")

# %% [markdown]
# ## 4.6 Do two orders agree?

# %%
def rank_correlation(x, y):
    """Spearman's rank correlation of two lists of numbers [n]: a float. Equal numbers share the mean of their ranks."""
    raise NotImplementedError("4.6 rank_correlation")

# %%
check("4.6")

# %% [markdown]
# ## 4.7 What both weights and intervention point at

# %%
def channel(model, found_on, tested_on, writers, reader, n):
    """Components that are among the n highest both ways, and what they are worth: (chosen, before, after).

    found_on, tested_on: two batches of prompts; writers: a list of W th.Head; reader: a th.Head.
    Of the W * K components of the writers take the n highest by Q-composition with the reader, and the n highest by
    inhibition score on `found_on` (mean removal).
    chosen: those in both, as a list of triples (layer, head, component), highest composition first (may be empty);
    before: the reader's preference on `tested_on`; after: the same with all chosen components removed at once (mean).
    You may use what 4.5 may; th.component_scores; and for runs without components, given as th.Component:
    th.inhibition_scores(model, prompts, th.Circuit(writers, [reader]), how, components=components), a dict;
    th.remove_components(ov, components, how), the Edits; th.preference(model, prompts, [reader], edits), a float.
    """
    raise NotImplementedError("4.7 channel")

# %%
check("4.7")

# %% [markdown]
# ## 4.8 The pattern without it

# %%
def pattern_without(pattern, c, gain, how):
    """END's patterns of a reader once a component of an earlier head is removed: [B, T]. In closed form, without a run.

    pattern: [B, T], with the component in place; c: [B], its coordinate w . v at END in each prompt; gain: [B, T], by
    how much END's score for each position rises where c rises by 1; how: "zero" or "mean" (over the B prompts).
    """
    raise NotImplementedError("4.8 pattern_without")

# %%
check("4.8")

# %% [markdown]
# ## 4.9 Open: an unknown channel

# %%
def find_channel(model, prompts, n):
    """The n components through which an unknown model's mover is told where not to look: a list of n triples
    (layer, head, component).

    model: with a planted circuit, and heads that mislead; prompts: its lists. You may use what 4.7 may.
    """
    raise NotImplementedError("4.9 find_channel")

# %%
check("4.9")

# %% [markdown]
# ## Your own numbers, for the reading questions
#
# The last cell prints them; as a file, `python submission.py` does.

# %%
def main(n=150):
    """Prints what the reading questions are about, and draws inhibition.png. n: lists to measure on."""
    model, tokenizer = th.load("tiny"), th.load_tokenizer("tiny")
    seen = th.laundry_list(tokenizer, 400, 5, seed=40)
    print(seen.texts[0])
    on_mentions, on_answer = where_heads_look(model, seen)
    for layer in range(model.config.n_layer):
        print(f"layer {layer}: on the mentions", " ".join(f"{value:.2f}" for value in on_mentions[layer].tolist()),
              " on the answer", " ".join(f"{value:.2f}" for value in on_answer[layer].tolist()))
    mover = th.find_circuit(model, seen).movers[0]
    inhibition = [th.Head(*pair) for pair in pick_heads(on_mentions, 0.5, mover.layer)]
    print("mover:", mover, " inhibition heads:", *inhibition)

    few, judged = (th.laundry_list(tokenizer, n, 8, seed=seed) for seed in (42, 41))    # on lists of 5 it is too sure
    writers = [th.Head(layer, head) for layer in range(mover.layer) for head in range(model.config.n_head)]
    heads = th.Heads.of(model)
    ov = th.ov_svd(heads)
    composition = th.component_scores(heads, "Q", ov)[..., mover.layer, mover.head]                 # [L, H, K]
    predicted = torch.stack([composition[w.layer, w.head] for w in writers])                        # [W, K]
    for how in ("zero", "mean"):
        measured = torch.stack([inhibition_scores(model, few, w, mover, how) for w in writers])     # [W, K]
        print(f"{how} removal, lists of 8: rank correlation "
              f"{rank_correlation(predicted.flatten(), measured.flatten()):.2f}; highest:")
        for place in measured.flatten().topk(5).indices.tolist():
            w, i = writers[place // measured.shape[1]], place % measured.shape[1]
            print(f"    {w}.C{i}  composition {predicted.flatten()[place]:.3f}  inhibition score "
                  f"{measured.flatten()[place]:+.3f}")
    chosen, before, after = channel(model, few, judged, inhibition, mover, 3)
    chosen = [th.Component(*place) for place in chosen]
    others = [c for w in inhibition for i in range(model.config.d_head) if (c := th.Component.of(w, i)) not in chosen]
    draw = torch.randperm(len(others), generator=torch.Generator().manual_seed(1))[:len(chosen)].tolist()
    print("channel:", *chosen, f": preference {before:.3f}, without it {after:.3f}")
    for what, removed in (("nothing", []), ("the channel", chosen), ("as many others", [others[i] for i in draw])):
        edits = th.remove_components(ov, removed, "mean")
        right = th.correct(model(judged.tokens, th.Stream(edits=edits)), judged).double().mean()
        print(f"accuracy, lists of 8, without {what}: {right:.3f}")

    from tinyheads import plots
    figure, ((axes,),) = plots.new_figure(6.4, 4.8)
    axes.scatter(predicted.flatten(), measured.flatten())
    for place in [*measured.flatten().topk(5).indices.tolist(), *predicted.flatten().topk(5).indices.tolist()]:
        label = f"{writers[place // measured.shape[1]]}.C{place % measured.shape[1]}"
        axes.annotate(label, (predicted.flatten()[place], measured.flatten()[place]), fontsize=7)
    axes.set(xlabel=f"Q-composition with {mover} (weights)", ylabel="inhibition score, mean removal (intervention)")
    plots.save_figure(figure, "inhibition.png", dpi=120)       # in a notebook it is shown, too
    print("inhibition.png")

# %%
if __name__ == "__main__":
    main()
