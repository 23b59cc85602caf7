"""Comparing an answer with what was expected, and saying what is wrong with it in the student's terms.

First its kind and shape, then the mistakes that the check names, then what can be told of any tensor: transposed,
scaled, shifted by one, reversed, nan. Everything raises `Wrong`; nothing is returned.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .values import Other


NEARLY = 5e-3                    # of the largest entry: a difference that is told as a small one


class Wrong(Exception):
    """What is wrong with an answer, in the student's terms."""


def close(output: object, expected: object, tolerance: float = 1e-4, mistakes: Sequence = (), what: str = "the result",
          see: str = "") -> None:
    """Raise `Wrong` unless the output is what was expected.

    expected: a tensor, a number, a bool, a string, or a list, tuple or dict of these. tolerance: of the difference's
    largest entry, as a share of the largest entry expected (at least 1e-6); whole numbers must be equal.
    mistakes: pairs (what that mistake would give, or a function that makes it; what to say). see: where to read on.
    """
    if isinstance(expected, (dict, list, tuple)):
        close_container(output, expected, tolerance, mistakes, what, see)
        return
    try:
        answer, wanted = as_tensor(output, expected, what), torch.as_tensor(expected)
        if agree(answer, wanted, tolerance):
            return
        for wrong, message in likely_first(mistakes):
            if is_mistake(answer, wrong, tolerance, wanted):
                named_last[:] = [message]
                raise Wrong(with_reference(f"{what}: {message}", see))
        same_shape(answer, list(wanted.shape), what=what)
        raise Wrong(with_reference(f"{what}: {generic_diagnosis(answer, wanted, tolerance)}", see))
    except RuntimeError as error:  # tensors that torch cannot compare
        raise Wrong(f"{what} cannot be compared with what was expected: {error}"[:500]) from error


def with_reference(message: str, see: str) -> str:
    """A message, and where to read on."""
    return f"{message.removesuffix('.')}. See {see}." if see else message


def close_container(output: object, expected: object, tolerance: float, mistakes: Sequence, what: str,
                    see: str) -> None:
    """`close` for a list, a tuple or a dict: mistakes of the whole, keys and lengths, then entry by entry."""
    if mistakes and not same(output, expected, tolerance):
        for wrong, message in likely_first(mistakes):
            if same(output, wrong() if callable(wrong) else wrong, tolerance):
                named_last[:] = [message]
                raise Wrong(with_reference(f"{what}: {message}", see))
    if isinstance(expected, dict):
        if not isinstance(output, dict):
            raise Wrong(f"{what} should be a dict, not {kind_of(output)}")
        missing, extra = [k for k in expected if k not in output], [k for k in output if k not in expected]
        if missing or extra:
            odd = [f"{len(keys)} {word}, such as {keys[0]!r}"
                   for keys, word in [(missing, "missing"), (extra, "too many")] if keys]
            raise Wrong(with_reference(f"{what} has the wrong keys: {'; '.join(odd)}", see))
        if list(output) != list(expected):
            first = next(i for i, (a, b) in enumerate(zip(output, expected)) if a != b)
            raise Wrong(with_reference(f"{what} has the right keys in the wrong order: entry {first} is "
                                       f"{list(output)[first]!r} and should be {list(expected)[first]!r}", see))
        pairs = [(f"{what}[{key!r}]", output[key], expected[key]) for key in expected]
    else:
        if not isinstance(output, (list, tuple)):
            raise Wrong(f"{what} should be a {type(expected).__name__} of {len(expected)}, not {kind_of(output)}")
        if len(output) != len(expected):
            raise Wrong(with_reference(f"{what} should have {len(expected)} entries, not {len(output)}", see))
        pairs = [(f"{what}[{i}]", each, wanted) for i, (each, wanted) in enumerate(zip(output, expected))]
    for name, each, wanted in pairs:
        close(each, wanted, tolerance, what=name, see=see)


named_last: list[str] = []      # the mistake that was named last


def likely_first(mistakes: Sequence) -> list:
    """The mistake named last before the others: the parts of an exercise share it, and each costs time to try."""
    return sorted(mistakes, key=lambda pair: pair[1] not in named_last)


def same(output: object, expected: object, tolerance: float) -> bool:
    """Whether `close` would have nothing to say."""
    try:
        close(output, expected, tolerance)
        return True
    except Wrong:
        return False


