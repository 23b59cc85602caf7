"""Is what was planted found? Every method on models whose circuit is known, and on the same without their channel.

    python demos/benchmarks/planted.py [--seeds 0,1,2] [--layers 4] [--out out]

With TINYHEADS_GPT2 (a folder with GPT-2's tokenizer and attention weights) the models have the size of GPT-2 124M and
real heads around the planted ones: 0.5 GB, and some ten minutes each with one thread. Without it, or with --layers,
they are of width 256, with noise for heads. One model is built, tested and dropped after the other; what was found in
one is kept in out/planted_<size>_seed<seed>.json, and is not looked for again.
"""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

import tinyheads as th
from tinyheads.files.array_file import write_atomically
from tinyheads.files.command import Parser, folder_to_write, number, numbers, one_line_errors
from tinyheads.planted_gpt2 import PlantedGPT2, plant

Row = dict[str, object]                    # {"what": ..., "planted": ..., "found": ..., "missed": ..., "false": ...}
COMPONENTS = 8                             # of the model without a channel, tested beside those that were moved


def lists(tokenizer: th.Tokenizer, n_items: int, each: int, seed: int) -> th.Prompts:
    """Lists crossed off by name, `each` of them for every index of the answer."""
    drawn = th.laundry_list(tokenizer, 12 * n_items * each, n_items, "name", seed)
    rows = torch.cat([(drawn.index == i).nonzero()[:each, 0] for i in range(n_items)])
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    some = {name: x[rows] for name, x in vars(drawn).items() if isinstance(x, torch.Tensor)}
    return replace(drawn, **some, texts=[drawn.texts[row] for row in rows.tolist()])


def compared(what: str, planted: list, found: list) -> Row:
    """A row of what was planted, beside what was found: how much of it, what was missed, and what is false."""
    planted, found = list(map(str, planted)), list(map(str, found))
    return {"what": what, "planted": len(planted), "found": len(set(planted) & set(found)),
            "missed": sorted(set(planted) - set(found)), "false": sorted(set(found) - set(planted))}


def measured(what: str, planted: str, value: float, holds: bool) -> Row:
    """A row of a figure: what it should be by construction, what it is, and whether that counts as found."""
    missed = [] if holds else [f"{value:.2f}"]
    return {"what": what, "planted": planted, "found": f"{value:.2f}", "missed": missed, "false": []}


def find_heads(truth: PlantedGPT2, some: th.Prompts) -> list[Row]:
    """By attention: who looks back, who inhibits, who moves. By weights: which components the movers read most."""
    circuit = th.find_circuit(truth.model, some)
    back = th.attention_back(truth.model, some)                                           # [L, H]
    edges = [str(edge) for mover in truth.movers for edge in th.predict_edges(th.Heads.of(truth.model), "Q", 3, mover)]
    duplicate = [th.Head(*at) for at in (back > 0.5).nonzero().tolist()]
    return [compared("duplicate-token heads", truth.duplicate, duplicate),
            compared("inhibition heads", truth.inhibition, circuit.inhibition),
            compared("mover heads", truth.movers, circuit.movers),
            compared("edges by Q, 3 a mover", [f"{c} -> {mover} by Q" for mover in truth.movers
                                               for c in truth.components], edges)]


def find_channel(truth: PlantedGPT2, some: th.Prompts, seed: int) -> list[Row]:
    """The components that weights and removal (to the mean) both name."""
    scores = th.inhibition_scores(truth.model, some, truth.circuit, "mean", seed)
    found = th.channel(truth.model, some, truth.circuit, seed=seed, measured={"mean": scores})
    return [compared("channel, by weights and removal", truth.components, found)]


def find_subspace(truth: PlantedGPT2, tokenizer: th.Tokenizer, seed: int) -> list[Row]:
    """Both subspaces, the codes in them, and a random index's code given to END."""
    model, circuit, N = truth.model, truth.circuit, truth.capacity
    to_find, unseen = lists(tokenizer, N, 3, seed + 1), lists(tokenizer, N, 3, seed + 2)
    few, earlier = unseen.first(4), th.before_end(model, unseen)
    bases = {"activations": th.subspace_from_activations(model, to_find, circuit),
             "weights": th.subspace_from_weights(model, circuit),
             "random": th.random_subspace(model.config.n_embd, 3, seed)}
    at_end = th.stream_at_end(model, to_find, circuit.where)                              # [B, D]
    rows = []
    for name, basis in bases.items():
        angle = th.principal_angles(basis, truth.channel).max().item()
        codes = th.by_index(th.coordinates(at_end, basis), to_find)                       # [N, 3]
        walked = th.traversed_codes(model, few, circuit, basis, codes, steps=5)           # [N, 3]
        rates = [th.steering_rate(model, unseen, circuit, basis, given, seed, earlier) for given in (codes, walked)]
        control, ways = name == "random", zip(("mean", "traversed"), rates)
        rows.append(measured(f"largest angle, from {name}", "90" if control else "0", angle, (angle > 45) == control))
        rows += [measured(f"random index followed, {name}, {way} codes", f"{1 / N:.2f}" if control else "1", rate,
                          rate < 0.5 if control else rate > 0.9) for way, rate in ways]
    codes = th.by_index(th.coordinates(at_end, truth.channel), to_find)                   # [N, 3]
    pairs = torch.stack([truth.codes_at_end(N).flatten(), (codes - codes.mean(0)).flatten()])
    alike = torch.corrcoef(pairs)[0, 1].item()
    return [*rows, measured("mean codes, correlation with the planted", "1", alike, alike > 0.95)]


