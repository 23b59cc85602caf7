"""Grade submissions of an assignment.

    python demos/assignments/grade.py 3 submission.py                     a table, on the terminal
    python demos/assignments/grade.py 3 submission.py --json results.json and what Gradescope's autograder reads
    python demos/assignments/grade.py 3 folder/ --csv marks.csv           every submission in a folder, a row each

The inputs are drawn from --seed (a random one, printed, if it is left out). README.md, beside this file, is the
instructors' page.
"""

import argparse
import csv
import io
import json
import secrets
import sys
import time
from pathlib import Path

import torch

from grader.marks import Marks, draw, grade, guarded_files, load_assignment
from grader.session import Session, SessionError, Submission

import tinyheads as th                                # behind the grader, which makes it this checkout's library
from tinyheads.files.array_file import write_atomically
from tinyheads.files.command import Parser, one_line_errors

MAIN_NAMES = ("submission.py", "starter.py")


def in_folder(folder: Path) -> Submission | None:
    """A folder as one submission: submission.py, else starter.py, else the only .py; the others can be imported."""
    files = sorted(folder.glob("*.py"))
    named = [folder / name for name in MAIN_NAMES if folder / name in files] or (files if len(files) == 1 else [])
    return Submission(folder.name, named[0], tuple(file for file in files if file != named[0])) if named else None


def submissions_in(path: Path, one: bool) -> list[Submission]:
    """The submission at a path: a file, or all in a folder (its .py files and its subfolders).

    one: a folder is one submission. Raises FileNotFoundError where there is none.
    """
    if path.is_file():
        return [Submission(path.name, path)]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    submissions = []
    for each in [path] if one else sorted(path.iterdir()):
        if each.is_file() and each.suffix == ".py":
            submissions.append(Submission(each.stem, each))
        elif each.is_dir() and not each.name.startswith((".", "__")):
            if submission := in_folder(each):
                submissions.append(submission)
            else:
                n = len(list(each.glob("*.py")))
                print(f"{each}: left out, for it has {n} .py files and none is called submission.py", file=sys.stderr)
    if not submissions:
        raise FileNotFoundError(f"{path}: no submission in it; one .py file, or the main one called submission.py")
    return submissions


def table(marks: Marks) -> str:
    """One submission's marks, for the terminal."""
    width = max(len(mark.exercise.name) for mark in marks.exercises) + 2
    lines = [f"{marks.assignment.folder.name}   {marks.submission}   seed {marks.seed}", ""]
    for mark in marks.exercises:
        lines.append(f"{mark.exercise.name:<{width}}{mark.points:5g} of {mark.exercise.points:g}")
        if not mark.full:
            lines += ["    " + line for line in mark.output.splitlines()] + [""]
    lines += ["", f"{'total':<{width}}{marks.points:5g} of {marks.assignment.points:g}"]
    return "\n".join(lines + [f"warning: {warning}" for warning in marks.warnings])


def gradescope(marks: Marks, seconds: float) -> dict:
    """The same as Gradescope's results.json (gradescope-autograders.readthedocs.io/en/latest/specs)."""
    return {
        "score": round(marks.points, 4), "max_score": marks.assignment.points, "execution_time": round(seconds, 3),
        "output": "\n".join([f"{marks.assignment.folder.name}, inputs drawn from seed {marks.seed}.", *marks.warnings]),
        "tests": [{"name": mark.exercise.name, "score": round(mark.points, 4), "max_score": mark.exercise.points,
                   "status": "passed" if mark.full else "failed", "output": mark.output} for mark in marks.exercises],
    }


def write_text(path: Path, text: str) -> None:
    """A whole file or none."""
    with write_atomically(path) as file:
        file.write(text.encode("utf-8"))


def csv_text(all_marks: list[Marks]) -> str:
    """One row a submission, one column an exercise, and the total."""
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    names = [mark.exercise.name for mark in all_marks[0].exercises]
    writer.writerow(["submission", *names, "total", "seed", "warnings"])
    for marks in all_marks:
        points = [f"{mark.points:g}" for mark in marks.exercises]
        writer.writerow([marks.submission, *points, f"{marks.points:g}", marks.seed, "; ".join(marks.warnings)])
    return rows.getvalue()


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description="Grade submissions of one of tinyheads' assignments.")
    parser.add_argument("assignment", type=int, help="its number, 1 to 6")
    parser.add_argument("path", type=Path, help="a submission's .py file, or a folder of submissions")
    parser.add_argument("--seed", type=int, help="of the inputs, from 0; a random one if left out")
    parser.add_argument("--json", type=Path,
                        help="write results.json as Gradescope reads it; a folder is then one submission")
    parser.add_argument("--csv", type=Path, help="write one row a submission")
    parser.add_argument("--seconds", type=float, help="time limit of every exercise, in place of its own")
    asked = parser.parse_args(arguments)
    if asked.seed is not None and not 0 <= asked.seed < 2**40:
        parser.error(f"--seed is a whole number from 0, not {asked.seed}")
    if asked.seconds is not None and not 0 < asked.seconds < 1e6:
        parser.error(f"--seconds is a time above 0, not {asked.seconds}")
    return asked


def main(arguments: list[str] | None = None) -> int:
    """The command. Gives the process's exit status: 0 whatever the marks, 2 where nothing could be graded."""
    asked = options(arguments)
    torch.set_num_threads(1)  # the matrices are small: threads would wait for each other
    seed = secrets.randbelow(2**31) if asked.seed is None else asked.seed
    try:
        assignment = load_assignment(asked.assignment)
        all_marks = []
        submissions = submissions_in(asked.path, one=asked.json is not None)
        with Session(guarded_files(assignment), asked.seconds) as session:
            calls = draw(assignment, seed)
            for submission in submissions:
                start = time.monotonic()
                marks = grade(session, assignment, submission, seed, calls)
                all_marks.append(marks)
                print(table(marks), end="\n\n", flush=True)
                if asked.json:
                    write_text(asked.json, json.dumps(gradescope(marks, time.monotonic() - start), indent=2))
        if asked.csv:
            write_text(asked.csv, csv_text(all_marks))
    except (OSError, SessionError, th.TinyheadsError) as error:
        print(f"grade.py: {error}", file=sys.stderr)
        if asked.json and asked.json.parent.is_dir():  # so that Gradescope shows the reason
            write_text(asked.json, json.dumps({"score": 0, "output": f"Nothing could be graded: {error}", "tests": []}))
        return 2
    return 0


if __name__ == "__main__":
    with one_line_errors("grade.py"):
        sys.exit(main())
