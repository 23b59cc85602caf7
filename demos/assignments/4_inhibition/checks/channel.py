"""Checks of 4.5 and 4.7: components taken away while the model runs, and what weights and runs both point at."""

import torch

import tinyheads as th
from grader.comparing import Wrong, close, same_shape
from grader.grading import Call, Model, lazily, loaded, once
from grader.inputs import MODEL, circuit_of_model, planted, planted_prompts, some_prompts

from . import mistakes
from .answers import number_rows

SEE = "the handout, "


# --- 4.5 the inhibition score -----------------------------------------------------------------------------------


def calls_scores(generator):
    writers, reader = circuit_of_model().inhibition, circuit_of_model().movers[0]
    calls = [Call((Model(MODEL), some_prompts(generator, 16, n_items), writer, reader, how))
             for how, n_items, writer in [("mean", 5, writers[0]), ("zero", 6, writers[:2][-1])]]
    built, prompts = planted(generator), planted_prompts(generator, 24)
    return [*calls, Call((Model(built.model), prompts, built.inhibition, built.mover, "mean"))]


@once
def right_scores(model, prompts, writer, reader, how):
    return mistakes.scores_of(model, prompts, [writer], reader, how)


def check_scores(number: int):
    def check(calls, outputs):
        output, args = outputs[number], calls[number].args
        _, _, writer, _, how = args
        close(output, right_scores(args), 1e-3, lazily(mistakes.score_mistakes, args),
              f"the scores of {writer} by {how} removal",
              SEE + '"Preference and inhibition score"')
    return check


def planted_scores(calls, outputs):
    check_scores(2)(calls, outputs)
    scores = same_shape(outputs[2], [calls[2].args[0].load().config.d_head], "component", "the scores")
    if not (scores[:3].min() > 0.01 and scores[3:].abs().max() < 0.001):
        raise Wrong(f"a model was built by hand whose writer has three components that matter, the first three; your "
                    f"scores are {scores.tolist()}")


def shape_scores(calls, outputs):
    for call, output in zip(calls, outputs):
        same_shape(output, [call.args[0].load().config.d_head], "component", "the scores")


# --- 4.7 what both weights and intervention point at --------------------------------------------------------------


def calls_channel(generator):
    """The bundled model, a planted one with its writer last and first, and the bundled one with n so large that all
    components are chosen.

    Else n is chosen where neither order has a near tie at the n-th place, on which rounding would decide, and where
    the two orders do not name the same components.
    """
    calls, circuit = [], circuit_of_model()
    found_on, tested_on = some_prompts(generator, 16, 5), some_prompts(generator, 16, 5)
    built = planted(generator)
    other = th.Head(built.inhibition.layer, 1 if built.inhibition.head == 0 else 0)
    for each, found_on, tested_on, writers, reader in [
            (Model(MODEL), found_on, tested_on, circuit.inhibition[:2], circuit.movers[0]),
            *((Model(built.model), planted_prompts(generator, 24), planted_prompts(generator, 20), writers,
               built.mover) for writers in ([other, built.inhibition], [built.inhibition, other]))]:
        both = mistakes.both_scores(each.load(), found_on, writers, reader)
        ordered = [scores.sort(descending=True).values for scores in both]
        gaps = torch.stack([(s[1:6] - s[2:7]) / s[0].abs() for s in ordered]).amin(0)        # behind the 2nd to the 6th
        shared = torch.tensor([len(mistakes.chosen_by(*both, writers, n)) for n in range(2, 7)])
        telling = (shared > 0).long() + (shared < torch.arange(2, 7))                        # some in both, some in one
        n = 2 + int((gaps + telling * (gaps > 0.01)).argmax())
        calls.append(Call((each, found_on, tested_on, writers, reader, n)))
    *same, writers, reader, _ = calls[0].args
    return [*calls, Call((*same, writers, reader, len(writers) * th.load(MODEL).config.d_head))]


@once
def right_choice(model, found_on, tested_on, writers, reader, n):
    """(predicted, measured, the right choice)."""
    predicted, measured = mistakes.both_scores(model, found_on, writers, reader)
    return predicted, measured, mistakes.chosen_by(predicted, measured, writers, n)


def three_things(output: object) -> tuple[list[tuple], object, object]:
    """A submission's (chosen, before, after)."""
    if not isinstance(output, (tuple, list)) or len(output) != 3:
        raise Wrong("the result should be three things: (chosen, before, after)")
    return number_rows(output[0], ("layer", "head", "component")), output[1], output[2]


def check_chosen(number: int):
    def check(calls, outputs):
        answer, _, _ = three_things(outputs[number])
        args = calls[number].args
        predicted, measured, wanted = right_choice(args)
        if answer == wanted:
            return
        if sorted(answer) == sorted(wanted):
            if len(wanted) == len(predicted):                         # all of them: some are near ties
                return
            raise Wrong("the components are the right ones; put the one with the highest composition first")
        if message := cause_of_choice(calls, outputs):
            raise Wrong(f"{message}. See {SEE}exercise 7")
        raise Wrong(f"of the {args[-1]} highest both ways, {len(wanted)} components are in both lists; you give "
                    f"{len(answer)}, "
                    f"{len(set(answer) & set(wanted))} of them rightly. See {SEE}exercise 7")
    return check


def cause_of_choice(calls, outputs) -> str:
    """The mistake that gives all the choices of the submission, or "": one of them alone may be alike by chance."""
    answers = [sorted(three_things(output)[0]) for output in outputs[:3]]
    known = [mistakes.choice_mistakes(*loaded(call.args), *right_choice(call.args)[:2]) for call in calls[:3]]
    for case in zip(*known):
        if all(sorted(wrong()) == answer for (wrong, _), answer in zip(case, answers)):
            return case[0][1]
    return ""


def check_cost(number: int):
    def check(calls, outputs):
        chosen, before, after = three_things(outputs[number])
        model, found_on, tested_on, writers, reader, n = loaded(calls[number].args)
        config = model.config
        if any(not (0 <= l < config.n_layer and 0 <= h < config.n_head and 0 <= i < config.d_head) for l, h,
               i in chosen):
            raise Wrong("some of the chosen components do not exist in this model")
        cost = model, found_on, tested_on, reader, chosen                           # of what was chosen, right or wrong
        close(before, th.preference(model, tested_on, [reader]), 1e-3, lazily(mistakes.before_mistakes, cost),
              "before", SEE + "exercise 7")
        close(after, mistakes.without(model, tested_on, reader, chosen), 1e-3, lazily(mistakes.after_mistakes, cost),
              "after", SEE + "exercise 7")
    return check
