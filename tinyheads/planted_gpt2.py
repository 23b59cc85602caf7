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

All other heads keep real weights (OpenAI's, with LayerNorm folded in), unchanged, or are noise of like spectra. They
read and write anywhere, the channel too. The embedding is long beside what they write (planted_parts.SIZE), so that
they hardly turn the stream. A head that is built keeps of its own OV what lies outside the built directions; an
inhibition head's is as loud as what is built, which therefore comes anywhere in its spectrum. The MLPs are as a new
model's, and faint.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tinyheads.circuit import Circuit
from tinyheads.config import GPT2Config
from tinyheads.errors import CheckpointError, ConfigError
from tinyheads.files.array_file import write_atomically
from tinyheads.files.progress import Progress
from tinyheads.files.tokenizer import Tokenizer
from tinyheads.files.weights import save
from tinyheads.heads import Component, Head, Heads, ov_svd
from tinyheads.model import GPT2
from tinyheads.planted_parts import (CONSTANT, SIZE, Space, built_circuit, embed, noise_heads, outside, own_circuit,
                                     place_codes, put_head, put_layer)

STRENGTHS = (3.0, 2.5, 2.0)                  # of the three dimensions of the channel, in features
LIST_STRENGTH = 3.0                          # how much louder the list head writes; movers read it as much less
CAPACITIES = (6, 10)                         # the least and the most places with a code of their own
Attention = list[tuple[Tensor, Tensor, float]]  # (query [n, D], key [n, D], the score of a feature with a feature)
Values = list[tuple[Tensor, Tensor, float]]     # (read [n, D], write [n, D], how much of SIZE a feature is written as)


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
    vocabulary if left out); real: a model's heads, folded, `load_heads(...)`, of these sizes, which stay where nothing
    is built; noise if left out. with_channel: False lets the inhibition heads write as loudly where no mover reads.
    Raises ConfigError for sizes in which there is no room, TaskError for a tokenizer that splits the prompts' words.
    """
    config = config or (real.config if real else GPT2Config(n_vocab=tokenizer.n_vocab))
    check_sizes(config, tokenizer, real)
    draw = torch.Generator().manual_seed(seed)
    capacity = int(torch.randint(CAPACITIES[0], CAPACITIES[1] + 1, (), generator=draw))
    space = Space.drawn(config, draw)
    codes = place_codes(capacity, draw)                                                # [capacity, 3]
    model = GPT2(config, seed=seed).requires_grad_(False)
    embed(model, tokenizer, space, codes, draw)
    model.ln_f.weight.fill_(4 / (space.unit * SIZE))             # logits of some tens, whatever SIZE is
    own = noise_heads(Heads.of(model), draw) if real is None else real
    with Progress("planting", config.n_layer, "layers") as bar:
        for layer in range(config.n_layer):
            put_layer(model, own, layer)
            bar.add()
    roles = draw_roles(config, draw)
    elsewhere = torch.linalg.qr(outside(torch.randn(3, config.n_embd, generator=draw), space.built).T).Q.T   # [3, D]
    target = space.channel if with_channel else elsewhere
    for head, attention, values, above in circuit_parts(roles, space, target, draw):
        build(model, own, space, head, attention, values, above)
    return PlantedGPT2(model, roles["duplicate"], roles["inhibition"], roles["list"], roles["movers"],
                       carrying(model, roles["inhibition"], target), space.channel, codes, not with_channel)


def circuit_parts(roles: dict, space: Space, target: Tensor,
                  draw: torch.Generator) -> list[tuple[Head, Attention, Values, int | None]]:
    """What each built head attends by and what it moves; target: [3, D], where the inhibition heads write.

    Where there is nothing to look at, all rest on the first token. The last entry is how many of an inhibition head's
    own components are louder than those that are built.
    """
    flag, channel, parts, dimension = space.flag, space.channel, [], 0
    rest = (flag["constant"] / CONSTANT, flag["first_token"])
    for head in roles["duplicate"]:                              # the same word, and not the same place
        share = 1 / len(roles["duplicate"])
        parts.append((head, [(space.word, space.word, 60.0), (-space.phase, space.phase, 30.0), (*rest, 40.0)],
                      [(space.place, space.seen, share), (flag["item"] + flag["name"], flag["again"], share / 2)],
                      None))
    end = flag["end_list"] + flag["end_name"]                                          # [1, D]
    for head, rank in zip(roles["inhibition"], roles["ranks"]):
        carried = [(space.seen[i:i + 1], -target[i:i + 1], STRENGTHS[i]) for i in range(dimension, dimension + rank)]
        parts.append((head, [(end, 2 * flag["again"], 8.0), (*rest, 4.0)], carried,
                      int(torch.randint(4, (), generator=draw))))
        dimension += rank
    parts.append((roles["list"], [(flag["end_list"], flag["item"] - 4 * flag["again"], 8.0), (*rest, 4.0)],
                  [(space.place[i:i + 1], space.listed[i:i + 1], LIST_STRENGTH * STRENGTHS[i]) for i in range(3)],
                  None))
    asked = (channel + space.listed / LIST_STRENGTH) / torch.tensor(STRENGTHS)[:, None]                     # [3, D]
    for head in roles["movers"]:                                 # words that were mentioned again are no answer
        parts.append((head, [(asked, space.place, 100.0), (flag["end_list"], flag["item"] - 4 * flag["again"], 12.0),
                             (flag["end_name"], flag["name"] - 4 * flag["again"], 12.0), (*rest, 6.0)],
                      [(space.word, space.word, 8 / len(roles["movers"]))], None))
    return parts


def build(model: GPT2, own: Heads, space: Space, head: Head, attention: Attention, values: Values,
          above: int | None) -> None:
    """Put one head into the model: its QK is built alone, its OV beside what it keeps of its own."""
    K = model.config.d_head
    scores = [(query, key, score * math.sqrt(K) / space.unit**2) for query, key, score in attention]
    moved = [(read, write, much * SIZE / space.unit) for read, write, much in values]
    W_V, W_O = built_circuit(moved, K, own_circuit(own, head), space.built, above)                  # [D, K] each
    put_head(model, head, *built_circuit(scores, K), W_V, W_O.T)


def carrying(model: GPT2, inhibition: list[Head], written: Tensor) -> list[Component]:
    """The inhibition heads' components that write along the rows of `written` [k, D], in their order."""
    ov, found = ov_svd(Heads.of(model)), []
    for row in written:
        overlap = torch.stack([ov.write[head.layer, head.head] @ row for head in inhibition]).abs()    # [heads, K]
        head, index = divmod(int(overlap.argmax()), overlap.shape[1])
        found.append(Component.of(inhibition[head], index))
    return found


