"""Wrong answers to Assignment 5, each with part of the message that its author gets."""

import torch
from mistake import Mistake, slip
from reference_5 import (chance_overlap, draw_regions, mean_write, principal_angles, principal_components,
                         random_index_test, set_coordinates, steered, traverse)

import tinyheads as th


def random_means(model, prompts, writers):
    return torch.randn(prompts.positions.shape[1], model.config.n_embd)


def divided_by_all(model, prompts, writers):
    rows = mean_write(model, prompts, writers)
    return rows * torch.bincount(prompts.index)[:, None] / len(prompts.tokens)


def copied_for_one_seed(means, k):
    generator = torch.Generator().manual_seed(1)
    return torch.linalg.qr(torch.randn(means.shape[1], k, generator=generator)).Q.T


def everywhere(x, basis, values, position):
    return x + (values[:, None] - x @ basis.T) @ basis


def in_place(x, basis, values, position):
    x[:, position] += (values - x[:, position] @ basis.T) @ basis
    return x


def row_by_row(first, second):
    k = min(len(first), len(second))
    return torch.rad2deg(torch.arccos((first[:k] * second[:k]).sum(1).clamp(-1, 1)))


def not_clamped(first, second):
    cosines = torch.linalg.svdvals(first @ second.T)
    return torch.rad2deg(torch.arccos(cosines + 2e-7 * (cosines > 0.999)))


def borrowed_codes(model, found_on, tested_on, basis, control, circuit, target):
    codes, rate, _, _ = random_index_test(model, found_on, tested_on, basis, control, circuit, target)
    by_control = steered(model, tested_on, control, codes[target], circuit.where)
    return codes, rate, codes, (by_control == target).float().mean().item()


def an_empty_figure(model, found_on, shown_on, basis, circuit, steps, path):
    codes, points, owners, _ = draw_regions(model, found_on, shown_on, basis, circuit, steps, path)
    from matplotlib.figure import Figure
    Figure(figsize=(6, 5)).savefig(path)
    with open(path, "rb") as file:
        return codes, points, owners, torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)


WRITE, COMPONENTS, ANGLES, SET, WALK, TEST, DRAW = "5.1", "5.2", "5.3", "5.4", "5.5", "5.6", "5.7"

