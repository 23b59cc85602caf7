"""What several assignments draw: numbers, models, prompts; and the circuit of the bundled model, found anew each time.

Nothing here knows the bundled model's heads: another model in its place makes a variant of the assignments.
"""

from functools import lru_cache
from types import ModuleType
from typing import Callable

import torch
from torch import Generator, Tensor

import tinyheads as th
from tinyheads import causal, subspace

from .checkout import REPOSITORY, load_module

MODEL = "tiny"                                     # the bundled model; any name or path that th.load takes
PLANTED = REPOSITORY / "tests" / "planted.py"      # the model built by hand, whose circuit is known


# --- numbers and models -----------------------------------------------------------------------------------


def random_int(generator: Generator, low: int, high: int) -> int:
    """A whole number from low to high, both possible."""
    return int(torch.randint(low, high + 1, (1,), generator=generator))


def random_basis(generator: Generator, D: int, k: int) -> Tensor:
    """Random orthonormal rows: [k, D]."""
    return torch.linalg.qr(torch.randn(D, k, generator=generator)).Q.T.contiguous()


def random_model(generator: Generator, scale: float = 0.3, **sizes: int) -> th.GPT2:
    """A model in which every parameter matters (GPT-2 begins with biases 0 and gains 1). sizes: of th.GPT2Config."""
    model = th.GPT2(th.GPT2Config(**sizes), seed=0).requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


# --- prompts ----------------------------------------------------------------------------------------------


def with_every_place(draw: Callable[[int], th.Prompts], generator: Generator, n_items: int) -> th.Prompts:
    """draw(seed), with new seeds until every place in the list is the answer's at least once."""
    while True:
        prompts = draw(random_int(generator, 0, 10**6))
        if (torch.bincount(prompts.index, minlength=n_items) > 0).all():
            return prompts


def by_place(rows: Tensor, prompts: th.Prompts) -> Tensor:
    """Rows [B, D], averaged over the prompts with the answer at the same place in the list: [N, D]."""
    return subspace.mean_by_index(rows, prompts.index, prompts.positions.shape[1])


# --- the bundled model's circuit --------------------------------------------------------------------------


def some_prompts(generator: Generator, n: int, n_items: int, kind: Callable = th.laundry_list) -> th.Prompts:
    """Prompts for the bundled model in which every place is the answer's at least once."""
    tokenizer = th.load_tokenizer(MODEL)
    return with_every_place(lambda seed: kind(tokenizer, n, n_items, seed=seed), generator, n_items)


def circuit(model: th.GPT2, prompts: th.Prompts) -> tuple[list[th.Head], th.Head]:
    """The heads before the mover that look at the mentions most, strongest first, and the mover; no threshold."""
    on_answer = causal.attention_on(model, prompts, causal.answer_places(prompts))
    on_answer[0] = -1                                                               # a mover has layers before it
    mover = th.Head(*divmod(int(on_answer.argmax()), model.config.n_head))
    return causal.strongest(causal.attention_on(model, prompts, prompts.mentions)[:mover.layer], 0.0, ""), mover


@lru_cache
def circuit_of_model() -> tuple[list[th.Head], th.Head]:
    """The bundled model's circuit on lists of 5: the four heads that look at mentions most, and the mover."""
    writers, mover = circuit(th.load(MODEL), th.laundry_list(th.load_tokenizer(MODEL), 60, 5, seed=1))
    return writers[:4], mover


def subspace_of_writes(model: th.GPT2, prompts: th.Prompts, writers: list[th.Head], k: int) -> Tensor:
    """The k principal components [k, D] of what some heads write at END, by index."""
    writes = subspace.writes_at_end(model, prompts, [str(writer) for writer in writers])
    return subspace.principal_components(by_place(writes, prompts), k)


# --- the planted model ------------------------------------------------------------------------------------


def planted_module() -> ModuleType:
    """The module that builds it: a model written by hand, whose inhibition channel is known."""
    return load_module("planted", PLANTED)


def planted(generator: Generator):
    """A planted model, its two heads at random places."""
    module = planted_module()
    H, first = module.CONFIG.n_head, random_int(generator, 0, 1)
    places = [th.Head(layer, random_int(generator, 0, H - 1)) for layer in (first, random_int(generator, first + 1, 2))]
    return module.planted(*places, seed=random_int(generator, 0, 10**6))


def planted_prompts(generator: Generator, n: int) -> th.Prompts:
    """Prompts for a planted model in which every place is the answer's at least once."""
    module = planted_module()
    return with_every_place(lambda seed: module.laundry_prompts(n, seed), generator, module.N_ITEMS)
