"""A wrong answer that students give, for the graders' tests: mistakes_1.py to mistakes_6.py list them."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

TAKE_ALL = "import right\nglobals().update({k: v for k, v in vars(right).items() if k[:2] != '__'})\n"


@dataclass(frozen=True)
class Mistake:
    """One wrong function in an otherwise right submission.

    name: of the mistake; exercise: the one it belongs to ("1.4", "1.4 the attention pattern" or the function's name);
    source: the wrong function, under any name: it may use whatever the reference file defines or imports (there the
    right functions keep their names), and is else whole in itself; says: part of the message that its author gets.
    """

    name: str
    exercise: str
    source: Callable | str
    says: str


def slip(function: Callable, right: str, wrong: str) -> str:
    """A reference function's text with one piece of it exchanged."""
    text = inspect.getsource(function)
    if text.count(right) != 1:
        raise ValueError(f"{function.__name__} holds {right!r} {text.count(right)} times")
    return text.replace(right, wrong)


def write_submission(folder: Path, reference: Path, wrong: dict[str, Mistake]) -> tuple[Path, tuple[Path, ...]]:
    """A submission right but for some functions: its file, and those beside it with right and wrong functions."""
    files = {"right.py": reference.read_text(), "submission.py": TAKE_ALL}
    for number, (function, mistake) in enumerate(wrong.items()):
        text = mistake.source if isinstance(mistake.source, str) else inspect.getsource(mistake.source)
        name = text.split("def ", 1)[1].split("(", 1)[0]
        files[f"wrong_{number}.py"] = f"{TAKE_ALL}\n\n{text}"
        files["submission.py"] += f"import wrong_{number}\n{function} = wrong_{number}.{name}\n"
    for file, content in files.items():
        (folder / file).write_text(content)
    return folder / "submission.py", tuple(folder / name for name in files if name != "submission.py")
