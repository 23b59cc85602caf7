"""Checks of 6.8, an open problem: the best repair of a head that lost a dimension, under a bound on the damage.

A planted model's inhibition head writes c @ R in its channel, and R has rank 2: no M inside the subspace brings back
what is lost, but the head still gathers it. The repair may change what the model says of random text by a given
divergence at most: a little less than undoing the damage exactly would.
"""

import copy

import torch
from torch import Generator, Tensor

import tinyheads as th
from grader.comparing import Wrong, same_shape
from grader.grading import Call, Model
from grader.inputs import circuit_of, planted, planted_prompts
from grader.open_problems import Posed, between

from .planted_damage import divergence, edited, planted_text, random_rotation

BOUND = 0.9                                         # of the divergence that undoing the damage exactly makes


def flattened(generator: Generator):
    """A planted model, its channel turned and one of its three dimensions lost: (built, basis, broken)."""
    while True:
        built, prompts = planted(generator), planted_prompts(generator, 100)
        R = random_rotation(generator, 3) @ torch.diag(torch.tensor([1.0, 1.0, 0.0])) @ random_rotation(generator, 3)
        basis = random_rotation(generator, 3) @ built.channel                       # [3, D]
        broken = edited(built.model, built.inhibition, basis, R)
        if th.accuracy(built.model, prompts) > 0.95 and th.accuracy(broken, prompts) < 0.5:
            return built, basis, broken


def calls_repair(generator: Generator) -> list[Call]:
    calls = []
    for _ in range(2):
        built, basis, broken = flattened(generator)
        text, fresh = planted_text(generator, 60), (planted_prompts(generator, 200), planted_text(generator, 60))
        bound = BOUND * divergence(broken, built.model, text)
        args = Model(broken), circuit_of(built), basis, planted_prompts(generator, 120), text, bound
        calls.append(Posed(args, truth=(built.model, broken, fresh)))
    return calls


def repaired(broken: th.GPT2, head: th.Head, W_O: Tensor) -> th.GPT2:
    """A copy of the model with another W_O of this head."""
    model, K = copy.deepcopy(broken), broken.config.d_head
    model.h[head.layer].attn.c_proj.weight[head.head * K:(head.head + 1) * K] = W_O
    return model


def score_repair(call: Posed, output: object) -> tuple[float, str]:
    (_, circuit, *_, bound), (whole, broken, (prompts, text)) = call.args, call.truth
    output = same_shape(output, [broken.config.d_head, broken.config.n_embd], "d_head d_model", "the new W_O")
    if not output.is_floating_point() or not output.isfinite().all():
        raise Wrong("the new W_O should be floats, without nan or inf")
    model = repaired(broken, circuit.inhibition[0], output.float())
    before, after, intact = (th.accuracy(each, prompts) for each in (broken, model, whole))
    damage = divergence(broken, model, text)
    allowed = min(1.0, 1.1 * bound / max(damage, 1e-9))                             # other text than was handed in
    told = (f"accuracy on fresh lists {before:.2f} before, {after:.2f} repaired, {intact:.2f} before the damage; "
            f"divergence on fresh text {damage:.3f}, the bound is {bound:.3f}")
    return between(after, before, intact) * allowed, told