def is_mistake(answer: Tensor, wrong: object, tolerance: float, wanted: Tensor) -> bool:
    """Whether the answer is what a mistake gives, and the mistake shows: it must not be the right answer too."""
    wrong = torch.as_tensor(wrong() if callable(wrong) else wrong)
    return agree(answer, wrong, tolerance) and not agree(wrong, wanted, tolerance)


def as_tensor(output: object, expected: object, what: str) -> Tensor:
    """The output as a tensor, or `Wrong` that says which kind of thing it is and which it should be."""
    if isinstance(expected, str):
        if output != expected:
            raise Wrong(f"{what} is {str(output)[:200]!r} and should be {expected!r}")
        return torch.as_tensor(0)
    number = not isinstance(expected, Tensor)
    if not number:
        output = tensor_like(output)
    wanted = "a number" if number else f"a torch.Tensor of shape {list(expected.shape)}"
    if output is None:
        raise Wrong(f"{what} is None and should be {wanted}: is a `return` missing?")
    is_array = isinstance(output, (np.ndarray, Tensor))
    if number and (type(output) in (int, float, bool) or is_array and np.prod(output.shape) == 1):
        return torch.as_tensor(output).reshape(())
    if not number and not expected.dim() and type(output) in (int, float):
        output = torch.tensor(output)
    if number or not isinstance(output, Tensor):
        raise Wrong(f"{what} is {kind_of(output)} and should be {wanted}")
    if output.is_complex() and not expected.is_complex():
        raise Wrong(f"{what} is complex ({output.dtype}) and should be real")
    if expected.dtype == torch.bool and output.dtype != torch.bool:
        raise Wrong(f"{what} should hold True and False (torch.bool), not {output.dtype}")
    return output


def tensor_like(output: object) -> object:
    """A numpy array, and nested lists or tuples of numbers or of tensors of one shape, as a tensor; else as it is."""
    if isinstance(output, np.ndarray):
        return torch.as_tensor(output)
    if isinstance(output, (list, tuple)) and output:
        inner = [tensor_like(each) for each in output]
        if all(type(each) in (int, float) for each in inner):
            return torch.tensor(inner, dtype=torch.float64 if float in map(type, inner) else None)
        if all(isinstance(each, Tensor) and each.shape == inner[0].shape for each in inner):
            return torch.stack([each.to(inner[0].dtype) for each in inner])
    return output


def tensors_in(output: object) -> object:
    """An answer, its numpy arrays as tensors."""
    if isinstance(output, np.ndarray):
        return torch.as_tensor(output)
    if isinstance(output, (list, tuple)):
        return type(output)(map(tensors_in, output))
    return {key: tensors_in(each) for key, each in output.items()} if isinstance(output, dict) else output


def pair(output: object) -> list:
    """Mean and standard deviation as a derivation gives them, or `Wrong`."""
    if not isinstance(output, (list, tuple)) or len(output) != 2:
        raise Wrong("the result should be two numbers: (mean, standard deviation)")
    return list(output)


def agree(answer: Tensor, wanted: Tensor, tolerance: float) -> bool:
    """Whether two tensors are equal: exactly for whole numbers, else within the tolerance of the largest entry."""
    if answer.shape != wanted.shape or answer.is_complex() != wanted.is_complex():
        return False
    if not wanted.is_floating_point():
        return bool((answer.double() == wanted.double()).all())
    answer, wanted = answer.double(), wanted.double()
    if not answer.isfinite().equal(wanted.isfinite()):
        return False
    finite = wanted.isfinite()
    if not torch.equal(answer[~finite].nan_to_num(0.5), wanted[~finite].nan_to_num(0.5)):
        return False
    difference = (answer - wanted)[finite].abs()
    return not difference.numel() or difference.max().item() <= tolerance * max(scale_of(wanted), 1e-6)


def scale_of(x: Tensor) -> float:
    """The largest finite entry's size."""
    finite = x.double()[x.isfinite()].abs()
    return finite.max().item() if finite.numel() else 0.0


