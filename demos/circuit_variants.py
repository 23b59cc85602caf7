# %% [markdown]
# # Every score that was tried
#
# `tinyheads.channels` predicts circuit edges from weights with one recipe. This script recomputes all 498 that were
# tried on the way to it, whether or not they won, and writes their figures to `circuit_variants.tsv`; without them the
# winner's figures cannot be judged. Plainly:
#
# * **Many variants, few labels.** 498 variants (488 in the table that was kept, and 10 that were run once and left out
#   of it) were compared on one small labelled circuit of one model: 12, 8 and 28 known edges by Q, K and V, of which
#   12 by V are doubtful themselves (see the last entry of `held_out_edges.py`).
# * **The choice saw the labels.** No score sees a label, but the choice of the winner did. Its 0.968 / 0.902 / 0.838 is
#   the outcome of that choice, not an estimate of what it would get on another circuit.
# * **What was written down beforehand failed.** Two choices were defended before any figure but the two baselines' was
#   seen: the whole-head score double centred, and the same with the best component. Both are worse than their plain
#   scores by Q and by V, and a little better by K (group C, "log double centred"). A third, whitening by what all heads
#   write, fell short too ("writers whitened", "M W"), but a relative of it is in the winner. The list named more that
#   was never run: Sinkhorn scaling, reciprocal ranks, softmax over writers, a three-way residual, removing the
#   position embeddings or the largest principal components.
# * **What selection costs**, measured once (that script is not kept): choose the best variant on half of the readers,
#   judge it on the other half. Over 108 splits the chosen got 0.967 / 0.857 / 0.808 where plain composition got
#   0.922 / 0.794 / 0.734, and the winner, which had seen both halves, 0.970 / 0.916 / 0.841.
# * **One recipe.** The figures aimed at were Q >= 0.95, K >= 0.88 and V >= 0.82. All 10 variants that meet them are the
#   same recipe (spectral norm, whitening by writers and readers pooled, mode specificity) in 10 metrics. In three more
#   such metrics ("M directions", "causal", "causal T") it narrowly fails.
#
# The letters A to G are those of the list that was written down beforehand; R and M came later. A name reads
# `metric: summary levelling`; each part is a function of `variant_scores.py` or `variant_levellings.py`.

# %%
import csv
from pathlib import Path
from typing import Iterable, Iterator

import torch

import tinyheads as th
import variant_levellings as level
from common import heads_to_read, options, say, table
from held_out_edges import HELD_OUT
from tinyheads.channels import whitening
from tinyheads.composition import MODES, reader_rows, unit
from tinyheads.files.progress import Progress
from tinyheads.tasks import circuit_pairs
from variant_levellings import WRITERS, Scores
from variant_scores import (SUMMARIES, best_over_readers_usual, component_by_component, components_found_anew, entries,
                            family, meet, meet_in, meet_in_layers, pooled, power, scatter_of, single_rows, summarise,
                            tyler, whole_heads)

arguments = options("Recompute every variant of the edge score, and write their table.",
                    ("--out-table", str(Path(__file__).with_name("circuit_variants.tsv")), "where to write the table"))
name, heads = heads_to_read(arguments.model)
L, H, D, K = heads.W_Q.shape
for mode in MODES:
    circuit_pairs(L, H, mode)  # raises for a model in which the circuit is not, before the long part
say(f"{name}: 498 variants, some 6 minutes. Held out, each doubtful in its way (held_out_edges.py), right of the bar:")
say("\n".join(f"  {number}  {edges}" for number, edges in enumerate(HELD_OUT, 1)))

AIM = {"Q": 0.95, "K": 0.88, "V": 0.82}
lines = []  # of the table: group, variant, three areas of the circuit, seven held out


def meets_the_aim(line: list) -> bool:
    return all(area >= AIM[mode] for mode, area in zip(MODES, line[2:5]))


