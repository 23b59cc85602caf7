"""What is told of marks: a table for the terminal, a row for the CSV, a file for the student, Gradescope's JSON."""

import csv
import hashlib
import io
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tinyheads.files.array_file import write_atomically

from .handed_in import HandedIn
from .marks import Assignment, Marks


@dataclass(frozen=True)
class Lateness:
    """The rule for late work: a deadline, and the share of the points that each day begun costs, 0.1 for a tenth."""

    deadline: datetime | None = None
    penalty: float = 0.0

    def days(self, entry: HandedIn) -> int:
        """How many days too late, begun days counting whole; 1 where only an export's name says that it was late."""
        if self.deadline is None:
            return 0
        if entry.when is None or entry.when <= self.deadline:
            return int(entry.marked_late)
        return math.ceil((entry.when - self.deadline).total_seconds() / 86_400)

    def after(self, points: float, days: int) -> float:
        """The points that are left."""
        return max(0.0, points * (1 - self.penalty * days))


def table(marks: Marks) -> str:
    """One submission's marks, for its author."""
    width = max(len(mark.exercise.name) for mark in marks.exercises) + 2
    lines = [f"{marks.assignment.folder.name}   {marks.submission}   seed {marks.seed}   fence: {marks.fence}", ""]
    for mark in marks.exercises:
        lines.append(f"{mark.exercise.name:<{width}}{mark.points:5g} of {mark.exercise.points:g}")
        if not mark.full:
            lines += ["    " + line for line in mark.output.splitlines()] + [""]
        elif mark.note:
            lines.append(f"    {mark.note}")
    lines += ["", f"{'total':<{width}}{marks.points:5g} of {marks.assignment.points:g}"]
    return "\n".join(lines)


def warnings_of(marks: Marks) -> str:
    """What the instructor alone is told, a line each."""
    return "".join(f"\nwarning: {warning}" for warning in marks.warnings)


def gradescope(marks: Marks, seconds: float) -> dict:
    """The same as Gradescope's results.json (gradescope-autograders.readthedocs.io/en/latest/specs).

    marks may hold the first exercises alone: those that are not run yet are there with 0 and say so. What the command
    prints, warnings too, is Gradescope's stdout, which only instructors see.
    """
    tests = [{"name": exercise.name, "number": exercise.name.split()[0], "score": 0, "max_score": exercise.points,
              "status": "failed", "output": "not graded yet: the autograder did not come this far",
              "output_format": "text", "visibility": "visible"} for exercise in marks.assignment.exercises]
    for test, mark in zip(tests, marks.exercises):
        test |= {"score": round(mark.points, 4), "status": "passed" if mark.full else "failed", "output": mark.output}
    return {
        "score": round(marks.points, 4), "max_score": marks.assignment.points, "execution_time": round(seconds, 3),
        "output": f"{marks.assignment.folder.name}, inputs drawn from seed {marks.seed}.", "output_format": "text",
        "visibility": "visible", "stdout_visibility": "hidden", "tests": tests,
        "extra_data": {"seed": marks.seed, "fence": marks.fence, "warnings": marks.warnings},
    }


def write_text(path: Path, text: str) -> None:
    """A whole file or none."""
    with write_atomically(path) as file:
        file.write(text.encode("utf-8"))


# --- a row for each, in a CSV that is whole after each of them ---------------------------------------------------


def columns(assignment: Assignment) -> list[str]:
    """The CSV's columns."""
    return ["submission", *(exercise.name for exercise in assignment.exercises), "total", "maximum", "days late",
            "total after penalty", "file", "seed", "reason", "warnings", "fence"]


def row(assignment: Assignment, entry: HandedIn, marks: Marks | None, seed: int, late: Lateness) -> dict[str, str]:
    """One submission's row: points by exercise, or 0 and the reason."""
    days = late.days(entry)
    points = {exercise.name: "0" for exercise in assignment.exercises}
    if marks:
        points = {mark.exercise.name: f"{mark.points:g}" for mark in marks.exercises}
    total = marks.points if marks else 0.0
    return {"submission": harmless(entry.name), **points, "total": f"{total:g}", "maximum": f"{assignment.points:g}",
            "days late": str(days), "total after penalty": f"{late.after(total, days):g}", "file": harmless(entry.file),
            "seed": str(seed), "reason": entry.reason, "warnings": "; ".join(marks.warnings) if marks else "",
            "fence": marks.fence if marks else ""}


def harmless(text: str) -> str:
    """Text as a cell that no spreadsheet takes for a formula, and every file can hold."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def write_csv(path: Path, names: list[str], rows: list[dict[str, str]]) -> None:
    """All rows so far; the file is whole at any time."""
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: Path, names: list[str]) -> list[dict[str, str]]:
    """The rows of an earlier run. Raises ValueError for another file."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != names:
            raise ValueError(f"{path} is not a CSV of this assignment, to go on with: its columns are "
                             f"{', '.join(reader.fieldnames or ['none'])}")
        return list(reader)


def feedback_file(folder: Path, name: str) -> Path:
    """Where a student's feedback goes: a name that any file system takes, another for every student."""
    plain = "".join(c if c.isalnum() or c in " _-" else "_" for c in name).strip()[:100]
    mark = "" if plain == name else "_" + hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:6]
    return folder / f"{plain}{mark}.txt"
