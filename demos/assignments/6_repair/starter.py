# %% [markdown]
# # Assignment 6. Repairing the Laundry List
#
# Fill in the functions, and hand this in as `submission.py` or `submission.ipynb`; README.md, beside it, is the
# handout. Run cell by cell, in Jupyter, Colab, or an editor that knows `# %%` cells (VS Code, Spyder), `check("6.1")`
# grades exercise 6.1 at once; elsewhere it does nothing.
#
# Axes: B prompt, T position, D d_model, K d_head, N item of the list, k dimension of the subspace, V vocabulary. From
# 0. `prompts` has .tokens [B, T], .positions [B, N], .index [B], .candidates [B, N], .end (an int). Bases:
# orthonormal rows. `circuit` is a th.Circuit: .where, the read ("L0.mlp", say) before which END's stream is read and
# changed; .inhibition, the heads that write before it; .movers, those that read it. While you are graded the library
# makes models, heads and prompts, and runs them; of what it has for the analysis, only the functions that a docstring
# below says you may use are there.

# %%
import copy

import torch

import tinyheads as th

try:
    from tinyheads.course import check                         # in a notebook check("6.1") grades exercise 6.1
except ImportError:                                            # where the grader runs this file: nothing to do
    def check(exercise):
        pass

torch.set_grad_enabled(False)                                # 6.4 by gradient descent: with torch.enable_grad(): ...

# %% [markdown]
# ## Worked examples: nothing to do

# %%
def accuracy(model, prompts, edits=()):
    """The share of prompts for which the right candidate has the largest logit at END. (Done for you; use it.)"""
    logits = model(prompts.tokens, th.Stream(edits=list(edits)))[:, prompts.end]    # [B, V]
    among_candidates = logits.gather(1, prompts.candidates)                         # [B, N]
    return (among_candidates.argmax(dim=1) == prompts.index).double().mean().item()

# %%
def stream_at_end(model, prompts, where):
    """The stream at END just before a read ("L0.mlp", say), in each prompt: [B, D]. (Done for you.)"""
    seen = []

    def look(x):                                             # [B, T, D]
        seen.append(x[:, prompts.end])                       # [B, D]
        return x                                             # unchanged: this edit only looks

    model(prompts.tokens, th.Stream(edits=[th.Edit(where, look, of="stream")]))
    return seen[0]

# %%
def head_write_at_end(model, prompts, head):
    """What one head writes at END, in each prompt: [B, D]. (Done for you.)"""
    stream = th.Stream(record=True)
    model(prompts.tokens, stream)
    return stream.writes[str(head)][:, prompts.end]          # [B, T, D] -> [B, D]

# %% [markdown]
# ## 6.1 Setting coordinates

# %%
def set_coordinates(x, basis, new, positions):
    """x with other coordinates in the subspace at some positions: a new [B, T, D].

    x: [B, T, D]; basis: [k, D]; positions: a list of P ints; new: [B, P, k], for each prompt at each of them.
    """
    raise NotImplementedError("6.1 set_coordinates")

# %%
check("6.1")

# %% [markdown]
# ## 6.2 The right code, given

# %%
def give_the_code(model, found_on, judged_on, basis, circuit, seed):
    """What giving END the right place's code does for the answer. A dict:

        "codes"          [N, k]  the mean coordinates of the stream at END just before circuit.where, by the answer's
                                 place, found on `found_on`
        "control"        [k, D]  a random subspace of the same width, drawn from `seed`
        "control codes"  [N, k]  the codes in it, found in the same way
        "before"         accuracy on `judged_on`, a float, with nothing changed
        "logits"         [B, N]  the candidates' logits at END, on `judged_on`, with END's coordinates in the subspace
                         set, just before circuit.where, to the code of prompt b's right place
        "after"          the accuracy of these
        "control after"  the same in the control, with its own codes

    found_on, judged_on: two batches of prompts; basis: [k, D]; seed: an int.
    You may use th.set_coordinates(basis, values, prompts.end), values [B, k], which makes the function for an Edit;
    th.coordinates(x, basis), th.by_index(values [B, k], prompts) -> [N, k], th.random_subspace(D, k, seed).
    """
    raise NotImplementedError("6.2 give_the_code")

# %%
check("6.2")

# %% [markdown]
# ## 6.3 The same head, other weights

# %%
def edit_weights(model, head, basis, M):
    """A copy of the model in which a head's coordinates in the subspace become c @ M, and what was changed:
    (edited, report).

    head: a th.Head; basis: [k, D]; M: [k, k]. The model that was handed in stays as it is.
    W_O of all heads of a layer stands in model.h[layer].attn.c_proj.weight [H * K, D], head 0's K rows first.
    report: th.WeightEdit(head, rank, relative_norm, factors): the change's rank, an int (its singular values above
    1e-5 of the largest); its Frobenius norm divided by that of the head's W_O, a float; the singular values of M,
    a tuple of k floats, largest first. You may use th.WeightEdit.
    """
    raise NotImplementedError("6.3 edit_weights")

# %%
check("6.3")

# %% [markdown]
# ## 6.4 Which M?

# %%
def fit(model, head, basis, codes, train, where, hold):
    """The M [k, k] for which mean over prompts of |s + c (M - 1) - codes[index]|^2, plus hold * |M - 1|^2, is least.

    s, c: coordinates [k] at END of the stream just before `where`, and of the head's write. Both |.|^2 are sums of
    squares over all entries.
    where: "L0.mlp", say; head: a th.Head that writes before it; basis: [k, D]; codes: [N, k], coordinates that the
    readers understand; train: prompts; hold: a float, 0 or more. No weight of the model is changed.
    You may use th.coordinates, th.set_coordinates, th.add_coordinates, and on a copy of the model th.edit_output.
    """
    raise NotImplementedError("6.4 fit")

