"""What came of a training: every figure that is claimed of a bundled model, on prompts that no training saw.

    python weights/judge.py weights/tiny --by ordinal            # one model's tables, as its README.md has them
    python weights/judge.py /tmp/tiny_11 /tmp/tiny_12 --by ordinal       # several trainings', one after the other

Subspaces and codes are found on 1,000 lists and judged on others (`SEEDS`). Behind each rate stands Wilson's 95 %
interval. A random index that is followed by chance is followed in 1 of N lists.

- *followed*: END gets the code of a random index, in 3 dimensions, just behind the inhibition heads' attention; how
  often the model then answers with the item there. Codes are the mean over lists (mean), or the point of a grid at
  which the item is answered most surely (traversed). The subspace is from activations, from weights alone, or random.
- *kept to 3 dimensions*: what the inhibition heads write at END differs between lists only inside the subspace.
- *mean removal*: the preference of the movers for the answer that is lost when a component is set to its mean.
"""

from dataclasses import dataclass
from typing import Callable

import torch

import tinyheads as th
from tinyheads.files.command import Parser, number, one_line_errors

LENGTHS = [2, 3, 5, 8, 10, 12, 16, 20]
STEERED = [5, 8, 12, 16]
SEEDS = dict(recall=1001, laundry=1002, ioi=1003, text=1004, heads=1005, find=2000, walk=3000)
K = 3


@dataclass(frozen=True)
class Rate:
    """A rate that was counted on n prompts; printed with its interval."""

    value: float
    n: int

    def __str__(self) -> str:
        low, high = th.wilson_interval(min(1.0, max(0.0, self.value)), self.n)
        return f"{self.value:.3f} ({low:.2f} to {high:.2f})"


def figures(model: th.GPT2, tokenizer: th.Tokenizer, by: str, n: int = 1000) -> str:
    """The model's figures as Markdown, on n prompts of each kind; `by`: how its lists are crossed off."""
    lines = [f"Fresh prompts, {n} of each kind; in brackets 95 % intervals (Wilson).", ""]
    rows = {"recall": accuracy(model, lambda N: th.ordinal_recall(tokenizer, n, N, SEEDS["recall"]), n)}
    ways = ("name", "ordinal") if by == "mixed" else (by,)
    for way in ways:
        rows[f"Laundry List by {way}"] = accuracy(model, lists_of(tokenizer, way, SEEDS["laundry"], n), n)
    lines += markdown("accuracy among the items", LENGTHS, rows)
    for way in ways:
        lines += ["", *markdown(f"lists crossed off by {way}", STEERED, steered(model, tokenizer, way, n))]
    for way in ways:
        lines += ["", *who_does_what(model, tokenizer, way, n)]
    return "\n".join([*lines, "", *outside_lists(model, tokenizer, ways[0], n)]) + "\n"


def markdown(title: str, columns: list[int], rows: dict[str, dict[int, object]]) -> list[str]:
    """A table of rows {label: {column: value}}, the columns being lengths of lists."""
    header = [f"| {title} | " + " | ".join(f"{N} items" for N in columns) + " |", "| --- |" + " --- |" * len(columns)]
    return header + [f"| {label} | " + " | ".join(str(row.get(N, "")) for N in columns) + " |"
                     for label, row in rows.items()]


def lists_of(tokenizer: th.Tokenizer, by: str, seed: int, n: int) -> Callable[[int], th.Prompts]:
    """A function that makes n lists of a length."""
    return lambda N: th.laundry_list(tokenizer, n, N, by, seed + N)


def accuracy(model: th.GPT2, task: Callable[[int], th.Prompts], n: int) -> dict[int, Rate]:
    """Accuracy among the candidates by length."""
    return {N: Rate(value, n) for N, value in th.accuracy_by_length(model, task, LENGTHS).items()}


def steered(model: th.GPT2, tokenizer: th.Tokenizer, by: str, n: int) -> dict[str, dict[int, Rate]]:
    """How often a random index is followed, and what 3 dimensions carry, by length: {what: {N: Rate}}."""
    circuit = th.find_circuit(model, lists_of(tokenizer, by, SEEDS["heads"], n)(5))
    rows: dict[str, dict[int, Rate]] = {}
    for N in STEERED:
        found, judged = lists_of(tokenizer, by, SEEDS["find"], 1000)(N), lists_of(tokenizer, by, SEEDS["laundry"], n)(N)
        few, earlier = found.first(12), th.before_end(model, judged)
        from_activations = th.subspace_from_activations(model, found, circuit, K)
        for name, basis, kinds in [
                ("activations", from_activations, ("mean", "traversed")),
                ("weights alone", th.subspace_from_weights(model, circuit, K), ("mean", "traversed")),
                ("random", th.random_subspace(model.config.n_embd, K, seed=N), ("mean", "traversed"))]:
            mean = th.mean_codes(model, found, circuit, basis)                                      # [N, K]
            for kind in kinds:
                codes = mean if kind == "mean" else th.traversed_codes(model, few, circuit, basis, mean)
                rate = th.steering_rate(model, judged, circuit, basis, codes, seed=N, earlier=earlier)
                rows.setdefault(f"followed: {name}, {kind} codes", {})[N] = Rate(rate, n)
        kept, _ = th.carried(model, judged, circuit, from_activations, earlier=earlier)
        rows.setdefault("accuracy", {})[N] = Rate(th.accuracy(model, judged), n)
        rows.setdefault(f"accuracy, kept to {K} dimensions", {})[N] = Rate(kept, n)
    return rows


