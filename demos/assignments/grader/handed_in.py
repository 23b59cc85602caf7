"""What was handed in: every file and folder that is found becomes a row, with the reason where it cannot be graded.

    x.py                      a submission
    x.ipynb                   a submission: its code cells (notebook.py)
    x/                        a submission: its submission.py or .ipynb, else starter.py or .ipynb, else its only .py,
                              else its only .ipynb; the rest comes along
    anything else             a row without points, and why: an archive, a broken link, no text in UTF-8

Names that systems for courses give to what they export are understood, for the student's name and a late mark.
"""

import os
import re
import tokenize
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from .notebook import code_cells, module_of
from .session import Submission

MAIN_NAMES = ("submission.py", "submission.ipynb", "starter.py", "starter.ipynb")
LARGEST = 50 * 2**20             # bytes that may come along with a submission
NOT_PYTHON = {".zip": "an archive; unpack it into a folder", ".gz": "an archive; unpack it into a folder",
              ".tar": "an archive; unpack it into a folder",
              ".7z": "an archive; unpack it into a folder", ".rar": "an archive; unpack it into a folder"}
EXPORTED = (  # Canvas: lovelaceada_LATE_1234_5678_submission; Moodle: Ada Lovelace_123_assignsubmission_file
    re.compile(r"(?P<student>[^_]+)(?P<late>_LATE)?_\d+_\d+_.+"),
    re.compile(r"(?P<student>.+)_\d+_assignsubmission_(file|onlinetext).*"))


@dataclass(frozen=True)
class HandedIn:
    """One thing that was handed in. reason: why it cannot be graded, or ""; when: it was last changed.

    name: unlike all others of the folder, and printable; marked_late: the export's name says so; file: the name of what
    is graded.
    """

    name: str
    submission: Submission | None
    reason: str
    when: datetime | None
    marked_late: bool = False
    file: str = ""


def handed_in(path: Path, one: bool) -> list[HandedIn]:
    """Everything at a path: a file, or all that a folder holds. one: a folder is one submission.

    Hidden files and what systems leave behind (._x.py, __MACOSX, __pycache__) are passed over. Raises
    FileNotFoundError where nothing is there.
    """
    if path.is_file():
        return [looked_at(path, path.name)]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if one:
        found = [looked_at(path, path.resolve().name)]
        if found[0].submission is None:
            raise FileNotFoundError(f"{path}: {found[0].reason}")
        return found
    entries = [each for each in sorted(path.iterdir(), key=lambda each: os.fsencode(each.name))
               if not each.name.startswith((".", "__"))]
    if not entries:
        raise FileNotFoundError(f"{path}: no submission in it; one .py file, or the main one called submission.py")
    plain = [student_of(each)[0] for each in entries]
    names = [short if plain.count(short) == 1 else printable(each.name) for short, each in zip(plain, entries)]
    return [looked_at(each, name) for each, name in zip(entries, unlike(names))]


def unlike(names: list[str]) -> list[str]:
    """The names, a number behind those that came before: two students called carol stay two."""
    given: list[str] = []
    for name in names:
        tries = (name if k == 1 else f"{name} ({k})" for k in range(1, len(names) + 2))
        given.append(next(each for each in tries if each not in given))
    return given


def printable(name: str) -> str:
    """A file's name as text, whatever its bytes are."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)


def student_of(path: Path) -> tuple[str, bool]:
    """The student's name in a file's or a folder's, as far as an export's name tells, and whether it is marked late."""
    name = printable(path.name if path.is_dir() or not path.suffix else path.stem)
    for pattern in EXPORTED:
        if match := pattern.fullmatch(name):
            return match["student"], bool(match.groupdict().get("late"))
    return name, False


def looked_at(path: Path, name: str) -> HandedIn:
    """What is at a path, as far as it can be told without running it. Never raises for what a student did."""
    late = student_of(path)[1]
    try:
        main, beside = in_folder(path) if path.is_dir() else (path, ())
        reason = why_not(main)
        when = datetime.fromtimestamp(main.stat().st_mtime)
    except ValueError as error:
        return HandedIn(name, None, str(error), None, late)
    except OSError as error:
        broken = "a link to what is not there" if path.is_symlink() and not path.exists() else error.strerror
        return HandedIn(name, None, f"cannot be read: {broken}", None, late)
    return HandedIn(name, None if reason else Submission(name, main, beside), reason, when, late,
                    "" if reason else printable(main.name))


def as_python(entry: HandedIn, functions: list[str], folder: Path) -> HandedIn:
    """An entry with a Python file in the place of a notebook; others as they are.

    functions: those that are graded; folder: where the file goes, which no other entry uses.
    """
    if entry.submission is None or entry.submission.main.suffix.lower() != ".ipynb":
        return entry
    folder.mkdir(parents=True)
    main = folder / f"{entry.submission.main.name}.py"                # the name that errors quote: ada.ipynb.py
    main.write_text(module_of(code_cells(entry.submission.main.read_bytes()), functions), encoding="utf-8")
    return replace(entry, submission=replace(entry.submission, main=main))


def in_folder(folder: Path) -> tuple[Path, tuple[Path, ...]]:
    """A folder's main file, and what comes along with it. Raises ValueError that says why there is none."""
    here = sorted(each for each in folder.iterdir() if not each.name.startswith((".", "__")))
    files, books = ([each for each in here if each.suffix.lower() == suffix and each.is_file()]
                    for suffix in (".py", ".ipynb"))
    named = [each for name in MAIN_NAMES for each in files + books if each.name.lower() == name]
    files = files or books
    if not named and len(files) != 1:
        others = ", ".join(printable(each.name) for each in here[:5]) or "nothing"
        kind = "notebooks" if books and files == books else ".py files"
        raise ValueError(f"no file to grade: it has {len(files)} {kind} and none is called submission.py or "
                         f"submission.ipynb ({others})")
    main = (named or files)[0]
    beside = tuple(each for each in here if each != main and not each.is_symlink())
    size = sum(each.stat().st_size for top in beside for each in [top, *top.rglob("*")] if each.is_file())
    if size > LARGEST:
        raise ValueError(f"too large: {size / 2**20:.0f} MB lie beside {main.name}, and {LARGEST >> 20} may")
    return main, beside


def why_not(file: Path) -> str:
    """Why a file cannot be graded, or "". Raises OSError where it cannot be read."""
    if file.suffix.lower() not in (".py", ".ipynb"):
        return f"not a .py file but {NOT_PYTHON.get(file.suffix.lower(), 'something else')}"
    data = file.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "the text is in UTF-16; save it as UTF-8"
    if file.suffix.lower() == ".ipynb":
        try:
            code_cells(data)
        except ValueError as error:
            return str(error)
        return ""
    try:
        with tokenize.open(file) as text:                            # as Python reads it: UTF-8, or what line 1 says
            text.read()
    except (SyntaxError, UnicodeDecodeError, LookupError):
        return "the text is not in UTF-8, nor in what its first line says; save it as UTF-8"
    return ""
