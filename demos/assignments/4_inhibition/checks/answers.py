"""What a submission to assignment 4 may hand back: heads and components, however they are written."""

from torch import Tensor

import tinyheads as th
from grader.comparing import Wrong


def number_rows(rows: object, names: tuple) -> list[tuple]:
    """A submission's list of heads or components as tuples of whole numbers, however they are written, or `Wrong`."""
    should = f"a list of {'pairs' if len(names) == 2 else 'triples'} of whole numbers ({', '.join(names)})"
    rows = rows.tolist() if isinstance(rows, Tensor) else rows
    if not isinstance(rows, (list, tuple)):
        raise Wrong(f"there should be {should}")
    numbers = []
    for row in rows:
        if isinstance(row, (th.Head, th.Component)):
            row = tuple(vars(row).values())
        row = row.tolist() if isinstance(row, Tensor) else row
        if isinstance(row, (list, tuple)):
            row = [n.item() if isinstance(n, Tensor) and n.numel() == 1 else n for n in row]
        if not isinstance(row, (list, tuple)) or len(row) != len(names) or not all(isinstance(n, int) for n in row):
            raise Wrong(f"there should be {should}; it holds {str(row)[:60]}")
        numbers.append(tuple(row))
    return numbers
