"""Checks of 6.1 and 6.2: coordinates set in the stream, and END given the code of the right place."""

from collections.abc import Iterator

import torch
from torch import Tensor

import tinyheads as th
from grader.comparing import Wrong, close, same_shape, tensor_like
from grader.codes import candidates_with
from grader.grading import Call, Model, common_cause, lazily, loaded, once
from grader.inputs import MODEL, circuit_of_model, random_basis, random_int, some_prompts

from . import mistakes
from .answers import as_number, entries

GIVEN = 'the handout, "An edit in the stream"'


# --- 6.1 setting coordinates ---------------------------------------------------------------------------------


def calls_setting(generator):
    calls = []
    for B, T, D, k, positions in [(4, 6, 10, 3, [5]), (5, 7, 8, 2, [6, 2, 3])]:
        basis = random_basis(generator, D, k)
        calls.append(Call((torch.randn(B, T, D, generator=generator), basis,
                           2 * torch.randn(B, len(positions), k, generator=generator), positions)))
    return calls


def check_setting(number: int):
    def check(calls, outputs):
        args = calls[number].args
        close(outputs[number], mistakes.right_setting(*args), 1e-3, mistakes.setting(*args), "x", GIVEN)
    return check


def elsewhere(calls, outputs):
    for number, (call, output) in enumerate(zip(calls, outputs)):
        x, _, _, positions = call.args
        answer = same_shape(output, x, "batch position d_model", "x").to(x.dtype)
        others = [t for t in range(x.shape[1]) if t not in positions]
        if torch.equal(answer, x) or not torch.allclose(answer[:, others], x[:, others], atol=1e-5):
            check_setting(number)(calls, outputs)


# --- 6.2 the right code, given -------------------------------------------------------------------------------


def calls_code(generator):
    model, circuit, calls = th.load(MODEL), circuit_of_model(), []
    for n_items, k in [(10, 3), (12, 2)]:              # lengths at which not all answers are right
        found_on = some_prompts(generator, 60, n_items, th.ordinal_recall)
        judged_on = some_prompts(generator, 40, n_items)
        basis = th.subspace_from_activations(model, found_on, circuit, k)
        calls.append(Call((Model(MODEL), found_on, judged_on, basis, circuit, random_int(generator, 0, 10**6))))
    return calls


KEYS = ("codes", "control", "control codes", "before", "logits", "after", "control after")


@once
def right_codes(model, found_on, judged_on, basis, circuit, seed):
    """(codes, before) of the subspace that was asked about."""
    return th.mean_codes(model, found_on, circuit, basis), th.accuracy(model, judged_on)


def control_of(number: int, calls, outputs) -> Tensor:
    """The control that the submission drew, if it is one."""
    model, _, _, basis, _, _ = calls[number].args
    control = tensor_like(entries(outputs[number], KEYS)["control"])
    k, D = basis.shape
    if isinstance(control, Tensor) and control.dim() == 2 and control.shape[1] == D and len(control) != k:
        raise Wrong(f"the control has {len(control)} dimensions, the subspace {k}: more room to write in does more by "
                    f"itself, so the two must be of the same width. See {GIVEN}")
    same_shape(control, basis, "k d_model", "the control")
    if not (control @ control.T - torch.eye(k)).abs().max() < 1e-3:
        raise Wrong("the control's rows are not orthonormal: torch.linalg.qr of [D, k], transposed, makes them so")
    if th.principal_angles(control.float(), basis)[0] < 15:
        raise Wrong("the control shares a direction with the subspace; it should be drawn at random, from `seed`")
    return control.float()


def check_codes(number: int):
    def check(calls, outputs):
        args, answer = calls[number].args, entries(outputs[number], KEYS)
        model, found_on, judged_on, basis, circuit, seed = args
        other = th.random_subspace(basis.shape[1], len(basis), seed)
        close(answer["codes"], right_codes(args)[0], 1e-3,
              lazily(mistakes.codes, (model, found_on, judged_on, basis, other, circuit)), "the codes", GIVEN)
    return check


def within_one(answer: object, wanted: float, B: int, known, what: str) -> None:
    """A rate, right within one prompt (a tie, by rounding), or `Wrong`."""
    if abs(as_number(answer, what) - wanted) > 1.01 / B:
        close(as_number(answer, what), wanted, 1e-9, known, what, GIVEN)


