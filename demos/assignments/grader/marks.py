"""From a submission to marks: run every exercise, then look at the answers part by part."""

import math
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

import torch

from .checkout import ASSIGNMENTS, REPOSITORY, load_module
from .comparing import Wrong, tensors_in
from .grading import Call, Exercise, Outputs
from .session import Run, Session, Submission
from .stand_ins import ending_with, functions_called, hushed, with_ours, worked_solution

MOST_PRINTED = 600               # characters of what a submission printed that are shown where it lost points


@dataclass(frozen=True)
class Assignment:
    """One of the six: its number, its folder, and its exercises."""

    number: int
    folder: Path
    exercises: list[Exercise]

    @property
    def points(self) -> float:
        return sum(exercise.points for exercise in self.exercises)


@dataclass(frozen=True)
class PartMark:
    """points: earned; message: why not all of them, or ""."""

    name: str
    points: float
    most: float
    message: str


@dataclass(frozen=True)
class ExerciseMark:
    """An exercise's marks by part; seconds: that its calls took; note: what else its author should read."""

    exercise: Exercise
    parts: list[PartMark]
    seconds: float
    note: str = ""

    @property
    def points(self) -> float:
        return sum(part.points for part in self.parts)

    @property
    def full(self) -> bool:
        return math.isclose(self.points, self.exercise.points)

    @property
    def output(self) -> str:
        """All that is said about it; a message that several parts share is said once."""
        lines, said = [], None
        for part in self.parts:
            lines.append(f"{part.name}: {part.points:g} of {part.most:g}")
            if part.message:
                lines[-1] += ". As above." if part.message == said else f". {part.message}"
                said = part.message
        return "\n".join(lines + ([self.note] if self.note else []))


@dataclass(frozen=True)
class Marks:
    """A submission's marks. seed: the inputs' seed; fence: what stood around it (session.FENCES)."""

    submission: str
    assignment: Assignment
    seed: int
    exercises: list[ExerciseMark]
    warnings: list[str] = field(default_factory=list)
    fence: str = ""

    @property
    def points(self) -> float:
        return sum(mark.points for mark in self.exercises)


def folder_of(number: int) -> Path:
    """The folder of the assignment of that number. Raises FileNotFoundError where none is."""
    folder = next(iter(sorted(ASSIGNMENTS.glob(f"{number}_*"))), None)
    if folder is None or not (folder / "checks").is_dir():
        raise FileNotFoundError(f"there is no assignment {number} in {ASSIGNMENTS}")
    return folder


def load_assignment(number: int) -> Assignment:
    """The assignment of that number, from the package checks/ in its folder. Raises FileNotFoundError where none is."""
    folder = folder_of(number)
    checks = load_module(f"checks_{number}", folder / "checks" / "__init__.py")
    return Assignment(number, folder, checks.EXERCISES)


def guarded_files(assignment: Assignment) -> list[Path]:
    """What a submission must leave as it is, besides the grader: the assignment, and the models that checks use."""
    return [assignment.folder, REPOSITORY / "weights" / "tiny"]


def draw(assignment: Assignment, seed: int, only: list[Exercise] | None = None) -> list[list[Call]]:
    """Each exercise's calls, or those of some. The same seed gives the same, whichever others are drawn."""
    return [exercise.calls(torch.Generator().manual_seed(1000 * seed + k))
            for k, exercise in enumerate(assignment.exercises) if only is None or exercise in only]


