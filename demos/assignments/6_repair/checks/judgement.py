"""Checks of 6.6: are the figures of the judgement the student's own, and are they quoted? What it says a person reads.

A submission whose functions are right prints what recorded.py holds, so that no run is needed. Where HOLDS,
TRAIN_LENGTH or the functions are others, the starter's `main` is run with the submission's own, and the figures are
what it prints.
"""

import ast
import re
from pathlib import Path

import tinyheads as th
from grader.comparing import Wrong
from grader.grading import Again, Call, Exercise, Model, Part, TokenizerOf
from grader.inputs import MODEL
from grader.stand_ins import definitions, reached

from .answers import as_number
from .recorded import RECORDED

STARTER = Path(__file__).resolve().parents[1] / "starter.py"
FUNCTIONS = ("set_coordinates", "give_the_code", "edit_weights", "fit", "what_it_broke")
WORDS = (150, 800)               # of a judgement, those of sentences said before not counted: fewest, most
DIFFERENT = 70                   # words
QUOTED = 3                       # pairs of figures that it must quote
NOTE = ("Not read by the grader: whether what it says is right, and follows from the figures. That is graded by hand, "
        "by the rubric of the handout.")

# --- the text -------------------------------------------------------------------------------------------


def judgement_of(output: object) -> tuple[dict, str]:
    """(MEASURED, JUDGEMENT), or `Wrong`."""
    if not isinstance(output, (tuple, list)) or len(output) not in (2, 3):
        raise Wrong("the result should be two things: (MEASURED, JUDGEMENT)")
    if not isinstance(output[1], str):
        raise Wrong("JUDGEMENT should be a string")
    return output[0], output[1]


def written(calls, outputs):
    """Enough words, and not the same ones again and again."""
    _, text = judgement_of(outputs[0])
    sentences = dict.fromkeys(" ".join(each.lower().split()) for each in re.split(r"[.!?]+(?=\s|$)", text))
    n, different = sum(len(each.split()) for each in sentences), len(set(re.findall(r"[^\W\d_]+", text.lower())))
    if not WORDS[0] <= n <= WORDS[1]:
        raise Wrong(f"the judgement has {n} words (a sentence that is said twice counts once); {WORDS[0]} to "
                    f"{WORDS[1]} are asked for")
    if different < DIFFERENT:
        raise Wrong(f"the judgement has only {different} different words; {DIFFERENT} are the fewest that half a page "
                    f"on five questions can do with")


# --- the figures ----------------------------------------------------------------------------------------


def check_measured(measured: object) -> None:
    """Raise `Wrong` unless this can be what 6.5 measures: a pair for each task and perplexity."""
    if not isinstance(measured, dict) or not measured:
        raise Wrong("MEASURED is empty, or no dict: paste the last line of `python submission.py`")
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


def quoted(calls, outputs):
    """MEASURED is what the submission's own functions measure, and the judgement quotes it."""
    measured, text = judgement_of(outputs[0])
    check_measured(measured)
    printed = figures_in(outputs[0][2]) if len(outputs[0]) == 3 else RECORDED
    if not any(is_of(measured, figures) for figures in printed):
        raise Wrong(why_not_own(measured, printed))
    missing = [name for name, pair in measured.items() if not all(is_quoted(value, text) for value in pair)]
    if len(measured) - len(missing) < QUOTED or "perplexity" in missing:
        raise Wrong(f"the judgement should quote your figures, before and after, of {QUOTED} entries of MEASURED at "
                    f"least, perplexity among them, to two digits or more (0.83 or 83%, 12.4); it does not quote "
                    f"{', '.join(missing)}")


def figures_in(printed: str) -> list[dict]:
    """What the lines MEASURED = {...} of a run say."""
    lines = re.findall(r"^MEASURED = (.*)$", printed, re.MULTILINE)
    if not lines:
        raise Wrong("the starter's main(), run with your functions, prints no line MEASURED = ...")
    return [ast.literal_eval(line) for line in lines]


def alike(one: float, other: float) -> bool:
    """Two runs' figures: equal but for some prompts of 400, or 2 % of a perplexity, on another machine."""
    return abs(float(one) - float(other)) <= max(0.0051, 0.02 * abs(float(other)) if other > 1 else 0)


def differing(measured: dict, figures: dict) -> list[str]:
    """The entries of MEASURED that are not among a run's figures."""
    return [name for name, pair in measured.items()
            if name not in figures or not all(map(alike, pair, figures[name]))]


def is_of(measured: dict, figures: dict) -> bool:
    return not differing(measured, figures)


def why_not_own(measured: dict, printed: list[dict]) -> str:
    """Which figures are not those of the nearest of the runs."""
    nearest = min(printed, key=lambda figures: len(differing(measured, figures)))
    name = differing(measured, nearest)[0]
    made = f"{tuple(nearest[name])}" if name in nearest else "nothing"
    return (f"MEASURED is not what your own functions measure, with your HOLDS and TRAIN_LENGTH: of {name!r} it says "
            f"{tuple(map(float, measured[name]))}, and your run gives {made}. Paste a line of `python submission.py` "
            f"as it is")


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


# --- a run of the starter's main with the submission's functions ----------------------------------------------------

RUN = """
def judgement_and_figures(model, tokenizer):
    import contextlib, io
    import tinyheads
    tinyheads.load, tinyheads.load_tokenizer = (lambda *_: model), (lambda *_: tokenizer)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        starters_main()
    return (*judgement(), printed.getvalue())
"""


def starters_main() -> str:
    """The text of the starter's main, and of what else it needs where the submission has it no more."""
    found = definitions(ast.parse(STARTER.read_text(encoding="utf-8")))
    main = found["main"][0]
    main.name = "starters_main"
    lines = []
    for name in found:
        if name in reached(found)["main"] - {*FUNCTIONS}:
            text = ast.unparse(found[name][0]).replace("\n", "\n    ")
            lines += ["try:", f"    {name}", "except NameError:", f"    {text}"]
    return "\n".join([*lines, ast.unparse(main), RUN])


def judgement_exercise(forbidden: tuple[str, ...]) -> Exercise:
    """The exercise, and its longer look. forbidden: in the first."""
    parts = [Part("half a page", 0.5, written), Part("your own figures, quoted", 1.5, quoted)]
    longer = Exercise("6.6 your judgement", "judgement_and_figures", 2,
                      lambda generator: [Call((Model(MODEL), TokenizerOf(MODEL)))], parts, "tinyheads", seconds=300,
                      may_change=True)
    return Exercise("6.6 your judgement", "judgement", 2, lambda generator: [Call(())], parts, "tinyheads", forbidden,
                    note=NOTE, again=Again(longer, starters_main(), FUNCTIONS))
