"""The steps of help in a handout: each exercise's difficulty and minutes, and two hints, one behind the other.

They are written once, in the handout, where a browser shows the hints folded:

    **2.2 Fold LayerNorm into what is read (4 points; medium; 30 min).** What to do ...

    <details><summary>Hint 1</summary>

    Which idea or formula ...

    </details>
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ENTRY = re.compile(r"^\*\*(?P<number>\d\.\d+) (?P<title>[^*]+?) \((?P<worth>(?P<points>[\d.]+) points?; "
                   r"(?P<difficulty>easy|medium|hard); (?P<minutes>\d+) min)\)\.\*\*", re.MULTILINE)
HINT = re.compile(r"<details><summary>Hint (\d)</summary>\n\n(.+?)\n\n</details>", re.S)


@dataclass(frozen=True)
class Help:
    """What a handout says of one exercise. worth: "4 points; medium; 30 min"; text: what is to be done."""

    number: str
    title: str
    worth: str
    points: float
    difficulty: str
    minutes: int
    text: str
    hints: list[str]


def exercises_of(handout: Path) -> dict[str, Help]:
    """Each exercise's help, by its number, in the handout's order."""
    page = handout.read_text(encoding="utf-8")
    entries = list(ENTRY.finditer(page))
    found = {}
    for entry, following in zip(entries, [*entries[1:], None]):
        rest = page[entry.end():following.start() if following else len(page)]
        rest = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
        hints = HINT.findall(rest)
        if [number for number, _ in hints] != ["1", "2"]:
            raise ValueError(f"{handout}: exercise {entry['number']} should have Hint 1 and Hint 2, and has "
                             f"{', '.join(number for number, _ in hints) or 'none'}")
        found[entry["number"]] = Help(
            entry["number"], entry["title"], entry["worth"], float(entry["points"]), entry["difficulty"],
            int(entry["minutes"]), rest[:rest.index("<details>")].strip(), [text.strip() for _, text in hints])
    return found


def tell(folder: Path, asked: str) -> str:
    """What --hint prints: "2.2" opens the first hint of exercise 2.2, "2.2.2" both.

    On a terminal the second opens at Enter. Raises ValueError where there is no such exercise or hint.
    """
    exercises = exercises_of(folder / "README.md")
    parts = asked.split(".")
    exercise, which = exercises.get(".".join(parts[:2])), parts[2:] or ["1"]
    if exercise is None or which not in (["1"], ["2"]):
        raise ValueError(f"there is no hint {asked!r}; there are {', '.join(exercises)}, and of each a second one: "
                         f"{next(iter(exercises), '')}.2")
    first, second = (f"Hint {k}\n{text}" for k, text in enumerate(exercise.hints, start=1))
    head = f"{exercise.number} {exercise.title} ({exercise.worth})\n\n{first}"
    if which == ["2"]:
        return f"{head}\n\n{second}"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return f"{head}\n\nThe second: --hint {exercise.number}.2"
    print(head, end="\n\n")
    try:
        input("Enter opens the second hint, Ctrl-C leaves it closed. ")
    except (KeyboardInterrupt, EOFError):
        return ""
    return f"\n{second}"