def run(group: str, n: int, variants: Iterable[tuple[str, Scores]]) -> None:
    """Score the n variants of a group, keep their lines and print them."""
    before = len(lines)
    with Progress(group, n, "variants") as bar:
        for variant, scores in variants:
            of_circuit = [th.circuit_auc(scores[mode], mode) for mode in MODES]
            held_out = [th.circuit_auc(scores[mode], mode, {mode: edges}) for mode, edges in HELD_OUT.values()]
            lines.append([group, variant, *of_circuit, *held_out])
            bar.add()
    new = lines[before:]
    assert len(new) == n, f"{len(new)} variants in group {group}, not {n}"
    say("\n" + table([[line[1], *(f"{area:.3f}" for area in line[2:5]), "*" if meets_the_aim(line) else "", "|",
                       *(f"{area:.2f}" for area in line[5:])] for line in new],
                     [group, *MODES, "", "|", *map(str, range(1, len(HELD_OUT) + 1))]))


# %% [markdown]
# ## Both sides of a pair
#
# What a head writes, as its OV components times their strength, and what it reads in each mode, all scaled to size 1;
# also the bare directions (orthonormal within a head) and strengths, for the variants that take those apart.

# %%
ov, qk = th.ov_svd(heads), th.qk_svd(heads)
writers = unit(ov.scale[..., None] * ov.write)                                      # [L, H, K, D]
readers = {mode: unit(reader_rows(heads, mode)) for mode in MODES}                  # each [L, H, K, D]
write_directions, read_directions = ov.write, {"Q": qk.read, "K": qk.write, "V": ov.read}
write_sizes = ov.scale / ov.scale.norm(dim=2, keepdim=True)                         # [L, H, K]
read_sizes = {mode: svd.scale / svd.scale.norm(dim=2, keepdim=True) for mode, svd in [("Q", qk), ("K", qk), ("V", ov)]}
identity = torch.eye(D)

# %% [markdown]
# ## A. The plain core
#
# The product of two heads' circuits, with no metric and no levelling, in five summaries: `frob` is the composition
# score of Elhage et al., `best` the best single component (Merullo et al.), the two baselines; `spec` is the strongest
# single channel. None meets the aim; V already likes `spec` best, Q and K like it least.

# %%
plain = meet_in(identity, writers, readers)
run("A plain core", 5, family("plain", plain, SUMMARIES))

# %% [markdown]
# ## B. The core taken apart
#
# A channel might be one component of the writer meeting one of the reader, or a shared subspace whatever the
# strengths; or a product may be large only for the two spectra it is made of. Lost: `spectral / (sigma_1 tau_1)`, which
# asks how well two heads' directions fit and leaves their strengths out, has Q above the aim, but a K of 0.74.


# %%
def taken_apart() -> Iterator[tuple[str, Scores]]:
    bare = {mode: entries(write_directions, read_directions[mode]) for mode in MODES}
    sized = {mode: entries(write_sizes[..., None] * write_directions, read_sizes[mode][..., None] * rows)
             for mode, rows in read_directions.items()}
    yield "max|v.u|", {mode: largest for mode, (largest, _) in bare.items()}
    yield "max sigma tau |v.u|", {mode: largest for mode, (largest, _) in sized.items()}
    yield "sum (v.u)^4", {mode: fourth for mode, (_, fourth) in bare.items()}
    yield "sum (sigma tau v.u)^4", {mode: fourth for mode, (_, fourth) in sized.items()}
    subspaces = meet_in(identity, write_directions, read_directions)
    yield "subspace overlap", summarise(subspaces, "frob")
    yield "top principal cosine", summarise(subspaces, "spec")
    frob, spec, s4 = (summarise(plain, summary) for summary in ("frob", "spec", "s4"))
    yield "spectral / (sigma_1 tau_1)", {mode: spec[mode] / write_sizes[:, :, :1, None] / read_sizes[mode][:, :, 0]
                                         for mode in MODES}
    yield "participation S4^4/S2^4", {mode: s4[mode] ** 4 / frob[mode].clamp_min(1e-9) ** 4 for mode in MODES}
    bound = {mode: torch.einsum("lhk,mnk->lhmn", write_sizes**2, read_sizes[mode] ** 2).sqrt() for mode in MODES}
    yield "frob / von Neumann bound", {mode: frob[mode] / bound[mode] for mode in MODES}


