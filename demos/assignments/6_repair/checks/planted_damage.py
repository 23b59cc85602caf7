"""Planted models whose inhibition head was damaged by a known matrix, and what is measured on them."""

import copy

import torch
from torch import Tensor

import tinyheads as th
from grader.inputs import planted, planted_prompts
from tinyheads.planted import CONFIG


# --- a planted model ------------------------------------------------------------------------------------


def planted_text(generator: torch.Generator, n: int) -> Tensor:
    """Random tokens, for the divergence outside the task: [n, n_ctx]."""
    return torch.randint(CONFIG.n_vocab, (n, CONFIG.n_ctx), generator=generator)


def random_rotation(generator: torch.Generator, k: int) -> Tensor:
    """A random orthogonal matrix [k, k]."""
    return torch.linalg.qr(torch.randn(k, k, generator=generator)).Q


def damaged(generator: torch.Generator, weakened: bool):
    """A planted model whose inhibition head writes c @ R in place of c inside its channel: (built, basis, R, broken).

    basis: the channel's, turned at random; R: a random rotation, and `weakened`: other directions made 2 to 4 times
    weaker too. Drawn until the damage shows, and until neither it nor the repair's transpose repairs anything.
    """
    while True:
        built, prompts = planted(generator), planted_prompts(generator, 100)
        R = random_rotation(generator, 3)
        if weakened:
            R = R @ torch.diag(0.25 + 0.3 * torch.rand(3, generator=generator)) @ random_rotation(generator, 3)
        basis = random_rotation(generator, 3) @ built.channel                       # [3, D]
        accuracies = [th.accuracy(edited(built.model, built.inhibition, basis, change), prompts)
                      for change in (R, R @ torch.linalg.inv(R).T, R @ R)]
        if th.accuracy(built.model, prompts) > 0.95 and max(accuracies) < 0.6:
            return built, basis, R, edited(built.model, built.inhibition, basis, R)


# --- measuring ------------------------------------------------------------------------------------------


def edited(model: th.GPT2, head: th.Head, basis: Tensor, M: Tensor) -> th.GPT2:
    """A copy of the model with the library's edit of a head's W_O; M = 1 changes nothing."""
    model = copy.deepcopy(model)
    if not torch.allclose(M, torch.eye(len(M)), atol=1e-5):
        th.edit_output(model, head, basis, M)
    return model


@torch.no_grad()
def divergence(model: th.GPT2, other: th.GPT2, tokens: Tensor) -> float:
    """The mean KL divergence from one model's next tokens to another's, everywhere in a text [B, T]."""
    p, q = (each(tokens).log_softmax(-1) for each in (model, other))                # [B, T, V]
    return (p.exp() * (p - q)).sum(-1).mean().item()