def grade(session: Session, assignment: Assignment, submission: Submission, seed: int,
          calls: list[list[Call]] | None = None, so_far: Callable[[Marks], None] | None = None) -> Marks:
    """Run all exercises of a submission; once its last process has ended, look at the answers.

    An exercise that lost points and calls others that did is run again with ours in their place (stand_ins.py).
    so_far: is given the marks of the exercises that have been run once, after each of them.
    """
    calls = draw(assignment, seed) if calls is None else calls
    n_warnings = len(session.warnings)
    runs, early = [], []
    for exercise, those in zip(assignment.exercises, calls):
        runs.append(session.run(exercise, those, submission))
        if so_far:
            early.append(marked(exercise, those, runs[-1]))
            so_far(Marks(submission.name, assignment, seed, [*early], session.warnings[n_warnings:], session.fence))
    called = functions_called(submission.main)
    again = not never_imported(session, submission, runs)
    marks: dict[int, ExerciseMark] = {}
    n_called = lambda k: len(called.get(assignment.exercises[k].function, ()))      # fewer in what is called itself
    for k in sorted(range(len(runs)), key=n_called):
        exercise = assignment.exercises[k]
        marks[k] = marked(exercise, calls[k], runs[k])
        lost = [mark.exercise for mark in marks.values()
                if not mark.full and mark.exercise.function in called.get(exercise.function, ())]
        if lost and again and not marks[k].full:
            marks[k] = by_itself(session, assignment, submission, calls[k], marks[k], lost)
    for k, exercise in enumerate(assignment.exercises):
        lost = {mark.exercise.function for mark in marks.values() if not mark.full}
        if exercise.again and again and answered(runs[k]) and lost & {exercise.function, *exercise.again.needs}:
            marks[k] = looked_at_again(session, submission, exercise)
        if exercise.note:
            marks[k] = noted(marks[k], exercise.note)
    in_order = [marks[k] for k in range(len(runs))]
    return Marks(submission.name, assignment, seed, in_order, session.warnings[n_warnings:], session.fence)


def never_imported(session: Session, submission: Submission, runs: list[Run]) -> bool:
    """Whether the file hangs or fails while it is imported: all calls failed, and in the same way."""
    values = [value for run in runs[1:] for value in run.outputs.values]
    return submission.main in session.gone_wrong or (
        all(isinstance(value, Wrong) for value in values) and len(set(map(str, values))) == 1)


def answered(run: Run) -> bool:
    """Whether some call gave an answer."""
    return not all(isinstance(value, Wrong) for value in run.outputs.values)


def looked_at_again(session: Session, submission: Submission, exercise: Exercise) -> ExerciseMark:
    """An exercise's marks by its longer look."""
    longer, calls = exercise.again.exercise, exercise.again.exercise.calls(torch.Generator())
    with tempfile.TemporaryDirectory(prefix="tinyheads-again-") as folder:
        copy = ending_with(submission, exercise.again.text, Path(folder))
        return replace(marked(longer, calls, session.run(longer, calls, copy)), exercise=exercise)


def by_itself(session: Session, assignment: Assignment, submission: Submission, calls: list[Call],
              first: ExerciseMark, lost: list[Exercise]) -> ExerciseMark:
    """An exercise's marks with our functions in place of some that it calls, where these marks are no worse."""
    exercise, solution = first.exercise, worked_solution(assignment.number)
    theirs = " and ".join(f"{each.function} ({each.name})" for each in lost)
    if solution is None:
        return noted(first, f"Graded with your own {theirs}, which lost points: mend that first. (There is no worked "
                            f"solution here to put in its place.)")
    with tempfile.TemporaryDirectory(prefix="tinyheads-ours-") as folder:
        copy, names = with_ours(submission, solution, [each.function for each in lost], exercise.function, Path(folder))
        second = marked(exercise, calls, hushed(session.run(exercise, calls, copy))) if names else first
    if not names or second.points < first.points:
        return noted(first, f"Graded with your own {theirs}, which lost points: mend that first.")
    return noted(second, f"Graded with our {' and '.join(names)} in place of yours, which lost points: {theirs}.")


def noted(mark: ExerciseMark, note: str) -> ExerciseMark:
    """A mark with one more note, the first."""
    return replace(mark, note="\n".join([note, *mark.note.splitlines()]))


def marked(exercise: Exercise, calls: list[Call], run: Run) -> ExerciseMark:
    """An exercise's parts, checked one by one. An answer's numpy arrays count as tensors."""
    outputs, parts = Outputs([tensors_in(value) for value in run.outputs.values]), []
    for part in exercise.parts:
        message = run.problem
        try:
            if not message:
                part.check(calls, outputs)
        except Wrong as wrong:
            message = str(wrong) or "wrong"
        except Exception as error:  # an answer so odd that its check stumbles earns nothing, and ends nothing
            message = f"the check could make nothing of this answer ({type(error).__name__}: {error})"[:500]
        parts.append(PartMark(part.name, 0.0 if message else part.points, part.points, message))
    printed = run.printed.strip()[:MOST_PRINTED]
    note = f"What it printed: {printed}" if printed and any(part.message for part in parts) else ""
    return ExerciseMark(exercise, parts, run.seconds, note)