run("B core taken apart", 9, taken_apart())

# %% [markdown]
# ## C. Levelled: observed over expected
#
# Pairs of all readers share one ranking, so a reader that hears everybody well should not win by that, nor a writer
# that everybody hears. The idea that was defended beforehand, and it lost: part of what ranks the known writers high
# is that many readers hear them well, so taking that out costs V in every summary. Levelling by reader changes little.

# %%
LEVELS_TRIED = {"/reader": level.by_reader, "/writer": level.by_writer, "log double centred": level.double_centred,
                "z reader": level.z_in_reader, "z writer": level.z_in_writer, "z both": level.z_in_both,
                "block double centred": level.double_centred_in_layer_pair, "block mean": level.over_layer_pair,
                "writer-layer mean": level.over_writers_layer, "distance": level.over_distance}


def levelled(summaries: list[str], levellings: dict) -> Iterator[tuple[str, Scores]]:
    for summary in summaries:
        for how, levelling in levellings.items():
            yield f"{summary} {how}", levelling(summarise(plain, summary))


run("C levelled", 30, levelled(["frob", "best", "spec"], LEVELS_TRIED))
run("C levelled", 2, levelled(["frob", "best"], {"rank in reader": level.rank_in_reader}))

# %% [markdown]
# ## D. Whitened: directions that everybody uses count for little
#
# The mean Gram matrix of what all heads write (W) or read (R) says how much each direction of the stream is used.
# Dividing by it can be done on one side or both, by mode or for all modes, in full or by half. W and R together, in
# full, became part of the winner: they raise the K of `spec` from 0.66 to 0.82. R alone ruins `spec`, for it blows up
# the directions that nobody reads.

# %%
W = scatter_of(whole_heads(writers))                                                # [D, D]
R = {mode: scatter_of(whole_heads(readers[mode])) for mode in MODES}                # each [D, D]
R_all = sum(R.values()) / 3
three = ["frob", "best", "spec"]


