# %% [markdown]
# # Assignment 5. The positional subspace
#
# Fill in the functions, and hand this in as `submission.py` or `submission.ipynb`; README.md, beside it, is the
# handout. Run cell by cell, in Jupyter, Colab, or an editor that knows `# %%` cells (VS Code, Spyder), `check("5.1")`
# grades exercise 5.1 at once; elsewhere it does nothing.
#
# Axes: B prompt, T position, D d_model, N item of the list, k dimension of the subspace, G grid point. All from 0.
# `prompts` has .tokens [B, T], .positions [B, N], .index [B], .candidates [B, N], .end (an int). Bases: orthonormal
# rows. `circuit` is a th.Circuit: .where, the read ("L0.mlp", say) before which END's stream is read and changed;
# .movers, a list of one th.Head, the mover; .inhibition, the heads that look at the mentions. While you are graded
# the library makes models, heads and prompts, and runs them; of what it has for the analysis, only the functions that
# a docstring below says you may use are there.

# %%
import torch

import tinyheads as th

try:
    from tinyheads.course import check                         # in a notebook check("5.1") grades exercise 5.1
except ImportError:                                            # where the grader runs this file: nothing to do
    def check(exercise):
        pass

torch.set_grad_enabled(False)

# %% [markdown]
# ## Worked examples: nothing to do

# %%
def stream_at_end(model, prompts, where):
    """The stream at END just before a read ("L0.mlp", say), in each prompt: [B, D]. (Done for you; use it.)"""
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

# %%
def bytes_of(path):
    """The bytes of a file: uint8 [n]. (Done for you; 5.7 returns its figure with it.)"""
    with open(path, "rb") as file:
        return torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)

# %% [markdown]
# ## 5.1 What is written, by place

# %%
def mean_write(model, prompts, writers):
    """The heads' mean write at END for each place of the answer: [N, D].

    writers: a list of th.Head. Sum their writes, take out each sum's mean over D, and average over the prompts with
    the answer at the same place. Every place from 0 to N - 1 occurs.
    """
    raise NotImplementedError("5.1 mean_write")

# %%
check("5.1")

# %% [markdown]
# ## 5.2 The directions along which they differ

# %%
def principal_components(means, k):
    """The k orthonormal directions [k, D] along which the rows of means [N, D] differ most, the strongest first."""
    raise NotImplementedError("5.2 principal_components")

# %%
check("5.2")

# %% [markdown]
# ## 5.3 Two subspaces

# %%
def principal_angles(first, second):
    """The principal angles between two subspaces, in degrees, smallest first: [min(k, m)].

    first: orthonormal rows [k, D]; second: orthonormal rows [m, D].
    """
    raise NotImplementedError("5.3 principal_angles")

# %%
check("5.3")

# %% [markdown]
# ## 5.4 Setting coordinates

# %%
def set_coordinates(x, basis, values, position):
    """x with other coordinates in the subspace at one position: a new [B, T, D].

    x: [B, T, D]; basis: [k, D]; values: [B, k], the new coordinates for each prompt; position: an int.
    """
    raise NotImplementedError("5.4 set_coordinates")

# %%
check("5.4")

# %% [markdown]
# ## 5.5 Walking through it

# %%
def traverse(model, prompts, basis, points, circuit):
    """Which item the mover looks at from END, with END at each point: (attention [G, N], owners [G]).

    points: coordinates [G, k], one point after another for all prompts; circuit: .where is the read before which the
    stream is changed, .movers[0] the mover. attention: the mover's attention from END to each item, mean over prompts;
    owners: the item that gets most of it, int64.
    You may use th.coordinates(x, basis), and th.set_coordinates(basis, values, positions), which makes the function
    for an Edit.
    """
    raise NotImplementedError("5.5 traverse")

# %%
check("5.5")

# %% [markdown]
# ## 5.6 The test

# %%
def random_index_test(model, found_on, tested_on, basis, control, circuit, target):
    """Is the subspace positional? (codes, rate, control_codes, control_rate): codes [N, k], rates from 0 to 1.

    found_on: the prompts on which codes are found: the mean coordinates of the stream at END just before
    circuit.where, by the answer's place. tested_on: the prompts on which END's coordinates are set, at the same read,
    to the code of target[b], and the model's answers are counted. target: int64 [B], places drawn at random for you,
    a prompt each. basis, control: two subspaces [k, D], each with codes of its own. The same targets serve both.
    You may use what 5.5 may, and th.by_index(values [B, k], prompts) -> [N, k].
    """
    raise NotImplementedError("5.6 random_index_test")

# %%
check("5.6")

# %% [markdown]
# ## 5.7 Drawing it

