"""Speed and memory, as ratios to a baseline in the same run. Not a test: machines differ, and so do hours.

    python demos/benchmarks/run.py [--threads N] [--rounds N] [--device cuda] [--sizes 355M,774M,1558M]

Each pair is run in turn, a round of one and a round of the other, and the medians are compared; the spread is
from the fastest to the slowest round. Nothing but tinyheads' own packages is needed. Where Hugging Face
transformers or TransformerLens are installed, they are compared with as well (peers.py says how to
install them); --sizes adds the larger models, predicted and measured, which takes minutes (sizes.py).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import tinyheads as th
from timing import begin, in_turn, load, options, ratio, say, shown, table
from tinyheads.files.safetensors_file import write_safetensors

parser = options(__doc__.split("\n")[0])
parser.add_argument("--sizes", help="larger models, with commas between: 355M,774M,1558M")
arguments = parser.parse_args()
device = begin(arguments)
rows = []
COLD_READ = """
import os, sys, tinyheads
file = os.open(sys.argv[1], os.O_RDONLY)
os.fsync(file)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # drop it from the page cache
def read_bytes():
    return int([line for line in open("/proc/self/io") if line.startswith("read_bytes")][0].split()[1])
before = read_bytes()
tinyheads.load_heads(sys.argv[1])
print(read_bytes() - before)
"""


def plain_gpt2(weights: dict, tokens: torch.Tensor, n_layer: int, n_head: int) -> torch.Tensor:
    """The baseline: GPT-2 in torch.nn.functional calls alone, as nanoGPT writes it. Logits [B, T, V]."""
    B, T = tokens.shape
    x = F.embedding(tokens, weights["wte.weight"]) + weights["wpe.weight"][:T]           # [B, T, D]
    D = x.shape[-1]
    for layer in range(n_layer):
        w = {name.split(".", 2)[2]: weights[name] for name in layer_names[layer]}
        y = F.layer_norm(x, (D,), w["ln_1.weight"], w["ln_1.bias"])
        q, k, v = F.linear(y, w["attn.c_attn.weight"].T, w["attn.c_attn.bias"]).split(D, dim=2)
        q, k, v = (part.view(B, T, n_head, D // n_head).transpose(1, 2) for part in (q, k, v))  # [B, H, T, K]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, D)
        x = x + F.linear(y, w["attn.c_proj.weight"].T, w["attn.c_proj.bias"])
        y = F.layer_norm(x, (D,), w["ln_2.weight"], w["ln_2.bias"])
        y = F.gelu(F.linear(y, w["mlp.c_fc.weight"].T, w["mlp.c_fc.bias"]), approximate="tanh")
        x = x + F.linear(y, w["mlp.c_proj.weight"].T, w["mlp.c_proj.bias"])
    return F.linear(F.layer_norm(x, (D,), weights["ln_f.weight"], weights["ln_f.bias"]), weights["wte.weight"])


def compare(what: str, ours, baseline, target: str) -> None:
    """Run both in turn, and note the ratio of their medians."""
    mine, theirs = in_turn(ours, baseline, arguments.rounds, device)
    rows.append([what, shown(mine), shown(theirs), f"{ratio(mine, theirs):.2f}", target])
    say(f"{what}: {rows[-1][3]}")


# %% The forward pass, batch 4 of 256 tokens, random weights of 124M's size
config = th.OPENAI_SIZES["124M"]
model = th.GPT2(config, seed=0).requires_grad_(False).to(device)
weights = dict(model.named_parameters())
layer_names = [[name for name in weights if name.startswith(f"h.{layer}.")] for layer in range(config.n_layer)]
tokens = torch.randint(0, config.n_vocab, (4, 256), generator=torch.Generator().manual_seed(0)).to(device)
difference = (model(tokens) - plain_gpt2(weights, tokens, config.n_layer, config.n_head)).abs().max().item()
say(f"largest difference of the logits: {difference:.1e}")


def record_everything():
    stream = th.Stream(record=True)
    model(tokens, stream)
    return [write for write in stream.writes.values()]  # every head's write made and held, [B, T, D] each


with torch.no_grad():
    compare("plain forward / functional calls alone", lambda: model(tokens),
            lambda: plain_gpt2(weights, tokens, config.n_layer, config.n_head), "<= 1.05")
    compare("recording, all head writes made / plain forward", record_everything, lambda: model(tokens), "<= 3")

# %% Component scores of all heads in three modes, against the matrix products that they need
heads = th.Heads.of(model)
L, H, D, K = heads.W_Q.shape
left, right = torch.randn(L * H * K, D, device=device), torch.randn(D, H * K, device=device)


def bare_products(modes: str = "QKV"):
    for _ in modes:
        for layer in range(1, L):
            left[:layer * H * K] @ right  # strictly earlier writers, one layer of readers


def all_component_scores():
    ov = th.ov_svd(heads)
    return [th.component_scores(heads, mode, ov) for mode in "QKV"]


compare("component scores, 3 modes / bare matrix products", all_component_scores, bare_products, "<= 1.5")
compare("whole-head scores, a mode / a third of those products", lambda: th.composition_scores(heads, "Q"),
        lambda: bare_products("Q"), "(none)")
compare("SVDs of all heads, OV and QK / bare matrix products", lambda: (th.ov_svd(heads), th.qk_svd(heads)),
        bare_products, "(none)")

# %% Loading a file of 500 MB
if device.type == "cpu":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_safetensors(path, {name: parameter.numpy() for name, parameter in weights.items()})
        say(f"file: {path.stat().st_size / 1e6:.0f} MB, in the page cache")
        compare("th.load / np.fromfile", lambda: th.load(path), lambda: np.fromfile(path, dtype=np.uint8), "<= 2")
        compare("th.load_heads / np.fromfile", lambda: th.load_heads(path),
                lambda: np.fromfile(path, dtype=np.uint8), "(none)")
        if sys.platform == "linux":  # which tells how many bytes a process took from the disk
            size = path.stat().st_size
            got = int(subprocess.run([sys.executable, "-c", COLD_READ, str(path)], capture_output=True, text=True,
                                     check=True).stdout)
            rows.append(["bytes load_heads reads of a cold file", f"{got / 1e6:.0f} MB", f"{size / 1e6:.0f} MB",
                         f"{got / size:.2f}", "< 0.33"])

say(f"\n{load()}")
say(table(rows, ["what", "ours: median (spread)", "baseline: median (spread)", "ratio", "target"]))

# %% Other libraries, where they are installed; larger models, where they are asked for
here = Path(__file__).parent
same = ["--threads", str(arguments.threads), "--device", arguments.device]
subprocess.run([sys.executable, here / "peers.py", "--rounds", str(arguments.rounds), *same], check=True)
if arguments.sizes:
    subprocess.run([sys.executable, here / "sizes.py", "--sizes", arguments.sizes, *same], check=True)
