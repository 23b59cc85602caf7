"""Run every chapter on the best weights there are: the paper's story in one table and one sheet of figures.

    python demos/reproduce.py [--model NAME_OR_PATH] [--out FOLDER] [--only 0145] [--quick] [--resume]

Without --model each chapter takes the best it can use: a whole model to run, OpenAI's attention weights to
read. Each chapter leaves its results in `out/results_<its number>.json`; all of them together go to
`out/results.json`, the figures to `out/contact_sheet.png`, and a page to share to `out/report.md` and, as one file with
its pictures, to `out/report.html`. --resume goes on with a run that broke off: chapters that it finished, with the same
options, are not run again.
"""

import argparse
import json
import time
from pathlib import Path

from common import Result, options, results_file, run_chapter, say
from shared_page import Section, share
from tinyheads import plots
from tinyheads.errors import TaskError
from tinyheads.files.array_file import write_atomically
from tinyheads.files.command import one_line_errors

CLAIMS = {  # of Merullo et al. 2024, by chapter; the first is ours
    "0": "On a model whose circuit was written by hand, each method finds that circuit, and none where none is.",
    "1": "Heads write features into the residual stream, where later heads read them.",
    "2": "A head's OV matrix splits into rank-1 components that read and write one direction each.",
    "3": "Composition of single components predicts, from weights alone, which head talks to which.",
    "4": "Inhibition heads tell mover heads what not to attend to, through one or two components each.",
    "5": "A 3-dimensional subspace of these indexes the items of a list by position.",
    "6": "Accuracy falls as more items crowd that space.",
    "7": "Setting the coordinates there, or editing weights along it, repairs the failure: often over 20 points.",
}

# Each chapter's part of the time, for saying about how much is left: an estimate, from runs of several sizes.
PART = {"0": 0.02, "1": 0.01, "2": 0.03, "3": 0.03, "4": 0.19, "5": 0.14, "6": 0.25, "7": 0.33}

CHAPTERS = {chapter.name[1]: chapter for chapter in sorted(Path(__file__).parent.glob("0[0-9]_*.py"))}


def chosen(text: str) -> list[str]:
    """For --only: the numbers of chapters that there are, in order."""
    if not text or not set(text) <= set(CHAPTERS):
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers of chapters, one after the other, out of "
                                         + "".join(CHAPTERS))
    return sorted(set(text))


def finished_before(out: Path, given: list[str]) -> list[str]:
    """The chapters that an earlier run with the same options finished there, and whose results are still there."""
    try:
        kept = json.loads((out / "progress.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise TaskError(f"{out / 'progress.json'} is not what reproduce.py wrote ({error}); run without "
                        "--resume") from None
    if kept["options"] != given:
        say(f"not resumed: the earlier run's options were {' '.join(kept['options'])}")
        return []
    return [number for number in kept["finished"] if results_file(out, number).exists()]


def keep_progress(out: Path, given: list[str], finished: list[str]) -> None:
    """Note which chapters are finished, and with which options, for --resume."""
    with write_atomically(out / "progress.json") as file:
        file.write((json.dumps({"options": given, "finished": finished}) + "\n").encode("utf-8"))


def so_far(seconds: float, chapters: list[str], done: int) -> str:
    """How long it took so far, and about how long it will still take, by the chapters' usual parts of the time."""
    ran, rest = (sum(PART.get(number, 0.1) for number in some) for some in (chapters[:done], chapters[done:]))
    return f"({seconds:.0f} s so far" + (f", about {seconds * rest / ran:.0f} s left)" if rest else ")")


def main() -> None:
    """Run them; the table is written once all have run to their end."""
    arguments = options(__doc__.split("\n")[0], ("--only", "".join(CHAPTERS), "the chapters to run, by number "
                                                 "(default: %(default)s)", {"type": chosen}),
                        ("--resume", False, "go on with a run that broke off", {"action": "store_true"}))
    out, start = arguments.out, time.perf_counter()
    given = ["--out", str(out)] + (["--model", arguments.model] if arguments.model else [])
    given += ["--quick"] if arguments.quick else []
    finished = finished_before(out, given) if arguments.resume else []
    left = [number for number in arguments.only if number not in finished]
    for place, number in enumerate(left):
        say(f"\n===== {CHAPTERS[number].stem} =====\n")
        results_file(out, number).unlink(missing_ok=True)                # an earlier run's is not this one's
        run_chapter(CHAPTERS[number], given)
        finished.append(number)
        keep_progress(out, given, finished)
        say(so_far(time.perf_counter() - start, left, place + 1))

    # The table: what the paper claims, what was measured, on which model, over how many prompts, with which seed.
    kept = {number: json.loads(results_file(out, number).read_text(encoding="utf-8")) for number in arguments.only}
    rows = [{"claim": CLAIMS[number], **row} for number in arguments.only for row in kept[number]]
    with write_atomically(out / "results.json") as file:
        file.write((json.dumps(rows, indent=2) + "\n").encode("utf-8"))
    figures = [Path(figure) for figure in dict.fromkeys(row["figure"] for row in rows) if figure]
    sheet = plots.save_figure(plots.contact_sheet(figures), out / "contact_sheet.png")

    sections = [Section(number, CLAIMS[number], [Result(**row) for row in kept[number]]) for number in arguments.only]
    page = share(out, sections, time.perf_counter() - start, arguments.model)

    say("\n===== summary =====")
    for number in arguments.only:
        say(f"\n{number}. {CLAIMS[number]}")
        for result in (Result(**row) for row in kept[number]):
            say(f"   - {result.chapter[2:]}: {result.measured}\n"
                f"     [{result.model}; {result.sample}; {Path(result.figure).name}]")
    say(f"\n{len(arguments.only)} chapters in {time.perf_counter() - start:.0f} s; table: {out / 'results.json'}; "
        f"figures: {sheet}; a page to share: {page}")


if __name__ == "__main__":
    with one_line_errors(Path(__file__).name):
        main()
