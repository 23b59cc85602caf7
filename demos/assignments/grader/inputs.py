"""What several assignments draw: numbers, models, prompts; and the circuit of the bundled model, found anew each time.

Nothing here knows the bundled model's heads: another model in its place makes a variant of the assignments.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Callable

import torch
from torch import Generator, Tensor

import tinyheads as th
from tinyheads import planted as by_hand

MODEL = "tiny"                                     # the bundled model; any name or path that th.load takes


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


# --- the bundled model's circuit --------------------------------------------------------------------------


def some_prompts(generator: Generator, n: int, n_items: int, kind: Callable = th.laundry_list) -> th.Prompts:
    """Prompts for the bundled model in which every place is the answer's at least once."""
    tokenizer = th.load_tokenizer(MODEL)
    return with_every_place(lambda seed: kind(tokenizer, n, n_items, seed=seed), generator, n_items)


@lru_cache
def circuit_of_model() -> th.Circuit:
    """The bundled model's circuit, as chapters 4 to 6 find it, with the one mover that looks at the answer most."""
    prompts = th.laundry_list(th.load_tokenizer(MODEL), 400, 5, seed=40)
    circuit = th.find_circuit(th.load(MODEL), prompts)
    return replace(circuit, movers=circuit.movers[:1])


# --- the planted model, whose circuit is known ------------------------------------------------------------


def planted(generator: Generator) -> by_hand.Planted:
    """A planted model, its two heads at random places."""
    H, first = by_hand.CONFIG.n_head, random_int(generator, 0, 1)
    places = [th.Head(layer, random_int(generator, 0, H - 1)) for layer in (first, random_int(generator, first + 1, 2))]
    return by_hand.planted(*places, seed=random_int(generator, 0, 10**6))


def circuit_of(built: by_hand.Planted) -> th.Circuit:
    """What was put into it."""
    return th.Circuit([built.inhibition], [built.mover])


def planted_prompts(generator: Generator, n: int) -> th.Prompts:
    """Prompts for a planted model in which every place is the answer's at least once."""
    return with_every_place(lambda seed: by_hand.laundry_prompts(n, seed), generator, by_hand.N_ITEMS)
