"""What a submission's calls handed back: files of the process in which it ran, read as if an enemy had written them.

A file is read only if it is a plain one of a bounded size, and nothing in it is ever unpickled (values.py). Where a
call gave no answer, `Wrong` says to the student what happened in its place.
"""

import os
import signal
import stat
from pathlib import Path

from .comparing import Wrong
from .grading import Exercise
from .values import LARGEST_BYTES, LARGEST_TEXT, BadValue, unpack


def outcome(folder: Path, number: int, answer: dict | None, exercise: Exercise, seconds: float) -> object:
    """What one call returned, or `Wrong` with what happened in its place."""
    if answer is None:
        return Wrong(f"{exercise.function} ended the grader's runner, or stopped it, and with it this exercise")
    try:
        return returned(folder, number, exercise)
    except FileNotFoundError:
        pass
    except (OSError, BadValue) as error:
        return Wrong(f"what came back cannot be read: {error}"[:300])
    name = exercise.function
    if answer["timed_out"] or answer["exit"] == -signal.SIGXCPU:
        return Wrong(f"{name} was stopped after {seconds:g} s: a loop that does not end, or far more work than needed?")
    if answer["exit"] < 0:
        return Wrong(f"{name} crashed: the process ended by {signal.Signals(-answer['exit']).name}")
    return Wrong(f"{name} ended the process (status {answer['exit']}) before it returned: does it call os._exit?")


def returned(folder: Path, number: int, exercise: Exercise) -> object:
    """A call's value, or `Wrong` with its error. Raises FileNotFoundError where there is neither."""
    try:
        data = read_bounded(folder / f"out_{number}")
    except FileNotFoundError:
        data = read_bounded(folder / "out_import")
    answer = unpack(data)
    if not isinstance(answer, dict) or "value" not in answer and not isinstance(answer.get("text"), str):
        raise BadValue("it is no answer")
    if "value" not in answer:
        text = readable(answer["text"])
        if answer.get("error") == "not implemented":
            return Wrong(f"not implemented yet: {exercise.function} raises NotImplementedError")
        return Wrong(f"{exercise.function} used {text}" if answer.get("error") == "memory" else text)
    if answer.get("changed") and not exercise.may_change:
        which = ", ".join(str(each + 1) for each in answer["changed"] if type(each) is int)
        return Wrong(f"{exercise.function} changed its argument number {which} in place (x += ..., x[...] = ..., "
                     f"x.mul_(...)): the caller's tensors must stay as they were; make a new one, or clone() first")
    return answer["value"]


def read_bounded(path: Path) -> bytes:
    """A plain file's bytes, if there are not too many."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST_BYTES + LARGEST_TEXT:
            raise BadValue("it is no plain file, or too large")
        return file.read(LARGEST_BYTES + LARGEST_TEXT)


def readable(text: object) -> str:
    """Text from a submission without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in str(text))
