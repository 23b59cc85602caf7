"""Checks of 5.1 to 5.4: what is written by place, its principal components, angles, coordinates set."""

import torch
from torch import Tensor

import tinyheads as th
from grader.comparing import Wrong, close, same_shape
from grader.grading import Call, Model, lazily, once
from grader.inputs import MODEL, circuit_of_model, planted, planted_prompts, random_basis, some_prompts
from tinyheads.basis import principal_components
from tinyheads.last_token import seen_at_end

from . import mistakes

FOUND = 'the handout, "From activations"'
ANGLES = 'the handout, "Angles"'


# --- 5.1 what is written, by place -------------------------------------------------------------------------


def calls_write(generator):
    writers, mover = circuit_of_model().inhibition, circuit_of_model().movers[0]
    built = planted(generator)
    return [Call((Model(MODEL), some_prompts(generator, 60, 5, th.ordinal_recall), writers)),
            Call((Model(MODEL), some_prompts(generator, 70, 7), [*writers[:2], mover])),
            Call((Model(built.model), planted_prompts(generator, 80), [built.inhibition, built.mover]))]


def right_write(model, prompts, writers) -> Tensor:
    total = sum(seen_at_end(model, prompts, [str(writer) for writer in writers], "writes"))        # [B, D]
    return th.by_index(total - total.mean(-1, keepdim=True), prompts)                              # [N, D]


right_write_of = once(right_write)


def check_write(number: int):
    def check(calls, outputs):
        output, args = outputs[number], calls[number].args
        close(output, right_write_of(args), 1e-3, lazily(mistakes.mean_write, args), "the mean write", FOUND)
    return check


def shape_write(calls, outputs):
    for call, output in zip(calls, outputs):
        N, D = call.args[1].positions.shape[1], call.args[0].load().config.n_embd
        same_shape(output, [N, D], "place d_model", "the mean write")


# --- 5.2 the directions along which they differ -----------------------------------------------------------


def calls_components(generator):
    calls = []
    for N, D, k in [(6, 16, 3), (9, 12, 4)]:
        directions = random_basis(generator, D, N - 1)
        spread = torch.randn(N, N - 1, generator=generator)
        spread = torch.linalg.qr(spread - spread.mean(0)).Q
        scale = 6 * 0.7 ** torch.arange(N - 1)                                      # singular values well apart
        offset = 3 * torch.randn(D, generator=generator)
        calls.append(Call((spread * scale @ directions + offset, k)))
    built = planted(generator)
    prompts = planted_prompts(generator, 300)
    return [*calls, Call((right_write(built.model, prompts, [built.inhibition]), 3))]


def with_signs_of(rows: object, wanted: Tensor) -> object:
    """A basis with each row's sign turned to that of the row to compare it with."""
    if not isinstance(rows, Tensor) or rows.shape != wanted.shape or not rows.is_floating_point():
        return rows
    sign = (rows * wanted).sum(1, keepdim=True).sign()
    return rows * torch.where(sign == 0, torch.ones_like(sign), sign)


def check_components(number: int):
    def check(calls, outputs):
        means, k = calls[number].args
        wanted = principal_components(means, k)
        answer = with_signs_of(same_shape(outputs[number], wanted, "k d_model", "the basis"), wanted)
        if k and ((means - means.mean(0)) @ answer.float().T).norm() < 1e-3 * means.norm():
            raise Wrong("the means do not differ along these directions at all: they are those of the smallest "
                        "variance; take the largest (torch.linalg.eigh sorts upwards)")
        made = [(with_signs_of(wrong, answer), message) for wrong, message in mistakes.components(means, k)]
        close(answer, wanted, 1e-2, made, "the basis (but for its signs, which are open)", FOUND)
    return check


def orthonormal(calls, outputs):
    for call, output in zip(calls, outputs):
        means, k = call.args
        rows = same_shape(output, [k, means.shape[1]], "k d_model", "the basis").float()
        if not (rows @ rows.T - torch.eye(k)).abs().max() < 1e-3:
            raise Wrong("the rows are not orthonormal: each should be of length 1 and at right angles to the others")


def planted_components(calls, outputs):
    """The means are those of a planted model: the answer is judged by its angles with the right subspace."""
    means, k = calls[2].args
    wanted = principal_components(means, k)
    answer = same_shape(outputs[2], [k, means.shape[1]], "k d_model", "the basis")
    orthonormal(calls[2:], [answer])
    angle = th.principal_angles(answer.float(), wanted).max().item()
    if angle > 1:
        check_components(2)(calls, outputs)
        raise Wrong(f"in a model built by hand the directions that were planted are known; one of yours is {angle:.0f} "
                    f"degrees off")


# --- 5.3 two subspaces ---------------------------------------------------------------------------------------


def calls_angles(generator):
    frame = lambda D, k: random_basis(generator, D, k)
    calls = [Call((frame(12, 3), frame(12, 3))), Call((frame(9, 2), frame(9, 4))), Call((frame(10, 4), frame(10, 3)))]
    space, turn = frame(11, 3), frame(3, 3)
    return [*calls, Call((space, (turn @ space).contiguous()))]


def check_angles(*numbers: int):
    def check(calls, outputs):
        for number in numbers:
            first, second = calls[number].args
            wanted = th.principal_angles(first, second)
            answer = same_shape(outputs[number], wanted, "angle", "the angles")
            if answer.isnan().any():
                raise Wrong("some angles are nan: by rounding a cosine can be a little above 1, so clamp before the "
                            "arccos")
            if (answer - wanted).abs().max() > (0.1 if number < 3 else 1.0):
                what = "the angles (two bases of one and the same subspace)" if number == 3 else "the angles"
                close(answer, wanted, 1e-3, mistakes.angles(first, second), what, ANGLES)
                raise Wrong(f"{what} are {answer.tolist()}; they should be {wanted.tolist()}. See {ANGLES}")
    return check


# --- 5.4 setting coordinates -----------------------------------------------------------------------------------


def calls_setting(generator):
    calls = []
    for B, T, D, k, position in [(4, 6, 10, 3, 5), (5, 7, 8, 2, 3)]:
        basis = random_basis(generator, D, k)
        calls.append(Call((torch.randn(B, T, D, generator=generator), basis,
                           2 * torch.randn(B, k, generator=generator), position)))
    return calls


def check_setting(number: int):
    def check(calls, outputs):
        x, basis, values, position = calls[number].args
        close(outputs[number], th.set_coordinates(basis, values, position)(x), 1e-3,
              mistakes.setting(x, basis, values, position), "x",
              'the handout, "A subspace"')
    return check


def elsewhere(calls, outputs):
    for call, output in zip(calls, outputs):
        x, basis, values, position = call.args
        answer = same_shape(output, x, "batch position d_model", "x").to(x.dtype)
        others = [t for t in range(x.shape[1]) if t != position]
        if not torch.allclose(answer[:, others], x[:, others], atol=1e-5):
            check_setting(0)(calls, outputs)
            raise Wrong(f"positions other than {position} were changed; only one is asked for")
        if torch.equal(answer, x):
            raise Wrong("x came back as it was")
