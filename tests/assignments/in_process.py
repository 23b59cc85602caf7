"""One function called and its answers checked as the grader does it, but in this process, for tests of many."""

import copy
import signal

import torch
from grader.comparing import Wrong, tensors_in
from grader.grading import Call, Exercise, Model, Outputs, TokenizerOf
from grader.values import BadValue, pack, unpack

SECONDS = 30                     # that one call may take, where the process has `ring` as its handler of SIGALRM


class TooLong(Exception):
    """A call that does not end."""


def ring(*_) -> None:
    raise TooLong


def fresh(value: object) -> object:
    """An argument that a function may spoil: a copy, models and tokenizers loaded."""
    if isinstance(value, (Model, TokenizerOf)):
        return copy.deepcopy(value.load())
    return copy.deepcopy(value)


def answer(function, call: Call, exercise: Exercise) -> object:
    """What one call gives, as it arrives in the grader; `Wrong` where it raises or changes its arguments."""
    arguments = [fresh(each) for each in call.args]
    before = [pack(each) for each in arguments]
    signal.alarm(SECONDS)
    try:
        torch.manual_seed(0)
        value = function(*arguments)
        signal.alarm(0)
        if not exercise.may_change and any(pack(each) != old for each, old in zip(arguments, before)):
            return Wrong("an argument was changed in place")
        return tensors_in(unpack(pack(value)))
    except TooLong:
        return Wrong("took longer than it may")
    except BadValue as error:
        return Wrong(f"BadValue: {error}")
    except Exception as error:  # whatever a slip leads to
        return Wrong(f"{type(error).__name__}: {error}")
    finally:
        signal.alarm(0)


class Lazy(Outputs):
    """The answers of a mutant's function, each made when a check first asks for it."""

    def __init__(self, source: str, exercise: Exercise, calls: list[Call]):
        super().__init__([None] * len(calls))
        names = {"__name__": "submission"}
        exec(compile(source, "submission.py", "exec"), names)
        self.function, self.exercise, self.calls, self.made = names[exercise.function], exercise, calls, set()

    def arguments(self) -> list[list]:
        """Each call's arguments, as the function gets them."""
        return [[fresh(each) for each in call.args] for call in self.calls]

    def __getitem__(self, number: int) -> object:
        if isinstance(number, slice):
            return [self[k] for k in range(len(self))[number]]
        number = range(len(self))[number]
        if number not in self.made:
            self.values[number] = answer(self.function, self.calls[number], self.exercise)
            self.made.add(number)
        return super().__getitem__(number)


def messages(exercise: Exercise, calls: list[Call], outputs: Outputs, first: bool) -> dict[str, str]:
    """What the parts that are lost say. first: only that of the first of them."""
    said = {}
    for part in exercise.parts:
        try:
            part.check(calls, outputs)
        except Wrong as wrong:
            said[part.name] = str(wrong)
        except Exception as error:
            said[part.name] = f"the check could make nothing of this answer ({type(error).__name__}: {error})"
        if said and first:
            break
    return said
