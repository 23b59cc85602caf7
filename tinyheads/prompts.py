"""Prompts with known answers: indirect objects, the Laundry List, and recall by ordinal.

Each task is a list of candidates and one right answer, asked for at the last token, END:

    ioi             "When Mary and John went to the store, John gave a drink to" -> " Mary"
    laundry_list    "To wash: sock, hat, coat. Done: third, first. Still to wash: the" -> " hat"
    ordinal_recall  "To wash: sock, hat, coat. The third one:" -> " coat"

The first is that of Wang et al. 2022 ("Interpretability in the Wild", arXiv:2211.00593), in templates like
theirs. The Laundry List is the task of Merullo et al. 2024, whose abstract gives no template: recall from
a list whose other items are crossed off. Its wordings here are ours, and so is that of recall.

Every word that varies is one token of the model's tokenizer, so that a place in the prompt is one word. Prompts of a
batch that are not equally long are padded on the right (`generation.batch`).
Axes: B prompt, T position, N candidate, M mention.
"""

import zlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tinyheads.errors import TaskError
from tinyheads.files.tokenizer import Tokenizer
from tinyheads.generation import batch
from tinyheads.positions import places
from tinyheads.words import (ITEMS, NAMES, ORDINALS, PLACES, THINGS, VERBS, WORDINGS, in_one_token, single_tokens)

