"""Assignment 6's checks: edits of the bundled model, and repairs of a planted one whose damage is known exactly.

Expected values come from tinyheads.edit and .repair, closed forms, and the planted model. Heads are found anew on
whatever model is bundled; no gain is expected of it. Tolerances: values 1e-3 of the largest, a fit 1e-2, rates one
prompt.
"""

from inspect import isfunction
from types import ModuleType

import torch
from torch import Tensor

import slips_6 as slips
import tinyheads as th
from broken_checks import broken_calls, check_accuracies, check_perplexity, planted_broken, quoted, shape_broken
from grading import Call, Exercise, Model, Part, Wrong, close, random_int, same_shape
from circuit_inputs import MODEL, found_subspace, heads_of_model, lazily, once, some_prompts
from inputs_6 import accuracy, as_number, entries
from repair_checks import (calls_edit, calls_fit, check_held, check_report, check_repairs, check_weights, harmless,
                           others_stay, planted_edit, shape_fit)
from tinyheads import edit, repair, subspace

def functions(module: ModuleType) -> tuple[str, ...]:
    """A module's own functions, as names for Exercise.forbidden."""
    short = module.__name__.removeprefix("tinyheads.")
    return tuple(f"{short}.{name}" for name, each in vars(module).items()
                 if isfunction(each) and each.__module__ == module.__name__)


EDIT, REPAIR = functions(edit), functions(repair)
STEERED = ("edit.steered_answers", "edit.steering_rate", "subspace.index_codes")
GIVEN = 'the handout, "An edit in the stream"'


# --- 6.1 setting coordinates ---------------------------------------------------------------------------------


def calls_setting(generator):
    calls = []
    for B, T, D, k, positions in [(4, 6, 10, 3, [5]), (5, 7, 8, 2, [6, 2, 3])]:
        basis = torch.linalg.qr(torch.randn(D, k, generator=generator)).Q.T.contiguous()
        calls.append(Call((torch.randn(B, T, D, generator=generator), basis,
                           2 * torch.randn(B, len(positions), k, generator=generator), positions)))
    return calls


def check_setting(number: int):
    def check(calls, outputs):
        args = calls[number].args
        close(outputs[number], slips.right_setting(*args), 1e-3, slips.setting(*args), "x", GIVEN)
    return check


def elsewhere(calls, outputs):
    for number, (call, output) in enumerate(zip(calls, outputs)):
        x, _, _, positions = call.args
        same_shape(output, x, "batch position d_model", "x")
        others = [t for t in range(x.shape[1]) if t not in positions]
        if torch.equal(output, x) or not torch.allclose(output[:, others], x[:, others], atol=1e-5):
            check_setting(number)(calls, outputs)


# --- 6.2 the right code, given -------------------------------------------------------------------------------


def calls_code(generator):
    writers, mover = heads_of_model()
    model, calls = th.load(MODEL), []
    for n_items, k in [(5, 3), (8, 2)]:
        found_on = some_prompts(generator, 60, n_items, th.ordinal_recall)
        calls.append(Call((Model(MODEL), found_on, some_prompts(generator, 40, n_items),
                           found_subspace(model, found_on, writers, k), f"L{mover.layer}.attn",
                           random_int(generator, 0, 10**6))))
    return calls


KEYS = ("codes", "control", "control codes", "before", "logits", "after", "control after")


@once
def right_codes(model, found_on, judged_on, basis, where, seed):
    """(codes, before) of the subspace that was asked about."""
    return subspace.index_codes(model, found_on, basis, where), accuracy(model, judged_on)


def control_of(number: int, calls, outputs) -> Tensor:
    """The control that the submission drew, if it is one."""
    model, _, _, basis, _, _ = calls[number].args
    control = entries(outputs[number], KEYS)["control"]
    k, D = basis.shape
    if isinstance(control, Tensor) and control.dim() == 2 and control.shape[1] == D and len(control) != k:
        raise Wrong(f"the control has {len(control)} dimensions, the subspace {k}: more room to write in does more by "
                    f"itself, so the two must be of the same width. See {GIVEN}")
    same_shape(control, basis, "k d_model", "the control")
    if not (control @ control.T - torch.eye(k)).abs().max() < 1e-3:
        raise Wrong("the control's rows are not orthonormal: torch.linalg.qr of [D, k], transposed, makes them so")
    if subspace.principal_angles(control.float(), basis)[0] < 15:
        raise Wrong("the control shares a direction with the subspace; it should be drawn at random, from `seed`")
    return control.float()


def check_codes(number: int):
    def check(calls, outputs):
        args, found = calls[number].args, entries(outputs[number], KEYS)
        model, found_on, judged_on, basis, where, seed = args
        other = subspace.random_subspace(basis.shape[1], len(basis), seed)
        close(found["codes"], right_codes(args)[0], 1e-3,
              lazily(slips.codes, (model, found_on, judged_on, basis, other, where)), "the codes", GIVEN)
    return check


