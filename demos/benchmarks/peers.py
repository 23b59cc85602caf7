"""tinyheads beside Hugging Face transformers and TransformerLens: the same weights, the same results, time and memory.

    pip install transformers "transformer_lens<4"       # into an environment of its own; tinyheads needs neither
    python demos/benchmarks/peers.py [--threads N] [--rounds N] [--device cuda]

124M with random weights, 4 prompts of 256 tokens. Each pair runs in turn in one process; peak memory is that of a
process that does this piece of work alone, once, interpreter and model included. TransformerLens has no function
for the scores of components: they are built here from its FactoredMatrix and composition_scores, one component at a
time as one would at first, and a head at a time. One component, or head, in one mode is timed, and the time for all
of them in three modes extrapolated; tinyheads' is measured, for all.
"""

import json
import statistics
from functools import cache
from importlib.util import find_spec
from typing import Callable

import torch

import tinyheads as th
from timing import begin, in_a_process, in_turn, load, options, peak_memory, ratio, say, shown, table

INSTALL = {"transformers": "pip install transformers", "transformer_lens": 'pip install "transformer_lens<4"'}
CONFIG = th.OPENAI_SIZES["124M"]
N_HEADS = CONFIG.n_layer * CONFIG.n_head
device = torch.device("cpu")  # --device says which


# %% The three models, and the prompts

@cache
def tokens() -> torch.Tensor:
    return torch.randint(0, CONFIG.n_vocab, (4, 256), generator=torch.Generator().manual_seed(0)).to(device)


@cache
def ours() -> th.GPT2:
    return th.GPT2(CONFIG, seed=0).requires_grad_(False).to(device)


@cache
def heads() -> th.Heads:
    return th.Heads.of(ours())


@cache
def hugging_face():
    import transformers
    return transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval().requires_grad_(False).to(device)


@cache
def lens():
    """HookedTransformer as its from_pretrained makes it: LayerNorm folded, and every head's write asked for."""
    import transformer_lens
    config = transformer_lens.HookedTransformerConfig(
        n_layers=CONFIG.n_layer, n_heads=CONFIG.n_head, d_model=CONFIG.n_embd, d_head=CONFIG.d_head,
        d_mlp=4 * CONFIG.n_embd, d_vocab=CONFIG.n_vocab, n_ctx=CONFIG.n_ctx, act_fn="gelu_new",
        normalization_type="LNPre", seed=0, device=str(device))
    model = transformer_lens.HookedTransformer(config)
    model.set_use_attn_result(True)
    return model.requires_grad_(False)


def give_peers_our_weights() -> None:
    """The same numbers in all three, so that their results can be compared."""
    weights = {f"transformer.{name}": parameter for name, parameter in ours().named_parameters()}
    hugging_face().load_state_dict({**weights, "lm_head.weight": ours().wte.weight})
    if find_spec("transformer_lens"):
        from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
        lens().load_and_process_state_dict(convert_gpt2_weights(hugging_face(), lens().cfg), fold_ln=True,
                                           center_writing_weights=True, center_unembed=False, fold_value_biases=False)
        lens().requires_grad_(False)


# %% The same work, by tinyheads and by a peer

def our_forward():
    return ours()(tokens())


def their_forward():
    return hugging_face()(tokens(), use_cache=False).logits


def our_recording():
    stream = th.Stream(record=True)
    logits = ours()(tokens(), stream)
    return logits, dict(stream.writes)  # which makes every head's write, and holds them all


def their_recording():
    return lens().run_with_cache(tokens())


def our_whole_heads():
    return th.composition_scores(heads(), "Q")


def their_whole_heads():
    return lens().all_composition_scores("Q")


def our_components():
    ov = th.ov_svd(heads())
    return [th.component_scores(heads(), mode, ov) for mode in "QKV"]


def their_component(layer: int = 0, head: int = 0, index: int = 0):
    """One component of one head with every reader, by Q: [L, H], in all layers."""
    from transformer_lens import FactoredMatrix
    from transformer_lens.utilities.matrix import composition_scores
    U, scale, V = lens().OV[layer, head].svd()                                       # [D, K], [K], [D, K]
    component = FactoredMatrix(U[:, [index]] * scale[index], V[:, [index]].T)        # [D, D], of rank 1
    return composition_scores(component, lens().QK)


