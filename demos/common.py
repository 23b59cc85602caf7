"""What the chapters share: how they report, and how they start."""

import argparse
import json
import runpy
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import tinyheads as th
from amounts import is_large
from tinyheads.files.array_file import write_atomically
from tinyheads.files.command import Parser, folder_to_write, one_line_errors
from tinyheads.published import IOI_PROMPT as PROMPT  # for chapter 1

REPOSITORY = Path(__file__).resolve().parents[1]


# --- what a chapter says ------------------------------------------------------------------------------------


@dataclass
class Result:
    """One line of the summary table: what was looked at, what was measured, on what, and the figure."""

    chapter: str
    measured: str
    model: str
    sample: str
    figure: str = ""


def say(text: str = "") -> None:
    """A line for the reader."""
    print(text, flush=True)


def rate(value: float, n: int) -> str:
    """A rate that was counted on n prompts, with its 95 % interval (Wilson)."""
    return "{:.3f} ({:.2f} to {:.2f})".format(value, *th.wilson_interval(value, n))


def table(rows: list[list], header: list[str]) -> str:
    """Rows as text, in columns as wide as they need."""
    rows = [header] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def report(out: Path, results: list[Result]) -> None:
    """End a chapter: print its results, and keep them as out/results_<its number>.json, which reproduce.py reads."""
    say()
    for result in results:
        say(f"{result.chapter}: {result.measured}\n   [{result.model}; {result.sample}; {Path(result.figure).name}]")
    Path(out).mkdir(parents=True, exist_ok=True)
    with write_atomically(results_file(out, results[0].chapter[0])) as file:
        file.write((json.dumps([asdict(result) for result in results], indent=2) + "\n").encode("utf-8"))


def results_file(out: Path, number: str) -> Path:
    """Where the results of the chapter with this number are kept."""
    return Path(out) / f"results_{number}.json"


# --- how a chapter starts -----------------------------------------------------------------------------------


def options(description: str, *more: tuple) -> argparse.Namespace:
    """What all chapters take, and what one adds: (flag, default, help) or (flag, default, help, argparse's settings).

    A chapter that was started from a shell is run by `run_chapter`, once more from its top, and the process ends with
    it: so an error anywhere in it is one line. In a notebook and in `python -i` it simply goes on.
    """
    if from_shell():
        run_chapter(Path(sys.argv[0]), sys.argv[1:])
        sys.exit()
    parser = Parser(description=description)
    parser.add_argument("--model",
                        help="a name (tiny, 124M, 355M, 774M, 1558M, pythia-160m) or a path; by default the best")
    parser.add_argument("--out", type=folder_to_write, default=str(REPOSITORY / "out"),
                        help="folder for the figures (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a first look, in about a tenth of the time")
    for flag, default, text, *settings in more:
        parser.add_argument(flag, default=default, help=text, **dict(*settings))
    arguments = parser.parse_args([] if in_kernel() else None)
    if arguments.model == "":
        parser.error("argument --model: the name is empty; leave --model out for the best model there is")
    return arguments


def from_shell() -> bool:
    """Whether the process was started with a chapter, as by `python demos/02_head_svd.py`, and not by `run_chapter`."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None or in_kernel() or sys.flags.interactive or "chapter" in sys.modules:
        return False
    main = Path(file).resolve()
    return main.parent == REPOSITORY / "demos" and main.name[0].isdigit()


def in_kernel() -> bool:
    """Whether sys.argv is that of a notebook's kernel (Jupyter, VS Code, Colab), which is not for us to read."""
    return Path(sys.argv[0]).name.endswith("kernel_launcher.py")


def run_chapter(path: Path, arguments: list[str]) -> None:
    """Run a chapter from top to bottom. An error in it ends the process with one line.

    Afterwards sys.argv and torch's thread count are as they were.
    """
    argv, threads = sys.argv, torch.get_num_threads()
    sys.argv = [str(path), *arguments]
    try:
        with one_line_errors(path.name):
            runpy.run_path(str(path), run_name="chapter")                # sys.modules has "chapter" until it ends
    finally:
        sys.argv = argv
        torch.set_num_threads(threads)


def spare_threads(model: th.GPT2) -> None:
    """One thread for a small model, until the chapter ends: its products are over before a second thread has begun.

    Only where `run_chapter` will set the number back: the process of a notebook is not ours.
    """
    if "chapter" in sys.modules and not is_large(model):
        torch.set_num_threads(1)
