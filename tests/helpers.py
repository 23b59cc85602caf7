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


def circuit_of(built, where="L2.attn"):
    """The circuit of a planted model, changed just before a read of the mover's layer."""
    return th.Circuit([built.inhibition], [built.mover], where)


def scores_of_head(model, prompts, writer, mover, how="mean"):
    """The inhibition scores of all components of one head: [K]."""
    components = [th.Component.of(writer, i) for i in range(model.config.d_head)]
    scores = th.inhibition_scores(model, prompts, th.Circuit([writer], [mover]), how, components=components)
    return torch.tensor([scores[component] for component in components])
