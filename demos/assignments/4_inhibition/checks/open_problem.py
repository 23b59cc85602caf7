"""Checks of 4.9, an open problem: find an unknown channel in a model built by hand, beside two heads that mislead.

One head looks where an inhibition head looks, and writes what nobody reads; another writes exactly where the mover
reads, and the same in all lists. So neither attention nor weights name the channel alone. Judged on prompts that were
not handed in: what the mover's preference loses once the named components are removed, all at once, by mean.
"""

import torch
from torch import Generator

import tinyheads as th
from grader.comparing import Wrong
from grader.grading import Call, Model
from grader.inputs import planted, planted_prompts
from grader.open_problems import Posed, between
from tinyheads.planted import Planted

N_NAMED = 3                                         # components to be named: as many as the channel has dimensions


def with_decoys(generator: Generator) -> Planted:
    """A planted model with the two heads that mislead, in layers before the mover's."""
    while True:
        built = planted(generator)
        free = [th.Head(layer, head) for layer in range(built.mover.layer) for head in range(4)
                if th.Head(layer, head) != built.inhibition]
        looks, writes = (free[i] for i in torch.randperm(len(free), generator=generator)[:2])
        D, K = built.model.config.n_embd, built.model.config.d_head
        of = lambda head, part: slice(part * D + head.head * K, part * D + (head.head + 1) * K)
        W = lambda head: built.model.h[head.layer].attn.c_attn.weight               # [D, 3D]
        O = lambda head: built.model.h[head.layer].attn.c_proj.weight[head.head * K:(head.head + 1) * K]    # [K, D]
        for part in (0, 1, 2):                      # queries, keys and values of the inhibition head ...
            W(looks)[:, of(looks, part)] = W(built.inhibition)[:, of(built.inhibition, part)]
        elsewhere = torch.linalg.qr(torch.randn(D, 3, generator=generator)).Q.T     # [3, D]
        elsewhere = elsewhere - elsewhere @ built.channel.T @ built.channel
        O(looks)[:3] = 2 * elsewhere                # ... written where no mover reads
        O(writes)[:] = 0
        O(writes)[:3] = 0.3 * torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q @ built.channel
        W(writes)[:, of(writes, 0)] = 0             # it looks everywhere alike
        if th.accuracy(built.model, planted_prompts(generator, 100)) > 0.9:
            return built


def calls_find(generator: Generator) -> list[Call]:
    built, prompts, fresh = with_decoys(generator), planted_prompts(generator, 60), planted_prompts(generator, 100)
    return [Posed((Model(built.model), prompts, N_NAMED), truth=(built, fresh))]


def lost(built: Planted, prompts: th.Prompts, components: list[th.Component]) -> float:
    """What the mover's preference loses without these components (mean removal, all at once)."""
    edits = th.remove_components(th.ov_svd(th.Heads.of(built.model)), components, "mean")
    whole, without = (th.preference(built.model, prompts, [built.mover], those) for those in ([], edits))
    return whole - without


def score_find(call: Posed, output: object) -> tuple[float, str]:
    built, fresh = call.truth
    L, H, K = built.model.config.n_layer, built.model.config.n_head, built.model.config.d_head
    if not isinstance(output, (list, tuple)) or len(output) != N_NAMED or len(set(map(str, output))) < N_NAMED:
        raise Wrong(f"the result should be a list of {N_NAMED} different triples (layer, head, component)")
    try:
        named = [each if isinstance(each, th.Component) else th.Component(*(int(i) for i in each)) for each in output]
    except (TypeError, ValueError):
        raise Wrong(f"a component is three whole numbers (layer, head, component), not {output[0]!r}") from None
    if not all(0 <= c.layer < L and 0 <= c.head < H and 0 <= c.index < K for c in named):
        raise Wrong(f"there are layers 0 to {L - 1}, heads 0 to {H - 1} and components 0 to {K - 1}; named were "
                    + ", ".join(map(str, named)))
    best = lost(built, fresh, [th.Component.of(built.inhibition, i) for i in range(N_NAMED)])
    yours = lost(built, fresh, named)
    told = (f"without {', '.join(map(str, named))} the mover {built.mover}'s preference on fresh lists falls by "
            f"{yours:.2f}, without the channel that was built in by {best:.2f}")
    return between(yours, 0.0, best), told
