"""How much a chapter runs: enough prompts for an interval of a few points, in half an hour for all at GPT-2's size.

A small model takes seconds for a thousand prompts; GPT-2 124M, on two CPU cores, a minute for two hundred. `--quick`
takes about a tenth of the time, for a first look: its intervals are three times as wide, or the rates those of short
lists alone.
"""

import tinyheads as th

LENGTHS = (3, 5, 8, 10, 12, 16, 20)      # of lists, where a chapter asks how accuracy falls


def is_large(model: th.GPT2) -> bool:
    """Whether a model is of GPT-2's size: prompts are then counted, and lists crossed off by name, as in the paper."""
    return sum(parameter.numel() for parameter in model.parameters()) > 5_000_000


def amounts(model: th.GPT2, quick: bool, small: tuple, large: tuple, few: tuple) -> tuple:
    """One of three settings: for a small model, for one of GPT-2's size, and for `--quick`."""
    return few if quick else large if is_large(model) else small