# %%
def draw_regions(model, found_on, shown_on, basis, circuit, steps, path):
    """Draw which item owns which part of the plane, and where the codes lie: (codes, points, owners, picture).

    codes: [N, k]; points: [G, k]; owners: int64 [G]; picture: bytes_of(path), once the figure is saved.

    found_on: prompts for the codes, as in 5.6; shown_on: prompts for the owners, as in 5.5; basis: [k, D], k from 2;
    steps: points a side, G = steps * steps (the grid is described in the handout); path: the PNG file to write.
    You may use what 5.6 may; th.mean_codes(model, prompts, circuit, basis) -> [N, k]; and
    th.traverse(model, prompts, circuit, basis, points) -> (the mover's attention to the items [G, N],
    the items' probabilities as the answer [G, N]).
    Draw with matplotlib, without a screen: matplotlib.figure.Figure(), then axes = figure.subplots().
    """
    raise NotImplementedError("5.7 draw_regions")

# %%
check("5.7")

# %% [markdown]
# ## 5.8 What chance gives

# %%
def chance_overlap(k, m, D):
    """Mean and standard deviation of the overlap of a subspace of k dimensions with a random one of m: two floats.

    Overlap: the sum of the squared cosines of all principal angles. D: dimensions of the space. Nothing is drawn.
    """
    raise NotImplementedError("5.8 chance_overlap")

# %%
check("5.8")

# %% [markdown]
# ## 5.9 Open: six places in a plane

# %%
def plane_for_six(model, found_on, circuit):
    """A plane, and a code in it for each of six places, such that a random index is followed: (basis [2, D],
    codes [6, 2]).

    model: a planted one; found_on: some of its lists, of six items; circuit: as in 5.5. You may use what 5.7 may, and
    th.before_end(model, prompts), th.run_end(model, prompts, earlier, edits), which run END alone (at position 0).
    """
    raise NotImplementedError("5.9 plane_for_six")

# %%
check("5.9")

# %% [markdown]
# ## Your own numbers, for the reading questions
#
# The last cell prints them; as a file, `python submission.py` does.

# %%
MODEL, N = "even", 8                                         # try "tiny", and lists of 5 or 12 items


def main(n=400, steps=25):
    """Prints what the reading questions are about, and draws regions.png. n: lists that are judged; steps: of 5.7."""
    from tinyheads import plots

    model, tokenizer = th.load(MODEL), th.load_tokenizer(MODEL)
    found = th.find_circuit(model, th.laundry_list(tokenizer, 400, 5, seed=40))
    circuit = th.Circuit(found.inhibition, found.movers[:1])   # with one mover, to walk with
    print(f"{MODEL}: {circuit}  edits before: {circuit.where}")

    samples = [th.laundry_list(tokenizer, 600, N, seed=seed) for seed in (33, 34)]
    tested = th.laundry_list(tokenizer, n, N, seed=32)
    means = [mean_write(model, prompts, circuit.inhibition) for prompts in samples]
    print("singular values of the means:",
          *(f"{value:.2f}" for value in torch.linalg.svdvals(means[0] - means[0].mean(0)).tolist()))
    basis = principal_components(means[0], 3)
    random = th.random_subspace(model.config.n_embd, 3, seed=5)
    degrees = lambda other: " ".join(f"{angle:.0f}" for angle in principal_angles(basis, other).tolist())
    print("principal angles: two samples", degrees(principal_components(means[1], 3)), " with a random subspace",
          degrees(random))

    target = torch.randint(N, (n,), generator=torch.Generator().manual_seed(6))
    for k in (1, 2, 3, 4):
        space, control = principal_components(means[0], k), th.random_subspace(model.config.n_embd, k, seed=7)
        _, rate, _, control_rate = random_index_test(model, samples[0], tested, space, control, circuit, target)
        print(f"random index, {N} items, k = {k}: {rate:.3f}, random subspace {control_rate:.3f}, chance {1 / N:.3f}")
    few = th.laundry_list(tokenizer, 8, N, seed=8)
    draw_regions(model, samples[0], few, basis, circuit, steps, "regions.png")
    plots.show_in_notebook("regions.png")
    print("regions.png")

    other = th.load("content")                                 # looks at the same places, crosses off by name
    found_on, judged = (th.laundry_list(tokenizer, size, N, "name", seed) for size, seed in ((600, 33), (n, 32)))
    theirs = th.find_circuit(other, found_on)
    space = principal_components(mean_write(other, found_on, theirs.inhibition), 3)
    control = th.random_subspace(other.config.n_embd, 3, seed=7)
    _, rate, _, _ = random_index_test(other, found_on, judged, space, control, theirs, target)
    print(f"content, crossed off by name: right {th.accuracy(other, judged):.3f}, its best mover's attention on the "
          f"answer {th.attention_on(other, judged, th.answer_places(judged)).max():.2f}; random index, {N} items, "
          f"k = 3: {rate:.3f}")

# %%
if __name__ == "__main__":
    main()
