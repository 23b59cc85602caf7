"""What the chapters work on: the best weights there are, and lists in which a model has a circuit."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Sequence

import torch

import tinyheads as th
from amounts import LENGTHS, amounts, is_large  # the first two for chapters
from common import rate, say, spare_threads
from tinyheads.known_circuits import KnownEdges
from tinyheads.words import WORDINGS


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


@dataclass(frozen=True)
class Lists:
    """How Laundry Lists are written for a model: crossed off by "ordinal" or "name", in a wording, in these lengths."""

    tokenizer: th.Tokenizer
    by: str
    wording: str
    lengths: list[int]

    def write(self, n: int, n_items: int, seed: int) -> th.Prompts:
        """n lists of n_items."""
        return th.laundry_list(self.tokenizer, n, n_items, self.by, seed, wording=self.wording)

    def of_all_lengths(self, n: int, seed: int) -> dict[int, th.Prompts]:
        """n lists of each length."""
        return {n_items: self.write(n, n_items, seed) for n_items in self.lengths}


def lists_for(model: th.GPT2, tokenizer: th.Tokenizer, lengths: Sequence[int], asked: str | None = None) -> Lists:
    """How Laundry Lists are written for a model. Says why, where not all lengths can be.

    asked: "ordinal" or "name"; left out, small models cross off by ordinal, those of GPT-2's size by name, in the
    wording that they do best on. By name where no length can be written as asked. Raises TaskError where none can.
    """
    wording = best_wording(model, tokenizer) if is_large(model) else "list"
    for by in dict.fromkeys((asked or ("name" if is_large(model) else "ordinal"), "name")):
        lists = Lists(tokenizer, by, wording, [])
        there, why = writable(lambda n, n_items: lists.write(n, n_items, 0), lengths, model.config.n_ctx)
        if why:
            say(f"lists crossed off by {by}: {f'{there} items' if there else 'none'}, for {why}")
        if there:
            return replace(lists, lengths=there)
    raise th.TaskError(f"no Laundry List of {list(lengths)} items can be written ({why}); give --model tiny, or a "
                       "GPT-2 with its own tokenizer")


def best_wording(model: th.GPT2, tokenizer: th.Tokenizer, n: int = 200, seed: int = 50) -> str:
    """Of the wordings of a Laundry List the one on which a model does best, by name at 3 items; of equals the first.

    Says how it did on each. What is judged later is on other lists, of other seeds.
    """
    right = {}
    for wording in WORDINGS:
        try:
            right[wording] = th.accuracy(model, th.laundry_list(tokenizer, n, 3, "name", seed, wording=wording))
        except th.TaskError:                                             # a wording that this tokenizer cannot write
            continue
    best = max(right, key=right.get, default="list")
    say(f"lists of 3 by name, n={n}, seed {seed}: "
        + ", ".join(f"{wording} {rate(each, n)}" for wording, each in right.items()) + f"; the wording is {best!r}")
    return best


def model_for_lists(asked: str | None, lengths: Sequence[int],
                    by: str | None) -> tuple[str, th.GPT2, th.Tokenizer, Lists]:
    """As `whole_model`, and how lists are written: a model whose tokenizer can write Laundry Lists of all lengths.

    Where the one asked for cannot, the bundled model stands in, and that is said.
    """
    name, model, tokenizer = whole_model(asked)
    try:
        lists = lists_for(model, tokenizer, lengths, by)
        if len(lists.lengths) < len(lengths):
            raise th.TaskError(f"lists of {list(lengths)} items are needed, and only {lists.lengths} can be written")
    except th.TaskError as error:
        say(f"there is no Laundry List for {name}: {error}. The bundled model stands in.")
        name, model, tokenizer = whole_model("tiny")
        lists = lists_for(model, tokenizer, lengths)
    return name, model, tokenizer, lists


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
        ways = [Lists(tokenizer, by, "list", [5]) for by in ("ordinal", "name")]
        written = [way.write(400, 5, seed=40) for way in ways]
        right = [th.accuracy(model, lists) for lists in written]
    except th.TinyheadsError as error:
        say(f"no circuit for lists can be looked for here: {error}")
        return {}, {}
    circuit = circuit_of(model, ways[right.index(max(right))])
    if not circuit.found:
        return {}, {}
    back = th.attention_back(model, written[1])
    first = min(head.layer for head in circuit.inhibition)
    duplicate = [th.Head(*place) for place in (back[:first] > 0.5).nonzero().tolist()]
    edges = {"Q": KnownEdges(tuple(circuit.inhibition), tuple(circuit.movers))}
    if duplicate:
        edges["V"] = KnownEdges(tuple(duplicate), tuple(circuit.inhibition))
    H = model.config.n_head                                              # an area needs other writers to compare with
    edges = {mode: e for mode, e in edges.items() if len(e.writers) < min(r.layer for r in e.readers) * H}
    groups = ((duplicate, "duplicate token"), (circuit.inhibition, "inhibition"), (circuit.movers, "mover"))
    return edges, {head: role for heads, role in groups for head in heads}


def circuit_of(model: th.GPT2, lists: Lists, n: int = 400) -> th.Circuit:
    """The circuit that chapters 4 to 6 study, found on the same n lists of 5 (seed 40) in all of them, and printed.

    Later chapters judge on other lists. Raises TaskError where no such list can be written.
    """
    circuit = th.find_circuit(model, lists.write(n, 5, seed=40))
    say(str(circuit))
    if not circuit.found:
        say("What follows shows the way with the heads that come nearest, and claims nothing of them.")
    return circuit