def find_crowding(truth: PlantedGPT2, tokenizer: th.Tokenizer, seed: int) -> list[Row]:
    """Lists of three items more than there are codes: six indices share three of them."""
    N = truth.capacity + 3
    to_find, judged = lists(tokenizer, N, 2, seed + 3), lists(tokenizer, N, 2, seed + 4)
    found = th.crowding(truth.model, {N: judged}, truth.circuit, {N: to_find}, {N: judged.first(4)})[N]
    shared = torch.arange(N) % truth.capacity < 3                                         # [N]
    alone = (~shared).nonzero().flatten().tolist()
    roomy = (found.shares > 0).nonzero().flatten().tolist()
    room = len({i % truth.capacity for i in roomy if shared[i]})
    return [measured("accuracy, lists of three above the capacity", f"{truth.capacity / N:.2f}", found.accuracy,
                     abs(found.accuracy - truth.capacity / N) < 0.15),
            measured("accuracy of indices with a code of their own", "1", found.by_index[~shared].mean().item(),
                     found.by_index[~shared].mean() > 0.9),
            measured("accuracy of those that share one", "0.50", found.by_index[shared].mean().item(),
                     found.by_index[shared].mean() < 0.75),
            compared("indices with a code and room of their own", alone, [i for i in roomy if not shared[i]]),
            measured("codes that are shared, and have room", "3", room, room == 3)]


def edit(truth: PlantedGPT2, tokenizer: th.Tokenizer, seed: int) -> list[Row]:
    """What the heads write is turned by 60 degrees in two coordinates; the stream's edit and the weights' undo it.

    The model itself is changed: nothing else is asked of it afterwards.
    """
    N, circuit, broken = truth.capacity, truth.circuit, truth.model
    unseen = lists(tokenizer, N, 2, seed + 5)
    basis, codes = truth.channel, th.mean_codes(broken, unseen, circuit, truth.channel)                  # [N, 3]
    turn = torch.tensor([[0.5, 0.75**0.5, 0.0], [-(0.75**0.5), 0.5, 0.0], [0.0, 0.0, 1.0]])             # [3, 3]
    carrying = {c.of_head for c in truth.components[:2]}                                  # of the first two dimensions
    for head in carrying:
        th.edit_output(broken, head, basis, turn)
    damaged = th.accuracy(broken, unseen)
    given = th.steered_answers(broken, unseen, circuit, basis, codes[unseen.index])                     # [B]
    in_stream = (given == unseen.index).double().mean().item()
    fitted = [lists(tokenizer, N, 2, seed + 10 + i) for i in range(4)]
    th.fit_repair(broken, circuit, basis, fitted, steps=40, rate=0.1).apply(broken)
    mended = th.accuracy(broken, unseen)
    return [measured("accuracy, the channel turned", "below 1", damaged, damaged < 0.8),
            measured("... right index's code in the stream", "1", in_stream, in_stream > 0.9),
            measured("... weights fitted on other lists", "1", mended, mended > 0.9)]


def find_nothing(truth: PlantedGPT2, tokenizer: th.Tokenizer, some: th.Prompts, seed: int) -> list[Row]:
    """The same model, whose inhibition heads write where no mover reads: every method should say no."""
    model, circuit = truth.model, truth.circuit
    found = th.find_circuit(model, some)
    composition = th.composition_with_movers(model, circuit)
    first = sorted(composition, key=lambda c: -composition[c])[:COMPONENTS]
    few = some.first(6)
    scores = th.inhibition_scores(model, few, circuit, components=list(dict.fromkeys([*first, *truth.components])))
    named = th.channel(model, few, circuit, measured={"mean": scores})
    to_find = lists(tokenizer, 5, 3, seed + 6)
    basis = th.subspace_from_activations(model, to_find, circuit)
    rate = th.steering_rate(model, to_find, circuit, basis, th.mean_codes(model, to_find, circuit, basis), seed)
    return [{**compared("no channel: circuit", [], [] if not found.found else ["found=True"]), "why": found.why},
            compared("no channel: channel", [], named),
            measured("no channel: accuracy, 5 items", "0.20", right := th.accuracy(model, to_find), right < 0.5),
            measured("no channel: random index followed", "0.20", rate, rate < 0.5)]


