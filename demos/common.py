"""What the chapters share: how they report, how they start, the best weights there are, and lists with a circuit."""

import argparse
import json
import os
import runpy
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Sequence

import torch

import tinyheads as th
from tinyheads.files.array_file import write_atomically
from tinyheads.files.command import Parser, folder_to_write, one_line_errors
from tinyheads.known_circuits import KnownEdges

REPOSITORY = Path(__file__).resolve().parents[1]
PROMPT = "When Mary and John went to the store, John gave a drink to"


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
    """--model and --out, and what a chapter adds: (flag, default, help) or (flag, default, help, argparse's settings).

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


# --- the best weights there are -----------------------------------------------------------------------------


def whole_model(asked: str | Path | None) -> tuple[str, th.GPT2, th.Tokenizer]:
    """A model that runs, and its tokenizer: the one asked for, else the best there is, else a random one.

    A small one gets one thread (`spare_threads`).
    """
    name = asked or next(iter(whole_models()), None)
    if name:
        model, tokenizer = th.load(name), th.load_tokenizer(name)
        spare_threads(model)
        return name, model, tokenizer
    say("OpenAI's full weights are not here (python -m tinyheads download 124M fetches them): this runs on a small "
        "model with random weights. What you see is how to look, not what GPT-2 does.")
    return "random (seed 0)", random_gpt2(), th.Tokenizer.bytes_only()


def whole_models() -> list[str]:
    """The whole models that are on this machine, the best for learning first."""
    there = []
    for name in ["124M", "355M", "774M", "1558M", "tiny"]:
        try:
            folder = th.find_weights(name)
        except th.CheckpointError:
            continue
        if any(folder.glob("*.safetensors")) or (folder / "model.ckpt.data-00000-of-00001").exists():
            there.append(name)
    return there


def random_gpt2() -> th.GPT2:
    """A small model with random weights (seed 0), which reads bytes: the form is right, the numbers mean nothing."""
    return th.GPT2(th.GPT2Config(n_vocab=257, n_ctx=128, n_embd=64, n_layer=4, n_head=4), seed=0).requires_grad_(False)


def is_large(model: th.GPT2) -> bool:
    """Whether a model is so large that a chapter gives it few prompts and few components to test: GPT-2's size."""
    return sum(parameter.numel() for parameter in model.parameters()) > 5_000_000


def heads_to_read(asked: str | None) -> tuple[str, th.Heads]:
    """The heads of the best weights there are, and a name for them."""
    best = best_weights(asked)
    if best:
        return "124M, attention" if Path(best).name == "model-attention.safetensors" else str(best), th.load_heads(best)
    say("OpenAI's weights are not here: give --model path/to/model.safetensors, or fetch them with "
        "python -m tinyheads download 124M. This runs on random weights, in which there is no circuit to find.")
    return "random (seed 0)", th.Heads.of(random_gpt2())


def best_weights(asked: str | None) -> str | Path | None:
    """Where to read attention weights: those asked for, else GPT-2's, whole or attention alone, else `named`, the
    bundled model that has a layer before the inhibition heads."""
    there = whole_models()
    openai = next((name for name in there if name != "tiny"), None)
    return asked or openai or attention_file() or ("named" if there else None)


def attention_file() -> Path | None:
    """OpenAI's attention weights without the rest of the model, where TINYHEADS_GPT2 names a folder with them."""
    folder = os.environ.get("TINYHEADS_GPT2")
    file = Path(folder) / "model-attention.safetensors" if folder else None
    return file if file and file.exists() else None


def weights_file(asked: str | None) -> th.Checkpoint | None:
    """The same weights as named arrays; None where random ones stand in."""
    best = best_weights(asked)
    return th.open_checkpoint(th.find_weights(best)) if best else None


# --- lists, and the circuit that is found on them -----------------------------------------------------------


def writable(task: Callable[[int, int], th.Prompts], lengths: Sequence[int], n_ctx: int) -> tuple[list[int], str]:
    """The list lengths for which task(1, length) makes prompts that fit the context; and why the first other fails."""
    there, why = [], ""
    for n_items in lengths:
        try:
            if task(1, n_items).end >= n_ctx:
                raise th.TaskError(f"{n_items} items do not fit a context of {n_ctx} tokens")
            there.append(n_items)
        except th.TaskError as error:
            why = why or str(error)
    return there, why


