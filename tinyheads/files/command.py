"""How every command ends when it cannot go on: with one line that says why, and no traceback.

    parser = Parser(description="...")
    parser.add_argument("--steps", type=number(int, 1, 1000))
    with one_line_errors(parser.prog):
        arguments = parser.parse_args()
        ...

Its status is then 2 after a wrong option, 1 after bad input or where a file cannot be read or written, and 130 after
Ctrl-C. Where the reader of its output has gone (`| head -1`) it ends without a word; the status is 141, as a shell has
it for SIGPIPE. A mistake in the program itself still shows its traceback.
"""

import argparse
import math
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator

from tinyheads.errors import TinyheadsError


class Parser(argparse.ArgumentParser):
    """argparse's parser, but an option is never guessed from its first letters, and an error is one line."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> None:
        """End with status 2 and one line: what was wrong, and the options that there are."""
        self.exit(2, f"{self.prog}: error: {message} ({' '.join(self.format_usage().split())})\n")


def number(kind: type, least: float, most: float = math.inf) -> Callable[[str], float]:
    """For an option's `type=`: a whole number (kind int) or a number (float) from least to most, which is finite."""
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or value == math.inf:
            what = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a {what} from {least}" + (f" to {most}" if most < math.inf else ""))
        return value
    return read


def numbers(kind: type, least: float, most: float = math.inf) -> Callable[[str], list[float]]:
    """For an option's `type=`: such numbers with commas between them, each once, "3,8" is [3, 8]."""
    read = number(kind, least, most)
    return lambda text: list(dict.fromkeys(read(part) for part in text.split(",")))


def folder_to_write(text: str) -> Path:
    """For an option's `type=`: a folder that can be written to, or made; it is not made yet. "~" is the home folder."""
    try:
        folder = Path(text).expanduser()
        nearest = next(place for place in [folder.absolute(), *folder.absolute().parents] if place.exists())
        writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    except (OSError, RuntimeError) as error:  # a name too long, a folder that cannot be looked into, "~nobody"
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {error}") from error
    if not text or not writable:
        why = f"{nearest} is not a folder with write access" if text else "it has no name"
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {why}")
    return folder


@contextmanager
def one_line_errors(program: str, interrupted: str = "interrupted") -> Iterator[None]:
    """What is done inside ends the process as the top of this file says, or, where all goes well, goes on behind it.

    program: whose name the line begins with; interrupted: what it says after Ctrl-C.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # a reader that has gone is noticed here, and not as the interpreter ends
    except BrokenPipeError:
        status, line = 141, None
    except KeyboardInterrupt:
        status, line = 130, interrupted
    except (TinyheadsError, OSError) as error:
        status, line = 1, f"error: {' '.join(str(error).splitlines())}"
    else:
        return
    if line:
        print(f"{program}: {line}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # what cannot be written any more is dropped: the interpreter would try again, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(status)
