"""The chapters as notebooks: nothing of the script is lost, the form is nbformat's, and one runs without Jupyter."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tinyheads import plots

DEMOS = Path(__file__).parents[1] / "demos"
STARTERS = sorted(DEMOS.glob("assignments/[1-9]_*/starter.py"))
CHAPTERS = sorted(DEMOS.glob("0[0-9]_*.py"))


def run_cells(book):
    """What Jupyter does: the cells in turn, in one namespace; %%writefile writes the rest of its cell to a file."""
    names = {"__name__": "__main__"}
    for cell in json.loads(book.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if source.startswith("%%writefile "):
            first, rest = source.split("\n", 1)
            Path(first.split()[1]).write_text(rest, encoding="utf-8")
        elif cell["cell_type"] == "code":
            exec(compile(source, cell["id"], "exec"), names)


@pytest.fixture(scope="module")
def notebooks():
    """demos/notebooks.py as a module."""
    spec = importlib.util.spec_from_file_location("notebooks", DEMOS / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_script(cells):
    """Cells in percent format again, without the blank lines that part them."""
    lines = []
    for cell in cells:
        text = "".join(cell["source"]).split("\n")
        if cell["cell_type"] == "markdown":
            lines += ["# %% [markdown]", *(f"# {line}".rstrip() for line in text)]
        else:
            lines += ["# %%", *text]
    return [line for line in lines if line]


def test_a_notebook_has_the_whole_chapter_and_nothing_else(notebooks):
    assert len(CHAPTERS) == 8
    for chapter in CHAPTERS:
        again = as_script(notebooks.notebook(chapter)["cells"][4:])
        assert again == [line for line in chapter.read_text(encoding="utf-8").splitlines() if line], chapter


def test_a_starters_notebook_has_the_whole_starter_and_nothing_else(notebooks, tmp_path):
    paths = notebooks.write_notebooks(tmp_path, assignments=True)
    assert [path.parent.name for path in paths] == [starter.parent.name for starter in STARTERS] and len(paths) == 6
    for path, starter in zip(paths, STARTERS):
        again = as_script(json.loads(path.read_text(encoding="utf-8"))["cells"][1:])
        assert again == [line for line in starter.read_text(encoding="utf-8").splitlines() if line], starter


@pytest.mark.parametrize("starter", STARTERS, ids=lambda path: path.parent.name)
def test_a_starters_notebook_runs_to_what_is_not_yet_written(notebooks, starter):
    names = {"__name__": "__main__"}
    with torch.set_grad_enabled(torch.is_grad_enabled()):        # set back behind the starter, which turns them off
        for cell in notebooks.starter_notebook(starter)["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and not source.startswith("if __name__"):
                exec(compile(source, cell["id"], "exec"), names)
    functions = re.findall(r"^def (\w+)\(.*?raise NotImplementedError", starter.read_text(), re.M | re.S)
    assert callable(names["check"]) and len(functions) >= 6 and set(functions) <= set(names)


@pytest.mark.parametrize("source, fetches", [
    ("git+https://example.org/copy", ["git", "clone", "-q", "--depth", "1", "https://example.org/copy"]),
    ("https://example.org/students.zip", ["https://example.org/students.zip", "course.zip"])])
def test_a_starters_first_cell_fetches_the_repository_where_tinyheads_is_missing(notebooks, monkeypatch, tmp_path,
                                                                                source, fetches):
    commands, folder = [], tmp_path / "tinyheads-course"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    monkeypatch.setattr("urllib.request.urlretrieve", lambda *asked: commands.append(list(asked)) or ("course.zip", 0))
    monkeypatch.setattr("shutil.unpack_archive", lambda archive, where: commands.append([archive, where]))
    cell = "".join(notebooks.starter_notebook(STARTERS[0], source)["cells"][0]["source"])
    exec(cell, {})
    assert commands == []                                                     # it is here
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(cell, {})
    assert commands[0] == fetches + [str(folder)] * (fetches[0] == "git")
    assert commands[1:-1] == [["course.zip", "."]] * source.endswith(".zip")
    assert commands[-1] == [sys.executable, "-m", "pip", "install", "-q", "torch==2.13.0", "-e", str(folder)]
    assert sys.path[-1] == str(folder)
    folder.mkdir()
    exec(cell, {})
    assert len(commands) == (4 if source.endswith(".zip") else 3)             # not fetched again


def test_the_files_are_nbformat_4_5_and_always_the_same(notebooks, tmp_path):
    def written():
        folder = tmp_path / "new" / "folder"
        return notebooks.write_notebooks(folder) + notebooks.write_notebooks(folder, assignments=True)

    paths = written()
    assert [path.stem for path in paths] == [chapter.stem for chapter in CHAPTERS] + ["starter"] * 6
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in written()] == before
    for book in map(json.loads, before):
        assert set(book) == {"cells", "metadata", "nbformat", "nbformat_minor"}
        assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
        assert book["metadata"]["kernelspec"]["name"] == "python3"
        ids = [cell["id"] for cell in book["cells"]]
        assert len(set(ids)) == len(ids) and all(re.fullmatch("[a-zA-Z0-9-_]{1,64}", name) for name in ids)
        for cell in book["cells"]:
            more = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
            assert set(cell) == {"cell_type", "id", "metadata", "source"} | more
            assert cell["cell_type"] in ("code", "markdown") and cell["metadata"] == {}
            assert all(line.endswith("\n") for line in cell["source"][:-1]) and not cell["source"][-1].endswith("\n")
            assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
        first = next(cell for cell in book["cells"] if cell["cell_type"] == "markdown")
        assert book["cells"].index(first) in (1, 4) and first["source"][0].startswith("# ")


def test_no_chapter_needs_what_a_notebook_lacks():
    """A notebook has no __file__, and beside itself what all chapters share alone."""
    beside = {path.stem for path in DEMOS.glob("*.py")} - {"amounts", "common", "materials"}
    for chapter in CHAPTERS:
        nodes = list(ast.walk(ast.parse(chapter.read_text(encoding="utf-8"))))
        assert "__file__" not in [node.id for node in nodes if isinstance(node, ast.Name)], chapter
        imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        assert not imported & beside, chapter


def test_text_that_is_no_comment_is_refused(notebooks, tmp_path):
    (tmp_path / "chapter.py").write_text("# %% [markdown]\n# Text.\nprint(1)\n")
    with pytest.raises(ValueError, match=r"chapter\.py, line 3: .* not 'print\(1\)'"):
        notebooks.cells_of(tmp_path / "chapter.py")


@pytest.mark.parametrize("missing", [True, False])
def test_the_first_cell_installs_tinyheads_only_where_it_is_missing(notebooks, monkeypatch, missing):
    commands = []
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])  # which the cell replaces
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if missing else name)
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    cell = notebooks.notebook(CHAPTERS[0], source="git+https://example.org/copy")["cells"][0]
    exec("".join(cell["source"]), {})
    assert commands == missing * [[sys.executable, "-m", "pip", "install", "-q", "git+https://example.org/copy"]]
    assert sys.argv == [CHAPTERS[0].name, "--out", "out"]


def test_a_notebook_runs_from_top_to_bottom_far_from_the_repository(notebooks, tmp_path, monkeypatch, capsys):
    """The first chapter on a model, which takes the least time; in this process, where torch is there already."""
    book = next(path for path in notebooks.write_notebooks(tmp_path / "books") if path.stem.startswith("01"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    for name in [name for name in os.environ if name.startswith("TINYHEADS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    shared = ("amounts", "common", "materials")
    for name in shared:
        monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        run_cells(book)
        assert {Path(sys.modules[name].__file__).parent for name in shared} == {work}   # the copies the notebook wrote
    finally:
        for name in shared:
            sys.modules.pop(name, None)
    assert "sum of the writes" in capsys.readouterr().out
    left = sorted(file.name for file in (work / "out").iterdir())
    assert left == ["01_logit_attribution.png", "01_who_writes.png", "results_1.json"]


@pytest.mark.parametrize("shell, shown", [(SimpleNamespace(kernel="a kernel"), 1), (SimpleNamespace(), 0), (None, 0)],
                         ids=["notebook", "IPython in a terminal", "no IPython running"])
def test_a_saved_figure_also_appears_in_a_notebook(monkeypatch, tmp_path, shell, shown):
    pictures, (figure, _) = [], plots.new_figure(2, 2)
    display = SimpleNamespace(display=pictures.append, Image=lambda filename: Path(filename).read_bytes())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    path = plots.save_figure(figure, tmp_path / "figure.png")
    assert pictures == shown * [path.read_bytes()]
