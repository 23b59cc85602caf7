"""What assignments 4, 5 and 6 ask about: lists, a planted model, and the circuit, found anew on whatever model is bundled."""

from functools import lru_cache
from typing import Callable, Iterator

import torch
from torch import Generator, Tensor

import tinyheads as th
from grading import Model, planted_module, random_int
from tinyheads import causal, subspace

MODEL = "tiny"                                     # another model's name or path makes a variant of the assignments


def some_prompts(generator: Generator, n: int, n_items: int, kind: Callable = th.laundry_list) -> th.Prompts:
    """Prompts in which every place is the answer's at least once."""
    while True:
        prompts = kind(th.load_tokenizer(MODEL), n, n_items, seed=random_int(generator, 0, 10**6))
        if (torch.bincount(prompts.index, minlength=n_items) > 0).all():
            return prompts


def circuit(model: th.GPT2, prompts: th.Prompts) -> tuple[list[th.Head], th.Head]:
    """The heads before the mover that look at the mentions most, strongest first, and the mover; no threshold."""
    on_answer = causal.attention_on(model, prompts, causal.answer_places(prompts))
    on_answer[0] = -1                                                               # a mover has layers before it
    mover = th.Head(*divmod(int(on_answer.argmax()), model.config.n_head))
    return causal.strongest(causal.attention_on(model, prompts, prompts.mentions)[:mover.layer], 0.0, ""), mover


@lru_cache
def heads_of_model() -> tuple[list[th.Head], th.Head]:
    """The bundled model's circuit on lists of 5: the four heads that look at mentions most, and the mover."""
    writers, mover = circuit(th.load(MODEL), th.laundry_list(th.load_tokenizer(MODEL), 60, 5, seed=1))
    return writers[:4], mover


def found_subspace(model: th.GPT2, prompts: th.Prompts, writers: list[th.Head], k: int) -> Tensor:
    """The k principal components [k, D] of what some heads write at END, by index."""
    writes = subspace.writes_at_end(model, prompts, [str(writer) for writer in writers])
    return subspace.principal_components(subspace.mean_by_index(writes, prompts.index, prompts.positions.shape[1]), k)


def planted(generator: Generator):
    """A planted model (tests/planted.py), its two heads at random places."""
    module = planted_module()
    H, first = module.CONFIG.n_head, random_int(generator, 0, 1)
    places = [th.Head(layer, random_int(generator, 0, H - 1)) for layer in (first, random_int(generator, first + 1, 2))]
    return module.planted(*places, seed=random_int(generator, 0, 10**6))


def planted_prompts(generator: Generator, n: int) -> th.Prompts:
    """Prompts for a planted model in which every place is the answer's at least once."""
    module = planted_module()
    while True:
        prompts = module.laundry_prompts(n, random_int(generator, 0, 10**6))
        if (torch.bincount(prompts.index, minlength=module.N_ITEMS) > 0).all():
            return prompts


def loaded(args: tuple) -> tuple:
    """A call's arguments, models loaded."""
    return tuple(each.load() if isinstance(each, Model) else each for each in args)


def once(function: Callable) -> Callable:
    """Of a call's arguments: computed once a session, since all submissions of a folder get the same calls."""
    kept = {}

    def of(args: tuple) -> object:
        if id(args) not in kept:
            kept[id(args)] = args, function(*loaded(args))
        return kept[id(args)][1]

    return of


def lazily(mistakes: Callable, args: tuple) -> Iterator:
    """The mistakes of a call's arguments, made only if somebody asks."""
    yield from mistakes(*loaded(args))
