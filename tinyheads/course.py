"""check("2.3") in a notebook: one exercise of the course's assignments, graded at once from the cells that were run.

What a notebook's cells define lies in no file. So the cells that were run so far, in their order, are handed to
demos/assignments/grade.py as a notebook, and what it prints appears beneath the cell. The assignments' page,
demos/assignments/README.md, tells more. Nothing here is needed for anything else in tinyheads.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FunctionType

GRADER = Path(__file__).resolve().parents[1] / "demos" / "assignments" / "grade.py"
WRITTEN_HERE = ("__main__", "submission", "starter")  # modules whose files count as the notebook's own cells


def check(exercise: str) -> None:
    """Grade one exercise, such as "2.3", as the cells run so far define it, and print its marks.

    It does so where a cell calls it: in Jupyter, Colab, VS Code, Spyder or IPython. Anywhere else it does nothing, so
    that the same file can be imported, run as a script, and graded.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if not shell or sys._getframe(1).f_globals is not shell.user_ns:
        return
    if not GRADER.exists():
        print(f"check: there is no {GRADER}. Install tinyheads from the repository's folder, with pip install -e .")
        return
    with tempfile.TemporaryDirectory(prefix="tinyheads-check-") as folder:
        hand_in(cells_run(shell), Path(folder) / "notebook")
        command = [sys.executable, str(GRADER), str(exercise).partition(".")[0], folder, "--only", str(exercise)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    print((done.stdout + done.stderr).strip())


def cells_run(shell) -> list[str]:
    """The text of every cell that IPython has run, in order.

    First come the files that it ran in place of a cell's text, as Spyder does, or that a submission's functions were
    imported from: what was run later counts.
    """
    functions = [each for each in shell.user_ns.values()
                 if isinstance(each, FunctionType) and each.__module__ in WRITTEN_HERE]
    files = dict.fromkeys(each.__code__.co_filename for each in functions)
    return ([Path(file).read_text(encoding="utf-8") for file in files if Path(file).is_file()]
            + shell.history_manager.input_hist_raw)


def hand_in(cells: list[str], folder: Path) -> None:
    """Write a submission's folder: the cells as a notebook, and the modules that lie where the notebook runs."""
    folder.mkdir()
    for module in Path.cwd().glob("*.py"):
        if module.stem not in WRITTEN_HERE:
            shutil.copyfile(module, folder / module.name)
    book = {"nbformat": 4, "nbformat_minor": 5, "metadata": {},
            "cells": [{"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": text}
                      for text in cells]}
    (folder / "submission.ipynb").write_text(json.dumps(book), encoding="utf-8")
