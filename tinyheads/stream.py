"""The residual stream as an object: everything read from it and written to it has a name.

A transformer's sublayers never see each other. Each reads the residual stream (through a LayerNorm)
and adds its own vector to it, so that the stream at any point is the plain sum of what was written
before (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"):

    x = embed + sum over layers of (each head's write + attention bias + MLP's write)

    writes   "embed", then for each layer "L8.H0" ... "L8.H11", "L8.attn.bias", "L8.mlp"   [B, T, D]
    reads    "L8.attn", "L8.mlp", "unembed": what was handed over, behind the LayerNorm     [B, T, D]
    patterns "L8": how much each query position attends to each key position             [B, H, T, T]

A stream made with `record=True` keeps them all. `edits` change them while the model runs, and
everything later sees the change:

    stream = Stream(record=True, edits=[Edit("L8.H10", torch.zeros_like)])
"""

from collections.abc import Mapping
from typing import Callable, Iterator, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from tinyheads.config import GPT2Config
from tinyheads.errors import StreamError, did_you_mean


class Edit(NamedTuple):
    """A change to one named value while the model runs: the value becomes `change(value)`.

    name: as in `stream.writes`, `stream.reads` or `stream.patterns`; of: which of the three. Or of="stream":
    then name is a read's, and the running sum itself is changed just before that read; the difference
    counts as one more write, "edit before L8.attn", so that the writes still sum to the stream.
    change: gets the value (shape as in the module's docstring) and returns the new one, same shape.
    It must not modify what it gets in place. Several edits of one value apply in order.
    """

    name: str
    change: Callable[[Tensor], Tensor]
    of: str = "writes"


