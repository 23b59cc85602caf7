"""The checks, checked: does every slip in a worked solution lose points, and is what is said of it true?

    PYTHONPATH=. python tests/assignments/mutations.py 1 4          assignments 1 and 4; all six without a number
        --seeds 20 --share 1 --messages 0 --list

For each mutant (slips.py) and each seed the exercise's calls are drawn, the mutant's function is called in this
process, and the parts' checks look at what it gave, as the grader does. A mutant is caught where it loses points at
every seed (one that raises a NameError, TypeError, AttributeError or the like does so whatever the inputs are, and is
called at the first seed alone); it is equivalent where equivalent.py lists it, with the reason; else the checks
have missed it. Open problems are left out: there another way may be as good as the worked one.

At the first --messages seeds the messages are looked at too. A message that names a cause must not come and go with the
inputs: a cause is one at all seeds. One that gives a factor or an offset is compared with the answer itself.
"""

import argparse
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "demos" / "assignments"), str(HERE)]

import torch  # noqa: E402
from equivalent import EQUIVALENT  # noqa: E402
from grader import comparing, marks  # noqa: E402
from in_process import Lazy, messages, ring  # noqa: E402
from slips import Mutant, mutants  # noqa: E402

MEGABYTES = 4000                 # beyond what torch has mapped, as in the runner
ANY_INPUT = ("NameError", "UnboundLocalError", "TypeError", "AttributeError", "ValueError: not enough values",
             "ValueError: too many values", "KeyError")
GENERIC = re.compile(r"entries are wrong|times what it should|everywhere alike|is of shape|and should be|nan or inf|"
                     r"(Error|Exception):|not implemented|in place|wrong keys|right keys|could make nothing|"
                     r"cannot be compared|nearly right|took longer|edges were asked|are in both lists|axes \d")


# --- are the messages true? ---------------------------------------------------------------------------------------


def cause(message: str) -> str:
    """A message without what depends on the inputs; "" where it names no cause."""
    if GENERIC.search(message):
        return ""
    return re.sub(r"[-+]?\d[\d.,e+-]*%?|\[[^]]*\]|L#.H#\S*", "#", message)


def untrue(said: dict[int, dict[str, str]]) -> str:
    """What is wrong with a mutant's messages at several seeds, by part: a cause that is named at some seeds only."""
    for part in {part for each in said.values() for part in each}:
        causes = {cause(each.get(part, "")) for each in said.values()}
        if len(causes) > 1:
            return f"{part}: " + " | ".join(sorted(each or "(no cause)" for each in causes))
    return ""


# --- all mutants of an assignment -----------------------------------------------------------------------------------


def tried(number: int, seeds: range, share: float, n_messages: int) -> dict[str, list]:
    """(mutants, caught, equivalent, missed with the seeds, listed though caught, untrue messages) of an assignment."""
    assignment = marks.load_assignment(number)
    chance = random.Random(number)
    graded = [exercise.function for exercise in assignment.exercises if "open:" not in exercise.name]
    all_mutants = [each for each in mutants(HERE / f"reference_{number}.py", graded)
                   if share >= 1 or chance.random() < share]
    survived, said, no_code = defaultdict(list), defaultdict(dict), set()
    for seed in seeds:
        drawn = {exercise.function: (exercise, calls)
                 for exercise, calls in zip(assignment.exercises, marks.draw(assignment, seed))}
        with_messages = seed < n_messages
        for mutant in [each for each in all_mutants if each not in no_code]:
            exercise, calls = drawn[mutant.exercise]
            with mock.patch.object(comparing, "likely_first", lambda known: known if with_messages else []):
                told = messages(exercise, calls, Lazy(mutant.source, exercise, calls), not with_messages)
            if not told:
                survived[mutant].append(seed)
            elif with_messages:
                said[mutant][seed] = told
            if any(text.startswith(ANY_INPUT) for text in told.values()):
                no_code.add(mutant)
        progress(f"assignment {number}, seed {seed}: {len(all_mutants)} mutants, {len(survived)} survived so far")
    listed = lambda mutant: reason(number, mutant)
    return {"mutants": all_mutants,
            "equivalent": [each for each in survived if listed(each)],
            "missed": [(each, at) for each, at in survived.items() if not listed(each)],
            "listed though caught": [each for each in all_mutants if listed(each) and each not in survived],
            "untrue": [(each, problem) for each, by_seed in said.items() if (problem := untrue(by_seed))],
            "said": list(said.items())}


def reason(number: int, mutant: Mutant) -> str:
    """Why a mutant is equivalent, or ""."""
    functions = ("", mutant.where, f"{mutant.exercise}/{mutant.where}")
    return next((why for function, pattern, why in EQUIVALENT[number]
                 if function in functions and re.fullmatch(pattern, mutant.line)), "")


def progress(text: str) -> None:
    if sys.stderr.isatty() or os.environ.get("PROGRESS"):
        print(text, file=sys.stderr, flush=True)


def limited() -> None:
    """Memory as in the runner, an alarm for endless loops, a folder for what is drawn."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEGABYTES * 2**20,) * 2)
    signal.signal(signal.SIGALRM, ring)
    torch.set_num_threads(1)


def main() -> int:
    """The command: a table, and what was missed. Exit status 1 where something was."""
    parser = argparse.ArgumentParser(description="Mutants of the worked solutions, against the assignments' checks.")
    parser.add_argument("assignments", type=int, nargs="*", default=range(1, 7))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--share", type=float, default=1.0, help="of the mutants, drawn at random")
    parser.add_argument("--messages", type=int, default=0, help="seeds at which all messages are made and compared")
    parser.add_argument("--list", action="store_true", help="list each mutant's messages")
    asked = parser.parse_args()
    limited()
    bad = 0
    print("assignment  mutants  caught  equivalent  missed  untrue messages  seconds")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for number in asked.assignments:
            start = time.monotonic()
            found = tried(number, range(asked.seeds), asked.share, asked.messages)
            n = {name: len(each) for name, each in found.items()}
            caught = n["mutants"] - n["equivalent"] - n["missed"]
            print(f"{number:10} {n['mutants']:8} {caught:7} {n['equivalent']:11} {n['missed']:7} {n['untrue']:16} "
                  f"{time.monotonic() - start:8.0f}", flush=True)
            for mutant, at in found["missed"]:
                print(f"    missed [{mutant.exercise}, {mutant.kind}] {mutant.name}   at seeds {at}")
            for mutant in found["listed though caught"]:
                print(f"    listed as equivalent, but caught: {mutant.name}")
            for mutant, problem in found["untrue"]:
                print(f"    named at some seeds [{mutant.exercise}, {mutant.kind}] {mutant.name}\n        {problem}")
            for mutant, by_seed in found["said"] if asked.list else []:
                print(f"    [{mutant.exercise}, {mutant.kind}] {mutant.name}")
                for text in dict.fromkeys(text for each in by_seed.values() for text in each.values()):
                    print(f"        {text[:300]}")
            bad += n["missed"] + n["untrue"]
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