def within_one(found: object, wanted: float, B: int, mistakes, what: str) -> None:
    """A rate, right within one prompt (a tie, by rounding), or `Wrong`."""
    if abs(as_number(found, what) - wanted) > 1.01 / B:
        close(as_number(found, what), wanted, 1e-9, mistakes, what, GIVEN)


def check_rates(number: int):
    """Logits and accuracy are those that follow from the submission's own codes, so that a slip there costs once."""
    def check(calls, outputs):
        args, found = calls[number].args, entries(outputs[number], KEYS)
        model, found_on, judged_on, basis, where, seed = args
        (codes, before), own = right_codes(args), found["codes"]
        codes = own.float() if isinstance(own, Tensor) and own.shape == codes.shape and own.isfinite().all() else codes
        logits = slips.given(model.load(), judged_on, basis, codes[judged_on.index], where)
        after, B = slips.rate(logits, judged_on), len(judged_on.tokens)
        mistakes = [(after, "it is that with the code given; before, nothing is changed"),
                    (100 * before, "this is in percent; give a share, from 0 to 1")]
        within_one(found["before"], before, B, mistakes, "the accuracy before")
        other = subspace.random_subspace(basis.shape[1], len(basis), seed)
        others = subspace.index_codes(model.load(), found_on, other, where)
        mistakes = lazily(slips.logits, (model, judged_on, basis, codes, other, others, where))
        close(found["logits"], logits, 1e-3, mistakes, "the logits", GIVEN)
        mistakes = lazily(slips.rates, (model, judged_on, basis, codes, other, others, where))
        within_one(found["after"], after, B, mistakes, "the accuracy after")
    return check


def check_control(*numbers: int):
    def check(calls, outputs):
        for number in numbers:
            control = control_of(number, calls, outputs)
            args, found = calls[number].args, entries(outputs[number], KEYS)
            model, found_on, judged_on, basis, where, _ = args
            own, loaded = right_codes(args)[0], model.load()
            codes = subspace.index_codes(loaded, found_on, control, where)
            close(found["control codes"], codes, 1e-3,
                  lazily(slips.codes, (model, found_on, judged_on, control, basis, where)), "the control's codes",
                  GIVEN)
            after = slips.rate(slips.given(loaded, judged_on, control, codes[judged_on.index], where), judged_on)
            mistakes = lazily(slips.rates, (model, judged_on, control, codes, basis, own, where))
            within_one(found["control after"], after, len(judged_on.tokens), mistakes, "the accuracy in the control")
        first, second = (control_of(number, calls, outputs) for number in (0, 1))
        if subspace.principal_angles(first, second)[0] < 5:
            raise Wrong("two seeds gave the same control: draw it from torch.Generator().manual_seed(seed)")
    return check


def longer_lists(calls, outputs):
    check_codes(1)(calls, outputs)
    check_rates(1)(calls, outputs)


EXERCISES = [
    Exercise("6.1 setting coordinates", "set_coordinates", 2, calls_setting, [
        Part("other positions stay", 0.5, elsewhere), Part("at one position", 0.75, check_setting(0)),
        Part("at several", 0.75, check_setting(1))], "tinyheads", EDIT + REPAIR),
    Exercise("6.2 the right code, given", "give_the_code", 4, calls_code, [
        Part("codes", 1, check_codes(0)), Part("before and after", 1, check_rates(0)),
        Part("the control", 1, check_control(0, 1)), Part("lists of 8, two dimensions", 1, longer_lists)],
        "tinyheads", STEERED + REPAIR),
    Exercise("6.3 the same head, other weights", "edit_weights", 5, calls_edit, [
        Part("everything else stays", 1, others_stay), Part("the weights", 1.5, check_weights(0)),
        Part("another model and head", 1, check_weights(1)), Part("the report", 1, check_report),
        Part("a model built by hand, its damage undone", 0.5, planted_edit)], "tinyheads", EDIT + REPAIR),
    Exercise("6.4 which M?", "fit", 4, calls_fit, [
        Part("a matrix [k, k]", 0.5, shape_fit), Part("a turned channel, repaired", 1, check_repairs(0)),
        Part("a weakened one", 0.5, check_repairs(1)), Part("no damage elsewhere", 0.5, harmless),
        Part("held back", 0.75, check_held(2)), Part("on the bundled model", 0.75, check_held(3))],
        "tinyheads", REPAIR),
    Exercise("6.5 what it broke", "what_it_broke", 3, broken_calls, [
        Part("a pair for each", 0.5, shape_broken), Part("accuracies", 1, check_accuracies(0)),
        Part("perplexity", 1, check_perplexity(0)), Part("another model", 0.5, planted_broken)], "tinyheads", REPAIR),
    Exercise("6.6 your judgement", "judgement", 2, lambda generator: [Call(())], [
        Part("there, with your figures", 2, quoted)], "tinyheads"),
]
