"""Open problems: an answer is not right or wrong, it has a score from 0 (a stated baseline) to 1 (a stated best).

The points come in six equal steps, as the score passes each of STEPS, so that a better answer is always worth more and
no answer is worth all or nothing. What is asked about is drawn from the seed, and judged on inputs that were not handed
in. `Posed` is a call that remembers what only the grader knows of it.
"""

from dataclasses import dataclass
from typing import Callable

from .comparing import Wrong
from .grading import Call, Outputs, Part

STEPS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)          # the score that each sixth of the points takes


@dataclass(frozen=True)
class Posed(Call):
    """The arguments of a call, and what the submission does not see: what was built, fresh prompts."""

    truth: object = None


def between(value: float, baseline: float, best: float) -> float:
    """Where a value lies between two others: 0 at the baseline or below it, 1 at the best or beyond."""
    return min(1.0, max(0.0, (value - baseline) / (best - baseline)))


def scored(points: float, score: Callable, baseline: str, best: str) -> list[Part]:
    """The parts of an open problem: a sixth of the points for each step that the score reaches.

    score(call, output) gives (its score, what was measured, as a text), or raises Wrong for what is no answer at all;
    several calls count by their mean. baseline, best: what has score 0 and score 1, in words.
    """
    kept: list = []                                 # the outputs that were scored last, and their score and text

    def measure(calls: list[Call], outputs: Outputs) -> tuple[float, str]:
        if not kept or kept[0] is not outputs:
            each = [score(call, output) for call, output in zip(calls, outputs)]
            kept[:] = [outputs, sum(value for value, _ in each) / len(each), "; ".join(text for _, text in each)]
        return kept[1], kept[2]

    def reaches(step: float) -> Callable:
        def check(calls: list[Call], outputs: Outputs) -> None:
            value, text = measure(calls, outputs)
            if value < step:
                raise Wrong(f"your score is {value:.2f}; 0 is {baseline}, 1 is {best}. Measured: {text}")
        return check

    return [Part(f"a score of {step} or more", points / len(STEPS), reaches(step)) for step in STEPS]
