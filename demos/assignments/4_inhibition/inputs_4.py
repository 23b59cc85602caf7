"""What assignment 4 asks about: lists, a planted model, and the circuit, found anew on whatever model is bundled."""

from typing import Callable

from torch import Generator, Tensor

import tinyheads as th
from grading import Model, Wrong, planted_module, random_int
from tinyheads import causal

MODEL = "tiny"                                     # another model's name or path makes a variant of the assignment


def lists_of(generator: Generator, n: int, n_items: int):
    return th.laundry_list(th.load_tokenizer(MODEL), n, n_items, seed=random_int(generator, 0, 10**6))


def planted_case(generator: Generator, n: int):
    """A planted model with its two heads at random places, and prompts for it."""
    module = planted_module()
    first = random_int(generator, 0, 1)
    second = random_int(generator, first + 1, 2)
    H = module.CONFIG.n_head
    built = module.planted(th.Head(first, random_int(generator, 0, H - 1)), th.Head(second,
                                                                                    random_int(generator, 0, H - 1)),
                           seed=random_int(generator, 0, 10**6))
    return built, module.laundry_prompts(n, random_int(generator, 0, 10**6))


def circuit(model: th.GPT2, prompts) -> tuple[list[th.Head], th.Head]:
    """The heads before the mover that look at the mentions most, strongest first, and the mover; no threshold."""
    answer = prompts.positions.gather(1, prompts.index[:, None])
    on_answer = causal.attention_on(model, prompts, answer)
    on_answer[0] = -1                                                               # a mover has layers before it
    mover = th.Head(*divmod(int(on_answer.argmax()), model.config.n_head))
    return causal.strongest(causal.attention_on(model, prompts, prompts.mentions)[:mover.layer], 0.0, ""), mover


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


def lazily(mistakes: Callable, args: tuple):
    """The mistakes of a call's arguments, made only if somebody asks."""
    yield from mistakes(*loaded(args))


def number_rows(rows: object, names: tuple) -> list[tuple]:
    """A submission's list of heads or components as tuples of whole numbers, however they are written, or `Wrong`."""
    should = f"a list of {'pairs' if len(names) == 2 else 'triples'} of whole numbers ({', '.join(names)})"
    rows = rows.tolist() if isinstance(rows, Tensor) else rows
    if not isinstance(rows, (list, tuple)):
        raise Wrong(f"there should be {should}")
    found = []
    for row in rows:
        if isinstance(row, (th.Head, th.Component)):
            row = tuple(vars(row).values())
        row = row.tolist() if isinstance(row, Tensor) else row
        if isinstance(row, (list, tuple)):
            row = [n.item() if isinstance(n, Tensor) and n.numel() == 1 else n for n in row]
        if not isinstance(row, (list, tuple)) or len(row) != len(names) or not all(isinstance(n, int) for n in row):
            raise Wrong(f"there should be {should}; it holds {str(row)[:60]}")
        found.append(tuple(row))
    return found
