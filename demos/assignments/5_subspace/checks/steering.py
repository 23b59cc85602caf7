"""Checks of 5.5 to 5.7: walking through the subspace, the random-index test, and the figure."""

from collections.abc import Iterable
from io import BytesIO

import numpy as np
import torch
from matplotlib.image import imread
from torch import Tensor

import tinyheads as th
from grader.comparing import Wrong, close, same_shape, tensor_like
from grader.grading import Call, Model, all_of, common_cause, lazily, once
from grader.inputs import MODEL, circuit_of, circuit_of_model, planted, planted_prompts, random_int, some_prompts

from . import mistakes

WALK = 'the handout, "Traversal"'
TESTING = 'the handout, "The test"'


def several(output: object, names: tuple) -> tuple:
    """A tuple of that many, or `Wrong`."""
    if not isinstance(output, (tuple, list)) or len(output) != len(names):
        raise Wrong(f"the result should be {len(names)} things: ({', '.join(names)})")
    return tuple(output)


# --- 5.5 walking through it --------------------------------------------------------------------------------------


def calls_traverse(generator):
    model, circuit, calls = th.load(MODEL), circuit_of_model(), []
    for n_items, k, G in [(5, 3, 9), (6, 2, 7)]:
        found_on = some_prompts(generator, 80, n_items, th.ordinal_recall)
        shown_on = some_prompts(generator, 12, n_items)
        basis = th.subspace_from_activations(model, found_on, circuit, k)
        codes = th.mean_codes(model, found_on, circuit, basis)
        near = codes[torch.randint(n_items, (G,), generator=generator)]             # [G, k]
        points = near + 0.3 * codes.std(0) * torch.randn(G, k, generator=generator)
        calls.append(Call((Model(MODEL), shown_on, basis, points, circuit)))
    built = planted(generator)
    circuit = circuit_of(built)
    codes = th.mean_codes(built.model, planted_prompts(generator, 120), circuit, built.channel)
    order = torch.randperm(len(codes), generator=generator)
    return [*calls, Call((Model(built.model), planted_prompts(generator, 10), built.channel, codes[order],
                          circuit))]


right_attention = once(mistakes.attention_at)


def check_attention(*numbers: int):
    def check(calls, outputs):
        for number in numbers:
            args = calls[number].args
            attention, _ = several(outputs[number], ("attention", "owners"))
            close(attention, right_attention(args), 1e-3, lazily(mistakes.traversal, args), "the attention", WALK)
    return check


def must_be_places(owners: Tensor, N: int) -> None:
    """Raise `Wrong` unless all are places in a list of N."""
    if (owners != owners.long()).any() or owners.min() < 0 or owners.max() >= N:
        raise Wrong(f"the owners should be places in the list, whole numbers from 0 to {N - 1}")


def check_owners(*numbers: int):
    def check(calls, outputs):
        for number in numbers:
            attention, owners = several(outputs[number], ("attention", "owners"))
            owners = same_shape(owners, [len(calls[number].args[3])], "point", "the owners")
            N = calls[number].args[1].positions.shape[1]
            must_be_places(owners, N)
            wanted = right_attention(calls[number].args)                            # [G, N]
            given = wanted.gather(1, owners.long()[:, None])[:, 0]
            if (wanted.amax(1) - given).max() > 1e-4:
                least = (wanted.argmin(1), "these are the items that get least attention")
                close(owners, wanted.argmax(1), 0, [least], "the owners", WALK)
    return check


def shape_traverse(calls, outputs):
    for call, output in zip(calls, outputs):
        attention, owners = several(output, ("attention", "owners"))
        same_shape(attention, [len(call.args[3]), call.args[1].positions.shape[1]], "point item", "the attention")
        same_shape(owners, [len(call.args[3])], "point", "the owners")


# --- 5.6 the test ---------------------------------------------------------------------------------------------------