# %%
check("6.4")

# %% [markdown]
# ## 6.5 What it broke

# %%
def what_it_broke(model, edited, tasks, text):
    """What both models can do: a dict from each name in `tasks` to its accuracy (before, after), and "perplexity" to
    that of `text` (before, after).

    model, edited: before and after; tasks: a dict from names to prompts; text: tokens [B, T]. All are floats.
    """
    raise NotImplementedError("6.5 what_it_broke")

# %%
check("6.5")

# %% [markdown]
# ## 6.6 Your judgement

# %%
# A line "MEASURED = ..." that the last cell printed, of the edit that you write about, pasted here:
MEASURED = {}

# 150 to 800 words on the questions of the handout ("The judgement"), with your figures in it:
JUDGEMENT = """
"""


def judgement():
    """(MEASURED, JUDGEMENT). Once both are filled in, put `return MEASURED, JUDGEMENT` here."""
    raise NotImplementedError("6.6 judgement")

# %%
check("6.6")

# %% [markdown]
# ## 6.7 The least change

# %%
def least_change(z, wanted, basis, hold):
    """The change of W_O [K, D] for which sum over n of |z change - wanted basis|^2, plus hold * |change|^2, is least.

    z: [n, K], what the head gathered in n prompts; wanted: [n, k], the coordinates to be added to its write in each;
    basis: [k, D]; hold: a float, 0 or more. With hold = 0 and n < K many changes fit exactly: the smallest of them.
    """
    raise NotImplementedError("6.7 least_change")

# %%
check("6.7")

# %% [markdown]
# ## 6.8 Open: the best repair under a bound

# %%
def best_repair(model, circuit, basis, train, text, bound):
    """Another W_O [K, D] for a damaged head, so that the lists come right again and little else changes.

    model: a planted one, damaged; circuit: .inhibition[0] is the damaged head, .where and .movers as in 6.2;
    basis: [3, D], the subspace of its channel; train: prompts, whose answers are known; text: tokens [B, T];
    bound: how far what the model says of text may move, as the mean of its divergence KL(before || after).
    You may use what 6.4 may; th.mean_codes(model, prompts, circuit, basis) -> [N, k]; and
    th.traversed_codes(model, prompts, circuit, basis, around) -> [N, k], for each place the point, of a grid about the
    codes `around`, at which its item is answered most surely: a dozen prompts do, train.first(12).
    """
    raise NotImplementedError("6.8 best_repair")

# %%
check("6.8")

# %% [markdown]
# ## Your own numbers
#
# The last cell prints them; as a file, `python submission.py` does.

# %%
TRAIN_LENGTH = 12                                            # of LENGTHS: the lists that M is fitted on
HOLDS = (0.0, 0.1, 1.0)                                      # try others
LENGTHS = (5, 8, 10, 12, 16)


def main(n=400, lengths=LENGTHS):
    """Prints what the judgement and the reading questions are about. n: lists of each length that are judged."""
    model, tokenizer = th.load("tiny"), th.load_tokenizer("tiny")
    circuit, results = th.find_circuit(model, th.laundry_list(tokenizer, 400, 5, seed=40)), {}
    print(circuit, "  edits before:", circuit.where)
    judged = {N: th.laundry_list(tokenizer, n, N, seed=3) for N in lengths}
    print("\nthe right code, given (6.2):  items  before  after: mean code, random; traversed code, random")
    for N, lists in judged.items():
        others, to_walk = th.laundry_list(tokenizer, 400, N, seed=2), th.laundry_list(tokenizer, 12, N, seed=6)
        basis = th.subspace_from_activations(model, others, circuit, 3)
        given = give_the_code(model, others, lists, basis, circuit, seed=30 + N)
        after = {}
        for what, space, around in (("found", basis, given["codes"]),
                                    ("random", given["control"], given["control codes"])):
            codes = th.traversed_codes(model, to_walk, circuit, space, around)          # [N, k], where END should be
            right = codes[lists.index][:, None]                                         # [n, 1, k]
            place = th.Edit(circuit.where, lambda x: set_coordinates(x, space, right, [lists.end]), of="stream")
            after[what] = accuracy(model, lists, [place])
            results.setdefault(N, (basis, codes))
        print(f"given {N:29} {given['before']:7.3f} {given['after']:18.3f} {given['control after']:7.3f} "
              f"{after['found']:15.3f} {after['random']:7.3f}")

    tasks = {f"lists of {N}": lists for N, lists in judged.items()}
    tasks |= {f"recall of {N}": th.ordinal_recall(tokenizer, n, N, seed=8) for N in (8, 12)}
    tasks["IOI"] = th.ioi(tokenizer, n, seed=8, pairs="test")
    text = th.everyday_text(tokenizer, n, seed=80, pairs="test")
    basis, codes = results[TRAIN_LENGTH]
    train = th.laundry_list(tokenizer, 400, TRAIN_LENGTH, seed=40)
    for hold in HOLDS:
        print(f"\nthe weights, edited (6.3, 6.4), fitted on lists of {TRAIN_LENGTH}, their traversed codes, with "
              f"hold = {hold}:")
        edited = model
        for head in circuit.inhibition:                      # one after another, each on what the others left
            M = fit(edited, head, basis, codes, train, circuit.where, hold)
            edited, report = edit_weights(edited, head, basis, M)
            print("   ", report)
        measured = what_it_broke(model, edited, tasks, text)
        print("what it broke (6.5):")
        for name, (before, after) in measured.items():
            print(f"    {name:15} {before:7.3f} -> {after:7.3f}")
        print("MEASURED =", {name: tuple(round(value, 6) for value in pair) for name, pair in measured.items()})

# %%
if __name__ == "__main__":
    main()