def their_components_of_a_head(layer: int = 0, head: int = 0):
    """All components of one head at once, which takes a rearrangement of theirs: [K, L, H]."""
    from transformer_lens import FactoredMatrix
    from transformer_lens.utilities.matrix import composition_scores
    U, scale, V = lens().OV[layer, head].svd()                                       # [D, K], [K], [D, K]
    components = FactoredMatrix((U * scale).T[:, :, None], V.T[:, None, :])          # K times [D, D], of rank 1
    return composition_scores(components, lens().QK)


# what, the peer, ours, theirs, how often theirs makes what ours makes once, at least how many times as fast
WORK = [("plain forward", "transformers", our_forward, their_forward, 1, 1),
        ("all recorded, every head's write", "transformer_lens", our_recording, their_recording, 1, 5),
        ("whole-head scores, a mode", "transformer_lens", our_whole_heads, their_whole_heads, 1, 20),
        ("component scores, theirs one by one", "transformer_lens", our_components, their_component,
         3 * N_HEADS * CONFIG.d_head, 1000),
        ("component scores, theirs head by head", "transformer_lens", our_components, their_components_of_a_head,
         3 * N_HEADS, None)]


def check_same_results() -> None:
    """Say how far the three are apart: a comparison of speed means nothing where the results differ."""
    logits = our_forward()
    say(f"largest difference of logits, transformers: {(logits - their_forward()).abs().max():.1e}")
    if find_spec("transformer_lens"):
        say(f"... of logits, TransformerLens: {(logits - lens()(tokens())).abs().max():.1e}")
        say(f"... of whole-head scores: {(our_whole_heads() - their_whole_heads()).abs().max():.1e}")
        ours_of_a_head = our_components()[0][0, 3, :, 1:]                            # [K, L - 1, H]
        theirs_of_a_head = their_components_of_a_head(0, 3)[:, 1:]
        say(f"... of a head's component scores: {(ours_of_a_head - theirs_of_a_head).abs().max():.1e}")
        say(f"... of a component's: {(ours_of_a_head[5] - their_component(0, 3, 5)[1:]).abs().max():.1e}")


@torch.no_grad()
def compare_with_peers(rounds: int, threads: int) -> None:
    """Time and memory beside every peer that is installed; how to install those that are not."""
    for peer, command in INSTALL.items():
        if not find_spec(peer):
            say(f"{peer} is not installed, and not compared with: {command}")
    if not find_spec("transformers"):
        return
    give_peers_our_weights()
    check_same_results()
    rows, work = [], [entry for entry in WORK if find_spec(entry[1])]
    for what, peer, mine, theirs, times, target in work:
        seconds, their_seconds = in_turn(mine, theirs, rounds, device)
        faster = times * ratio(their_seconds, seconds)
        extrapolated = f" x {times} = {times * statistics.median(their_seconds):.0f} s" if times > 1 else ""
        rows.append([what, peer, shown(seconds), shown(their_seconds) + extrapolated, f"{faster:.1f}",
                     f">= {target}" if target else "(none)"])
        say(f"{what}: {faster:.1f} times as fast as {peer}, {load()}")
    say("peak memory, one process each")
    rows = [row + peaks(mine, theirs, threads) for row, (_, _, mine, theirs, _, _) in zip(rows, work)]
    say(table(rows, ["what", "peer", "ours: median (spread)", "theirs: median (spread)", "times as fast", "target",
                     "peak memory: ours", "theirs", "ratio"]))


def peaks(mine: Callable, theirs: Callable, threads: int) -> list[str]:
    """Peak memory of both, each in a process that does nothing else, and the ratio."""
    mine, theirs = (in_a_process("peers.py", "--peak", run.__name__, "--threads", threads,
                                 "--device", device)["bytes"] for run in (mine, theirs))
    return [f"{mine / 1e9:.2f} GB", f"{theirs / 1e9:.2f} GB", f"{mine / theirs:.2f}"] if theirs else ["?", "?", "?"]


if __name__ == "__main__":
    parser = options(__doc__.split("\n")[0])
    runs = {run.__name__: run for work in WORK for run in work[2:4]}
    parser.add_argument("--peak", choices=runs, help="run one piece of work, and give its peak memory as JSON")
    arguments = parser.parse_args()
    device = begin(arguments)
    if arguments.peak:
        with torch.no_grad():
            kept = runs[arguments.peak]()
        print(json.dumps({"bytes": peak_memory(device)}))
    else:
        compare_with_peers(arguments.rounds, arguments.threads)
