"""What an assignment's checks are made of: exercises, their calls, their parts.

The package checks/ of an assignment lists its EXERCISES. Each draws the arguments of a few calls from a seed; a process
of its own calls the submission's function with them; then each part looks at what came back, and raises `Wrong` with
what to tell the student. A part that raises nothing earns its points. `close` compares, and where an answer is that of
a well-known mistake it says so.

    Exercise("1.1 LayerNorm", "layer_norm", 2, calls, [
        Part("shape", 0.5, lambda calls, outputs: same_shape(outputs[0], [2, 5, 24], "batch position d_model")),
        Part("values", 1.5, agrees(0, expected, mistakes=[(no_gain, "the gain is missing: see part 2")])),
    ], uses="torch")
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from inspect import isfunction
from pathlib import Path
from types import ModuleType
from typing import Callable

import torch

import tinyheads as th
from tinyheads import (ablation, attention, attribution, basis, circuit, composition, edges, known_circuits, last_token,
                       planted, planted_gpt2, planted_parts, planted_rotary, repair, scoring, steering, subspace)

from .comparing import Wrong, close


@dataclass(frozen=True)
class Model:
    """An argument that the submission gets as a loaded th.GPT2. source: a name, a path, or a model in memory."""

    source: str | Path | th.GPT2

    def load(self) -> th.GPT2:
        """The model, for the checks: a copy of its own from a name or a path, else the one in memory."""
        return self.source if isinstance(self.source, th.GPT2) else th.load(self.source)


@dataclass(frozen=True)
class TokenizerOf:
    """An argument that the submission gets as a loaded tokenizer. name: of a model, or a path."""

    name: str

    def load(self) -> th.Tokenizer:
        return th.load_tokenizer(self.name)


@dataclass(frozen=True)
class Call:
    """The arguments of one call.

    args: tensors, numbers, strings, None, lists, tuples and dicts of these, Model, TokenizerOf, th.Head,
    th.Component, th.Circuit, th.Prompts, th.Heads. (Where `uses` is "torch", records arrive as their fields alone.)
    """

    args: tuple


class Outputs(Sequence):
    """What the calls returned, in their order. Taking one that failed raises `Wrong` with the reason."""

    def __init__(self, values: list):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, number: int) -> object:
        if isinstance(self.values[number], Wrong):
            raise self.values[number]
        return self.values[number]


Check = Callable[[list[Call], Outputs], None]


@dataclass(frozen=True)
class Part:
    """A share of an exercise's points. check(calls, outputs) raises `Wrong` where they are not earned."""

    name: str
    points: float
    check: Check


@dataclass(frozen=True)
class Exercise:
    """One function of a submission: how it is called, and what its answers are worth.

    name: as in the handout; function: its name; points: all there are, the sum over `parts`; calls: draws the calls;
    uses: "torch" (the library cannot be imported) or "tinyheads" (it can, but for the names in `forbidden`, such as
    "ov_svd", "basis.span" or "Heads.of"); seconds, megabytes: the limits for all calls together;
    may_change: whether the function may change its arguments in place (else that costs the parts that look there);
    note: what its author is told whatever the marks; again: another look, see `Again`.
    """

    name: str
    function: str
    points: float
    calls: Callable[[torch.Generator], list[Call]]
    parts: list[Part]
    uses: str = "torch"
    forbidden: tuple[str, ...] = ()
    seconds: float = 20
    megabytes: int = 4000
    may_change: bool = False
    note: str = ""
    again: "Again | None" = None

    def __post_init__(self):
        if self.uses not in ("torch", "tinyheads"):
            raise ValueError(f"{self.name}: uses is 'torch' or 'tinyheads', not {self.uses!r}")
        points = sum(part.points for part in self.parts)
        if abs(points - self.points) > 1e-9:
            raise ValueError(f"{self.name}: its parts have {points} points, not {self.points}")


@dataclass(frozen=True)
class Again:
    """A longer look at an exercise, where its marks are not full or where a function in `needs` lost points.

    exercise: what is run then, and whose marks count, on a copy of the submission that ends with `text`.
    """

    exercise: Exercise
    text: str
    needs: tuple[str, ...] = ()


