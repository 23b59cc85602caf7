"""The autograder's smaller parts: how answers travel, what is said of wrong ones, and the command itself."""

import csv
import json
import subprocess
import sys

import grade
import numpy as np
import pytest
import torch
from grader import values
from grader.checkout import ASSIGNMENTS
from grader.comparing import Wrong, close, same_shape
from grader.grading import Exercise, Part, functions

from tinyheads import basis

# --- values and comparing -----------------------------------------------------------------------------


def test_values_travel():
    tensors = (torch.arange(6).reshape(2, 3), torch.zeros(0, 4), torch.tensor(2.5))
    value = {"a": [1, -2.5, "text", None, True], 3: tensors,
             "b": torch.tensor([True, False]), "half": torch.ones(3, dtype=torch.bfloat16), "array": np.arange(3.0),
             "nan": float("inf")}
    back = values.unpack(values.pack(value))
    assert back["a"] == value["a"] and list(back) == list(value) and back["nan"] == float("inf")
    for one, other in zip(back[3] + (back["b"], back["half"]), value[3] + (value["b"], value["half"])):
        assert one.dtype == other.dtype and one.shape == other.shape and one.equal(other)
    assert isinstance(back["array"], np.ndarray) and back["array"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("data", [
    b"", b"junk", b"[]", b"3", b'{"is": 1}', b'["plain", [1]]', b'["plain", {}]', b'["tensor", "float32", [4], 0]\n123',
        b'["tensor", "object", [1], 0]\n12345678',
    b'["tensor", "float32", [-1], 0]\n1234', b'["tensor", "float32", [1.5], 0]\n1234',
        b'["tensor", "float32", [1099511627775, 9999999], 0]\n1234',
    b'["tensor", "float32", [1], -4]\n12345678', b'["model", "/etc"]', b'["tokenizer", "/etc"]',
        b'["record", "Session", []]',
        b'["dict", [[["list", []], ["plain", 1]]]]',
    b'["list", 5]', b"[" * 100000, b'["record", "Head", [["no_such_field", ["plain", 1]]]]',
        b'["record", "GPT2Config", [["n_embd", ["plain", -1]]]]',
    b'["tensor", "float32", [0, 99999999999999], 0]\n'])
def test_answers_that_an_enemy_wrote_are_refused(data):
    with pytest.raises(values.BadValue):
        values.unpack(data)


def message(output, expected, **options):
    with pytest.raises(Wrong) as caught:
        close(output, expected, **options)
    return str(caught.value)


def test_comparing_names_what_is_wrong():
    x = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    right = [(x + 1e-5, x), (x.double(), x), (2.0, 2), (torch.tensor([2.0]), 2.0), ([x, {"a": 1}], [x, {"a": 1}])]
    for output, expected in right:
        close(output, expected)
    assert "axes 1 and 2, which are swapped" in message(x.transpose(1, 2), x)
    assert "0.25 times" in message(x / 4, x)
    assert "+0.5 off, everywhere" in message(x + 0.5, x)
    assert "shifted by one along axis 0" in message(x.roll(1, 0), x)
    assert "order along axis 2, which is reversed" in message(x.flip(2), x)
    assert "of shape [4, 3, 4] and should be [3, 4, 4]: its axes are in another order" in message(x.permute(1, 0, 2), x)
    assert "too many axes" in message(x[None], x[0]) and "too few axes" in message(x[0], x)
    assert "an axis of length 1" in message(x[:, None], x)
    wrong = x + x.abs()
    said = message(wrong, x, mistakes=[(lambda: wrong, "that mistake.")], see="part 2")
    assert said == "the result: that mistake. See part 2."
    assert "1 missing, such as 'b'; 1 too many, such as 'c'" in message({"a": 1, "c": 2}, {"a": 1, "b": 2})
    assert "wrong order: entry 0 is 'b' and should be 'a'" in message({"b": 1, "a": 1}, {"a": 1, "b": 1})
    assert "should have 2 entries, not 1" in message([1], [1, 2])
    assert "should be a tuple of 2, not 7" in message(7, (1, 2))
    assert "it is 3 and should be 2" in message(3, 2) and "'a' and should be 'b'" in message("a", "b")
    assert "torch.bool" in message(torch.ones(2), torch.tensor([True, True]))
    with pytest.raises(Wrong, match=r"batch, head"):
        same_shape(x, [3, 4], "batch head")


def test_a_mistake_that_makes_no_difference_is_not_named():
    x = torch.ones(3)
    said = message(torch.tensor([1.0, 2.0, 7.0]), x, mistakes=[(x, "no"), (x.clone(), "nor this")])
    assert "of its entries are wrong" in said


def test_points_must_add_up():
    with pytest.raises(ValueError, match="its parts have 2 points, not 3"):
        Exercise("0", "f", 3, lambda generator: [], [Part("a", 2, lambda calls, outputs: None)])


def test_a_fence_names_a_modules_own_functions_but_those_left_open():
    closed = functions(basis, but=("basis.coordinates",))
    assert "basis.span" in closed and "basis.coordinates" not in closed
    assert "basis.wide" not in closed and "basis.SubspaceError" not in closed                   # another's; no function
    with pytest.raises(ValueError, match="no_such"):
        functions(basis, but=("basis.no_such",))


# --- the command --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Submissions to assignment 1: two do 1.1, one of them in a folder with a module beside it; one does nothing."""
    folder = tmp_path_factory.mktemp("submissions")
    starter = (ASSIGNMENTS / "1_residual_stream" / "starter.py").read_text()
    norm = ("import torch\ndef layer_norm(x, gain, bias):\n"
            "    return torch.nn.functional.layer_norm(x, gain.shape, gain, bias)\n")
    (folder / "ada.py").write_text(starter + "\n\n" + norm)
    (folder / "bob").mkdir()
    (folder / "bob" / "submission.py").write_text(starter + "\n\nfrom mine import layer_norm\n")
    (folder / "bob" / "mine.py").write_text(norm)
    (folder / "eve.py").write_text("import tinyheads")
    (folder / "empty").mkdir()
    return folder


def test_a_folder_becomes_one_csv(folder, tmp_path, capsys):
    assert grade.main(["1", str(folder), "--csv", str(tmp_path / "marks.csv"), "--seed", "7"]) == 0
    rows = list(csv.DictReader((tmp_path / "marks.csv").read_text().splitlines()))
    assert [(row["submission"], row["1.1 LayerNorm"], row["total"], row["seed"]) for row in rows] == [
        ("ada", "2", "2", "7"), ("bob", "2", "2", "7"), ("empty", "0", "0", "7"), ("eve", "0", "0", "7")]
    assert len(rows[0]) == 1 + 9 + 9 and {row["maximum"] for row in rows} == {"25"}
    assert "no file to grade" in rows[2]["reason"] and not any(rows[k]["reason"] for k in (0, 1, 3))
    assert "not graded: no file to grade" in capsys.readouterr().out


def test_the_command_writes_what_gradescope_reads(folder, tmp_path):
    command = [sys.executable, str(ASSIGNMENTS / "grade.py"), "1", str(folder / "bob"), "--json", "results.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1.1 LayerNorm" in done.stdout and "2 of 25" in done.stdout and "seed" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["score"] == 2 and results["max_score"] == 25 and results["execution_time"] > 0
    assert len(results["tests"]) == 9
    for test in results["tests"]:
        assert set(test) == {"name", "number", "score", "max_score", "status", "output", "output_format", "visibility"}
        assert test["status"] == ("passed" if test["score"] == test["max_score"] else "failed")
    assert sum(test["score"] for test in results["tests"]) == results["score"]
    assert [test["number"] for test in results["tests"]] == [f"1.{k}" for k in range(1, 10)]
    assert results["stdout_visibility"] == "hidden" and results["output_format"] == "text"
    assert set(results["extra_data"]) == {"seed", "fence", "warnings"}
    assert results["tests"][1]["output"].startswith("values: 0 of 1.5. not implemented yet")


@pytest.mark.parametrize("arguments, says", [
    (["1", "nowhere.py"], "nowhere.py: there is no such file or folder"), (["9", "x.py"], "there is no assignment 9")])
def test_what_cannot_be_graded_is_one_line(arguments, says, capsys):
    assert grade.main(arguments) == 2
    assert says in capsys.readouterr().err


def test_gradescope_is_told_why_nothing_could_be_graded(folder, tmp_path, capsys):
    results = tmp_path / "results.json"
    for nothing in (folder / "empty", folder / "nowhere"):
        assert grade.main(["1", str(nothing), "--json", str(results)]) == 2
        written = json.loads(results.read_text())
        assert written["score"] == 0 and written["tests"] == [] and str(nothing) in written["output"]


def test_wrong_options_are_refused(folder):
    for bad in (["--seed", "-1"], ["--seconds", "0"]):
        with pytest.raises(SystemExit):
            grade.main(["1", str(folder), *bad])
