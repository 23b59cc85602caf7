"""Grade submissions of an assignment.

    python demos/assignments/grade.py 3 submission.py                     a table, on the terminal; or submission.ipynb
        --only 3.2                                                        of one exercise
    python demos/assignments/grade.py 3 --hint 3.2                        an exercise's hints, one after the other
    python demos/assignments/grade.py 3 submission.py --json results.json and what Gradescope's autograder reads
    python demos/assignments/grade.py 3 folder/ --csv marks.csv           everything in a folder, a row each
        --feedback told/ --deadline 2026-12-01T18:00 --penalty 0.1        and a file a student; late work costs
        --similar near.txt                                                and which of them are near-equal

The inputs are drawn from --seed (a random one, printed, if it is left out). The CSV is whole after each submission, and
--resume goes on with it. README.md, beside this file, is the instructors' page.
"""

import argparse
import json
import secrets
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from grader.checkout import REPOSITORY
from grader.handed_in import HandedIn, as_python, handed_in
from grader.hints import tell
from grader.marks import Assignment, Marks, draw, folder_of, grade, guarded_files, load_assignment
from grader.reports import Lateness, columns, feedback_file, gradescope, read_csv, row, table, write_csv, write_text
from grader.session import Session, SessionError
from grader.similarity import near_pairs, report

import tinyheads as th                                # behind the grader, which makes it this checkout's library
from tinyheads.files.command import Parser, folder_to_write, number, one_line_errors


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
    parser.add_argument("--hint", metavar="EXERCISE",
                        help="print an exercise's first hint: 2.3; Enter opens the second, and so does 2.3.2")
    asked = parser.parse_args(arguments)
    if not (asked.path or asked.hint):
        parser.error("say what is to be graded: a .py or .ipynb file, or a folder")
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
              asked: argparse.Namespace) -> Marks | None:
    """One entry's marks, told on the terminal and in the files that were asked for; None where it cannot be graded."""
    start, marks = time.monotonic(), None
    if entry.submission:
        marks = grade(session, assignment, entry.submission, seed, calls)
    text = table(marks) if marks else f"{assignment.folder.name}   {entry.name}\n\nnot graded: {entry.reason}"
    print(text, end="\n\n", flush=True)
    if asked.feedback:
        asked.feedback.mkdir(parents=True, exist_ok=True)
        write_text(feedback_file(asked.feedback, entry.name), text + "\n")
    if asked.json and marks:
        write_text(asked.json, json.dumps(gradescope(marks, time.monotonic() - start), indent=2))
    return marks


def main(arguments: list[str] | None = None) -> int:
    """The command. Gives the process's exit status: 0 whatever the marks, 2 where nothing could be graded."""
    asked = options(arguments)
    torch.set_num_threads(1)  # the matrices are small: threads would wait for each other
    late = Lateness(asked.deadline, asked.penalty)
    try:
        if asked.hint:
            print(tell(folder_of(asked.assignment), asked.hint))
            return 0
        whole = load_assignment(asked.assignment)
        assignment = only(whole, asked.only) if asked.only else whole
        entries = handed_in(asked.path, one=asked.json is not None)
        rows = kept_rows(asked, columns(assignment), entries)
        seed = int(rows[0]["seed"]) if rows else secrets.randbelow(2**31) if asked.seed is None else asked.seed
        done = {each["submission"].removeprefix("'") for each in rows}
        if asked.json and entries[0].submission is None:
            raise FileNotFoundError(f"{asked.path}: {entries[0].reason}")
        with Session(guarded_files(assignment), asked.seconds) as session, TemporaryDirectory() as converted:
            entries = [as_python(entry, [exercise.function for exercise in assignment.exercises],
                                 Path(converted) / str(k)) for k, entry in enumerate(entries)]
            if asked.similar:
                write_text(asked.similar, similarity(assignment, entries))
            calls = draw(whole, seed, assignment.exercises)
            for entry in entries:
                if entry.name in done:
                    continue
                marks = grade_one(session, assignment, entry, seed, calls, asked)
                rows.append(row(assignment, entry, marks, seed, late))
                if asked.csv:
                    write_csv(asked.csv, columns(assignment), rows)
    except (OSError, ValueError, SessionError, th.TinyheadsError) as error:
        print(f"grade.py: {error}", file=sys.stderr)
        if asked.json and asked.json.parent.is_dir():  # so that Gradescope shows the reason
            nothing = {"score": 0, "output": f"Nothing could be graded: {error}", "tests": []}
            write_text(asked.json, json.dumps(nothing, indent=2))
        return 2
    return 0


if __name__ == "__main__":
    with one_line_errors("grade.py"):
        sys.exit(main())