class Stream:
    """One run's residual stream. Pass it to the model: `model(tokens, stream)`, then look at it.

    record: keep all reads, writes and patterns; edits: a list of `Edit` (or plain tuples).
    value: the running sum of the writes [B, T, D]; behind the model, the final one, before ln_f.
    Raises StreamError for an edit whose name the model does not have, before anything runs.
    """

    def __init__(self, record: bool = False, edits: list[Edit] | tuple = ()):
        self.record = record
        self.edits = [Edit(*edit) for edit in edits]
        for edit in self.edits:
            if edit.of not in ("writes", "reads", "patterns", "stream"):
                raise StreamError(f"an edit is of 'writes', 'reads', 'patterns' or 'stream', not of {edit.of!r}")
            if not callable(edit.change):
                raise StreamError(f"the edit of {edit.name!r} should be a function, not {type(edit.change).__name__}")
        self.value: Tensor | None = None
        self.writes = Writes()
        self.reads = Named("read")
        self.patterns = Named("pattern")

    def begin(self, config: GPT2Config) -> None:
        """Forget the run before, and check the edits' names against the model's. Called by the model."""
        self.value = None
        self.writes = Writes()
        self.reads = Named("read")
        self.patterns = Named("pattern")
        valid = {"writes": write_names(config), "reads": read_names(config), "patterns": pattern_names(config),
                 "stream": read_names(config)}
        for edit in self.edits:
            if edit.name not in valid[edit.of]:
                kind = "read" if edit.of == "stream" else edit.of[:-1]
                raise StreamError(f"no {kind} is called {edit.name!r} in a model of {config.n_layer} layers and "
                                  f"{config.n_head} heads; {did_you_mean(str(edit.name), valid[edit.of])}")

    def edited(self, of: str, name: str, value: Tensor) -> Tensor:
        """The value after its edits, if it has any. Raises StreamError where one returns another shape."""
        for edit in self.edits:
            if (edit.of, edit.name) == (of, name):
                shape = value.shape
                value = edit.change(value)
                if not isinstance(value, Tensor) or value.shape != shape:
                    got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                    raise StreamError(f"the edit of {name!r} must return a tensor of shape {list(shape)}, not {got}")
        return value

    def read(self, name: str, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """What a sublayer is handed: the stream behind its LayerNorm. [B, T, D]"""
        if any((edit.of, edit.name) == ("stream", name) for edit in self.edits):
            before = self.value
            self.value = self.edited("stream", name, before)
            if self.record:
                self.writes.found[f"edit before {name}"] = lambda after=self.value: after - before
        x = self.edited("reads", name, norm(self.value))
        if self.record:
            self.reads.found[name] = x
        return x

    def write(self, name: str, x: Tensor) -> None:
        """Add a sublayer's output to the stream. x: [B, T, D]"""
        x = self.edited("writes", name, x)
        self.value = x if self.value is None else self.value + x
        if self.record:
            self.writes.found[name] = lambda: x

    def write_heads(self, layer: int, z: Tensor, W_O: Tensor, bias: Tensor) -> None:
        """Add all heads of a layer: the sum over h of z[:, :, h] @ W_O[h], and the output bias.

        z: [B, T, H, K], what each head gathered from the positions it attends to; W_O: [H, K, D]; bias: [D].
        One fused product makes the sum. A head's own write is computed only when somebody asks for
        it, or an edit changes it: to hold them all would take B*T*H*D numbers a layer.
        """
        names = [f"L{layer}.H{head}" for head in range(len(W_O))]
        bias_name = f"L{layer}.attn.bias"
        total = F.linear(z.flatten(2), W_O.flatten(0, 1).T, bias)  # [B, T, H*K] @ [H*K, D] -> [B, T, D]
        touched = {edit.name for edit in self.edits if edit.of == "writes"}
        version = version_of(W_O)

        def head_write(head: int) -> Tensor:
            if version_of(W_O) != version:
                raise StreamError(f"{names[head]}: the weights were changed after this run; run the model again")
            return z[:, :, head] @ W_O[head]                       # [B, T, K] @ [K, D] -> [B, T, D]

        for head, name in enumerate(names):
            write = lambda head=head: head_write(head)
            if name in touched:
                before = head_write(head)
                after = self.edited("writes", name, before)
                total = total + (after - before)
                write = lambda after=after: after
            if self.record:
                self.writes.found[name] = write
        bias_write = bias.expand_as(total)                          # [D] -> [B, T, D]
        if bias_name in touched:
            after = self.edited("writes", bias_name, bias_write)
            total, bias_write = total + (after - bias_write), after
        self.value = self.value + total
        if self.record:
            self.writes.found[bias_name] = lambda: bias_write

    def needs_pattern(self, layer: int) -> bool:
        """Whether this layer's attention pattern must be made explicitly; else a fused kernel may hide it."""
        return self.record or any(edit.of == "patterns" and edit.name == f"L{layer}" for edit in self.edits)

    def pattern(self, layer: int, pattern: Tensor) -> Tensor:
        """A layer's attention pattern [B, H, T, T], query by key, after its edits."""
        pattern = self.edited("patterns", f"L{layer}", pattern)
        if self.record:
            self.patterns.found[f"L{layer}"] = pattern
        return pattern


class Named(Mapping):
    """Recorded values by name, in the order in which they came. An unknown name is a StreamError."""

    def __init__(self, kind: str):
        self.kind = kind
        self.found: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.found:
            empty = "nothing was recorded (Stream(record=True) keeps it); " if not self.found else ""
            raise StreamError(f"no {self.kind} {name!r}: {empty}{did_you_mean(str(name), self.found)}")
        return self.found[name]

    def __contains__(self, name: object) -> bool:
        return name in self.found

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


class Writes(Named):
    """The writes by name; each head's is computed from its z when asked for. They sum to `stream.value`."""

    def __init__(self):
        super().__init__("write")
        self.found: dict[str, Callable[[], Tensor]] = {}

    def __getitem__(self, name: str) -> Tensor:
        return super().__getitem__(name)()


def version_of(weights: Tensor) -> int:
    """How often torch has changed these numbers in place (tensors of inference mode cannot be changed: 0)."""
    return 0 if weights.is_inference() else weights._version


def write_names(config: GPT2Config) -> list[str]:
    """Every write of a model, in order: "embed", "L0.H0", ..., "L0.attn.bias", "L0.mlp", "L1.H0", ..."""
    names = ["embed"]
    for layer in range(config.n_layer):
        names += [f"L{layer}.H{head}" for head in range(config.n_head)] + [f"L{layer}.attn.bias", f"L{layer}.mlp"]
    return names


def read_names(config: GPT2Config) -> list[str]:
    """Every read of a model, in order: "L0.attn", "L0.mlp", ..., "unembed"."""
    return [f"L{layer}.{part}" for layer in range(config.n_layer) for part in ("attn", "mlp")] + ["unembed"]


def pattern_names(config: GPT2Config) -> list[str]:
    """Every attention pattern of a model: "L0", "L1", ..."""
    return [f"L{layer}" for layer in range(config.n_layer)]
