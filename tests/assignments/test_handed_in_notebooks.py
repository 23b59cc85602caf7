"""Notebooks as submissions: their code cells are graded, Jupyter's own lines are not; check() grades like grade.py."""

import ast
import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import grade
import pytest
from grader.checkout import ASSIGNMENTS
from grader.handed_in import handed_in
from grader.marks import load_assignment
from grader.notebook import code_cells, module_of

from tinyheads.course import check

HERE = Path(__file__).parent
NORM = """def layer_norm(x, gain, bias):
    return torch.nn.functional.layer_norm(x, gain.shape, gain, bias, EPS)"""
WRONG = "def layer_norm(x, gain, bias):\n    return x"


def book(*cells, **more):
    """A notebook's bytes: code cells with outputs, a cell of text in front."""
    code = [{"cell_type": "code", "metadata": {}, "execution_count": 1, "source": cell.splitlines(keepends=True),
             "outputs": [{"output_type": "stream", "name": "stdout", "text": ["def layer_norm(): pass\n"]}]}
            for cell in cells]
    text = {"cell_type": "markdown", "metadata": {}, "source": ["def mlp_write(): is text here"]}
    return json.dumps({"cells": [text, *code], "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more}).encode()


def names_of(cells, *functions):
    """The module that is graded, run; and its text."""
    text, names = module_of(list(cells), list(functions)), {"__name__": "submission"}
    exec(compile(text, "module", "exec"), names)
    return names, text


def test_functions_are_taken_as_they_stand_last_with_what_they_need():
    names, text = names_of([
        "import math, os\nTABLE = {}; EPS = 0.5", "def f(x):\n    return g(x) + TABLE['a'] + EPS",
        "def g(x):\n    return no_such_thing(x)", "x = f(3)\nraise SystemExit(f(x))",                # experiments
        "TABLE['a'] = 10\nfor k in range(3):\n    TABLE.update(b=k)", "from math import floor as g2\ndef g(x):\n"
        "    return g2(x) * math.sqrt(4)", "EPS = 0.25\nEPS += 0.25", "if __name__ == '__main__':\n    f(1)"], "f")
    assert names["f"](3.9) == 6 + 10 + 0.5 and names["TABLE"] == {"a": 10, "b": 2}
    assert "x = f(3)" not in text and "raise" not in text and "import math" in text and "no_such" not in text


def test_what_is_used_while_the_cells_run_is_what_it_was_then():
    """A table made by an early version of a function, that is defined anew below."""
    names, _ = names_of(["SIZE = 2", "def table(n):\n    return [n] * SIZE", "T = table(7)", "SIZE = 5",
                         "def table(n):\n    return n", "class Box:\n    size = SIZE",
                         "f = lambda: (T, table(1), Box.size)"], "f")
    assert names["f"]() == ([7, 7], 1, 5)


def test_settings_of_torch_stay_and_its_experiments_do_not():
    _, text = names_of(["import torch", "torch.manual_seed(3)", "y = 1", "torch.save(y, 'y.pt')",
                        "for i in range(2):\n    torch.save(i, 'i.pt')", "def f():\n    return 1"], "f")
    assert "manual_seed" in text and "save" not in text


def test_ipythons_own_lines_are_left_out_and_pythons_stay():
    names, _ = names_of(["%matplotlib inline\n!pip install nothing\nfiles = !ls\nimport math?\nmath?\nimport math",
                         "%%bash\ndef f():\n    not Python", "%%time\ndef f(x):\n    if x:\n        %timeit x\n"
                         "    return (x\n        % 4), '''\n%not magic\n!nor this'''", "?f"], "f")
    assert names["f"](7) == (3, "\n%not magic\n!nor this")


def test_a_cell_that_is_no_python_costs_its_own_functions_and_says_where():
    names, _ = names_of(["def f():\n    return 1", "def g(:\n    return 2"], "f", "g")
    assert names["f"]() == 1
    with pytest.raises(SyntaxError, match=r"in cell 2: .* \(line 1 of the cell\)"):
        names["g"]()


@pytest.mark.parametrize("data, says", [
    (b"{", "no JSON"), (b"\xff\xfe\x00", "UTF-16"), (b"\xe9", "no JSON"), (b"[" * 100_000, "no JSON"),
    (b"[]", "no list of cells"),
    (b'{"worksheets": [{"cells": []}], "nbformat": 3}', "nbformat 3"), (book(" "), "without code"),
    (b'{"cells": [3, {"cell_type": "code"}]}', "without code")])
def test_what_is_no_notebook_is_a_row_with_its_reason(tmp_path, data, says):
    (tmp_path / "ada.ipynb").write_bytes(data)
    entry, = handed_in(tmp_path, one=False)
    assert entry.name == "ada" and entry.submission is None and says in entry.reason and "\n" not in entry.reason


@pytest.mark.parametrize("number", range(2, 7))
def test_a_worked_solution_in_cells_keeps_all_that_it_needs(number):
    """Cell by cell as a notebook has it, and as one cell with experiments behind: the same functions, nothing else."""
    source = (HERE / f"reference_{number}.py").read_text()
    tree = ast.parse(source)
    functions = [exercise.function for exercise in load_assignment(number).exercises]
    cells = [ast.unparse(each) for each in tree.body]
    whole = {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}
    for these in (cells, [source, "x = torch.randn(3)\nprint(x)"]):
        names, text = names_of(these, *functions)
        assert whole <= set(names) and "print(x)" not in text


def test_a_folder_with_notebooks_becomes_one_csv(tmp_path):
    folder = tmp_path / "class"
    (folder / "bob").mkdir(parents=True)
    setup = "%matplotlib inline\nimport torch\nimport tinyheads as th\nEPS = 1e-5"
    right = book(setup, WRONG, "layer_norm(3, 4)", NORM, "model = th.load('tiny')\nmodel(layer_norm)", "check('1.1')")
    (folder / "ada.ipynb").write_bytes(right)
    (folder / "bob" / "submission.ipynb").write_bytes(book("from mine import layer_norm"))
    (folder / "bob" / "mine.py").write_text("import torch\nEPS = 1e-5\n" + NORM)
    (folder / "eve.ipynb").write_bytes(book(setup, NORM, WRONG))
    (folder / "joe.ipynb").write_bytes(right[:-1])
    arguments = ["1", str(folder), "--csv", str(tmp_path / "marks.csv"), "--only", "1.1", "--seed", "3"]
    assert grade.main([*arguments, "--similar", str(tmp_path / "near.txt")]) == 0
    with open(tmp_path / "marks.csv", newline="", encoding="utf-8") as file:
        rows = {row["submission"]: row for row in csv.DictReader(file)}
    assert {name: row["total"] for name, row in rows.items()} == {"ada": "2", "bob": "2", "eve": "0", "joe": "0"}
    assert rows["ada"]["file"] == "ada.ipynb" and "no JSON" in rows["joe"]["reason"] and not rows["eve"]["reason"]
    assert "3 submissions compared" in (tmp_path / "near.txt").read_text()


def test_one_exercise_gets_the_inputs_it_has_among_all(tmp_path, capsys):
    (tmp_path / "ada.py").write_text("def mlp_write(*arguments):\n    raise ValueError(float(arguments[0].sum()))\n")
    for more in ([], ["--only", "1.2"]):
        assert grade.main(["1", str(tmp_path / "ada.py"), "--seed", "5", *more]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "ValueError" in line]
    assert len(told) > 1 and told[:len(told) // 2] == told[len(told) // 2:]
    assert grade.main(["1", str(tmp_path / "ada.py"), "--only", "1.10"]) == 2
    assert "has no exercise '1.10'; it has 1.1, 1.2" in capsys.readouterr().err


# --- check() ------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """IPython, as far as check() looks at it, in a folder of its own; run(cell) runs a cell there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("submission", "mine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    shell = SimpleNamespace(user_ns={"__name__": "__main__"},
                            history_manager=SimpleNamespace(input_hist_raw=[""]))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))

    def run(cell):
        shell.history_manager.input_hist_raw.append(cell)
        exec(cell, shell.user_ns)

    shell.run = run
    return shell


