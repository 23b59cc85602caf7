"""How long a class of 46 takes to grade, a third of which is odd: files that hang, exit, eat memory, or are no Python.

    python demos/benchmarks/odd_class.py            builds the class in a temporary folder and grades it, two at once

Prints the rows, the time, the processors' share of it, and the load of the machine, on which the time depends. Right
work must get full marks, and everything that was handed in must have a row. The right ones are the worked solution of
assignment 3.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tinyheads.files.command import Parser, one_line_errors  # noqa: E402

STARTER = ROOT / "demos" / "assignments" / "3_composition" / "starter.py"
WORKED = ROOT / "tests" / "assignments" / "reference_3.py"
FIRST = "composition_score"                            # the function that an odd one overwrites
ODD = {  # what is written behind right work, or in its place (a text that begins with "=")
    "syntax_1": "=def f(x:\n", "syntax_2": "=\tx = 1\n  y = 2\n", "hangs_at_import_1": "=while True: pass",
    "hangs_at_import_2": "=import time\ntime.sleep(1000)", "hangs_in_one": f"\ndef {FIRST}(*a):\n    while True: pass",
    "sleeps_in_one": f"\nimport time\ndef {FIRST}(*a):\n    time.sleep(1000)", "exits_at_import": "=raise SystemExit",
    "exits": f"\nimport os\ndef {FIRST}(*a):\n    os._exit(0)", "silent": "\nimport os\nos.kill(os.getppid(), 19)",
    "kills": "\nimport os\nos.kill(os.getppid(), 9)", "forks": f"\nimport os\ndef {FIRST}(*a):\n    while 1: os.fork()",
    "memory": f"\ndef {FIRST}(*a):\n    return [bytearray(2**28) for _ in range(1000)]",
    "survivor": "\nimport os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)",
    "prints": f"\ndef {FIRST}(*a):\n    while True: print('x' * 1000)", "library": "=import tinyheads",
    "deep": f"\ndef {FIRST}(*a):\n    return {FIRST}(*a)", "empty": "=", "missing": f"\ndel {FIRST}"}


def build(folder: Path) -> None:
    """The 46 entries: 16 right ones, 4 starters, 18 odd texts, and 8 that are no file to be graded."""
    right, starter = WORKED.read_text(), STARTER.read_text()
    for k in range(12):
        (folder / f"right_{k:02}.py").write_text(right)
    for name in ("carol", "Ada Lovelace_12_assignsubmission_file"):
        (folder / name).mkdir()
        (folder / name / "submission.py").write_text(right)
    (folder / "carol.py").write_text(right)
    (folder / "=HYPERLINK(1).py").write_text(right)
    for k in range(4):
        (folder / f"starter_{k}.py").write_text(starter)
    for name, text in ODD.items():
        (folder / f"{name}.py").write_text(text[1:] if text.startswith("=") else right + text)
    with open(os.fsencode(folder) + b"/Jos\xe9.pdf", "w") as file:
        file.write("")
    (folder / "utf16.py").write_text(right, encoding="utf-16")
    (folder / "broken.py").symlink_to(folder / "nowhere.py")
    for name in ("notes.ipynb", "all.zip", "essay.docx"):
        (folder / name).write_text("{}")
    for name, files in [("two_files", ("a.py", "b.py")), ("nothing", ())]:
        (folder / name).mkdir()
        for file in files:
            (folder / name / file).write_text(right)


def main() -> None:
    """Build, grade, and print what was found. Ends with status 1 where a row is missing, or right work lost points."""
    parser = Parser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="submissions at once")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, file = Path(place) / "class", Path(place) / "marks.csv"
        folder.mkdir()
        build(folder)
        n_entries, before, start = len(list(folder.iterdir())), os.getloadavg()[0], time.monotonic()
        command = [sys.executable, str(ROOT / "demos" / "assignments" / "grade.py"), "3", str(folder), "--csv",
                   str(file), "--seed", "1", "--jobs", str(asked.jobs)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        taken, used = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        with open(file, newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
    for row in rows:
        print(f"{row['submission']:<24}{row['total']:>5} of {row['maximum']}   {row['fence']:<16}"
              f"{(row['reason'] or row['warnings'])[:90]}")
    right = [row for row in rows if row["submission"].strip("'").startswith(("right", "carol", "Ada", "=HYP"))]
    full = sum(row["total"] == row["maximum"] for row in right)
    print(f"\n{len(rows)} rows of {n_entries} entries in {taken:.0f} s, {asked.jobs} at once, of which the processors "
          f"worked {used.ru_utime + used.ru_stime:.0f} s; {full} of {len(right)} right ones with full marks; load "
          f"{before:.1f} before, {os.getloadavg()[0]:.1f} after; status {done.returncode}")
    if done.returncode or len(rows) != n_entries or full != len(right):
        sys.exit(f"odd_class.py: a row is missing, or right work lost points {done.stderr[-500:]}")


if __name__ == "__main__":
    with one_line_errors("odd_class.py"):
        main()
