"""This checkout of tinyheads beside another one: is a plain forward pass slower now, or a fully recorded one?

    git worktree add /tmp/before HEAD~1
    python demos/benchmarks/against.py /tmp/before [--sizes small,124M] [--threads 1] [--rounds N] [--device cuda]

Each checkout works in a process of its own, with the same torch, the same random weights (seed 0) and the same prompts,
and waits to be asked for a run. They are asked in turn, and each round begins with the other one, so that a busy minute
of the machine meets both. Recorded means: with a Stream that records, and every write asked for and held, heads' too.
The ratio is that of the medians, this checkout's by the other's. Beside it stand the ratio of the two fastest rounds,
which a busy machine disturbs least, and the smallest and largest ratio of one round, which say how far to trust either.
Peak memory is that of one more process, which does this piece of work alone, once.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Callable

import torch

import tinyheads as th
from timing import begin, load, options, peak_memory, ratio, say, shown, table, timed

HERE = Path(__file__).resolve().parents[2]
# size: the model, its prompts [B, T], and how many runs make one measurement
SIZES = {"small": (th.GPT2Config(n_vocab=1024, n_ctx=256, n_embd=64, n_layer=2, n_head=4), (16, 64), 20),
         **{name: (config, (4, 256), 1) for name, config in th.OPENAI_SIZES.items()}}
WORK = ("plain", "recorded")


# %% The worker: answers on standard output, a line of JSON for a line that names a piece of work

def work_of(size: str, device: torch.device) -> dict[str, Callable]:
    """The pieces of work by name, for a model with random weights of this size."""
    config, shape, runs = SIZES[size]
    model = th.GPT2(config, seed=0).requires_grad_(False).to(device)
    tokens = torch.randint(0, config.n_vocab, shape, generator=torch.Generator().manual_seed(0)).to(device)  # [B, T]

    def plain():
        for _ in range(runs):
            logits = model(tokens)                                                   # [B, T, V]
        return logits

    def recorded():
        for _ in range(runs):
            stream = th.Stream(record=True)
            logits = model(tokens, stream)
            held = list(stream.writes.values())                                      # every head's too: [B, T, D] each
        return logits if held else None
    return dict(zip(WORK, (plain, recorded)))


@torch.no_grad()
def answer_questions(size: str, threads: int, device: torch.device) -> None:
    """Where tinyheads is; then for each name of a piece of work its seconds; for "logits" and "bytes" those."""
    torch.set_num_threads(threads)
    print(json.dumps(str(Path(th.__file__).resolve().parents[1])), flush=True)
    work, runs = work_of(size, device), SIZES[size][2]
    for question in map(str.strip, sys.stdin):
        if question in work:
            answer = timed(work[question], device) / runs
        elif question == "bytes":
            answer = peak_memory(device)
        else:
            answer = {name: run()[0, -1].tolist() for name, run in work.items()}     # the last position's, [V]
        print(json.dumps(answer), flush=True)


# %% Who asks

class Worker:
    """A process that runs one checkout's code, and is asked by `ask`."""

    def __init__(self, checkout: Path, size: str, threads: int, device: str):
        command = [sys.executable, "-W", "ignore", __file__, str(checkout), "--work", size, "--threads", str(threads),
                   "--device", device]
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                                        env=environment)
        try:
            used = Path(self.answer())
            if used != checkout:
                raise SystemExit(f"Python found tinyheads in {used}, in place of that in {checkout}")
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self.process.args[3:])}: the worker ended; its error stands above")
        return json.loads(line)

    def ask(self, question: str):
        """Its answer to a line on its standard input."""
        print(question, file=self.process.stdin)
        return self.answer()


def compare(other: Path, size: str, arguments) -> list[list[str]]:
    """Both checkouts in turn, for one size: a row of the table for each piece of work."""
    how = size, arguments.threads, arguments.device
    rows = []
    with Worker(HERE, *how) as this, Worker(other, *how) as that:
        logits = [{name: torch.tensor(row) for name, row in worker.ask("logits").items()} for worker in (this, that)]
        say(f"{size}: the logits of the two differ by at most "
            + ", ".join(f"{(logits[0][name] - logits[1][name]).abs().max():.1e} ({name})" for name in WORK))
        for name in WORK:
            times = {this: [], that: []}
            for turn in range(arguments.rounds + 1):                                 # the first is to warm up
                for worker in [this, that] if turn % 2 else [that, this]:
                    times[worker].append(worker.ask(name))
            mine, theirs = times[this][1:], times[that][1:]
            by_round = sorted(a / b for a, b in zip(mine, theirs))
            rows.append([size, name, shown(mine), shown(theirs), f"{ratio(mine, theirs):.3f}",
                         f"{min(mine) / min(theirs):.3f}", f"{by_round[0]:.2f} to {by_round[-1]:.2f}"])
            say(f"{size}, {name}: {rows[-1][4]}, {load()}")
    for row, name in zip(rows, WORK):
        peaks = []
        for checkout in (HERE, other):
            with Worker(checkout, *how) as worker:
                worker.ask(name)
                peaks.append(worker.ask("bytes"))
        row += [f"{peak / 1e9:.3f} GB" for peak in peaks]
    return rows


if __name__ == "__main__":
    parser = options(__doc__.split("\n")[0])
    parser.add_argument("other", type=Path, help="folder of another checkout of tinyheads")
    parser.add_argument("--sizes", default="small,124M", help=f"of {', '.join(SIZES)}, with commas between "
                        "(default: %(default)s)")
    parser.set_defaults(rounds=15)
    parser.add_argument("--work", choices=SIZES, help="be the worker for this size")
    arguments = parser.parse_args()
    if arguments.work:
        answer_questions(arguments.work, arguments.threads, torch.device(arguments.device))
        sys.exit()
    sizes = arguments.sizes.split(",")
    if unknown := set(sizes) - set(SIZES):
        sys.exit(f"no size is called {sorted(unknown)[0]!r}; there are {', '.join(SIZES)}")
    other = arguments.other.expanduser().resolve()
    if not (other / "tinyheads" / "__init__.py").exists():
        sys.exit(f"{other} is no checkout of tinyheads: it has no tinyheads/__init__.py")
    begin(arguments)
    rows = [row for size in sizes for row in compare(other, size, arguments)]
    say(f"\nthis: {HERE}\nother: {other}\n")
    say(table(rows, ["size", "forward", "this: median (spread)", "other: median (spread)", "ratio", "of the fastest",
                     "by round", "peak memory: this", "other"]))