IOI_TEMPLATES = (  # {A} and {B}: the two names in the order of their first mention; {S}: the one mentioned again
    "When {A} and {B} went to the {place}, {S} gave a {thing} to",
    "After {A} and {B} went to the {place}, {S} gave a {thing} to",
    "While {A} and {B} were at the {place}, {S} gave a {thing} to",
    "Then {A} and {B} went to the {place}. {S} gave a {thing} to",
)
Seed = int | torch.Generator


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts of one task and one length, with all that is known about them.

    tokens: int64 [B, T]; answer: [B], the right next token; candidates: [B, N], tokens in the order in which
    they stand in the prompt; positions: [B, N], where each stands (its first mention); index: [B], the answer's
    place among them; mentions: [B, M], where the crossed-off words are mentioned again, in order (for recall:
    the one ordinal asked for; for IOI: the name's second mention); end: T - 1, or the last position of each prompt
    [B], where they are unequal and padded on the right; texts: the B prompts. Raises TaskError.
    """

    tokens: Tensor
    answer: Tensor
    candidates: Tensor
    positions: Tensor
    index: Tensor
    mentions: Tensor
    end: int | Tensor
    texts: list[str]

    def __post_init__(self) -> None:
        """Raise TaskError where sizes contradict each other: where some are equal by chance, nothing later would."""
        shapes = {name: list(x.shape) for name, x in vars(self).items() if isinstance(x, Tensor) and name != "end"}
        (B, T), (_, N), (_, M) = ((shapes[name] + [0, 0])[:2] for name in ("tokens", "candidates", "mentions"))
        if list(shapes.values()) != [[B, T], [B], [B, N], [B, N], [B], [B, M]]:
            raise TaskError(f"prompts hold tokens [B, T], answer [B], candidates and positions [B, N], index [B] and "
                            f"mentions [B, M]; these are {shapes}")
        places(self.end, B, T, TaskError)

    def first(self, n: int) -> "Prompts":
        """The first n of these prompts."""
        return self.part(0, n)

    def part(self, start: int, stop: int) -> "Prompts":
        """These prompts from `start` on, up to `stop`."""
        return Prompts(**{name: x[start:stop] if isinstance(x, (Tensor, list)) else x
                          for name, x in vars(self).items()})


def ioi(tokenizer: Tokenizer, n: int, order: str = "mixed", seed: Seed = 0, names: list[str] = NAMES,
        pairs: str = "all") -> Prompts:
    """Indirect object identification: the name that was not mentioned twice. N = 2, M = 1.

    order: "ABBA" (the answer comes first), "BABA" (second) or "mixed"; names: to draw from; pairs: "all" pairs of
    names, "train" or "test": a fifth of all pairs, fixed for good by the names' checksum, is "test", which a
    model trained on "train" never saw together. Raises TaskError.
    """
    check_count("n", n, 1)
    check_choice("order", order, ("ABBA", "BABA", "mixed"))
    draw = generator(seed)
    names, places, things = (single_tokens(tokenizer, some, least, what) for some, least, what in
                             [(names, 2, "names"), (PLACES, 1, "places"), (THINGS, 1, "things")])
    allowed = name_pairs(tuple(names), pairs)
    which, template, place, thing, swap, second = (torch.randint(high, (n,), generator=draw).tolist() for high in (
        len(allowed), len(IOI_TEMPLATES), len(places), len(things), 2, 2))
    rows, slots, mentions, index = [], [], [], []
    for i in range(n):
        A, B = allowed[which[i]][::-1] if swap[i] else allowed[which[i]]
        answer = {"ABBA": 0, "BABA": 1, "mixed": second[i]}[order]
        words = {"{A}": A, "{B}": B, "{S}": A if answer else B, "{place}": places[place[i]],
                 "{thing}": things[thing[i]]}
        row, at = [], {}
        for part in IOI_TEMPLATES[template[i]].replace("{", "\0{").replace("}", "}\0").split("\0"):
            if part in words:
                at[part] = len(row)
                row[-1] = row[-1].removesuffix(" ")              # the blank belongs to the word behind it
                part = f" {words[part]}"
            row.append(part)
        rows.append(row)
        slots.append([at["{A}"], at["{B}"]])
        mentions.append([at["{S}"]])
        index.append(answer)
    return assemble(tokenizer, rows, slots, mentions, index)


def laundry_list(tokenizer: Tokenizer, n: int, n_items: int, by: str = "ordinal", seed: Seed = 0,
                 items: list[str] = ITEMS, wording: str = "list") -> Prompts:
    """A list, all of whose items but one are crossed off, in random order; which is left? N = n_items, M = N - 1.

    by: how they are crossed off, "ordinal" ("third, first"), "name" ("coat, sock") or "mixed": in a third of the lists
    all by ordinal, in a third all by name, in a third each one or the other; items: words to draw from; wording: one of
    WORDINGS, of which the bundled models know "list" alone. GPT-2's tokenizer has ten ordinals in one token each, so
    longer lists there go by name. Raises TaskError.
    """
    check_choice("by", by, ("ordinal", "name", "mixed"))
    check_choice("wording", wording, tuple(WORDINGS))
    opening, between, done_with, still = WORDINGS[wording]
    lists, verbs, ordinals, draw = draw_lists(tokenizer, n, n_items, 2, seed, items, ordinals=by != "name")
    rows, slots, mentions, index = [], [], [], []
    done = torch.rand(n, n_items, generator=draw).argsort(dim=1).tolist()           # the last one of each is left
    named = mentions_by_name(n, n_items, by, draw)                                  # [n][n_items]
    for words, verb, (*crossed, left), name in zip(lists, verbs, done, named):
        row = listed(opening.format(verb=verb), words, between) + [done_with]
        for k in crossed:
            row += [f" {words[k] if name[k] else ordinals[k]}", between]
        rows.append(row[:-1] + [still.format(verb=verb)])
        slots.append(range(1, 2 * n_items, 2))
        mentions.append(range(2 * n_items + 1, 4 * n_items - 1, 2))
        index.append(left)
    return assemble(tokenizer, rows, slots, mentions, index)


def mentions_by_name(n: int, n_items: int, by: str, draw: torch.Generator) -> list[list[bool]]:
    """Whether each item of n lists is crossed off by its name; `by` as of `laundry_list`."""
    if by != "mixed":
        return [[by == "name"] * n_items] * n
    share = torch.randint(3, (n, 1), generator=draw) / 2                            # 0, a half or 1
    return (torch.rand(n, n_items, generator=draw) < share).tolist()


def ordinal_recall(tokenizer: Tokenizer, n: int, n_items: int, seed: Seed = 0, items: list[str] = ITEMS) -> Prompts:
    """A list, and one ordinal: which item stands there? N = n_items, M = 1 (the ordinal). Raises TaskError."""
    lists, verbs, ordinals, draw = draw_lists(tokenizer, n, n_items, 1, seed, items, ordinals=True)
    index = torch.randint(n_items, (n,), generator=draw).tolist()
    rows = [listed(f"To {verb}:", words, ",") + [". The", f" {ordinals[k]}", " one:"]
            for words, verb, k in zip(lists, verbs, index)]
    return assemble(tokenizer, rows, [range(1, 2 * n_items, 2)] * n, [[2 * n_items + 1]] * n, index)


def everyday_text(tokenizer: Tokenizer, n: int, seed: Seed = 0, pairs: str = "train") -> Tensor:
    """Plain sentences about names, places and items, for a model's perplexity outside the tasks: tokens [n, T].

    pairs: as for `ioi`, since two names occur in each. Raises TaskError.
    """
    check_count("n", n, 1)
    draw = generator(seed)
    names, items, places = (single_tokens(tokenizer, words, 3, what) for words, what in
                            [(NAMES, "names"), (ITEMS, "items"), (PLACES, "places")])
    allowed, texts = name_pairs(tuple(names), pairs), []
    for _ in range(n):
        pair, place, swap, first, last = (int(torch.randint(high, (1,), generator=draw)) for high in
                                          (len(allowed), len(places), 2, 3, 2))
        A, B = allowed[pair][::-1] if swap else allowed[pair]
        x = [items[k] for k in torch.randperm(len(items), generator=draw)[:3].tolist()]
        end = [f"Then {A} gave the {x[first]} to {B}.", f"Then {B} took the {x[first]} from {A}."][last]
        texts.append(f"{A} went to the {places[place]} and found the {x[0]}, the {x[1]} and the {x[2]}. {end}")
    tokens = [tokenizer.encode(text) for text in texts]
    if len({len(row) for row in tokens}) > 1:
        raise TaskError("this tokenizer makes everyday sentences of different lengths, which no batch can hold")
    return torch.tensor(tokens)


def draw_lists(tokenizer: Tokenizer, n: int, n_items: int, least: int, seed: Seed, items: list[str],
               ordinals: bool) -> tuple[list[list[str]], list[str], list[str], torch.Generator]:
    """n lists of n_items different words, a verb for each, the ordinals, and the generator. Raises TaskError."""
    check_count("n", n, 1)
    check_count("n_items", n_items, least)
    draw = generator(seed)
    words = single_tokens(tokenizer, items, n_items, "items")
    ordinals = in_one_token(tokenizer, ORDINALS, n_items) if ordinals else []
    which = torch.rand(n, len(words), generator=draw).argsort(dim=1)[:, :n_items].tolist()
    verbs = single_tokens(tokenizer, VERBS, 1, "verbs")
    verb = [verbs[k] for k in torch.randint(len(verbs), (n,), generator=draw).tolist()]
    return [[words[k] for k in row] for row in which], verb, ordinals, draw


def listed(opening: str, words: list[str], between: str) -> list[str]:
    """ "To wash: sock, hat" in pieces: item k is piece 2k + 1."""
    return [opening] + [piece for word in words for piece in (f" {word}", between)][:-1]


def assemble(tokenizer: Tokenizer, rows: list[list[str]], slots: list, mentions: list, index: list[int]) -> Prompts:
    """Join each row's pieces, tokenise, and find where the candidates' and the mentions' pieces came to stand.

    slots: [B][N] and mentions: [B][M], numbers of pieces. Raises TaskError where a piece does not stay by itself.
    """
    texts = ["".join(row) for row in rows]
    ids = {piece: tokenizer.encode(piece) for piece in {piece for row in rows for piece in row}}
    starts = []
    for row, text in zip(rows, texts):
        starts.append([0])
        for piece in row:
            starts[-1].append(starts[-1][-1] + len(ids[piece]))
        if [token for piece in row for token in ids[piece]] != tokenizer.encode(text):
            raise TaskError(f"this tokenizer does not keep the words of {text!r} apart")
    (tokens, last), index = batch(tokenizer, texts), torch.tensor(index)                            # [B, T], [B], [B]
    end = int(last[0]) if (last == last[0]).all() else last       # one number, or each prompt's own where they differ
    positions = torch.tensor([[start[k] for k in row] for start, row in zip(starts, slots)])        # [B, N]
    mentions = torch.tensor([[start[k] for k in row] for start, row in zip(starts, mentions)])      # [B, M]
    candidates = tokens.gather(1, positions)                                                        # [B, N]
    answer = candidates.gather(1, index[:, None])[:, 0]                                             # [B]
    return Prompts(tokens, answer, candidates, positions, index, mentions, end, texts)


@lru_cache(maxsize=64)
def name_pairs(names: tuple[str, ...], pairs: str) -> list[tuple[str, str]]:
    """The unordered pairs of different names that are in "all", "train" or "test"; the same on every machine."""
    check_choice("pairs", pairs, ("all", "train", "test"))
    found = [(a, b) for a in names for b in names if a < b]
    if pairs != "all":
        found = [pair for pair in found if (zlib.crc32(" ".join(pair).encode()) % 5 == 0) == (pairs == "test")]
    if not found:
        raise TaskError(f"none of the pairs of these {len(names)} names is a {pairs!r} pair; give more names")
    return found


def generator(seed: Seed) -> torch.Generator:
    """A generator as it is, or one made from an int seed. Raises TaskError."""
    if isinstance(seed, torch.Generator):
        return seed
    if type(seed) is not int:
        raise TaskError(f"a seed is a whole number or a torch.Generator, not {seed!r}")
    return torch.Generator().manual_seed(seed)


def check_count(name: str, value: int, least: int) -> None:
    """Raise TaskError unless the value is a whole number from `least`."""
    if type(value) is not int or value < least:
        raise TaskError(f"{name} must be a whole number from {least}, not {value!r}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise TaskError unless the value is one of the choices."""
    if value not in choices:
        raise TaskError(f"{name} is one of {', '.join(map(repr, choices))}, not {value!r}")