def same_shape(output: object, shape: Sequence[int] | Tensor, axes: str = "", what: str = "the result") -> Tensor:
    """The output as a tensor, or `Wrong` unless it has this shape. axes: their names, "batch head query key"."""
    shape = list(shape.shape) if isinstance(shape, Tensor) else list(shape)
    named = f" ({axes.replace(' ', ', ')})" if axes else ""
    if output is None:
        raise Wrong(f"{what} is None and should be a torch.Tensor of shape {shape}{named}: is a `return` missing?")
    given, output = output, tensor_like(output)
    if not isinstance(output, Tensor):
        raise Wrong(f"{what} is {kind_of(given)} and should be a torch.Tensor of shape {shape}{named}")
    own = list(output.shape)
    if own == shape:
        return output
    hint = ""
    if sorted(own) == sorted(shape):
        hint = ": its axes are in another order"
    elif [n for n in own if n != 1] == [n for n in shape if n != 1]:
        hint = ": an axis of length 1 is too many or too few (unsqueeze, squeeze, keepdim)"
    elif len(own) > len(shape):
        hint = ": it has too many axes; is a sum over one of them missing?"
    elif len(own) < len(shape):
        hint = ": it has too few axes; was one summed over, or indexed away?"
    raise Wrong(f"{what} is of shape {own} and should be {shape}{named}{hint}")


def kind_of(output: object) -> str:
    """What a value is, for a message."""
    if isinstance(output, Other):
        return f"a {output.name}"
    if isinstance(output, (Tensor, np.ndarray)):
        return f"a {'torch.Tensor' if isinstance(output, Tensor) else 'numpy array'} of shape {list(output.shape)}"
    if isinstance(output, (list, tuple, dict)):
        return f"a {type(output).__name__} of {len(output)}"
    plain = isinstance(output, (int, float, str)) or output is None
    return f"{output!r}"[:100] if plain else f"a {type(output).__name__}"


def generic_diagnosis(answer: Tensor, wanted: Tensor, tolerance: float) -> str:
    """What is wrong with values of the right shape, where no named mistake fits."""
    if answer.is_floating_point() and not answer.isfinite().equal(wanted.isfinite()):
        n = int((~answer.isfinite()).sum())
        return (f"{n} of {answer.numel()} entries are nan or inf. Usual causes: a division by 0, the softmax of a row "
                f"that is masked everywhere, the square root of a negative number")
    if not wanted.is_floating_point():
        return first_difference(answer, wanted, answer.double() != wanted.double())
    answer, wanted = answer.double(), wanted.double()
    finite = wanted.isfinite()
    x, y = answer[finite], wanted[finite]
    near = lambda a, b: agree(a, b, max(tolerance, 1e-3))
    off = (x - y).abs().max().item() / max(scale_of(wanted), 1e-6)
    if off < NEARLY:
        return (f"it is nearly right: the largest difference is {off:.1g} of the largest entry, and {tolerance:g} may "
                f"be. Is it rounded (float16?), or is a small term left out?")
    for i, j in itertools.combinations(range(answer.dim()), 2):
        swapped = answer.transpose(i, j)
        if swapped.shape == wanted.shape and near(swapped, wanted):
            return f"it is right but for its axes {i} and {j}, which are swapped (a transpose)"
    if y.numel() > 1:
        factor = (x @ y / (y @ y)).item() if y.any() else 0.0
        if factor and near(x, factor * y):
            opposite = abs(factor + 1) < 1e-3
            return "its sign is the opposite" if opposite else f"it is {factor:.4g} times what it should be, everywhere"
        if near(x - (x - y).mean(), y):
            return f"it is {(x - y).mean().item():+.4g} off, everywhere alike"
    for axis in range(answer.dim()):
        if answer.shape[axis] > 2 and near(answer.flip(axis), wanted):
            return f"it is right but for the order along axis {axis}, which is reversed"
        for step in (1, -1):
            n = answer.shape[axis]
            if n > 2 and near(answer.narrow(axis, max(step, 0), n - 1), wanted.narrow(axis, max(-step, 0), n - 1)):
                return f"it is right but shifted by one along axis {axis}: an index that is off by one?"
    return first_difference(answer, wanted, (answer - wanted).abs() > tolerance * max(scale_of(wanted), 1e-6))


def first_difference(answer: Tensor, wanted: Tensor, different: Tensor) -> str:
    """Where two tensors differ first, and how much of them."""
    if not answer.dim():
        return f"it is {answer.item():.6g} and should be {wanted.item():.6g}"
    place = different.nonzero()[0].tolist()
    share = different.double().mean().item()
    share = f"{share:.0%}" if share >= 0.01 else "less than 1%"
    one, other = answer[tuple(place)].item(), wanted[tuple(place)].item()
    return f"{share} of its entries are wrong; the first, at {place}, is {one:.6g} and should be {other:.6g}"