# --- what is drawn, and where there is room -----------------------------------------------------------------


def check_sizes(config: GPT2Config, tokenizer: Tokenizer, real: Heads | None) -> None:
    """Raise ConfigError for a model in which the circuit does not fit, or that does not fit what is given with it."""
    needs = {"n_layer": 3, "n_head": 4, "d_head": 48, "n_ctx": 32}
    short = [f"{name} is {getattr(config, name)} and should be {least} at least" for name, least in needs.items()
             if getattr(config, name) < least]
    if short:
        raise ConfigError(f"no room to plant a circuit: {', '.join(short)}")
    if config.n_vocab < tokenizer.n_vocab or not config.tied:
        raise ConfigError(f"a planted model is tied, with the tokenizer's {tokenizer.n_vocab} tokens at least; this "
                          f"config has {config.n_vocab}, tied={config.tied}")
    sizes = [config.n_layer, config.n_head, config.n_embd, config.d_head]
    if real is not None and (list(real.W_Q.shape) != sizes or not real.folded):
        raise ConfigError(f"real heads should be folded, and {sizes} as in the config, [L, H, D, K]; these are "
                          f"{list(real.W_Q.shape)}, folded={real.folded}")


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


def save_planted(planted: PlantedGPT2, folder: str | Path, tokenizer: Tokenizer, **about: object) -> Path:
    """Write a folder that `load` opens, the tokenizer in it, and planted.json, which says what was planted.

    about: what else is to stand there, such as seed=0. Raises CheckpointError where it cannot be written.
    """
    folder = save(planted.model, folder, tokenizer)
    try:
        with write_atomically(folder / "planted.json") as file:
            file.write((json.dumps({**about, **planted.described()}, indent=1) + "\n").encode("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder}: planted.json cannot be written ({error.strerror or error})") from error
    return folder
