"""A place in each prompt: the same place in all of them, or each prompt's own.

Prompts of one length end at the same position, T - 1, a whole number. In a batch of unequal prompts, padded on the
right, each ends at its own: a tensor [B]. Whatever looks at END, or changes the stream at a position, takes either.
Several positions, the same in every prompt, are a list: that a tensor of B numbers means one for each prompt, and a
list of B numbers B places in all of them, is never decided by the sizes.

Axes: B prompt, T position, P chosen position.
"""

from typing import Callable, Sequence

import torch
from torch import Tensor

from tinyheads.errors import InputError, TinyheadsError

Positions = int | Tensor | Sequence[int]
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def places(positions: Positions, B: int, T: int, error: type[TinyheadsError] = InputError) -> Tensor:
    """Positions, counted from 0, as a table int64 [B, P]. P is 1 for one number and for a tensor [B].

    positions: a whole number, of Python, NumPy or torch; a tensor or array [B], one for each prompt; or a list of P
    positions, all of them in every prompt. Raises `error`, with words, for anything else or outside the prompt.
    """
    several = isinstance(positions, (list, tuple, range))
    if several and not positions:
        raise error("name one position at least")
    try:
        whole = all(torch.as_tensor(each).dtype in WHOLE for each in (positions if several else [positions]))
        found = torch.as_tensor(positions)
    except (TypeError, ValueError, RuntimeError):
        whole = False
    if not whole or found.dim() > 1 or several and found.dim() != 1:
        raise error(f"positions are a whole number, a list of them, or a tensor [B] of one for each prompt, not "
                    f"{positions!r}")
    if found.dim() == 1 and not several and len(found) != B:
        raise error(f"a tensor of positions holds one for each of the {B} prompts, not {len(found)}; positions to be "
                    f"taken in every prompt are a list")
    outside = found[(found < 0) | (found >= T)]
    if outside.numel():
        raise error(f"position {int(outside[0])} is outside the prompt, 0 to {T - 1}")
    found = found.long()
    return found.expand(B, -1) if several else found.expand(B)[:, None]


def at(x: Tensor, position: int | Tensor) -> Tensor:
    """x [B, ..., T, n] at one position of each prompt, an int or a tensor [B]: [B, ..., n]. Raises InputError."""
    columns = places(position, len(x), x.shape[-2]).to(x.device)                     # [B, P]
    if columns.shape[1] != 1:
        raise InputError(f"one position of each prompt is wanted here, an int or a tensor [B], not {position!r}")
    return x.movedim(-2, 1)[torch.arange(len(x), device=x.device), columns[:, 0]]    # [B, T, ..., n] -> [B, ..., n]


def changed_at(x: Tensor, positions: Positions, change: Callable[[Tensor], Tensor],
               error: type[TinyheadsError] = InputError) -> Tensor:
    """A copy of x [B, T, D] in which `change` has replaced what stands at the positions, [B, P, D]. Raises `error`."""
    columns = places(positions, *x.shape[:2], error).to(x.device)                    # [B, P]
    rows = torch.arange(len(x), device=x.device)[:, None]                            # [B, 1]
    x = x.clone()
    x[rows, columns] = change(x[rows, columns]).to(x.dtype)
    return x