def calls_test(generator):
    model, circuit, calls = th.load(MODEL), circuit_of_model(), []
    for n_items, k in [(5, 3), (6, 2)]:
        found_on = some_prompts(generator, 100, n_items, th.ordinal_recall)
        tested_on = some_prompts(generator, 60, n_items)
        control = th.random_subspace(model.config.n_embd, k, random_int(generator, 0, 10**6))
        target = torch.randint(n_items, (60,), generator=generator)
        basis = th.subspace_from_activations(model, found_on, circuit, k)
        calls.append(Call((Model(MODEL), found_on, tested_on, basis, control, circuit, target)))
    built = planted(generator)
    control = th.random_subspace(built.model.config.n_embd, 3, random_int(generator, 0, 10**6))
    target = torch.randint(6, (50,), generator=generator)
    return [*calls, Call((Model(built.model), planted_prompts(generator, 120), planted_prompts(generator, 50),
                          built.channel, control, circuit_of(built), target))]


TEST = ("codes", "rate", "control_codes", "control_rate")


@once
def right_test(model, found_on, tested_on, basis, control, circuit, target):
    """(codes, rate, control_codes, control_rate)."""
    answer = []
    for rows in (basis, control):
        codes = th.mean_codes(model, found_on, circuit, rows)
        answers = th.steered_answers(model, tested_on, circuit, rows, codes[target])                # [B]
        answer += [codes, (answers == target).double().mean().item()]
    return tuple(answer)


def check_codes(number: int, of: str = "codes"):
    """of: "codes" or "control_codes"."""
    def check(calls, outputs):
        which, args = TEST.index(of), calls[number].args
        model, found_on, tested_on, basis, control, circuit, _ = args
        subspaces = (basis, control) if of == "codes" else (control, basis)
        close(several(outputs[number], TEST)[which], right_test(args)[which], 1e-3,
              lazily(mistakes.codes, (model, found_on, tested_on, *subspaces, circuit)), of, TESTING)
    return check


def check_rate(number: int, of: str = "rate"):
    """of: "rate" or "control_rate"."""
    def check(calls, outputs):
        which, args = TEST.index(of), calls[number].args
        answer, wanted = several(outputs[number], TEST)[which], right_test(args)[which]
        as_float = answer.item() if isinstance(answer, Tensor) and answer.numel() == 1 else answer
        one = 1.01 / len(args[-1])                                      # a prompt more or less: a tie, by rounding
        if isinstance(as_float, float) and abs(as_float - wanted) <= one:
            return
        close(answer, wanted, 1e-9, cause_of_rate(number, of, calls, outputs), of, TESTING)
    return check


def cause_of_rate(number: int, of: str, calls, outputs) -> list:
    """The mistake that gives this rate, and those of the other calls too."""
    answers = [several(output, TEST)[TEST.index(of)] for output in outputs]

    def known(n: int) -> Iterable:
        model, found_on, tested_on, basis, control, circuit, target = calls[n].args
        subspaces = (basis, control) if of == "rate" else (control, basis)
        return lazily(mistakes.rates, (model, found_on, tested_on, *subspaces, circuit, target))

    plain = all(isinstance(each, float) or isinstance(each, Tensor) and each.numel() == 1 for each in answers)
    return common_cause(number, answers, known) if plain else []


def check_control(number: int):
    return all_of(check_codes(number, "control_codes"), check_rate(number, "control_rate"))


# --- 5.7 drawing it ---------------------------------------------------------------------------------------------------


def calls_draw(generator):
    model, circuit, calls = th.load(MODEL), circuit_of_model(), []
    for n_items, k, steps in [(5, 3, 8), (6, 2, 6)]:
        found_on = some_prompts(generator, 60, n_items, th.ordinal_recall)
        shown_on = some_prompts(generator, 6, n_items)
        basis = th.subspace_from_activations(model, found_on, circuit, k)
        calls.append(Call((Model(MODEL), found_on, shown_on, basis, circuit, steps, "regions.png")))
    return calls


DRAWN = ("codes", "points", "owners", "picture")