# --- checks, made of simpler ones -------------------------------------------------------------------------


def agrees(number: int, expected: Callable, tolerance: float = 1e-4, mistakes: Sequence = (), what: str = "the result",
           see: str = "") -> Check:
    """A part's check: the answer to call `number` is expected(*its arguments).

    mistakes: pairs (a function of the same arguments that makes the mistake, what to say).
    """
    right = once(expected)

    def check(calls: list[Call], outputs: Outputs) -> None:
        args, output = calls[number].args, outputs[number]
        close(output, right(args), tolerance, applied(mistakes, args), what, see)
    return check


def all_of(*checks: Check) -> Check:
    """Several checks for the points of one part."""
    def check(calls: list[Call], outputs: Outputs) -> None:
        for each in checks:
            each(calls, outputs)
    return check


def applied(mistakes: Sequence, args: tuple) -> list[tuple[Callable, str]]:
    """Mistakes that are functions of a call's arguments, as `close` takes them: functions without arguments."""
    return [((lambda wrong=wrong: wrong(*args)), message) for wrong, message in mistakes]


def common_cause(number: int, answers: list, mistakes: Callable[[int], Iterable]) -> list[tuple]:
    """What `close` should know of an answer that agrees with some mistakes by chance: a share of 40 prompts, say.

    answers: numbers, of several calls; number: which of them is asked about; mistakes(n): the pairs of call n, in the
    same order for each call. A mistake is a cause if it gives all the answers: pairs (this answer, what to say).
    """
    alike = lambda answer, wrong: abs(float(answer) - float(wrong() if callable(wrong) else wrong)) < 1e-6
    for k, (wrong, message) in enumerate(mistakes(number)):
        if alike(answers[number], wrong) and all(alike(each, list(mistakes(n))[k][0])
                                                 for n, each in enumerate(answers) if n != number):
            return [(float(answers[number]), message)]
    return []


# --- what a check computes from a call's arguments --------------------------------------------------------


def loaded(args: tuple) -> tuple:
    """A call's arguments, models loaded."""
    return tuple(each.load() if isinstance(each, Model) else each for each in args)


def once(function: Callable) -> Callable[[tuple], object]:
    """A function of a call's arguments, as a function of their tuple that computes each answer only once.

    All submissions of a folder get the same calls, so that what is expected of them is computed for the first alone.
    """
    kept = {}

    def of(args: tuple) -> object:
        if id(args) not in kept:
            kept[id(args)] = args, function(*loaded(args))                # the arguments too: their id stays theirs
        return kept[id(args)][1]

    return of


def lazily(mistakes: Callable, args: tuple) -> Iterator[tuple]:
    """The pairs that mistakes(*arguments) gives, computed only if an answer is wrong and `close` asks for them."""
    yield from mistakes(*loaded(args))


# --- what a submission may use ----------------------------------------------------------------------------


# What the assignments are about. The rest of the library makes models, heads and prompts, and runs them.
ANALYSIS = (ablation, attention, attribution, basis, circuit, composition, edges, known_circuits, last_token, planted,
            planted_gpt2, planted_parts, planted_rotary, repair, scoring, steering, subspace)


def all_but(*names: str) -> tuple[str, ...]:
    """All functions of ANALYSIS but those named, for Exercise.forbidden.

    What a function that is left open calls must be left open, too. A function that the library gains is closed, until
    it is named.
    """
    return functions(*ANALYSIS, but=names)


def functions(*modules: ModuleType, but: Sequence[str] = ()) -> tuple[str, ...]:
    """The library's modules' own functions, as names for Exercise.forbidden ("basis.span"). but: those left open."""
    names = [f"{module.__name__.removeprefix('tinyheads.')}.{name}" for module in modules
             for name, each in vars(module).items() if isfunction(each) and each.__module__ == module.__name__]
    if unknown := set(but) - set(names):
        raise ValueError(f"{sorted(unknown)} are no functions of these modules")
    return tuple(name for name in names if name not in but)
