"""Checks of 6.3 and 6.4: the edit of a head's weights, and the matrix that repairs a damage which is known."""

import copy

import torch
from torch import Tensor

import tinyheads as th
from grader.comparing import Wrong, close, same, same_shape, tensor_like
from grader.grading import Call, Model, loaded, once
from grader.inputs import (MODEL, circuit_of, circuit_of_model, planted_prompts, random_int, random_model,
                           some_prompts)

from . import mistakes
from .answers import as_number
from .planted_damage import damaged, divergence, edited, planted_text, random_rotation

WEIGHTS = 'the handout, "The same in the weights"'
FITTING = 'the handout, "Which M?"'


# --- 6.3 the same head, other weights ------------------------------------------------------------------------


def calls_edit(generator):
    def of_model(model, source, head, k, change):
        basis = random_rotation(generator, model.config.n_embd)[:k].contiguous()
        return Call((Model(source), head, basis, torch.eye(k) + change))

    small = random_model(generator, n_vocab=11, n_ctx=6, n_embd=24, n_layer=2, n_head=3)
    tiny = th.load(MODEL)
    place = [random_int(generator, 0, n - 1) for n in (tiny.config.n_layer, tiny.config.n_head)]
    one_rank = torch.outer(torch.randn(3, generator=generator), 1 + torch.rand(3, generator=generator))
    built, basis, R, broken = damaged(generator, weakened=True)
    return [of_model(small, small, th.Head(1, random_int(generator, 0, 2)), 3, torch.randn(3, 3, generator=generator)),
            of_model(tiny, MODEL, th.Head(*place), 3, one_rank),
            Call((Model(broken), built.inhibition, basis, torch.linalg.inv(R)))]


def parts_of(output: object) -> tuple[dict, object]:
    """(the edited model's parameters by name, the report), or `Wrong`."""
    if isinstance(output, dict):
        raise Wrong("only the model came back; return (edited, report)")
    if not isinstance(output, (tuple, list)) or len(output) != 2:
        raise Wrong("the result should be two things: (edited, report)")
    if not isinstance(output[0], dict):
        raise Wrong("the first of the two should be the edited model")
    return tuple(output)


def weight_name(head: th.Head) -> str:
    return f"h.{head.layer}.attn.c_proj.weight"


def others_stay(calls, outputs):
    """All parameters but one, and of that one all rows but the head's."""
    for call, output in zip(calls, outputs):
        (model, head, _, _), (parameters, _) = call.args, parts_of(output)
        model = model.load()
        for name, parameter in model.named_parameters():
            if name not in parameters:
                raise Wrong(f"the edited model has no {name}")
            own = same_shape(parameters[name], parameter, "", name).to(parameter.dtype)
            if name != weight_name(head) and not torch.allclose(own, parameter, rtol=0, atol=1e-6):
                raise Wrong(f"{name} was changed; the edit is of {weight_name(head)} alone. See {WEIGHTS}")
        K, before = model.config.d_head, model.get_parameter(weight_name(head))
        rows = torch.arange(len(before)) // K == head.head
        after = parameters[weight_name(head)].to(before.dtype)
        if not torch.allclose(after[~rows], before[~rows], rtol=0, atol=1e-6):
            check_c_proj(call, after)
            raise Wrong(f"rows of other heads were changed; {head} has rows {head.head * K} to {head.head * K + K - 1} "
                        f"of {weight_name(head)}. See {WEIGHTS}")
        if torch.equal(after, before):
            raise Wrong("the edited model is what the model was: nothing was edited")


def check_c_proj(call: Call, after: Tensor) -> None:
    """Raise `Wrong` unless c_proj.weight is what the library makes of it."""
    model, head, basis, M = call.args
    model = model.load()
    before = model.get_parameter(weight_name(head))
    right = edited(model, head, basis, M).get_parameter(weight_name(head))
    close(after, right, 1e-4, mistakes.weights(before, head, model.config.d_head, basis, M), weight_name(head),
          WEIGHTS)


def check_weights(number: int):
    def check(calls, outputs):
        parameters, _ = parts_of(outputs[number])
        check_c_proj(calls[number], parameters.get(weight_name(calls[number].args[1])))
    return check


def check_report(calls, outputs):
    for call, output in zip(calls[:2], outputs):
        model, head, basis, M = call.args
        model, report = model.load(), parts_of(output)[1]
        if not isinstance(report, th.WeightEdit):
            raise Wrong("the report should be th.WeightEdit(head, rank, relative_norm, factors)")
        if report.head != head:
            raise Wrong(f"the report is of {report.head}; the edit is of {head}")
        before, K = model.get_parameter(weight_name(head)), model.config.d_head
        W_O = before[head.head * K:(head.head + 1) * K]                             # [K, D]
        change = W_O @ basis.T @ (M - torch.eye(len(M))) @ basis                    # [K, D]
        known = mistakes.report_of(W_O, before, change, M)
        rank = int((torch.linalg.svdvals(M - torch.eye(len(M))) > 1e-5).sum())
        close(report.rank, rank, 0, known["rank"], "the rank", WEIGHTS)
        close(as_number(report.relative_norm, "the relative norm"), (change.norm() / W_O.norm()).item(), 1e-3,
              known["relative_norm"], "the relative norm", WEIGHTS)
        factors = tensor_like(report.factors)
        factors = factors if isinstance(factors, Tensor) else torch.tensor(
            [as_number(each, "a factor") for each in report.factors])
        close(factors, torch.linalg.svdvals(M), 1e-3, known["factors"], "the factors", WEIGHTS)