def test_check_grades_what_the_cells_define(shell, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("EPS = 1e-5\n")
    (tmp_path / "submission.py").write_text("an old file that is no Python")
    for cell in ("from tinyheads.course import check\nimport torch", WRONG, "y = torch.ones(3)", NORM,
                 "from mine import EPS"):
        shell.run(cell)
    shell.run("check('1.1')")
    said = capsys.readouterr().out
    assert "1.1 LayerNorm      2 of 2" in said and "1.2" not in said and "\n\n\n" not in said
    assert not [each for each in tmp_path.iterdir() if each.name not in ("mine.py", "submission.py", "__pycache__")]


def test_check_grades_functions_of_a_file_that_was_run_or_imported(shell, tmp_path, capsys):
    (tmp_path / "submission.py").write_text("import torch\nfrom tinyheads.course import check\nEPS = 1e-5\n" + NORM
                                            + "\ncheck('1.1')\n")
    shell.run("from submission import *")
    assert capsys.readouterr().out == ""                                      # an import alone grades nothing
    shell.run("check('1.1')")
    assert "2 of 2" in capsys.readouterr().out


def test_check_of_what_is_no_exercise_is_one_line(shell, capsys):
    shell.run("from tinyheads.course import check\nimport torch")
    for exercise, says in [("1.1.1", "no exercise '1.1.1'"), ("nine", "'nine'")]:
        shell.run(f"check({exercise!r})")
        said = capsys.readouterr().out
        assert says in said and said.count("\n") == 1


def test_check_does_nothing_elsewhere(monkeypatch, capsys):
    check("1.1")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    check("1.1")
    assert capsys.readouterr().out == ""


def test_check_says_where_the_grader_is_missing(shell, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("tinyheads.course.GRADER", tmp_path / "nowhere" / "grade.py")
    shell.run("from tinyheads.course import check\ncheck('1.1')")
    assert "pip install -e ." in capsys.readouterr().out


@pytest.mark.parametrize("number", range(1, 7))
def test_each_exercise_of_a_starter_has_its_cell_and_a_check(number):
    text = next(ASSIGNMENTS.glob(f"{number}_*/starter.py")).read_text()
    cells = text.split("\n# %%")
    for exercise in load_assignment(number).exercises:
        name = exercise.name.split()[0]
        place = next(k for k, cell in enumerate(cells) if cell.startswith(f"\ndef {exercise.function}(")
                     or f"\n\ndef {exercise.function}(" in cell)
        assert f"# ## {name} " in cells[place - 1] and cells[place + 1].strip() == f'check("{name}")'
