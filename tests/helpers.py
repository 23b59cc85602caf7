"""Models and tokens that several tests need."""

import torch

import tinyheads as th


def random_model(sizes, seed=0, scale=0.3):
    """A model whose every parameter matters (GPT-2's own initial biases are zero)."""
    model = th.GPT2(th.GPT2Config(**sizes), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)


def random_tokens(config, B=2, T=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, config.n_vocab, (B, T or config.n_ctx), generator=generator)
