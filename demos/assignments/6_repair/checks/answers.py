"""What a submission to assignment 6 may hand back: dicts and numbers, or `Wrong`."""

import numpy as np
from torch import Tensor

from grader.comparing import Wrong


def entries(output: object, names: tuple, what: str = "the result") -> dict:
    """A dict with these keys, in this order, or `Wrong`."""
    if not isinstance(output, dict):
        raise Wrong(f"{what} should be a dict with the keys {', '.join(map(repr, names))}")
    odd = [f"{name!r} is missing" for name in names if name not in output]
    odd += [f"{name!r} is not asked for" for name in output if name not in names]
    if odd:
        raise Wrong(f"{what} should have the keys {', '.join(map(repr, names))}: {'; '.join(odd[:3])}")
    return {name: output[name] for name in names}


def as_number(value: object, what: str) -> float:
    """A number, or a tensor of one, or `Wrong`."""
    if isinstance(value, (Tensor, np.ndarray)) and np.prod(value.shape) == 1:
        value = value.item()
    if type(value) not in (int, float):
        raise Wrong(f"{what} should be a number, not {str(value)[:60]}")
    return float(value)