def planted_edit(calls, outputs):
    """The inverse of the damage was handed in as M: behind the edit the model must answer as it did when whole."""
    check_weights(2)(calls, outputs)
    mended = copy.deepcopy(calls[2].args[0].load())
    for name, parameter in mended.named_parameters():
        parameter.copy_(parts_of(outputs[2])[0][name])
    prompts = planted_prompts(torch.Generator().manual_seed(0), 60)
    if th.accuracy(mended, prompts) < 0.9:
        raise Wrong("M was the inverse of a known damage, and the edited model still answers wrongly")


# --- 6.4 which M? --------------------------------------------------------------------------------------------


def calls_fit(generator):
    calls = []
    held = 0.3 + torch.rand(1, generator=generator).item()
    for weakened, n, hold in [(False, 120, 0.0), (True, 90, 0.0), (True, 80, held)]:
        built, basis, _, broken = damaged(generator, weakened)
        circuit = circuit_of(built)
        codes = th.mean_codes(built.model, planted_prompts(generator, 120), circuit, basis)
        train = planted_prompts(generator, n)
        calls.append(Call((Model(broken), built.inhibition, basis, codes, train, circuit.where, hold)))
        whole[broken] = built.model
    model, circuit, found_on = th.load(MODEL), circuit_of_model(), some_prompts(generator, 60, 6, th.ordinal_recall)
    writer, where = circuit.inhibition[0], circuit.where
    basis = th.subspace_from_activations(model, found_on, circuit, 2)
    codes, train = th.mean_codes(model, found_on, circuit, basis), some_prompts(generator, 50, 6)
    c, _ = mistakes.coordinates_at(model, train, writer, basis, where)              # [B, k]
    hold = 0.3 * c.pow(2).mean().item()                                             # enough to show
    return [*calls, Call((Model(MODEL), writer, basis, codes, train, where, hold))]


whole: dict[th.GPT2, th.GPT2] = {}                 # a damaged planted model -> what it was before


def matrix(output: object, call: Call) -> Tensor:
    """A submission's M, if it is a matrix [k, k] of finite numbers."""
    k = len(call.args[2])
    output = same_shape(output, [k, k], "k k", "M")
    if not output.is_floating_point() or not output.isfinite().all():
        raise Wrong("M holds nan or inf, or no floats: has the descent diverged? (a smaller rate)")
    return output.float()


def shape_fit(calls, outputs):
    for call, output in zip(calls, outputs):
        matrix(output, call)


@once
def unseen(model, head, basis, codes, train, where, hold):
    """Prompts and text that the submission never saw."""
    generator = torch.Generator().manual_seed(int(train.tokens.sum()) + len(train.tokens))
    return planted_prompts(generator, 150), planted_text(generator, 40)


def check_fit(M: Tensor, call: Call, what: str) -> None:
    """Raise `Wrong` unless M is the one for which the handout's quantity is least."""
    right = right_fit(call.args)
    if same(M, right, 1e-2):
        return
    for wrong, message in mistakes.fits(*loaded(call.args)):
        if same(M, wrong, 1e-2):
            raise Wrong(f"{what}: {message}. See {FITTING}")
    model, head, basis, codes, train, where, hold = loaded(call.args)
    c, stream = mistakes.coordinates_at(model, train, head, basis, where)
    reached, least = (mistakes.quantity(each, c, stream, codes[train.index], hold) for each in (M, right))
    raise Wrong(f"{what}: what should be least (with hold = {hold:.3g}) is {reached:.4g}; it can be {least:.4g}. Is it "
                f"a descent stopped too early, or another quantity? See {FITTING}")


@once
def right_fit(model, head, basis, codes, train, where, hold):
    c, stream = mistakes.coordinates_at(model, train, head, basis, where)
    return mistakes.best(c, stream, codes[train.index], hold)


def check_repairs(number: int):
    """Judged by what it does: most of the accuracy that the damage cost must come back, on unseen prompts."""
    def check(calls, outputs):
        call = calls[number]
        model, head, basis, *_ = call.args
        M, (prompts, _) = matrix(outputs[number], call), unseen(call.args)
        broken, model = th.accuracy(model.load(), prompts), model.load()
        intact = th.accuracy(whole[model], prompts)
        enough = broken + 0.9 * (intact - broken)
        repaired = th.accuracy(edited(model, head, basis, M), prompts)
        if repaired >= enough:
            return
        told = (f"the damaged model answers {broken:.0%} of unseen prompts rightly, with your M {repaired:.0%}, and it "
                f"was {intact:.0%} before the damage")
        for other, message in [(M.T, "M is transposed (its transpose repairs it): c is a row, and becomes c @ M"),
                               (M + torch.eye(len(M)), "this is M - 1 (with the identity added it repairs it)"),
                               (torch.linalg.pinv(M), "this is the inverse: it does the damage once more")]:
            if th.accuracy(edited(model, head, basis, other), prompts) >= enough:
                raise Wrong(f"{message}: {told}. See {FITTING}")
        check_fit(M, call, told)
        raise Wrong(f"{told}. See {FITTING}")
    return check


def harmless(calls, outputs):
    """The repaired planted models should say of random tokens what they said when whole."""
    for call, output in zip(calls[:2], outputs):
        model, head, basis, *_ = call.args
        _, text = unseen(call.args)
        model, M = model.load(), matrix(output, call)
        broken, mended = (divergence(whole[model], each, text) for each in (model, edited(model, head, basis, M)))
        if not mended < 0.05 * broken + 0.005:
            check_fit(M, call, "M does damage outside the task")
            raise Wrong(f"on random tokens the divergence from the model before its damage is {mended:.3f} with your "
                        f"M, and should be near 0: without it it is {broken:.3f}. See {FITTING}")


def check_held(number: int):
    def check(calls, outputs):
        check_fit(matrix(outputs[number], calls[number]), calls[number], "M, held back")
    return check
