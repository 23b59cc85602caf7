"""Writes the chapters, or the assignments' starters, as notebooks for Jupyter or Colab, with the standard library.

    python demos/notebooks.py FOLDER [--source WHAT_PIP_INSTALLS]                   00_planted.ipynb, ...
    python demos/notebooks.py FOLDER --assignments [--source WHERE_IT_IS]           1_residual_stream/starter.ipynb, ...

A chapter is a script in percent format: "# %% [markdown]" opens a cell of text, "# %%" a cell of code. Its notebook
(https://nbformat.readthedocs.io, version 4.5) has a few cells more, in front: one installs tinyheads where it is
missing, and sets the chapter's options; the others write what the chapters share (SHARED) beside the notebook. It can
so be uploaded to Colab alone. A starter's has one cell more: where tinyheads is missing it fetches the whole
repository, for the grader is in it. The same script gives the same bytes.
"""

import json
import sys
from pathlib import Path

from tinyheads.files.array_file import write_atomically
from tinyheads.files.command import Parser, folder_to_write, one_line_errors

SOURCE = "git+https://github.com/ACCOUNT/tinyheads"  # where Colab finds tinyheads: write your copy's account here
DEMOS = Path(__file__).resolve().parent
SHARED = ("amounts.py", "common.py", "materials.py")
INSTALL = """\
# Written by demos/notebooks.py from demos/{chapter}: change it there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("tinyheads") is None:  # in Colab, which has PyTorch
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", {source!r}], check=True)
    importlib.invalidate_caches()
sys.argv = [{chapter!r}, "--out", "out"]  # as on the command line; add "--model", "124M" for OpenAI's weights
"""
COURSE = """\
# Written by demos/notebooks.py. In Colab, run this cell first: it fetches tinyheads with its grader.
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("tinyheads") is None:
    folder = Path({folder!r}).resolve()
    if not folder.exists():
        {fetch}
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "torch==2.13.0", "-e", str(folder)], check=True)
    sys.path.append(str(folder))  # for this kernel, which started before
    importlib.invalidate_caches()
"""
COURSE_FOLDER = "tinyheads-course"  # where Colab puts the repository; the students' archive has this folder in it
CLONE = 'subprocess.run(["git", "clone", "-q", "--depth", "1", {url!r}, str(folder)], check=True)'
UNPACK = """\
import shutil
        import urllib.request
        shutil.unpack_archive(urllib.request.urlretrieve({url!r}, "course.zip")[0], ".")"""


def cells_of(script: Path) -> list[tuple[str, str]]:
    """A percent script's cells: ("markdown", its text without the comment marks) or ("code", its lines).

    Raises ValueError for a line of text that is no comment: it would be run by the script, and not by the notebook.
    """
    cells = [("code", [])]
    for number, line in enumerate(script.read_text(encoding="utf-8").splitlines(), start=1):
        kind = cells[-1][0]
        if line.startswith("# %%"):
            cells.append(("markdown" if "[markdown]" in line else "code", []))
        elif kind == "markdown" and line.strip() and not (line == "#" or line.startswith("# ")):
            raise ValueError(f"{script}, line {number}: in a cell of text each line begins with '# ', not {line!r}")
        else:
            cells[-1][1].append(line[2:] if kind == "markdown" else line)
    joined = [(kind, "\n".join(lines).strip("\n")) for kind, lines in cells]
    return [(kind, text) for kind, text in joined if text]


def book(cells: list[tuple[str, str]]) -> dict:
    """Cells as a notebook: nbformat's dictionary, ready for json."""
    written = []
    for i, (kind, text) in enumerate(cells):
        cell = {"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": text.splitlines(keepends=True)}
        written.append(cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": written, "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
            "nbformat": 4, "nbformat_minor": 5}


def notebook(chapter: Path, source: str = SOURCE) -> dict:
    """The chapter as a notebook."""
    shared = [(name, (DEMOS / name).read_text(encoding="utf-8").rstrip("\n")) for name in SHARED]
    return book([("code", INSTALL.format(chapter=chapter.name, source=source).rstrip()),
                 *(("code", f"%%writefile {name}\n{text}") for name, text in shared), *cells_of(chapter)])


def starter_notebook(starter: Path, source: str = SOURCE) -> dict:
    """An assignment's starter as a notebook. source: a repository, git+https://..., or a students' archive, ....zip."""
    fetch = (UNPACK if source.endswith(".zip") else CLONE).format(url=source.removeprefix("git+"))
    return book([("code", COURSE.format(folder=COURSE_FOLDER, fetch=fetch).rstrip()), *cells_of(starter)])


def as_bytes(notebook: dict) -> bytes:
    """A notebook's file."""
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode("utf-8")


def write_notebooks(folder: Path, source: str = SOURCE, assignments: bool = False) -> list[Path]:
    """Write every chapter's notebook, or every starter's, into the folder, which is made if need be; their paths."""
    if assignments:
        books = {folder / starter.parent.name / "starter.ipynb": starter_notebook(starter, source)
                 for starter in sorted(DEMOS.glob("assignments/[1-9]_*/starter.py"))}
    else:
        books = {folder / f"{chapter.stem}.ipynb": notebook(chapter, source)
                 for chapter in sorted(DEMOS.glob("0[0-9]_*.py"))}
    for path, each in books.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as file:
            file.write(as_bytes(each))
    return list(books)


if __name__ == "__main__":
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=folder_to_write, help="where the notebooks go")
    parser.add_argument("--source", default=SOURCE, help="what is fetched where tinyheads is missing (default: "
                        "%(default)s, where ACCOUNT stands for whoever keeps the copy)")
    parser.add_argument("--assignments", action="store_true", help="the assignments' starters in the chapters' place")
    arguments = parser.parse_args()
    if arguments.folder.resolve() == DEMOS and not arguments.assignments:
        parser.error("a notebook writes copies of what chapters share beside itself: give another folder than demos/")
    with one_line_errors(parser.prog):
        for path in write_notebooks(arguments.folder, arguments.source, arguments.assignments):
            print(path)
    if "ACCOUNT" in arguments.source:
        print("For Colab give --source git+https://... : the address of a copy of tinyheads that is public.")