def test_one(seed: int, tokenizer: th.Tokenizer, sizes: dict) -> dict:
    """Build the model of a seed, let every method look for what was planted, and the same without the channel."""
    start, rows = time.perf_counter(), []
    truth, more = plant(tokenizer, seed, **sizes), 1000 * seed
    some, longer = lists(tokenizer, 5, 2, more), lists(tokenizer, truth.capacity, 1, more)
    steps = {"heads": lambda: find_heads(truth, some), "channel": lambda: find_channel(truth, longer.first(6), seed),
             "subspace": lambda: find_subspace(truth, tokenizer, more),
             "crowding": lambda: find_crowding(truth, tokenizer, more), "edits": lambda: edit(truth, tokenizer, more)}
    for name, step in steps.items():
        rows += step()
        say(f"seed {seed}: {name}, {time.perf_counter() - start:.0f} s")
    described = truth.described()
    del truth
    removed = plant(tokenizer, seed, with_channel=False, **sizes)
    rows += find_nothing(removed, tokenizer, some, more)
    return {"seed": seed, "planted": described, "rows": rows, "seconds": round(time.perf_counter() - start)}


def say(text: str) -> None:
    """A line about how far it is, on stderr."""
    print(text, file=sys.stderr, flush=True)


def table(results: list[dict]) -> str:
    """One row a question, over all seeds: in how many models it was found, and what was missed or false."""
    lines = ["| what | planted | found | missed | false |", "| --- | --- | --- | --- | --- |"]
    for i, row in enumerate(results[0]["rows"]):
        rows = [result["rows"][i] for result in results]
        count = lambda key: sum(len(row[key]) for row in rows)
        if isinstance(row["planted"], int):
            planted, found = (sum(row[key] for row in rows) for key in ("planted", "found"))
        else:
            planted = f"{row['planted']}" if len({row["planted"] for row in rows}) == 1 else "by capacity"
            values = sorted(float(row["found"]) for row in rows)
            found = f"{values[0]:g} to {values[-1]:g}"
        lines.append(f"| {row['what']} | {planted} | {found} | {count('missed')} | {count('false')} |")
    return "\n".join(lines)


def main() -> None:
    """The command: seed after seed, then the table of all of them."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=numbers(int, 0), default=list(range(10)), help="0,1,2 (default: 0 to 9)")
    parser.add_argument("--layers", type=number(int, 3), help="a small model of so many layers, with noise for heads")
    parser.add_argument("--threads", type=number(int, 1), default=1, help="CPU threads (default: 1)")
    parser.add_argument("--out", type=folder_to_write, default="out", help="where results are kept (default: out)")
    with one_line_errors(parser.prog):
        arguments = parser.parse_args()
        torch.set_num_threads(arguments.threads)
        folder, out = os.environ.get("TINYHEADS_GPT2"), Path(arguments.out)
        tokenizer = th.load_tokenizer(folder or "named")
        if folder and arguments.layers is None:
            size, sizes = "124M", {"real": th.load_heads(Path(folder) / "model-attention.safetensors")}
        else:
            layers = arguments.layers or 4
            size, sizes = f"{layers}x256", {"config": th.GPT2Config(tokenizer.n_vocab, 128, 256, layers, 4)}
        out.mkdir(parents=True, exist_ok=True)
        results = []
        for seed in arguments.seeds:
            file = out / f"planted_{size}_seed{seed}.json"
            if not file.exists():
                result = json.dumps(test_one(seed, tokenizer, sizes), indent=1) + "\n"
                with write_atomically(file) as written:
                    written.write(result.encode("utf-8"))
            results.append(json.loads(file.read_text(encoding="utf-8")))
            missed = {row["what"]: [row["found"], *row["missed"], *row["false"]] for row in results[-1]["rows"]
                      if row["missed"] or row["false"]}
            say(f"seed {seed}: {results[-1]['seconds']} s; missed or false: {missed or 'nothing'}")
        seconds = sorted(result["seconds"] for result in results)
        print(f"{size}, {len(results)} models, {seconds[0]} to {seconds[-1]} s each\n\n{table(results)}")


if __name__ == "__main__":
    main()