def plane(codes: Tensor, steps: int, margin: float = 0.25) -> Tensor:
    """The grid of the handout: [steps ** 2, k]."""
    low, high = codes[:, :2].amin(0), codes[:, :2].amax(0)
    grid = th.grid(low - margin * (high - low), high + margin * (high - low), steps)
    return torch.cat([grid, codes[:, 2:].mean(0).expand(len(grid), -1)], dim=1)


@once
def right_drawing(model, found_on, shown_on, basis, circuit, steps, path):
    """Codes [N, k], points [G, k], and the mover's attention to each item there [G, N]."""
    codes = th.mean_codes(model, found_on, circuit, basis)
    points = plane(codes, steps)
    attended, _ = th.traverse(model, shown_on, circuit, basis, points)
    return codes, points, attended


def check_drawn(calls, outputs):
    for call, output in zip(calls, outputs):
        _, found_on, shown_on, basis, circuit, steps, _ = call.args
        codes, points, owners, _ = several(output, DRAWN)
        right, grid, wanted = right_drawing(call.args)                              # [N, k], [G, k], [G, N]
        see = "the handout, exercise 5.7"
        close(codes, right, 1e-3, lazily(mistakes.codes, (call.args[0], found_on, shown_on, basis, basis, circuit)),
              "the codes", see)
        by_columns = grid.view(steps, steps, -1).transpose(0, 1).reshape(len(grid), -1)
        close(points, grid, 1e-3, [(plane(right, steps, 0.0),
                                    "the grid is not widened: a quarter of the range at each end"),
                                   (by_columns, "coordinate 0 runs fastest; coordinate 1 should (cartesian_prod)"),
                                   (torch.cat([grid[:, :2], 0 * grid[:, 2:]], 1),
                                    "further coordinates are 0; they should be at the codes' mean")],
              "the points", see)
        owners = same_shape(owners, [steps * steps], "point", "the owners")
        must_be_places(owners, wanted.shape[1])
        if (wanted.amax(1) - wanted.gather(1, owners.long()[:, None])[:, 0]).max() > 1e-3:
            close(owners, wanted.argmax(1), 0, [], "the owners", see)


def check_picture(calls, outputs):
    for call, output in zip(calls, outputs):
        picture = several(output, DRAWN)[3]
        picture = picture.numpy() if isinstance(picture, Tensor) else picture
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 1:
            raise Wrong("the picture should be the file's bytes, as bytes_of(path) gives them")
        data = picture.tobytes()
        if not data.startswith(b"\x89PNG\r\n\x1a\n"):
            raise Wrong("the file is no PNG: save with figure.savefig(path), path ending in .png")
        width, height = (int.from_bytes(data[at:at + 4], "big") for at in (16, 20))
        if not (400 <= width <= 3000 and 300 <= height <= 3000):
            raise Wrong(f"the figure is {width} by {height} pixels; at least 400 by 300 can be read, and 3000 is "
                        f"more than enough")
        owned = tensor_like(several(output, DRAWN)[2]).unique(return_counts=True)[1]            # points of each item
        items = int((owned >= owned.sum() / 10).sum())                      # a smaller region may lie under a number
        colours = solid_colours(data)
        if colours < items + 1:                                             # the regions' and the paper's
            raise Wrong(f"{items} items own a tenth of the plane or more, but the figure has only {colours} colours of "
                        f"some area, the paper's among them: give each item a colour, and large enough points to be "
                        f"seen")


def solid_colours(png: bytes) -> int:
    """How many colours fill some area: pixels with 8 neighbours of their colour. Letters and lines are thinner."""
    pixels = (imread(BytesIO(png), format="png")[..., :3] * 255).round().astype(np.int64) @ [65536, 256, 1]  # [h, w]
    blocks = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3))                           # [h - 2, w - 2, 3, 3]
    solid = blocks[..., 1, 1][(blocks == blocks[..., 1:2, 1:2]).all((2, 3))]
    return int((np.unique(solid, return_counts=True)[1] >= 30).sum())