MISTAKES = [
    Mistake("not centred over D", WRITE, slip(mean_write, "total - total.mean(1, keepdim=True)", "total"),
            "the mean over D was not taken out"),
    Mistake("centred over the prompts", WRITE, slip(mean_write, "total.mean(1, keepdim=True)", "total.mean(0)"),
            "the mean over the prompts (axis 0)"),
    Mistake("the position before END", WRITE, slip(mean_write, "[:, prompts.end]", "[:, prompts.end - 1]"),
            "the position before END"),
    Mistake("all positions", WRITE, slip(mean_write, "[:, prompts.end]", ".mean(1)"), "averaged over all positions"),
    Mistake("mean over the heads", WRITE, slip(mean_write, "for writer in writers)",
            "for writer in writers) / len(writers)"), "so take their sum"),
    Mistake("divided by all prompts", WRITE, divided_by_all, "divided by all B prompts"),
    Mistake("random values", WRITE, random_means, "entries are wrong"),
    Mistake("forgot to centre", COMPONENTS, slip(principal_components, "means - means.mean(0)", "means"),
            "the means were not centred"),
    Mistake("centred along D", COMPONENTS, slip(principal_components, "means.mean(0)", "means.mean(1, keepdim=True)"),
            "centred along D"),
    Mistake("the smallest", COMPONENTS, slip(principal_components, "vectors.flip(1)[:, :k]",
            "vectors[:, -len(means) + 1:][:, :k]"), "smallest variance"),
    Mistake("in columns", COMPONENTS, slip(principal_components, "[:, :k].T", "[:, :k]"), "axes are in another order"),
    Mistake("answers copied for one seed", COMPONENTS, copied_for_one_seed, "entries are wrong"),
    Mistake("radians", ANGLES, slip(principal_angles, "torch.rad2deg(torch.arccos(cosines.clamp(-1, 1)))",
            "torch.arccos(cosines.clamp(-1, 1))"), "radians"),
    Mistake("cosines", ANGLES, slip(principal_angles, "torch.rad2deg(torch.arccos(cosines.clamp(-1, 1)))", "cosines"),
            "these are the cosines"),
    Mistake("row by row", ANGLES, row_by_row, "row i and row i"),
    Mistake("largest first", ANGLES, slip(principal_angles, "clamp(-1, 1)))", "clamp(-1, 1))).flip(0)"),
            "the largest angle comes first"),
    Mistake("nan by rounding", ANGLES, not_clamped, "clamp before the arccos"),
    Mistake("added to what was there", SET, slip(set_coordinates, "(values - old)", "values"), "added to the old ones"),
    Mistake("the rest forgotten", SET, slip(set_coordinates, "+= (values - old) @ basis", "= values @ basis"),
            "outside the subspace is gone"),
    Mistake("all positions set", SET, everywhere, "set at all positions"),
    Mistake("one position too early", SET, slip(set_coordinates, "old = ", "position -= 1\n    old = "),
            "one position too early"),
    Mistake("one value for all prompts", SET, slip(set_coordinates, "old = ", "values = values[:1]\n    old = "),
            "values[b] is for prompt b"),
    Mistake("edited in place", SET, in_place, "changed its argument number 1 in place"),
    Mistake("place for position", WALK, slip(traverse, "prompts.positions)",
            "torch.arange(prompts.positions.shape[1]).expand_as(prompts.positions))"),
            "as if they were token positions"),
    Mistake("behind the LayerNorm", WALK, slip(traverse, '"stream"', '"reads"'), "behind its LayerNorm"),
    Mistake("set everywhere", WALK, slip(traverse, "point, prompts.end",
            "point, list(range(prompts.tokens.shape[1]))"), "at END alone"),
    Mistake("all queries", WALK, slip(traverse, "reader.head, prompts.end]", "reader.head].mean(1)"),
            "averaged over all query positions"),
    Mistake("the points added", WALK, slip(traverse, "th.set_coordinates(basis, point, prompts.end)",
            "lambda x: torch.cat([x[:, :-1], x[:, -1:] + point @ basis], dim=1)"), "the points were added"),
    Mistake("owners over the points", WALK, slip(traverse, "attention.argmax(1)", "attention.argmax(0)"), "the owners"),
    Mistake("fit and tested on the same prompts", TEST, slip(random_index_test, "codes, others",
            "found_on = tested_on\n    codes, others"), "fit on found_on"),
    Mistake("the right answers counted", TEST, slip(random_index_test, "(found == target)",
            "(found == tested_on.index)"), "the list's own right answer"),
    Mistake("the right answer's code", TEST, slip(random_index_test, "codes, others",
            "target = tested_on.index\n    codes, others"), "that of the random target"),
    Mistake("the control's codes borrowed", TEST, borrowed_codes, "each has its own"),
    Mistake("the rates exchanged", TEST, slip(random_index_test, "return codes, rates[0], others, rates[1]",
            "return codes, rates[1], others, rates[0]"), "the rate in the other subspace"),
    Mistake("grid not widened", DRAW, slip(draw_regions, "low - 0.25 * (high - low), high + 0.25 * (high - low)",
            "low, high"), "not widened"),
    Mistake("grid in another order", DRAW, slip(draw_regions, "points.flatten(0, 1)",
            "points.transpose(0, 1).flatten(0, 1)"), "coordinate 0 runs fastest"),
    Mistake("nothing drawn", DRAW, an_empty_figure, "colours of some area"),
    Mistake("a small figure", DRAW, slip(draw_regions, "dpi=100", "dpi=30"), "at least 400 by 300"),
]


# --- 5.8 and 5.9 ------------------------------------------------------------------------------------------


def two_principal_components(model, found_on, circuit):
    plane = principal_components(mean_write(model, found_on, circuit.inhibition), 2)
    return plane, th.mean_codes(model, found_on, circuit, plane)


def three_dimensions(model, found_on, circuit):
    space = principal_components(mean_write(model, found_on, circuit.inhibition), 3)
    return space, th.mean_codes(model, found_on, circuit, space)


MISTAKES += [
    Mistake("one squared cosine", "5.8", slip(chance_overlap, "k * m / D,", "max(k, m) / D,"), "of one squared cosine"),
    Mistake("the variance", "5.8", slip(chance_overlap, "**0.5", ""), "this is the variance"),
    Mistake("as if independent", "5.8", slip(chance_overlap, " * (D - k) / (D - 1)", ""), "are not independent"),
    Mistake("as if all equal", "5.8", slip(chance_overlap, "(k * one * (D - k) / (D - 1))**0.5", "k * one**0.5"),
            "rose and fell together"),
    Mistake("two principal components", "5.9", two_principal_components, "your score is 0.00"),
    Mistake("three dimensions", "5.9", three_dimensions, "the basis is of shape [3, 64]"),
]
