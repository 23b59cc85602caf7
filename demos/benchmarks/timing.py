"""How the benchmarks time and weigh: in turn, in one process, with medians; memory in a process of its own."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import torch

from tinyheads.files.command import Parser


def say(text: str = "") -> None:
    """A line for the reader, at once, whatever is still running."""
    print(text, flush=True)


def table(rows: list[list], header: list[str]) -> str:
    """Rows as a Markdown table, in columns as wide as they need."""
    rows = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths))} |" for row in rows)


def options(description: str) -> Parser:
    """What every benchmark can be told."""
    parser = Parser(description=description)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch's threads (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    return parser


def begin(arguments: argparse.Namespace) -> torch.device:
    """Fix the threads, check the device, and print both with the machine's load."""
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("--device cuda: torch finds no GPU here")
    torch.set_num_threads(arguments.threads)
    say(f"threads {arguments.threads} of {os.cpu_count()} cores, device {arguments.device}, rounds {arguments.rounds}, "
        f"torch {torch.__version__}, {load()}")
    return torch.device(arguments.device)


def load() -> str:
    """How busy the machine is: processes that ran or waited, on average over the last minute."""
    return f"load average {os.getloadavg()[0]:.2f}"


def timed(run: Callable, device: torch.device) -> float:
    """Seconds that one run takes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(ours: Callable, theirs: Callable, rounds: int, device: torch.device) -> tuple[list[float], list[float]]:
    """Seconds of each round of both, a round of one and a round of the other; one of each before, to warm up."""
    timed(ours, device), timed(theirs, device)
    times = [(timed(ours, device), timed(theirs, device)) for _ in range(rounds)]
    return [mine for mine, _ in times], [their for _, their in times]


def shown(times: list[float]) -> str:
    """The median, and the spread from the fastest to the slowest round."""
    return f"{statistics.median(times):.3g} s ({min(times):.3g} to {max(times):.3g})"


def ratio(times: list[float], others: list[float]) -> float:
    """The ratio of the medians."""
    return statistics.median(times) / statistics.median(others)


def peak_memory(device: torch.device) -> int:
    """The most bytes this process ever held, or that torch ever held on the GPU; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")  # Linux; getrusage's figure would take in what the parent held
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def in_a_process(script: str, *words: object) -> dict:
    """Run a script of this folder by itself; what it found, as JSON in its last line."""
    path = Path(__file__).with_name(script)
    done = subprocess.run([sys.executable, "-W", "ignore", str(path), *map(str, words)], stdout=subprocess.PIPE,
                          text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
