"""A GPT-2 of full size, written by hand, that crosses items off by name as the paper describes (Merullo et al. 2024).

    "To wash: sock, hat, coat. Done: coat, sock. Still to wash: the"   ->  " hat"
    "When Mary and John went to the store, John gave a drink to"       ->  " Mary"

Its tokens are those of a real tokenizer. What it does is known, head by head; P is an item's place in the list:

    duplicate-token heads   from a word's second mention to its first; copy the code of P there, and the mark "again"
    inhibition heads        from END to the marked words; write minus the mean of their codes into the channel
    one list head           from END to the words of the list; writes the mean of all their codes beside the channel
    mover heads             the query reads both, the keys the code of P; copy the word that is looked at

The sum of both is (code of the item left - mean of all codes) / (N - 1), which points to that item: without the list
head the sum of all codes would drown it. The channel has three dimensions, carried by one or two components a head.
A code is one of `capacity` directions; the places behind those begin anew with the first one, so that they share it:
of a list of N > capacity items, only a share capacity / N can be told apart. That is crowding, planted.

All other heads keep real weights (OpenAI's, with LayerNorm folded in) or noise of like spectra, unchanged. They write
anywhere, into the channel too; the embedding is so long, SIZE for a feature, that they hardly turn the stream. A head
that is built keeps of its own what lies outside the built directions, and louder: its built components come anywhere in
its spectrum. Every token has the constant direction, so that LayerNorm divides all by nearly the same.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyheads.circuit import Circuit
from tinyheads.config import GPT2Config
from tinyheads.errors import ConfigError, TaskError
from tinyheads.files.tokenizer import Tokenizer
from tinyheads.heads import Component, Head, Heads, ov_svd
from tinyheads.model import GPT2
from tinyheads.planted_parts import built_circuit, noise_heads, outside, own_circuit, place_codes, put_head, put_layer, word_codes
from tinyheads.prompts import ioi, laundry_list
from tinyheads.words import ITEMS, NAMES, single_tokens

SIZE = 1000.0                                # length of one feature in the embedding; a real head writes about 30
CONSTANT = 8.0                               # of the constant direction, in features
FREQUENCIES = (0.346, 0.642, 0.779, 1.263, 1.549, 1.594, 1.955, 2.011, 2.129, 2.199, 2.581, 2.613)  # radians a token,
# chosen so that no two places 4 to 99 tokens apart look alike: the mean cosine of their distance is at most 0.33
STRENGTHS = (3.0, 2.5, 2.0)                  # of the three dimensions of the channel
LIST_STRENGTH = 3.0                          # how much louder the list head writes; movers read it as much less
FLAGS = ("constant", "item", "name", "again", "end_list", "end_name", "first_token")


@dataclass(frozen=True)
class PlantedGPT2:
    """The model, and what was put into it. Heads by role; components: those that carry the channel, strongest first.

    channel: [3, D], orthonormal, in the order of STRENGTHS; codes: [capacity, 3], unit rows, of the places; capacity:
    how many places have a code of their own. removed: the inhibition heads write elsewhere, as loudly.
    """

    model: GPT2
    duplicate: list[Head]
    inhibition: list[Head]
    list_head: Head
    movers: list[Head]
    components: list[Component]
    channel: Tensor
    codes: Tensor
    removed: bool

    @property
    def capacity(self) -> int:
        """How many places have a code of their own."""
        return len(self.codes)

    @property
    def circuit(self) -> Circuit:
        """The inhibition and the mover heads, as `find_circuit` should find them."""
        return Circuit(self.inhibition, self.movers)

    def codes_at_end(self, n_items: int) -> Tensor:
        """What END should hold in the channel when each of n_items places is left, less the mean over places: [N, 3].

        In the lists of N items all are crossed off but one: minus the mean of N - 1 codes is code / (N - 1), and what
        is the same for all places.
        """
        codes = self.codes[torch.arange(n_items) % self.capacity]                      # [N, 3]
        return SIZE * torch.tensor(STRENGTHS) * (codes - codes.mean(dim=0)) / (n_items - 1)

    def described(self) -> dict[str, object]:
        """What was planted, as planted.json has it."""
        names = lambda heads: [str(head) for head in heads]
        return {"duplicate-token heads": names(self.duplicate), "inhibition heads": names(self.inhibition),
                "list head": str(self.list_head), "mover heads": names(self.movers),
                "components": names(self.components), "read by the movers": not self.removed,
                "capacity": self.capacity, "codes": self.codes.tolist(), "channel": self.channel.tolist()}


@torch.no_grad()
def plant(tokenizer: Tokenizer, seed: int = 0, config: GPT2Config | None = None, real: Heads | None = None,
          with_channel: bool = True) -> PlantedGPT2:
    """Build the model; which heads, components, dimensions and capacity is drawn from the seed.

    tokenizer: whose words the prompts are made of; config: the model's sizes (GPT-2 124M's with this tokenizer's
    vocabulary if left out); real: a model's heads, `load_heads(...)`, of these sizes, which all heads keep where nothing
    is built; noise if left out. with_channel: False lets the inhibition heads write as loudly where no mover reads.
    Raises ConfigError for sizes in which there is no room, TaskError for a tokenizer that splits the prompts' words.
    """
    config = config or (real.config if real else GPT2Config(n_vocab=tokenizer.n_vocab))
    draw = torch.Generator().manual_seed(seed)
    check_sizes(config, tokenizer, real)
    capacity = int(torch.randint(6, 11, (), generator=draw))
    D, K, W = config.n_embd, config.d_head, words_width(config)
    sizes = {"channel": 3, "listed": 3, "place": 3, "seen": 3, "flags": len(FLAGS), "word": W,
             "phase": 2 * len(FREQUENCIES)}
    drawn = torch.randn(sum(sizes.values()), D, generator=draw)
    built = torch.linalg.qr((drawn - drawn.mean(dim=1, keepdim=True)).T).Q.T           # [all, D], of mean 0 over D
    space = dict(zip(sizes, built.split(list(sizes.values()))))                        # {name: [n, D]}
    flag = {name: row[None] for name, row in zip(FLAGS, space["flags"])}               # {name: [1, D]}
    codes = place_codes(capacity, draw)                                                # [capacity, 3]
    model = GPT2(config, seed=seed).requires_grad_(False)                              # the MLPs stay as drawn: faint
    unit = math.sqrt(D) / math.sqrt(CONSTANT**2 + 3.25)     # what a feature of length SIZE measures behind LayerNorm
    embed(model, tokenizer, space, flag, codes, built, draw)
    model.ln_f.weight.fill_(4 / (unit * SIZE))           # logits of a few tens, whatever SIZE is

    heads = Heads.of(model) if real is None else real
    heads = noise_heads(heads, draw) if real is None else heads
    for layer in range(config.n_layer):
        put_layer(model, heads, layer)
    roles = draw_roles(config, draw)
    away = torch.linalg.qr(outside(torch.randn(3, D, generator=draw), built).T).Q.T    # [3, D]

    def build(head: Head, attention: list, values: list, above: int | None = None) -> None:
        """attention: (query [n, D], key [n, D], score of a feature with a feature); values: (read, write, how much)."""
        scores = [(q, k, score * math.sqrt(K) / unit**2) for q, k, score in attention]
        moved = [(v, o, much * SIZE / unit) for v, o, much in values]
        W_Q, W_K = built_circuit(scores, K)
        W_V, W_O = built_circuit(moved, K, own_circuit(heads, head), built, above)
        put_head(model, head, W_Q, W_K, W_V, W_O.T)

    sink = (flag["constant"] / CONSTANT, flag["first_token"])
    for head in roles["duplicate"]:
        share = 1 / len(roles["duplicate"])
        build(head, [(space["word"], space["word"], 60.0), (-space["phase"], space["phase"], 30.0), (*sink, 40.0)],
              [(space["place"], space["seen"], share), (flag["item"] + flag["name"], flag["again"], share / 2)])
    end = flag["end_list"] + flag["end_name"]                                          # [1, D]
    dimension = 0
    for head, rank in zip(roles["inhibition"], roles["ranks"]):
        target = space["channel"] if with_channel else away
        build(head, [(end, 2 * flag["again"], 8.0), (*sink, 4.0)],
              [(space["seen"][i:i + 1], -target[i:i + 1], STRENGTHS[i])
               for i in range(dimension, dimension + rank)], above=int(torch.randint(4, (), generator=draw)))
        dimension += rank
    strengths = torch.tensor(STRENGTHS)[:, None]                                       # [3, 1]
    build(roles["list"], [(flag["end_list"], flag["item"] - 4 * flag["again"], 8.0), (*sink, 4.0)],
          [(space["place"][i:i + 1], space["listed"][i:i + 1], LIST_STRENGTH * STRENGTHS[i]) for i in range(3)])
    for head in roles["movers"]:
        asked = (space["channel"] + space["listed"] / LIST_STRENGTH) / strengths       # [3, D]
        build(head, [(asked, space["place"], 100.0), (flag["end_list"], flag["item"] - 4 * flag["again"], 12.0),
                     (flag["end_name"], flag["name"] - 4 * flag["again"], 12.0), (*sink, 6.0)],
              [(space["word"], space["word"], 8 / len(roles["movers"]))])
    return PlantedGPT2(model, roles["duplicate"], roles["inhibition"], roles["list"], roles["movers"],
                       carrying(model, roles["inhibition"], space["channel"] if with_channel else away),
                       space["channel"], codes, not with_channel)


# --- what is drawn, and where there is room -----------------------------------------------------------------


def words_width(config: GPT2Config) -> int:
    """In how many dimensions words are told apart: what a duplicate-token head has beside the phases and the sink."""
    return config.d_head - 2 * len(FREQUENCIES) - 1


def check_sizes(config: GPT2Config, tokenizer: Tokenizer, real: Heads | None) -> None:
    """Raise ConfigError for a model in which the circuit does not fit, or that does not fit what is given with it."""
    needs = {"n_layer": 3, "n_head": 4, "n_embd": 128, "n_ctx": 32, "d_head": 48}
    short = [f"{name} {getattr(config, name)} is below {least}" for name, least in needs.items()
             if getattr(config, name) < least]
    if short:
        raise ConfigError(f"no room to plant a circuit: {', '.join(short)}")
    if config.n_vocab < tokenizer.n_vocab or not config.tied:
        raise ConfigError(f"a planted model is tied, and its vocabulary at least the tokenizer's {tokenizer.n_vocab}; "
                          f"this config has {config.n_vocab}, tied={config.tied}")
    if real is not None and real.W_Q.shape != (config.n_layer, config.n_head, config.n_embd, config.d_head):
        raise ConfigError(f"the real heads are {list(real.W_Q.shape)}, [L, H, D, K], and not of this config's sizes")


def draw_roles(config: GPT2Config, draw: torch.Generator) -> dict[str, list[Head] | Head | list[int]]:
    """Which heads do what: duplicate-token heads in the first third of the layers, movers in the last.

    ranks: how many of the channel's three dimensions each inhibition head carries.
    """
    L, H = config.n_layer, config.n_head
    bounds = [0, max(1, L // 3), max(2, 2 * L // 3), L]
    number = lambda high: int(torch.randint(high, (), generator=draw))
    thirds = [[Head.at(start * H + place, H) for place in torch.randperm((stop - start) * H, generator=draw).tolist()]
              for start, stop in zip(bounds, bounds[1:])]
    ranks = [[1, 2], [2, 1], [1, 1, 1]][number(3)]
    middle = thirds[1]
    return {"duplicate": sorted(thirds[0][:1 + number(2)]), "inhibition": sorted(middle[:len(ranks)]), "ranks": ranks,
            "list": middle[len(ranks)], "movers": sorted(thirds[2][:1 + number(3)])}


def carrying(model: GPT2, inhibition: list[Head], written: Tensor) -> list[Component]:
    """The inhibition heads' components that write along the rows of `written` [k, D], in their order."""
    ov, found = ov_svd(Heads.of(model)), []
    for row in written:
        overlap = torch.stack([ov.write[head.layer, head.head] @ row for head in inhibition]).abs()    # [heads, K]
        head, index = divmod(int(overlap.argmax()), overlap.shape[1])
        found.append(Component.of(inhibition[head], index))
    return found


