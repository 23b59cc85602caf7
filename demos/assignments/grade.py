"""Grade submissions of an assignment.

    python demos/assignments/grade.py 3 submission.py                     a table, on the terminal; or submission.ipynb
        --only 3.2                                                        of one exercise
    python demos/assignments/grade.py 3 --hint 3.2                        an exercise's hints, one after the other
    python demos/assignments/grade.py 3 submission.py --json results.json and what Gradescope's autograder reads
    python demos/assignments/grade.py 3 folder/ --csv marks.csv           everything in a folder, a row each
        --feedback told/ --deadline 2026-12-01T18:00 --penalty 0.1        and a file a student; late work costs
        --similar near.txt --jobs 2                                       near-equal ones; two at once
    python demos/assignments/grade.py 3 --gradescope autograder.zip       what Gradescope is given, to grade by itself

The inputs are drawn from --seed (a random one, printed, if it is left out). The CSV is whole after each submission, and
--resume goes on with it. README.md, beside this file, is the instructors' page.
"""

import argparse
import json
import os
import secrets
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.figure  # noqa: F401  these three with their byte code
import tiktoken  # noqa: F401
import torch

if __name__ == "__main__":
    sys.pycache_prefix = os.devnull                   # all that follows without: a submission could have put it there

from grader import wall
from grader.checkout import REPOSITORY
from grader import hints
from grader.folder import at_once
from grader.gradescope import write_kit
from grader.handed_in import HandedIn, as_python, handed_in
from grader.marks import Assignment, Marks, draw, grade, guarded_files, load_assignment
from grader.reports import (Lateness, columns, feedback_file, gradescope, read_csv, row, table, warnings_of, write_csv,
                            write_text)
from grader.session import Session, SessionError
from grader.similarity import near_pairs, report

import tinyheads as th                                # behind the grader, which makes it this checkout's library
from tinyheads.files.command import Parser, folder_to_write, number, one_line_errors

JOBS = min(2, os.cpu_count() or 1)


def moment(text: str) -> datetime:
    """For --deadline: a day and a time, in this machine's time zone."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2026-12-01T18:00") from None


def options(arguments: list[str] | None) -> argparse.Namespace:
    """The command's options; a wrong one ends it with one line."""
    parser = Parser(description="Grade submissions of one of tinyheads' assignments.")
    parser.add_argument("assignment", type=int, help="its number, 1 to 6")
    parser.add_argument("path", type=Path, nargs="?",
                        help="a submission's .py or .ipynb file, or a folder of submissions")
    parser.add_argument("--only", metavar="EXERCISE", help="grade one exercise, such as 2.3")
    parser.add_argument("--seed", type=number(int, 0, 2**40), help="of the inputs; a random one if left out")
    parser.add_argument("--json", type=Path,
                        help="write results.json as Gradescope reads it; a folder is then one submission")
    parser.add_argument("--csv", type=Path, help="write one row a submission")
    parser.add_argument("--resume", action="store_true", help="go on with the CSV of a run that broke off")
    parser.add_argument("--feedback", type=folder_to_write, help="a folder for one text file a submission")
    parser.add_argument("--similar", type=Path, help="write a report of submissions that are near-equal in structure")
    parser.add_argument("--deadline", type=moment, help="2026-12-01T18:00; what was changed later is late")
    parser.add_argument("--penalty", type=number(float, 0, 1), default=0.0,
                        help="share of the points that each day late costs, 0.1 for a tenth")
    parser.add_argument("--seconds", type=number(float, 1e-3, 1e6), help="time limit of every exercise")
    parser.add_argument("--jobs", type=number(int, 1, 64), default=JOBS, help=f"submissions at once; {JOBS}")
    parser.add_argument("--hint", metavar="EXERCISE",
                        help="print an exercise's first hint: 2.3; Enter opens the second, and so does 2.3.2")
    parser.add_argument("--gradescope", type=Path, help="write this zip for Gradescope, and grade nothing")
    asked = parser.parse_args(arguments)
    if [asked.path, asked.gradescope, asked.hint].count(None) != 2:
        parser.error("say what is to be graded: a .py or .ipynb file, or a folder; or, without one, --hint and an "
                     "exercise, or --gradescope and the zip to write")
    if asked.resume and not asked.csv:
        parser.error("argument --resume: it goes on with a CSV; say which, with --csv")
    if asked.penalty and not asked.deadline:
        parser.error("argument --penalty: it needs a --deadline")
    return asked


def only(assignment: Assignment, number: str) -> Assignment:
    """The assignment with one of its exercises alone. Raises ValueError where it has none of that number."""
    chosen = [exercise for exercise in assignment.exercises if exercise.name.split()[0] == number]
    if not chosen:
        numbers = ", ".join(exercise.name.split()[0] for exercise in assignment.exercises)
        raise ValueError(f"{assignment.folder.name} has no exercise {number!r}; it has {numbers}")
    return replace(assignment, exercises=chosen)