def who_does_what(model: th.GPT2, tokenizer: th.Tokenizer, by: str, n: int, N: int = 8) -> list[str]:
    """The circuit, every head's attention, and composition beside removal, as lines of Markdown."""
    prompts = lists_of(tokenizer, by, SEEDS["heads"], n)(N)
    circuit = th.find_circuit(model, prompts)
    on_mentions = th.attention_on(model, prompts, prompts.mentions)                                 # [L, H]
    on_answer = th.attention_on(model, prompts, th.answer_places(prompts))                          # [L, H]
    show = lambda table: "; ".join(f"L{layer} " + ", ".join(f"{value:.2f}" for value in row)
                                   for layer, row in enumerate(table.tolist()))
    lines = [f"Lists of {N} crossed off by {by}: {circuit}.", "",
             f"- END's attention on the mentions, head by head: {show(on_mentions)}",
             f"- END's attention on the answer's place: {show(on_answer)}"]
    composition = th.composition_with_movers(model, circuit)
    effect = th.inhibition_scores(model, prompts.first(200), circuit, "mean", components=list(composition))
    x, y = (torch.tensor([scores[c] for c in composition]) for scores in (composition, effect))
    correlation = th.rank_correlation(x, y)
    low, high = th.bootstrap_interval(th.rank_correlation, x, y)
    first = sorted(composition, key=lambda c: -composition[c])[:5]
    costly = sorted(effect, key=lambda c: -effect[c])[:5]
    shown = lambda some: ", ".join(f"{c} (composition {composition[c]:.2f}, removal {effect[c]:+.2f})" for c in some)
    return [*lines, f"- components that compose most with the movers: {shown(first)}",
            f"- components whose mean removal costs the movers most: {shown(costly)}",
            f"- rank correlation of the two over {len(x)} components: {correlation:.2f} ({low:.2f} to {high:.2f}, "
            "bootstrap over components)"]


def outside_lists(model: th.GPT2, tokenizer: th.Tokenizer, by: str, n: int) -> list[str]:
    """IOI on unseen pairs, whole and without the lists' heads, and perplexity, as lines of Markdown."""
    circuit = th.find_circuit(model, lists_of(tokenizer, by, SEEDS["heads"], n)(8))
    prompts = th.ioi(tokenizer, n, "mixed", SEEDS["ioi"], pairs="test")
    everyone = [th.Head(layer, head) for layer in range(model.config.n_layer) for head in range(model.config.n_head)]
    nobody = torch.empty(0, model.config.n_embd)                     # a subspace of no dimensions: all is at its mean
    lines = [f"- IOI, pairs of names never seen together, whole vocabulary: "
             f"{Rate(th.accuracy(model, prompts, 'vocabulary'), n)}"]
    for what, heads in [("inhibition heads", circuit.inhibition), ("mover heads", circuit.movers),
                        ("all other heads", [h for h in everyone if h not in circuit.inhibition + circuit.movers])]:
        edits = [th.restrict(nobody, str(head), prompts.end) for head in heads]
        right = th.correct(model(prompts.tokens, th.Stream(edits=edits)), prompts).double().mean().item()
        lines.append(f"- IOI, between the two names, the {what} of the lists at their mean at END: {Rate(right, n)}")
    text = th.everyday_text(tokenizer, n, SEEDS["text"], pairs="test")
    return [*lines, f"- perplexity on everyday text, unseen pairs: {th.perplexity(model, text):.3f}"]


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", help="names or folders")
    parser.add_argument("--by", choices=["ordinal", "name", "mixed"], default="ordinal",
                        help="how lists are crossed off")
    parser.add_argument("--n", type=number(int, 24, 10**6), default=1000, help="prompts of each kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.models:
        print(f"## {name}\n\n{figures(th.load(name), th.load_tokenizer(name), arguments.by, arguments.n)}", flush=True)


if __name__ == "__main__":
    with one_line_errors("judge.py"):
        main()
