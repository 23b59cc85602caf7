"""From a submission to marks: run every exercise, then look at the answers part by part."""

import ast
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import torch

from .checkout import ASSIGNMENTS, REPOSITORY, load_module
from .comparing import Wrong
from .grading import Call, Exercise
from .session import Run, Session, Submission

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


def load_assignment(number: int) -> Assignment:
    """The assignment of that number, from the package checks/ in its folder. Raises FileNotFoundError where none is."""
    folder = next(iter(sorted(ASSIGNMENTS.glob(f"{number}_*"))), None)
    if folder is None or not (folder / "checks").is_dir():
        raise FileNotFoundError(f"there is no assignment {number} in {ASSIGNMENTS}")
    checks = load_module(f"checks_{number}", folder / "checks" / "__init__.py")
    return Assignment(number, folder, checks.EXERCISES)


def guarded_files(assignment: Assignment) -> list[Path]:
    """What a submission must leave as it is, besides the grader: the assignment, and the models that checks use."""
    return [assignment.folder, REPOSITORY / "weights" / "tiny"]


def draw(assignment: Assignment, seed: int) -> list[list[Call]]:
    """Each exercise's calls. The same seed gives the same; an exercise's do not depend on the others'."""
    return [exercise.calls(torch.Generator().manual_seed(1000 * seed + k))
            for k, exercise in enumerate(assignment.exercises)]


def grade(session: Session, assignment: Assignment, submission: Submission, seed: int,
          calls: list[list[Call]] | None = None, so_far: Callable[[Marks], None] | None = None) -> Marks:
    """Run all exercises of a submission; once its last process has ended, look at the answers.

    so_far: is given the marks of the exercises that have been run, after each of them.
    """
    calls = draw(assignment, seed) if calls is None else calls
    n_warnings = len(session.warnings)
    runs, early = [], []
    for exercise, those in zip(assignment.exercises, calls):
        runs.append(session.run(exercise, those, submission))
        if so_far:
            early.append(marked(exercise, those, runs[-1], []))
            so_far(Marks(submission.name, assignment, seed, [*early], session.warnings[n_warnings:], session.fence))
    marks, with_losses = [], {}                                      # functions that lost points, as they are named
    called = functions_called(submission.main)
    for exercise, those, run in zip(assignment.exercises, calls, runs):
        mark = marked(exercise, those, run, [with_losses[name] for name in sorted(called.get(exercise.function, ()))
                                             if name in with_losses])
        if not mark.full:
            with_losses[exercise.function] = f"{exercise.function} ({exercise.name})"
        marks.append(mark)
    return Marks(submission.name, assignment, seed, marks, session.warnings[n_warnings:], session.fence)


def marked(exercise: Exercise, calls: list[Call], run: Run, with_losses: list[str]) -> ExerciseMark:
    """An exercise's parts, checked one by one. with_losses: the functions it calls that lost points themselves."""
    parts = []
    for part in exercise.parts:
        message = run.problem
        try:
            if not message:
                part.check(calls, run.outputs)
        except Wrong as wrong:
            message = str(wrong) or "wrong"
        except Exception as error:  # an answer so odd that its check stumbles earns nothing, and ends nothing
            message = f"the check could make nothing of this answer ({type(error).__name__}: {error})"[:500]
        parts.append(PartMark(part.name, 0.0 if message else part.points, part.points, message))
    notes = []
    if any(part.message for part in parts):
        if with_losses:
            notes.append(f"{exercise.function} calls {' and '.join(with_losses)}, which lost points: mend that first.")
        if run.printed.strip():
            notes.append(f"What it printed: {run.printed.strip()[:MOST_PRINTED]}")
    return ExerciseMark(exercise, parts, run.seconds, "\n".join(notes))


def functions_called(file: Path) -> dict[str, set[str]]:
    """For each function of a file the names of those it calls, directly or through others."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}  # the runner tells what is wrong with it
    direct = {each.name: {node.id for node in ast.walk(each) if isinstance(node, ast.Name)}
              for each in tree.body if isinstance(each, ast.FunctionDef)}
    reached = {name: names & direct.keys() for name, names in direct.items()}
    for _ in direct:
        reached = {name: names.union(*(reached[other] for other in names)) for name, names in reached.items()}
    return {name: names - {name} for name, names in reached.items()}