def way_to_cross_off(tokenizer: th.Tokenizer, n_ctx: int, lengths: Sequence[int],
                     asked: str = "ordinal") -> tuple[str, list[int]]:
    """How Laundry Lists are crossed off here, as asked or, where no length can be written so, by name; and the lengths
    that can. Says why. Raises TaskError where there are none in either way."""
    for by in dict.fromkeys((asked, "name")):
        there, why = writable(lambda n, n_items: th.laundry_list(tokenizer, n, n_items, by), lengths, n_ctx)
        if why:
            say(f"lists crossed off by {by}: {f'{there} items' if there else 'none'}, for {why}")
        if there:
            return by, there
    raise th.TaskError(f"no Laundry List of {list(lengths)} items can be written ({why}); give --model tiny, or a "
                       "GPT-2 with its own tokenizer")


def model_for_lists(asked: str | None, lengths: Sequence[int], by: str) -> tuple[str, th.GPT2, th.Tokenizer, str]:
    """As `whole_model`, and how lists are crossed off: a model whose tokenizer can write Laundry Lists of all lengths.

    Where the one asked for cannot, the bundled model stands in, and that is said.
    """
    name, model, tokenizer = whole_model(asked)
    try:
        by, there = way_to_cross_off(tokenizer, model.config.n_ctx, lengths, by)
        if len(there) < len(lengths):
            raise th.TaskError(f"lists of {list(lengths)} items are needed, and only {there} can be written")
    except th.TaskError as error:
        say(f"there is no Laundry List for {name}: {error}. The bundled model stands in.")
        (name, model, tokenizer), by = whole_model("tiny"), "ordinal"
    return name, model, tokenizer, by


def plain_text(tokenizer: th.Tokenizer, n: int, seed: int, pairs: str) -> torch.Tensor:
    """Tokens [n, T] of everyday sentences; of IOI prompts where this tokenizer makes those of unequal length."""
    try:
        return th.everyday_text(tokenizer, n, seed, pairs)
    except th.TaskError as error:
        say(f"IOI prompts stand in for plain text: {error}")
        return th.ioi(tokenizer, n, seed=seed, pairs=pairs).tokens


def circuit_by_running(asked: str | Path | None) -> tuple[dict[str, KnownEdges], dict[th.Head, str]]:
    """The circuit for lists of a whole model, found by running it: its edges by mode, and what its heads are known as.

    Both empty where there is no such model, no circuit in it, or too large a one: for chapters that can do without.
    """
    if not (asked or whole_models()):
        return {}, {}
    try:
        _, model, tokenizer = whole_model(asked)
        if is_large(model):
            raise th.TaskError("chapter 4 does, in a model of this size")
        lists = {by: th.laundry_list(tokenizer, 400, 5, by, seed=40) for by in ("ordinal", "name")}
    except th.TinyheadsError as error:
        say(f"no circuit for lists can be looked for here: {error}")
        return {}, {}
    by = max(lists, key=lambda by: th.accuracy(model, lists[by]))
    circuit = circuit_of(model, tokenizer, by)
    if not circuit.found:
        return {}, {}
    back, first = th.attention_back(model, lists["name"]), min(head.layer for head in circuit.inhibition)
    duplicate = [th.Head(*place) for place in (back[:first] > 0.5).nonzero().tolist()]
    edges = {"Q": KnownEdges(tuple(circuit.inhibition), tuple(circuit.movers))}
    if duplicate:
        edges["V"] = KnownEdges(tuple(duplicate), tuple(circuit.inhibition))
    H = model.config.n_head                                              # an area needs other writers to compare with
    edges = {mode: e for mode, e in edges.items() if len(e.writers) < min(r.layer for r in e.readers) * H}
    groups = ((duplicate, "duplicate token"), (circuit.inhibition, "inhibition"), (circuit.movers, "mover"))
    return edges, {head: role for heads, role in groups for head in heads}


def circuit_of(model: th.GPT2, tokenizer: th.Tokenizer, by: str, n: int = 400) -> th.Circuit:
    """The circuit that chapters 4 to 6 study, found on the same n lists of 5 (seed 40) in all of them, and printed.

    Later chapters judge on other lists. Raises TaskError where no such list can be written.
    """
    circuit = th.find_circuit(model, th.laundry_list(tokenizer, n, 5, by, seed=40))
    say(str(circuit))
    if not circuit.found:
        say("What follows shows the way with the heads that come nearest, and claims nothing of them.")
    return circuit
