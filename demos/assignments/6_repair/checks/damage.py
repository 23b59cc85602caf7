"""Checks of 6.5: what an edit broke, as numbers."""

from torch import Tensor

import tinyheads as th
from grader.comparing import Wrong, close
from grader.grading import Call, Model, TokenizerOf, common_cause, lazily, loaded, once
from grader.inputs import MODEL, circuit_of_model, planted_prompts, random_int, some_prompts

from . import mistakes
from .answers import as_number, entries
from .planted_damage import damaged, edited, planted_text, random_rotation

BROKEN = 'the handout, "What it broke"'


# --- 6.5 what it broke ---------------------------------------------------------------------------------------


def broken_calls(generator):
    tokenizer, model = TokenizerOf(MODEL).load(), th.load(MODEL)
    other = model
    for head in circuit_of_model().inhibition:                                      # something that shows everywhere
        basis = random_rotation(generator, model.config.n_embd)[:6].contiguous()    # [6, D]
        other = edited(other, head, basis, 3 * random_rotation(generator, 6))
    seed = lambda: random_int(generator, 0, 10**6)
    tasks = {"recall": some_prompts(generator, 30, 5, th.ordinal_recall), "lists": some_prompts(generator, 35, 6),
             "IOI": th.ioi(tokenizer, 25, seed=seed(), pairs="test")}
    built, _, _, broken = damaged(generator, weakened=False)
    return [Call((Model(model), Model(other), tasks, th.everyday_text(tokenizer, 10, seed(), "test"))),
            Call((Model(built.model), Model(broken), {"planted": planted_prompts(generator, 45)},
                  planted_text(generator, 12)))]


def pairs_of(output: object, call: Call) -> dict:
    """A submission's dict, each entry a pair of numbers, or `Wrong`."""
    pairs = entries(output, (*call.args[2], "perplexity"))
    for name, pair in pairs.items():
        pair = pair.tolist() if isinstance(pair, Tensor) else pair
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise Wrong(f"{name!r} should be a pair (before, after)")
        pairs[name] = [as_number(each, f"{name!r}, {when},") for each, when in zip(pair, ("before", "after"))]
    return pairs


def shape_broken(calls, outputs):
    for call, output in zip(calls, outputs):
        pairs_of(output, call)


@once
def right_perplexity(model, other, tasks, text):
    return th.perplexity(model, text), th.perplexity(other, text)


@once
def right_accuracies(model, other, tasks, text):
    return {name: (th.accuracy(model, prompts), th.accuracy(other, prompts)) for name, prompts in tasks.items()}


def check_accuracies(number: int):
    def check(calls, outputs):
        model, other, tasks, _ = args = calls[number].args
        answer = pairs_of(outputs[number], calls[number])
        cases = [(name, which) for name in tasks for which in (0, 1)]
        for n, (name, which) in enumerate(cases):
            wanted = right_accuracies(args)[name][which]
            if abs(answer[name][which] - wanted) > 1.01 / len(tasks[name].tokens):
                of = lambda n: mistakes.accuracies(*loaded((model, other, tasks[cases[n][0]], cases[n][1])))
                known = common_cause(n, [answer[name][which] for name, which in cases], of)
                close(answer[name][which], wanted, 1e-6, known, f"the accuracy {('before', 'after')[which]}, {name},",
                      BROKEN)
    return check


def check_perplexity(number: int):
    def check(calls, outputs):
        model, other, _, text = args = calls[number].args
        answer = pairs_of(outputs[number], calls[number])["perplexity"]
        for which, wanted in enumerate(right_perplexity(args)):
            if answer[which] == float("inf"):
                raise Wrong(f"the perplexity is infinite: is it the exp of the sum over all tokens? Take the mean "
                            f"first. See {BROKEN}")
            close(answer[which], wanted, 1e-3, lazily(mistakes.perplexities, (model, other, text, which)),
                  f"the perplexity {('before', 'after')[which]}", BROKEN)
    return check