def own_codes(number: int, calls, outputs) -> Tensor:
    """The codes that the submission found, if they can be codes; else the right ones: a slip there costs once."""
    right, own = right_codes(calls[number].args)[0], tensor_like(entries(outputs[number], KEYS)["codes"])
    usable = isinstance(own, Tensor) and own.shape == right.shape and own.isfinite().all()
    return own.float() if usable else right


def given_in_basis(number: int, calls, outputs) -> tuple:
    """What `mistakes.logits` and `mistakes.rates` take, of the subspace that was asked about."""
    model, found_on, judged_on, basis, circuit, seed = loaded(calls[number].args)
    other = th.random_subspace(basis.shape[1], len(basis), seed)
    others = th.mean_codes(model, found_on, circuit, other)
    return model, judged_on, basis, own_codes(number, calls, outputs), other, others, circuit


def given_in_control(number: int, calls, outputs) -> tuple:
    """The same of the control, where the other subspace is the one that was asked about."""
    model, found_on, judged_on, basis, circuit, _ = loaded(calls[number].args)
    control = control_of(number, calls, outputs)
    codes = th.mean_codes(model, found_on, circuit, control)
    return model, judged_on, control, codes, basis, right_codes(calls[number].args)[0], circuit


def causes(number: int, key: str, given, calls, outputs) -> Iterator:
    """The mistake that gives this rate, and that of the other call too."""
    answers = [as_number(entries(output, KEYS)[key], key) for output in outputs]
    yield from common_cause(number, answers, lambda n: mistakes.rates(*given(n, calls, outputs)))


def check_rates(number: int):
    """Logits and accuracy are those that follow from the submission's own codes, so that a slip there costs once."""
    def check(calls, outputs):
        args, answer = calls[number].args, entries(outputs[number], KEYS)
        model, _, judged_on, basis, circuit, _ = args
        before, codes = right_codes(args)[1], own_codes(number, calls, outputs)
        logits = candidates_with(model.load(), judged_on, basis, codes[judged_on.index], circuit)
        after, B = mistakes.rate(logits, judged_on), len(judged_on.tokens)
        within_one(answer["before"], before, B, causes_before(number, calls, outputs), "the accuracy before")
        close(answer["logits"], logits, 1e-3, causes_of_logits(number, calls, outputs), "the logits", GIVEN)
        within_one(answer["after"], after, B, causes(number, "after", given_in_basis, calls, outputs),
                   "the accuracy after")
    return check


def causes_of_logits(number: int, calls, outputs) -> Iterator:
    yield from mistakes.logits(*given_in_basis(number, calls, outputs))


def causes_before(number: int, calls, outputs) -> Iterator:
    """As `causes`, of the accuracy with nothing changed."""
    answers = [as_number(entries(output, KEYS)["before"], "the accuracy before") for output in outputs]

    def known(n: int) -> list:
        model, judged_on, basis, codes, _, _, circuit = given_in_basis(n, calls, outputs)
        after = mistakes.rate(candidates_with(model, judged_on, basis, codes[judged_on.index], circuit), judged_on)
        return [(after, "it is that with the code given; before, nothing is changed"),
                (100 * right_codes(calls[n].args)[1], "this is in percent; give a share, from 0 to 1")]

    yield from common_cause(number, answers, known)


def check_control(*numbers: int):
    def check(calls, outputs):
        for number in numbers:
            control = control_of(number, calls, outputs)
            args, answer = calls[number].args, entries(outputs[number], KEYS)
            model, found_on, judged_on, basis, circuit, _ = args
            codes = th.mean_codes(model.load(), found_on, circuit, control)
            close(answer["control codes"], codes, 1e-3,
                  lazily(mistakes.codes, (model, found_on, judged_on, control, basis, circuit)), "the control's codes",
                  GIVEN)
            logits = candidates_with(model.load(), judged_on, control, codes[judged_on.index], circuit)
            after = mistakes.rate(logits, judged_on)
            within_one(answer["control after"], after, len(judged_on.tokens),
                       causes(number, "control after", given_in_control, calls, outputs), "the accuracy in the control")
        first, second = (control_of(number, calls, outputs) for number in (0, 1))
        if th.principal_angles(first, second)[0] < 5:
            raise Wrong("two seeds gave the same control: draw it from torch.Generator().manual_seed(seed)")
    return check
