"""See it move: a page in which a bundled model runs, and END can be dragged through the positional subspace.

    python demos/explorer.py --model tiny --out out          writes out/explorer.html

The page is one file that needs no network. Its model is explorer/model.js, in plain JavaScript, written beside
tinyheads/model.py name by name; explorer/page.js draws it, in explorer/page.html. Here is made what the page
cannot make by itself: the weights as text, the circuit, the subspace and each index's code in it (chapter 5).
"""

import base64
import html
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

import tinyheads as th
from common import options, rate, say
from materials import is_large, whole_model, writable
from tinyheads.files.array_file import write_atomically
from tinyheads.files.command import one_line_errors
from tinyheads.words import ITEMS, ORDINALS, VERBS, single_tokens

PARTS = Path(__file__).resolve().parent / "explorer"
LENGTHS = range(3, 13)                  # items of the lists that the page can hold
LENGTH_FOUND, K = 8, 3                  # the subspace of all lengths is found on lists of 8, in 3 dimensions
N_FIND, N_JUDGE = 400, 200              # lists of each length for the codes (seed 33), and others to judge on (seed 32)
RIGHT = "--model tiny, even or named"   # what fits on a page and crosses off by place
CROSSED = (2, 0, 4, 1)                  # the indices that are crossed off at first, in a list of one item more


def best_way(name: str, model: th.GPT2, tokenizer: th.Tokenizer, asked: str | None) -> tuple[str, th.Circuit]:
    """How lists are crossed off on the page, as asked or as the model does better, and the circuit that is found then.

    Raises TaskError where no such list can be written, or no circuit is found.
    """
    tried, why = {}, ""
    for by in [asked] if asked else ["ordinal", "name"]:
        there, missing = writable(lambda n, N: th.laundry_list(tokenizer, n, N, by), LENGTHS, model.config.n_ctx)
        if missing:
            why = f"{why}; by {by}, {missing}"
        else:
            tried[by] = th.accuracy(model, th.laundry_list(tokenizer, N_JUDGE, 5, by, seed=32))
    if not tried:
        raise th.TaskError(f"{name} cannot write lists of {LENGTHS[0]} to {LENGTHS[-1]} items{why}; give {RIGHT}")
    by = max(tried, key=tried.get)                                                         # the first of equals
    circuit = th.find_circuit(model, th.laundry_list(tokenizer, 400, 5, by, seed=40))      # as in chapters 4 to 6
    if not circuit.found:
        raise th.TaskError(f"{name} has no circuit for lists that are crossed off by {by} ({circuit.why}), so that the "
                           f"page would have nothing to show; give {RIGHT}")
    say(f"{name}: lists crossed off by {by}; {circuit}")
    return by, circuit


def subspace_and_codes(model: th.GPT2, tokenizer: th.Tokenizer, by: str, circuit: th.Circuit) -> tuple:
    """The subspace [k, D], the codes {N: [N, k]}, the plane's reach {N: [k, 2]} and what can be said of {N}."""
    lists = lambda n, N, seed: th.laundry_list(tokenizer, n, N, by, seed)
    basis = th.subspace_from_activations(model, lists(N_FIND, LENGTH_FOUND, 33), circuit, K)
    codes, ranges, rates = {}, {}, {}
    for N in LENGTHS:
        codes[N] = th.mean_codes(model, lists(N_FIND, N, 33), circuit, basis)              # [N, k]
        low, high = codes[N].amin(0), codes[N].amax(0)                                     # [k]
        ranges[N] = torch.stack([low - 0.3 * (high - low), high + 0.3 * (high - low)], 1)  # [k, 2]
        judged = lists(N_JUDGE, N, 32)
        right, followed = (rate(value, N_JUDGE) for value in (
            th.accuracy(model, judged), th.steering_rate(model, judged, circuit, basis, codes[N])))
        rates[N] = (f"On {N_JUDGE} lists of {N} items the model is right in {right}; with END at the code of a random "
                    f"index it answers that item in {followed}. Chance: {1 / N:.2f}.")
        say(rates[N])
    return basis, codes, ranges, rates


def pieces(tokenizer: th.Tokenizer, words: list[str], ordinals: list[str]) -> dict[str, list]:
    """The tokens of all that `th.laundry_list` makes prompts of: {piece: [[id, text], ...]}."""
    whole = [",", ". Done:", *(f" {word}" for word in [*words, *ordinals]),
             *(form.format(verb) for verb in VERBS for form in ("To {}:", ". Still to {}: the"))]
    return {piece: [[token, tokenizer.decode([token])] for token in tokenizer.encode(piece)] for piece in whole}