def embed(model: GPT2, tokenizer: Tokenizer, space: dict[str, Tensor], flag: dict[str, Tensor], codes: Tensor,
          built: Tensor, draw: torch.Generator) -> None:
    """Fill wte [V, D] and wpe [n_ctx, D]: what the construction needs, and for each token a direction of its own.

    Raises TaskError for a tokenizer whose lists do not have their items at the same positions throughout.
    """
    lists, names = laundry_list(tokenizer, 8, 3, "name"), ioi(tokenizer, 8)
    for prompts in (lists, names):
        if (prompts.positions != prompts.positions[0]).any() or not isinstance(prompts.end, int):
            raise TaskError("this tokenizer does not put the words of all prompts at the same positions")
    wte, wpe = model.wte.weight, model.wpe.weight
    wte.copy_(0.5 * outside(torch.randn(wte.shape, generator=draw), built) + CONSTANT * flag["constant"])
    ids = {kind: [tokenizer.encode(f" {word}")[0] for word in single_tokens(tokenizer, words, 2, f"{kind}s")]
           for kind, words in (("item", ITEMS), ("name", NAMES))}
    every = list(dict.fromkeys(ids["item"] + ids["name"]))
    wte[every] += word_codes(len(every), len(space["word"]), draw) @ space["word"]
    for kind, of_kind in ids.items():
        wte[of_kind] += flag[kind]
    wte[lists.tokens[0, lists.end]] += flag["end_list"][0]
    wte[names.tokens[0, names.end]] += flag["end_name"][0]
    turns = torch.arange(len(wpe))[:, None] * torch.tensor(FREQUENCIES)                              # [n_ctx, F]
    wpe.copy_(torch.cat([turns.cos(), turns.sin()], dim=1) / len(FREQUENCIES)**0.5 @ space["phase"])
    wpe[0] = flag["first_token"][0]                                     # and no phase, so that all can rest there alike
    first, second = lists.positions[0, :2].tolist()
    of_list = {place: codes[i % len(codes)] for i, place in enumerate(range(first, len(wpe), second - first))}
    one, two = names.positions[0].tolist()
    of_names = {one: -of_list.get(two, codes[0]), two: -of_list.get(one, -codes[0])}   # opposite, where no list is
    for place, code in {**of_names, **of_list}.items():
        wpe[place] += code @ space["place"]
    wte.mul_(SIZE), wpe.mul_(SIZE)
