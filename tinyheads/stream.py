"""The residual stream as an object: everything read from it and written to it has a name.

A transformer's sublayers never see each other. Each reads the residual stream (through a LayerNorm)
and adds its own vector to it, so that the stream at any point is the plain sum of what was written
before (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"):

    x = embed + sum over layers of (each head's write + attention bias + MLP's write)

    writes   "embed", then for each layer "L8.H0" ... "L8.H11", "L8.attn.bias", "L8.mlp"   [B, T, D]
    reads    "L8.attn", "L8.mlp", "unembed": what was handed over, behind the LayerNorm     [B, T, D]
    patterns "L8": how much each query position attends to each key position             [B, H, T, S]

S, the positions that are looked at, are the T of this run and those that a `Cache` kept from runs before.
A stream made with `record=True` keeps them all. `edits` change them while the model runs, and
everything later sees the change:

    stream = Stream(record=True, edits=[Edit("L8.H10", torch.zeros_like)])

What was recorded is a fact: it stays what it was in that run, whatever is done later to the weights, to
other streams or to what was handed out. Where gradients are recorded, it is part of the run's graph:
`torch.autograd.grad(loss, stream.writes["L8.H10"])` is the derivative by what that head wrote.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyheads.config import GPT2Config
from tinyheads.errors import StreamError, did_you_mean

CLAIM = threading.Lock()  # held while a stream is marked as in use


class Edit(NamedTuple):
    """A change to one named value while the model runs: the value becomes `change(value)`.

    name: as in `stream.writes`, `stream.reads` or `stream.patterns`; of: which of the three. Or of="stream":
    then name is a read's, and the running sum itself is changed just before that read; the difference
    counts as one more write, "edit before L8.attn", so that the writes still sum to the stream.
    change: gets the value (shape as in the module's docstring) and returns the new one, of the same shape, dtype
    and device. It gets a copy, which it may change in place. Several edits of one value apply in order.
    """

    name: str
    change: Callable[[Tensor], Tensor]
    of: str = "writes"


class Stream:
    """One run's residual stream. Pass it to the model: `model(tokens, stream)`, then look at it.

    record: keep all reads, writes and patterns; edits: a list of `Edit` (or plain tuples).
    value: the running sum of the writes [B, T, D]; behind the model, the final one, before ln_f.
    A stream may be used for many runs, one after the other, and holds the last that succeeded. Raises
    StreamError, for an edit of a name that the model does not have before anything runs.
    """

    def __init__(self, *, record: bool = False, edits: Iterable[Edit | tuple] = ()):
        if not isinstance(record, bool):
            raise StreamError(f"record is True or False, not {type(record).__name__}; edits go into edits=[...]")
        self.record = record
        self.edits = checked_edits(edits)
        self.running = False
        self.forget()

    def forget(self) -> None:
        """Hold nothing, as before the first run."""
        self.value: Tensor | None = None
        self.writes = Recorded("write")
        self.reads = Recorded("read")
        self.patterns = Recorded("pattern")
        self.last_logits: Tensor | None = None  # [V], of the first prompt's last position; tells unembeddings apart

    @contextmanager
    def run(self, config: GPT2Config) -> Iterator[None]:
        """A run of a model of this config, for `with`: where it fails, the stream holds again what it held before.

        Called by the model. Raises StreamError for an edit of a name that such a model does not have, and for a
        stream that is in use already: by another thread, or by the run that calls this one from an edit.
        """
        with CLAIM:
            if self.running:
                raise StreamError("this stream is in use by a run that has not ended; give each run at the same time "
                                  "(each thread) a Stream of its own")
            self.running = True
        before = dict(vars(self))
        try:
            self.check_names(config)
            self.forget()
            yield
        except BaseException:
            vars(self).update(before)
            raise
        finally:
            self.running = False

    def check_names(self, config: GPT2Config) -> None:
        """Raise StreamError for an edit of what a model of this config does not have."""
        valid = {"writes": write_names(config), "reads": read_names(config), "patterns": pattern_names(config),
                 "stream": read_names(config)}
        for edit in self.edits:
            if edit.name not in valid[edit.of]:
                kind = "read" if edit.of == "stream" else edit.of[:-1]
                raise StreamError(f"no {kind} is called {edit.name!r} in a model of {config.n_layer} layers and "
                                  f"{config.n_head} heads; {did_you_mean(str(edit.name), valid[edit.of])}")

    def edits_of(self, of: str, name: str) -> list[Edit]:
        """The edits of one value, in order."""
        return [edit for edit in self.edits if (edit.of, edit.name) == (of, name)]

    def edited(self, of: str, name: str, value: Tensor) -> Tensor:
        """The value after its edits. Raises StreamError where one returns another shape, dtype or device.

        An edit gets a copy and its result is copied, so that neither what it keeps nor where it took its result from
        (a parameter, another stream's record) is tied to this run's values.
        """
        for edit in self.edits_of(of, name):
            new = edit.change(value.clone())
            if not isinstance(new, Tensor):
                raise StreamError(f"the edit of {name!r} must return a tensor of shape {list(value.shape)}, not "
                                  f"{type(new).__name__}")
            for what, wanted, got in [("shape", list(value.shape), list(new.shape)), ("dtype", value.dtype, new.dtype),
                                      ("device", value.device, new.device)]:
                if got != wanted:
                    raise StreamError(f"the edit of {name!r} must return a tensor of {what} {wanted}, not {got}")
            value = new.clone()
        return value

    def read(self, name: str, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """What a sublayer is handed: the stream behind its LayerNorm. [B, T, D]"""
        if self.edits_of("stream", name):
            before, after = self.value, self.edited("stream", name, self.value)
            if self.record:
                difference = after - before
                self.writes.keep(f"edit before {name}", difference)
                after = before + difference if difference.requires_grad else after  # gradients go through the write
            self.value = after
        x = self.edited("reads", name, norm(self.value))
        if self.record:
            self.reads.keep(name, x)
        return x

    def write(self, name: str, x: Tensor) -> None:
        """Add a sublayer's output to the stream. x: [B, T, D]"""
        x = self.edited("writes", name, x)
        self.value = x if self.value is None else self.value + x
        self.keep_write(name, x)

    def keep_write(self, name: str, x: Tensor) -> None:
        """Record a write, if this stream records."""
        if self.record:
            self.writes.keep(name, x)

    def write_heads(self, layer: int, z: Tensor, W_O: Tensor, bias: Tensor) -> None:
        """Add what a layer's heads write, z[:, :, h] @ W_O[h] for head h, and the output bias.

        z: [B, T, H, K], what each head gathered from the positions it attends to; W_O: [H, K, D]; bias: [D].
        One fused product makes the sum of all heads that nobody edits; each of these is computed again by itself
        when somebody asks for its write. Where gradients are recorded, every head is computed and held by itself.
        """
        B, T, H, K = z.shape
        names = [f"L{layer}.H{head}" for head in range(H)] + [f"L{layer}.attn.bias"]
        graph = self.record and torch.is_grad_enabled() and any(x.requires_grad for x in (z, W_O, bias))
        alone = [graph or bool(self.edits_of("writes", name)) for name in names]              # H heads, and the bias
        rest = [head for head in range(H) if not alone[head]] if any(alone[:H]) else slice(None)
        total = F.linear(z[:, :, rest].flatten(2), W_O[rest].flatten(0, 1).T, None if alone[H] else bias)  # [B, T, D]
        # What one of the rest wrote is computed when somebody asks, from a copy: the weights may be changed by then.
        # Where holding all of it, B*T*H*D numbers, takes less room than the copy, H*K*D, it is computed at once.
        few = B * T < K
        W = W_O.detach().to(z.dtype, copy=not few) if self.record else W_O
        for head, name in enumerate(names[:H]):
            if alone[head]:
                write = self.edited("writes", name, z[:, :, head] @ W_O[head])  # [B, T, K] @ [K, D] -> [B, T, D]
                total = total + write
                self.keep_write(name, write)
            elif self.record:
                later = lambda head=head: product(z[:, :, head], W[head])
                self.writes.keep(name, later() if few else later)
        if alone[H]:
            write = self.edited("writes", names[H], bias.to(total.dtype).expand_as(total).clone())  # [D] -> [B, T, D]
            total = total + write
            self.keep_write(names[H], write)
        elif self.record:
            kept = bias.detach().to(total.dtype, copy=True)
            self.writes.keep(names[H], lambda: kept.expand(B, T, -1).clone())
        self.value = self.value + total

    def needs_pattern(self, layer: int) -> bool:
        """Whether this layer's attention pattern must be made explicitly; else a fused kernel may hide it."""
        return self.record or bool(self.edits_of("patterns", f"L{layer}"))

    def pattern(self, layer: int, pattern: Tensor) -> Tensor:
        """A layer's attention pattern [B, H, T, S], query by key, after its edits."""
        pattern = self.edited("patterns", f"L{layer}", pattern)
        if self.record:
            self.patterns.keep(f"L{layer}", pattern)
        return pattern


class Recorded(Mapping):
    """Recorded values by name, in the order in which they came. An unknown name is a StreamError.

    A value is handed out as a copy, or, where it has a gradient, as the node of the run's graph that it is.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self.kept: dict[str, Tensor | Callable[[], Tensor]] = {}

    def keep(self, name: str, value: Tensor | Callable[[], Tensor]) -> None:
        """Hold a value under its name; a function is called whenever the value is asked for."""
        self.kept[name] = value

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.kept:
            empty = "nothing was recorded (Stream(record=True) keeps it); " if not self.kept else ""
            raise StreamError(f"no {self.kind} {name!r}: {empty}{did_you_mean(str(name), self.kept)}")
        value = self.kept[name]
        if not isinstance(value, Tensor):
            return value()
        return value if value.requires_grad else value.clone()

    def __contains__(self, name: object) -> bool:
        return name in self.kept

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)


def product(z: Tensor, W_O: Tensor) -> Tensor:
    """z [B, T, K] @ W_O [K, D], in their own dtype wherever it is asked for: [B, T, D]."""
    with torch.autocast(z.device.type, enabled=False):
        return z @ W_O


def checked_edits(edits: Iterable[Edit | tuple]) -> list[Edit]:
    """The edits as a list of `Edit`. Raises StreamError for what is none."""
    if isinstance(edits, (Edit, str, Mapping, Tensor)) or not isinstance(edits, Iterable):
        raise StreamError(f"edits are a list, as in Stream(edits=[Edit('L0.H1', torch.zeros_like)]), not "
                          f"{type(edits).__name__}")
    checked = []
    for edit in edits:
        if not isinstance(edit, (tuple, list)) or len(edit) not in (2, 3):
            raise StreamError(f"an edit is Edit(name, change) or Edit(name, change, of=...), not {edit!r}")
        edit = Edit(*edit)
        if edit.of not in ("writes", "reads", "patterns", "stream"):
            raise StreamError(f"an edit is of 'writes', 'reads', 'patterns' or 'stream', not of {edit.of!r}")
        if not callable(edit.change):
            raise StreamError(f"the edit of {edit.name!r} should be a function, not {type(edit.change).__name__}")
        checked.append(edit)
    return checked


def write_names(config: GPT2Config) -> list[str]:
    """Every write of a model, in order: "embed", "L0.H0", ..., "L0.attn.bias", "L0.mlp", "L1.H0", ..."""
    names = ["embed"]
    for layer in range(config.n_layer):
        names += [f"L{layer}.H{head}" for head in range(config.n_head)] + [f"L{layer}.attn.bias", f"L{layer}.mlp"]
    return names


def read_names(config: GPT2Config) -> list[str]:
    """Every read of a model, in order: "L0.attn", "L0.mlp", ..., "unembed"."""
    return [f"L{layer}.{part}" for layer in range(config.n_layer) for part in ("attn", "mlp")] + ["unembed"]


def read_behind_heads(config: GPT2Config, layer: int) -> str:
    """The first read that holds what a layer's heads wrote: "L8.mlp" for layer 8.

    Where attention and MLP read the same sum (Pythia), both have read before the heads write, and it is "L9.attn", or
    "unembed" behind the last layer.
    """
    if not config.parallel:
        return f"L{layer}.mlp"
    return f"L{layer + 1}.attn" if layer + 1 < config.n_layer else "unembed"


def pattern_names(config: GPT2Config) -> list[str]:
    """Every attention pattern of a model: "L0", "L1", ..."""
    return [f"L{layer}" for layer in range(config.n_layer)]
