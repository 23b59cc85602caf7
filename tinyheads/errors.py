"""Every error tinyheads raises on purpose, and the sentence that suggests a near name.

All derive from `TinyheadsError`, itself a `ValueError`, so one `except` catches them
and code that expects a ValueError keeps working. A message says what was wrong,
where, and what would be right.
"""

import difflib
from typing import Iterable


class TinyheadsError(ValueError):
    """Base of all errors that tinyheads raises on bad input."""


class ConfigError(TinyheadsError):
    """A model's sizes are missing, impossible, or not GPT-2's architecture."""


class CheckpointError(TinyheadsError):
    """A weights file is missing, damaged, of another kind, or does not fit its config."""


class TokenizerError(TinyheadsError):
    """Tokenizer files are missing or damaged, or an id or a text cannot be translated."""


class DownloadError(TinyheadsError):
    """A download did not complete; what was received stays in a `.part` file."""


class InputError(TinyheadsError):
    """The model was given tokens or settings that it cannot run on."""


class StreamError(TinyheadsError):
    """An unknown read, write or pattern name, or an edit that does not fit."""


class HeadError(TinyheadsError):
    """A layer, head, component or composition mode that does not exist."""


class TaskError(TinyheadsError):
    """Prompts that cannot be made as asked, or logits that do not belong to them."""


class SubspaceError(TinyheadsError):
    """A subspace, its coordinates or an edit along it that does not fit the stream, or would do nothing."""


def did_you_mean(name: str, valid: Iterable[str], n: int = 3) -> str:
    """The nearest of the `valid` names to a mistaken one, as the end of an error message."""
    valid = list(valid)[:2000]  # a hostile file must not make the error message the slow part
    near = difflib.get_close_matches(name[:100], valid, n=n, cutoff=0.3) or valid[:n]
    return f"nearest valid: {', '.join(each[:100] for each in near)}" if near else "there is nothing to choose from"