def page_data(name: str, model: th.GPT2, tokenizer: th.Tokenizer, asked: str | None = None) -> dict:
    """All that the page is given. Raises TaskError where the model has no lists, or no circuit for them."""
    if is_large(model):
        n = sum(parameter.numel() for parameter in model.parameters())
        raise th.TaskError(f"{name} has {n:,} parameters, {n * 16 / 3 / 1e6:,.0f} MB as text: too many for a page "
                           f"(5,000,000 are the most); give {RIGHT}")
    by, circuit = best_way(name, model, tokenizer, asked)
    basis, codes, ranges, rates = subspace_and_codes(model, tokenizer, by, circuit)
    words = single_tokens(tokenizer, ITEMS, LENGTHS[-1], "items")
    components = th.ov_svd(th.Heads.of(model)).write                                       # [L, H, K, D]
    tensors = {**model.state_dict(), "basis": basis, "components": components}
    numbers = np.concatenate([np.asarray(x, dtype="<f4").ravel() for x in tensors.values()])
    groups = {"inhibition": circuit.inhibition, "mover": circuit.movers}
    return {
        "name": name, "by": by, "config": asdict(model.config),
        "heads": [f"L{layer}.H{head}" for layer in range(model.config.n_layer) for head in range(model.config.n_head)],
        "roles": {str(head): role for role, heads in groups.items() for head in heads},
        "circuit": {"where": circuit.where, "movers": [str(head) for head in circuit.movers]},
        "codes": {N: code.tolist() for N, code in codes.items()}, "rates": rates,
        "ranges": {N: reach.tolist() for N, reach in ranges.items()},
        "words": words, "start": words[:len(CROSSED) + 1], "crossed": CROSSED,
        "ordinals": ORDINALS[:LENGTHS[-1]], "pieces": pieces(tokenizer, words, ORDINALS[:LENGTHS[-1]]),
        "sizes": [[key, x.numel()] for key, x in tensors.items()],
        "weights": base64.b64encode(numbers.tobytes()).decode("ascii"),
    }


def page(data: dict) -> str:
    """The page as one text: explorer/page.html, with its style, its scripts and the data put in."""
    part = lambda name: (PARTS / name).read_text(encoding="utf-8")
    choices = lambda values, chosen="": "".join(f"<option{' selected' * (v == chosen)}>{v}" for v in values)
    box = '<label><input type="checkbox" name="on" value="{}" checked autocomplete="off"> {}</label>'.format
    row = lambda name, boxes: f"<fieldset><legend>{name}</legend>{' '.join(boxes)}</fieldset>"
    L, K = data["config"]["n_layer"], data["config"]["n_embd"] // data["config"]["n_head"]
    roles = {head: f", {role}" for head, role in data["roles"].items()}
    switches = [row(head + roles.get(head, ""),
                    [box(head, "whole head"), *(box(f"{head}.C{i}", f"C{i}") for i in range(K))])
                for head in data["heads"]]
    switches += [row("MLPs", [box(f"L{layer}.mlp", f"L{layer}.mlp") for layer in range(L)])]
    filled = {
        "NAME": html.escape(data["name"]), "BY": {"ordinal": "place", "name": "name"}[data["by"]],
        "WHERE": data["circuit"]["where"], "STYLE": part("page.css"), "SWITCHES": "\n".join(switches),
        "VERBS": choices(VERBS), "WORDS": choices(data["words"]),
        "LENGTHS": choices(data["codes"], len(data["start"])),
        "DATA": json.dumps(data).replace("<", "\\u003c"),                  # no "</script>" can stand in it
        "SCRIPTS": part("model.js") + part("page.js").replace('"use strict";\n', "", 1),
    }
    text = part("page.html")
    for name, value in filled.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def main() -> None:
    """Measure what the page needs, and write it."""
    arguments = options(__doc__.split("\n")[0], ("--by", None, "how items are crossed off (default: as the model does "
                                                 "better)", {"choices": ["ordinal", "name"]}))
    name, model, tokenizer = whole_model(arguments.model or "tiny")
    text = page(page_data(name, model, tokenizer, arguments.by))
    file = Path(arguments.out) / "explorer.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as opened:
        opened.write(text.encode("utf-8"))
    say(f"{file}: {len(text.encode('utf-8')) / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    with one_line_errors(Path(__file__).name):
        main()
