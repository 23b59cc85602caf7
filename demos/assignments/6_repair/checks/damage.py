"""Checks of 6.5 and 6.6: what an edit broke, as numbers, and the judgement that quotes them."""

import re

from torch import Tensor

import tinyheads as th
from grader.comparing import Wrong, close
from grader.grading import Call, Model, TokenizerOf, common_cause, lazily, loaded, once
from grader.inputs import MODEL, circuit_of_model, planted_prompts, random_int, some_prompts

from . import mistakes
from .answers import as_number, entries
from .planted_damage import damaged, edited, planted_text, random_rotation

BROKEN = 'the handout, "What it broke"'
WORDS = (150, 800)               # of a judgement: fewest, most
QUOTED = 3                       # pairs of figures that it must quote


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


# --- 6.6 the judgement ---------------------------------------------------------------------------------------


def quoted(calls, outputs):
    """MEASURED looks like measurements, JUDGEMENT has a fair length and quotes them. The rest is read by a person."""
    output = outputs[0]
    if not isinstance(output, (tuple, list)) or len(output) != 2:
        raise Wrong("the result should be two things: (MEASURED, JUDGEMENT)")
    measured, text = output
    check_measured(measured)
    if not isinstance(text, str):
        raise Wrong("JUDGEMENT should be a string")
    n = len(text.split())
    if not WORDS[0] <= n <= WORDS[1]:
        raise Wrong(f"the judgement has {n} words; {WORDS[0]} to {WORDS[1]} are asked for")
    missing = [name for name, pair in measured.items() if not all(is_quoted(value, text) for value in pair)]
    if len(measured) - len(missing) < QUOTED or "perplexity" in missing:
        raise Wrong(f"the judgement should quote your figures, before and after, of {QUOTED} entries of MEASURED at "
                    f"least, perplexity among them, to two digits or more (0.83 or 83%, 12.4); it does not quote "
                    f"{', '.join(missing)}")


def check_measured(measured: object) -> None:
    """Raise `Wrong` unless this can be what 6.5 measures: a pair for each task and perplexity."""
    if not isinstance(measured, dict) or not measured:
        raise Wrong("MEASURED is empty, or no dict: paste the last line of `python starter.py`")
    if "perplexity" not in measured or len(measured) < 4:
        raise Wrong("MEASURED should hold what 6.5 gives: three tasks at least, and 'perplexity'")
    for name, pair in measured.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise Wrong(f"MEASURED[{name!r}] should be a pair (before, after)")
        low, high = (1.0, float("inf")) if name == "perplexity" else (0.0, 1.0)
        if not all(low <= as_number(value, f"MEASURED[{name!r}]") <= high for value in pair):
            raise Wrong(f"MEASURED[{name!r}] is {tuple(pair)}; an accuracy lies from 0 to 1, a perplexity from 1")
    if all(before == after for before, after in measured.values()):
        raise Wrong("in MEASURED all is the same before and after: was the edited model measured?")


def is_quoted(value: float, text: str) -> bool:
    """Whether a number of the text is this one, as rounded there: with two digits or more, or in percent."""
    for number, percent in re.findall(r"(?<![\w.])(\d*\.?\d+)\s*(%|per ?cent)?", text):
        decimals = len(number.partition(".")[2])
        digits = len(number.replace(".", "").lstrip("0"))
        wanted = 100 * value if percent else value
        if (percent or decimals >= 2 or digits >= 2 and decimals) and abs(
                float(number) - wanted) <= 0.5001 * 10**-decimals:
            return True
    return False