def kept_rows(asked: argparse.Namespace, names: list[str], entries: list[HandedIn]) -> list[dict[str, str]]:
    """The rows of the run that is resumed, of those that are still there; none where none is. Raises ValueError."""
    if not (asked.resume and asked.csv.exists()):
        return []
    there = {entry.name for entry in entries}
    return [each for each in read_csv(asked.csv, names) if each["submission"].removeprefix("'") in there]


def similarity(assignment: Assignment, entries: list[HandedIn]) -> str:
    """The report of near-equal submissions, and of those near the worked solution where this checkout has it."""
    worked = REPOSITORY / "tests" / "assignments" / f"reference_{assignment.number}.py"
    known = {"the worked solution": worked} if worked.exists() else {}
    files = {entry.name: entry.submission.main for entry in entries if entry.submission}
    return report(near_pairs(files, assignment.folder / "starter.py", known), len(files))


def grade_one(session: Session, assignment: Assignment, entry: HandedIn, seed: int, calls: list,
              asked: argparse.Namespace) -> tuple[Marks, str]:
    """One entry's marks, and what to say of a fence that is not the strongest. Gradescope's file follows on the way."""
    start = time.monotonic()

    def so_far(marks: Marks) -> None:
        write_text(asked.json, json.dumps(gradescope(marks, time.monotonic() - start), indent=2))

    marks = grade(session, assignment, entry.submission, seed, calls, so_far if asked.json else None)
    if asked.json:
        so_far(marks)
    return marks, f"fence: {session.fence} ({session.instead})" if session.instead else ""


def tell(assignment: Assignment, entry: HandedIn, marks: Marks | None, asked: argparse.Namespace) -> None:
    """An entry's marks, or why it has none, on the terminal and in its own file."""
    text = table(marks) if marks else f"{assignment.folder.name}   {entry.name}\n\nnot graded: {entry.reason}"
    print(text + (warnings_of(marks) if marks else ""), end="\n\n", flush=True)
    if asked.feedback:
        asked.feedback.mkdir(parents=True, exist_ok=True)
        write_text(feedback_file(asked.feedback, entry.name), text + "\n")


def grade_all(whole: Assignment, asked: argparse.Namespace, converted: Path) -> None:
    """Grade what lies at the path that was asked for. Raises OSError, ValueError or SessionError where it cannot.

    converted: an empty folder, for what notebooks become.
    """
    assignment = only(whole, asked.only) if asked.only else whole
    late, names = Lateness(asked.deadline, asked.penalty), columns(assignment)
    functions = [exercise.function for exercise in assignment.exercises]
    entries = [as_python(entry, functions, converted / str(k))
               for k, entry in enumerate(handed_in(asked.path, one=asked.json is not None))]
    kept = kept_rows(asked, names, entries)
    seed = int(kept[0]["seed"]) if kept else secrets.randbelow(2**31) if asked.seed is None else asked.seed
    by_name = {each["submission"].removeprefix("'"): each for each in kept}
    rows = {k: by_name[entry.name] for k, entry in enumerate(entries) if entry.name in by_name}
    if asked.json and entries[0].submission is None:
        raise FileNotFoundError(f"{asked.path}: {entries[0].reason}")
    if asked.similar:
        write_text(asked.similar, similarity(assignment, entries))

    def ended(k: int, marks: Marks | None) -> None:
        tell(assignment, entries[k], marks, asked)
        rows[k] = row(assignment, entries[k], marks, seed, late)
        if asked.csv:
            write_csv(asked.csv, names, [rows[k] for k in sorted(rows)])

    ahead = [k for k in range(len(entries)) if k not in rows]
    for k in ahead:
        if entries[k].submission is None:
            ended(k, None)
    ahead, calls, said = [k for k in ahead if entries[k].submission], draw(whole, seed, assignment.exercises), ""
    results = at_once(asked.jobs, lambda: Session(guarded_files(assignment), asked.seconds),
                      lambda session, k: grade_one(session, assignment, entries[k], seed, calls, asked), ahead)
    with closing(results):
        for place, (marks, fence) in results:
            if fence and not said:
                print(said := fence, file=sys.stderr)
            ended(ahead[place], marks)


def main(arguments: list[str] | None = None) -> int:
    """The command. Gives the process's exit status: 0 whatever the marks, 2 where nothing could be graded."""
    asked = options(arguments)
    torch.set_num_threads(1)  # the matrices are small: threads would wait for each other
    try:
        whole = load_assignment(asked.assignment)
        if asked.hint:
            print(hints.tell(whole.folder, asked.hint))
        elif asked.gradescope:
            write_kit(whole, asked.gradescope)
        else:
            with TemporaryDirectory() as converted:
                grade_all(whole, asked, Path(converted))
    except (OSError, ValueError, SessionError, th.TinyheadsError) as error:
        print(f"grade.py: {error}", file=sys.stderr)
        if asked.json and asked.json.parent.is_dir():  # so that Gradescope shows the reason
            nothing = {"score": 0, "output": f"Nothing could be graded: {error}", "tests": []}
            write_text(asked.json, json.dumps(nothing, indent=2))
        return 2
    return 0


if __name__ == "__main__":
    wall.prctl(wall.SET_DUMPABLE, 0)                  # what this process holds in memory is no file to anybody
    with one_line_errors("grade.py"):
        sys.exit(main())
