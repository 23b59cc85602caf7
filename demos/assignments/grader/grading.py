"""What an assignment's checks are made of: exercises, their calls, their parts.

A checks.py lists its EXERCISES. Each draws the arguments of a few calls from a seed; a process of its own calls the
submission's function with them; then each part looks at what came back, and raises `Wrong` with what to tell the
student. A part that raises nothing earns its points. `close` compares, and where an answer is that of a well-known
mistake it says so.

    Exercise("1.1 LayerNorm", "layer_norm", 2, calls, [
        Part("shape", 0.5, lambda calls, outputs: same_shape(outputs[0], [2, 5, 24], "batch position d_model")),
        Part("values", 1.5, agrees(0, expected, mistakes=[(no_gain, "the gain is missing: see part 2")])),
    ], uses="torch")
"""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Callable

import torch

REPOSITORY = Path(__file__).resolve().parents[2]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

import tinyheads as th  # noqa: E402  (from this checkout, installed or not)
from comparing import Wrong, close, same, same_shape  # noqa: E402, F401  (checks take them from here)


@dataclass(frozen=True)
class Model:
    """An argument that the submission gets as a loaded th.GPT2. source: a name, a path, or a model in memory."""

    source: "str | Path | th.GPT2"

    def load(self) -> th.GPT2:
        """The model, for the checks: a copy of its own from a name or a path, else the one in memory."""
        return self.source if isinstance(self.source, th.GPT2) else th.load(self.source)


@dataclass(frozen=True)
class TokenizerOf:
    """An argument that the submission gets as a loaded tokenizer. name: of a model, or a path."""

    name: str

    def load(self) -> th.Tokenizer:
        return th.load_tokenizer(self.name)


@dataclass(frozen=True)
class Call:
    """The arguments of one call.

    args: tensors, numbers, strings, None, lists, tuples and dicts of these, Model, TokenizerOf, th.Head,
    th.Component, th.lists.Prompts, th.Heads. (Where `uses` is "torch", records arrive as their fields alone.)
    """

    args: tuple


class Outputs(Sequence):
    """What the calls returned, in their order. Taking one that failed raises `Wrong` with the reason."""

    def __init__(self, found: list):
        self.found = found

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, number: int) -> object:
        if isinstance(self.found[number], Wrong):
            raise self.found[number]
        return self.found[number]


Check = Callable[[list[Call], Outputs], None]


@dataclass(frozen=True)
class Part:
    """A share of an exercise's points. check(calls, outputs) raises `Wrong` where they are not earned."""

    name: str
    points: float
    check: Check


@dataclass(frozen=True)
class Exercise:
    """One function of a submission: how it is called, and what its answers are worth.

    name: as in the handout; function: its name; points: all there are, the sum over `parts`; calls: draws the calls;
    uses: "torch" (the library cannot be imported) or "tinyheads" (it can, but for the names in `forbidden`, such as
    "ov_svd", "subspace.from_weights" or "Heads.of"); seconds, megabytes: the limits for all calls together;
    may_change: whether the function may change its arguments in place (else that costs the parts that look there).
    """

    name: str
    function: str
    points: float
    calls: Callable[[torch.Generator], list[Call]]
    parts: list[Part]
    uses: str = "torch"
    forbidden: tuple[str, ...] = ()
    seconds: float = 20
    megabytes: int = 4000
    may_change: bool = False

    def __post_init__(self):
        if self.uses not in ("torch", "tinyheads"):
            raise ValueError(f"{self.name}: uses is 'torch' or 'tinyheads', not {self.uses!r}")
        points = sum(part.points for part in self.parts)
        if abs(points - self.points) > 1e-9:
            raise ValueError(f"{self.name}: its parts have {points} points, not {self.points}")


def agrees(number: int, expected: Callable, tolerance: float = 1e-4, mistakes: Sequence = (), what: str = "the result",
           see: str = "") -> Check:
    """A part's check: the answer to call `number` is expected(*its arguments).

    mistakes: pairs (a function of the same arguments that makes the mistake, what to say).
    """
    def check(calls: list[Call], outputs: Outputs) -> None:
        args, output = calls[number].args, outputs[number]
        made = [((lambda wrong=wrong: wrong(*args)), message) for wrong, message in mistakes]
        close(output, expected(*args), tolerance, made, what, see)
    return check


# --- inputs that several assignments draw ---------------------------------------------------------------


def random_model(generator: torch.Generator, scale: float = 0.3, **sizes: int) -> th.GPT2:
    """A model in which every parameter matters (GPT-2 begins with biases 0 and gains 1). sizes: of th.GPT2Config."""
    model = th.GPT2(th.GPT2Config(**sizes), seed=0).requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def random_int(generator: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both possible."""
    return int(torch.randint(low, high + 1, (1,), generator=generator))


def planted_module() -> ModuleType:
    """tests/planted.py: a model written by hand, whose inhibition channel is known."""
    spec = importlib.util.spec_from_file_location("planted", REPOSITORY / "tests" / "planted.py")
    module = sys.modules.setdefault("planted", importlib.util.module_from_spec(spec))
    if not hasattr(module, "planted"):
        spec.loader.exec_module(module)
    return module