def in_all_modes(metric: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict.fromkeys(MODES, metric)


def whitened() -> Iterator[tuple[str, Scores]]:
    none, by_W, by_R_all = in_all_modes(identity), in_all_modes(power(W, -0.5)), in_all_modes(power(R_all, -0.5))
    by_R, by_W_and_R = ({mode: power(scatter, -0.5) for mode, scatter in scatters.items()}
                        for scatters in (R, {mode: W + R[mode] for mode in MODES}))
    half_W, half_W_and_R = in_all_modes(power(W, -0.25)), in_all_modes(power(W + R_all, -0.25))
    for variant, on_writer, on_reader, summaries in [
            ("pattern W^-1/2 | W^1/2", by_W, in_all_modes(power(W, 0.5)), three),
            ("writers whitened", by_W, none, three),
            ("readers whitened (own mode)", none, by_R, three),
            ("dual R^1/2 | R^-1/2", {mode: power(R[mode], 0.5) for mode in MODES}, by_R, three),
            ("both whitened (W | R own mode)", by_W, by_R, three),
            ("both whitened (W | R all modes)", by_W, by_R_all, SUMMARIES),
            ("metric R^-1 (own mode)", by_R, by_R, three),
            ("metric R^-1 (all modes)", by_R_all, by_R_all, SUMMARIES),
            ("metric W^-1/2", half_W, half_W, SUMMARIES),
            ("metric (W+R own mode)^-1", by_W_and_R, by_W_and_R, SUMMARIES),
            ("metric (W+R)^-1/2", half_W_and_R, half_W_and_R, SUMMARIES)]:
        meetings = {mode: meet(writers @ on_writer[mode], readers[mode] @ on_reader[mode]) for mode in MODES}
        yield from family(variant, meetings, summaries)


run("D whitened", 43, whitened())

# %% [markdown]
# ## E, R. Other readings of "what is written" and "what is read"
#
# E: a loud writer may matter more, so leave its size in, in all or within its layer, or ask for its share of all that
# reaches the reader. Lost: K falls below chance. R: a reader by the weights of its own side alone (W_Q, not
# W_Q W_K^T), or by its subspace alone. Lost: no better than the whole circuit, mostly worse.


# %%
def by_size() -> Iterator[tuple[str, Scores]]:
    size = ov.scale.norm(dim=2)[:, :, None, None]                                   # [L, H, 1, 1]
    in_layer = size / size.pow(2).mean(dim=1, keepdim=True).sqrt()                  # [L, H, 1, 1]
    frob, spec = summarise(plain, "frob"), summarise(plain, "spec")
    yield "frob, absolute write", {mode: frob[mode] * size for mode in MODES}
    yield "spec, absolute", {mode: spec[mode] * size for mode in MODES}
    yield "best, sigma c", {mode: (plain[mode].components * ov.scale[..., None, None]).amax(2) for mode in MODES}
    yield "frob, absolute / layer rms", {mode: frob[mode] * in_layer for mode in MODES}
    arrived = {mode: (frob[mode] * size) ** 2 for mode in MODES}
    total = {mode: x.sum(WRITERS, keepdim=True).clamp_min(1e-12) for mode, x in arrived.items()}   # [1, 1, L, H]
    yield "share of all written", {mode: arrived[mode] / total[mode] for mode in MODES}


def other_readings() -> Iterator[tuple[str, Scores]]:
    own_side = {"Q": heads.W_Q.mT, "K": heads.W_K.mT, "V": heads.W_V.mT}            # each [L, H, K, D]
    yield from family("raw W_Q/W_K/W_V reader", meet_in(identity, writers, own_side), SUMMARIES)
    yield from family("orthonormal reader", meet_in(identity, writers, read_directions), three)
    yield from family("raw W_O writer, raw reader", meet_in(identity, heads.W_O, own_side), ["frob", "spec"])


run("E absolute size", 5, by_size())
run("R other readings", 10, other_readings())

# %% [markdown]
# ## F, G. Against all modes, and component by component
#
# F: some pairs overlap however they are compared, so level a writer by what it gives in all three modes, or a pair by
# its mean over the modes: through which door, more than through the others? That (`/mode`) lifts Q and K, costs V, and
# became part of the winner. G: each component against what it is usually heard. Lost: whole heads do as well.

# %%
ALL_MODES = {"/writer(all modes)": level.by_writer_all_modes, "/both": level.by_both, "/mode": level.by_mode,
             "/half mode": level.by_half_mode}
run("F against all modes", 12, levelled(three, ALL_MODES))
run("G single components", 8, component_by_component(plain, write_sizes))

# %% [markdown]
# ## M. One metric for both sides, and levelling in it
#
# What C, D and F taught, together. The metrics differ in what is pooled: writers alone (`M W`); writers and readers,
# with the three modes as one side (`M W+R`) or each as its own (`four faces`: the library's); only heads that somebody
# hears or that hear somebody (`used`); every direction alike (`directions`); and in how: once (M), or until each item
# counts the same (T). `causal`: a metric for each reader layer, of the writers before it and the readers from it on.
# All ten winners are `spec /mode` here. Which of the ten hardly matters; the library's is the simplest to state.

# %%
BASIC = {"": level.as_it_is, "/reader": level.by_reader, "/writer(all modes)": level.by_writer_all_modes,
         "/both": level.by_both, "/mode": level.by_mode}
MORE = {**BASIC, "/half mode": level.by_half_mode, "z both": level.z_in_both,
        "log double centred": level.double_centred}
READER_ONLY = {"geo reader": level.geometric_in_reader, "median reader": level.median_in_reader,
               "z reader": level.z_in_reader, "rank in reader": level.rank_in_reader}
FOUR, ONE_SIDE, EACH = ["frob", "best", "spec", "s4"], [1, 1 / 3, 1 / 3, 1 / 3], [1, 1, 1, 1]
all_heads = [whole_heads(writers), *(whole_heads(readers[mode]) for mode in MODES)]
used_heads = [whole_heads(writers[:-1]), *(whole_heads(readers[mode][1:]) for mode in MODES)]
all_rows = [single_rows(write_directions), *(single_rows(read_directions[mode]) for mode in MODES)]
used_rows = [single_rows(write_directions[:-1]), *(single_rows(read_directions[mode][1:]) for mode in MODES)]
METRICS = {  # name: its J, made when its turn comes, and the levellings
    "M W": (lambda: power(W, -0.5), BASIC),
    "M W+R": (lambda: power(W + R_all, -0.5), BASIC),
    "M W+R used": (lambda: power(pooled(used_heads, ONE_SIDE), -0.5), MORE),
    "M four faces": (lambda: whitening(heads), BASIC),
    "M four faces used": (lambda: power(pooled(used_heads, EACH), -0.5), BASIC),
    "M directions": (lambda: power(pooled(all_rows, ONE_SIDE), -0.5), BASIC),
    "T heads": (lambda: power(tyler(all_heads, ONE_SIDE, 30), -0.5), BASIC),
    "T heads used": (lambda: power(tyler(used_heads, ONE_SIDE, 30), -0.5), MORE),
    "T heads used, four faces": (lambda: power(tyler(used_heads, EACH, 30), -0.5), BASIC),
    "T writers": (lambda: power(tyler(used_heads[:1], [1], 30), -0.5), BASIC),
    "T directions used": (lambda: power(tyler(used_rows, ONE_SIDE, 30), -0.5), MORE),
    "T directions": (lambda: power(tyler(all_rows, ONE_SIDE, 15), -0.5), BASIC),
    "T directions used, four faces": (lambda: power(tyler(used_rows, EACH, 15), -0.5), BASIC)}


def in_metrics() -> Iterator[tuple[str, Scores]]:
    for metric, (make, levellings) in METRICS.items():
        J = make()
        meetings = meet_in(J, writers, readers)
        yield from family(metric, meetings, FOUR, levellings)
        if metric in ("M W", "M W+R"):  # the 10 that were run once, and left out of the table that was kept
            yield from family(metric, meetings, ["nuc"])
            yield from family(metric, meetings, FOUR, {"/sqrt writer(all modes)": level.by_root_of_writer})
        if metric == "T heads used":
            yield from family(metric, meetings, ["best"], READER_ONLY)
        if metric != "M W":
            yield f"{metric}: best / reader's rms over components", best_over_readers_usual(meetings)
        if metric in ("T heads used", "T directions used"):
            for variant, scores in components_found_anew(J, writers, readers):
                yield f"{metric}: {variant}", scores


def causal() -> Iterator[tuple[str, Scores]]:
    for metric, steps in [("causal", 1), ("causal T", 8)]:
        J = [identity]  # a layer: there is nothing before layer 0
        for layer in range(1, L):
            around = [whole_heads(writers[:layer]), *(whole_heads(readers[mode][layer:]) for mode in MODES)]
            J.append(power(tyler(around, ONE_SIDE, steps), -0.5))
        yield from family(metric, meet_in_layers(J, writers, readers), FOUR, BASIC)


run("M metric and levelling", 334, in_metrics())
run("M metric and levelling", 40, causal())

# %% [markdown]
# ## The table

# %%
with open(arguments.out_table, "w", newline="") as file:
    writer = csv.writer(file, delimiter="\t", lineterminator="\n")
    writer.writerow(["group", "variant", *MODES, *HELD_OUT])
    writer.writerows([*line[:2], *(f"{area:.3f}" for area in line[2:])] for line in lines)
winners = [f"  {line[1]}" for line in lines if meets_the_aim(line)]
say(f"\n{len(lines)} variants in {arguments.out_table}; * {len(winners)} meet Q >= 0.95, K >= 0.88 and V >= 0.82:")
say("\n".join(winners))
