"""What the work on weights costs for OpenAI's larger models: predicted on paper, and measured.

    python demos/benchmarks/sizes.py [--sizes 355M,774M,1558M] [--threads N] [--device cuda]

Random weights of those sizes; of each model only the heads are made: W_Q, W_K, W_V and W_O. On paper, with
W = LHDK numbers in each of those, and a multiplication with its addition as 2 operations:

                         operations                        numbers held
    SVDs of OV and QK    2 LH (12 D K^2 + 22 K^3)          4 W + 2 W (read and write, of one circuit at a time)
    components, a mode   2 (LH)^2 (L-1)/(2L) D K^2         4 W + 2 W (OV's SVD) + LHK LH (the scores)
    whole heads, a mode  ((L-1)H)^2 D^2 + 2 LHKD^2         4 W + 64 LHD (32 rows of the Gram matrices, two sides)

An SVD is two QR decompositions with their Q (4 D K^2 each), the SVD of a core, and two products with it. Seconds
are operations by the rate that 124M reaches with the same work on the same machine, minutes before. Nothing
[D, D] is ever made, and readers come a layer at a time, so that 1558M (1200 heads, D = 1600) stays under 4 GB.
"""

import json
import statistics
import sys

import torch

import tinyheads as th
from timing import begin, in_a_process, load, options, peak_memory, say, table, timed

WORK = ("SVDs of OV and QK", "components, a mode", "whole heads, a mode")


def costs(config: th.GPT2Config) -> dict[str, tuple[float, int]]:
    """What each piece of work costs on paper: operations, and bytes held beside what torch itself takes."""
    L, H, D, K = config.n_layer, config.n_head, config.n_embd, config.d_head
    W = L * H * D * K
    operations = (2 * L * H * (12 * D * K**2 + 22 * K**3),
                  2 * (L * H) ** 2 * (L - 1) / (2 * L) * D * K**2,
                  ((L - 1) * H) ** 2 * D**2 + 2 * L * H * K * D**2)
    numbers = (6 * W, 6 * W + L * H * K * L * H, 4 * W + 64 * L * H * D)
    return {name: (count, 4 * held) for name, count, held in zip(WORK, operations, numbers)}


def random_heads(config: th.GPT2Config, device: torch.device) -> th.Heads:
    """Heads alone, random (seed 0): the whole of 1558M would take 6 GB."""
    L, H, D, K = config.n_layer, config.n_head, config.n_embd, config.d_head
    generator = torch.Generator(device).manual_seed(0)
    shapes = [(L, H, D, K), (L, H, D, K), (L, H, D, K), (L, H, K, D)]
    weights = [torch.empty(shape, device=device).normal_(0, 0.02, generator=generator) for shape in shapes]
    biases = [torch.zeros(L, H, K, device=device) for _ in "QKV"]
    gain, none = torch.ones(L, D, device=device), torch.zeros(L, D, device=device)
    return th.Heads(config, *weights, *biases, none, gain, none, folded=True)


def measure(size: str, work: str, device: torch.device) -> dict[str, float]:
    """Seconds of one piece of work for a model of one size, and the most bytes held beside torch's own."""
    small = random_heads(th.GPT2Config(n_embd=768, n_layer=2, n_head=12), device)
    th.component_scores(small, "Q"), th.composition_scores(small, "Q"), th.qk_svd(small)  # to warm up
    base = peak_memory(device)
    heads = random_heads(th.OPENAI_SIZES[size], device)
    ov = th.ov_svd(heads) if work == WORK[1] else None
    run = {WORK[0]: lambda: (th.ov_svd(heads).scale, th.qk_svd(heads).scale),  # one circuit's vectors at a time
           WORK[1]: lambda: th.component_scores(heads, "Q", ov),
           WORK[2]: lambda: th.composition_scores(heads, "Q")}[work]
    times = [timed(run, device)]
    while sum(times) < 3 and len(times) < 5:                                   # what is short, several times
        times.append(timed(run, device))
    return {"seconds": statistics.median(times), "bytes": peak_memory(device) - base, "with torch": peak_memory(device)}


def compare_sizes(sizes: list[str], threads: int, device: torch.device) -> None:
    """Measure each size in processes of their own, and print it beside the prediction."""
    rates, rows = {}, []
    for size in ["124M", *(size for size in sizes if size != "124M")]:
        for work, (operations, held) in costs(th.OPENAI_SIZES[size]).items():
            found = in_a_process("sizes.py", "--measure", size, work, "--threads", threads,
                                 "--device", device)
            rates.setdefault(work, operations / found["seconds"])  # 124M comes first
            rows.append([size, work, f"{operations / 1e9:.0f}", f"{operations / rates[work]:.2f}",
                         f"{found['seconds']:.2f}",
                         *(f"{count / 1e9:.2f}" for count in (held, found["bytes"], found["with torch"]))])
            say(f"{size}, {work}: {found['seconds']:.2f} s, {load()}")
    say(table(rows, ["model", "work", "10^9 operations", "seconds: predicted", "measured", "GB: predicted", "measured",
                     "with torch itself"]))


if __name__ == "__main__":
    parser = options(__doc__.split("\n")[0])
    parser.add_argument("--sizes", default="355M,774M,1558M", help="which, with commas between (default: %(default)s)")
    parser.add_argument("--measure", nargs=2, metavar=("SIZE", "WORK"), help="one measurement, as JSON")
    arguments = parser.parse_args()
    sizes = arguments.sizes.split(",")
    if unknown := set(sizes) - set(th.OPENAI_SIZES):
        sys.exit(f"no model is called {sorted(unknown)[0]!r}; there are {', '.join(th.OPENAI_SIZES)}")
    device = begin(arguments)
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure, device)))
    else:
        compare_sizes(sizes, arguments.threads, device)
