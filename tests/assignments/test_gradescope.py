"""The kit for Gradescope, laid out as Gradescope does it but under another root, and its two scripts run.

What the scripts install is there already: pip3 and apt-get are stand-ins here that note what they are asked for,
python3 is the one that runs this test.
"""

import importlib.util
import json
import os
import py_compile
import subprocess
import sys
import zipfile

import grade
import pytest
from grader import marks
from grader.checkout import ASSIGNMENTS
from grader.reports import gradescope

NORM = ("import torch\ndef layer_norm(x, gain, bias):\n"
        "    return torch.nn.functional.layer_norm(x, gain.shape, gain, bias)\n")


@pytest.fixture(scope="module")
def autograder(tmp_path_factory):
    """/autograder for assignment 1: source/, run_autograder, submission/, results/; the stand-ins are commands/."""
    root = tmp_path_factory.mktemp("autograder")
    assert grade.main(["1", "--gradescope", str(root / "kit.zip")]) == 0
    (root / "source").mkdir()
    with zipfile.ZipFile(root / "kit.zip") as kit:
        for about in kit.infolist():
            kit.extract(about, root / "source")
            os.chmod(root / "source" / about.filename, about.external_attr >> 16)
    (root / "source" / "run_autograder").rename(root / "run_autograder")
    for name in ("submission", "results", "commands"):
        (root / name).mkdir()
    for name in ("apt-get", "pip3"):
        (root / "commands" / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{root}/asked"\n')
    (root / "commands" / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for command in (root / "commands").iterdir():
        command.chmod(0o755)
    return root


def run(root, script):
    environment = {**os.environ, "PATH": f"{root / 'commands'}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run([str(root / script)], capture_output=True, text=True, env=environment, cwd="/")


def test_the_scripts_set_up_and_grade(autograder):
    done = run(autograder, "source/setup.sh")
    assert done.returncode == 0, done.stderr
    asked = (autograder / "asked").read_text()
    assert "pip3 install torch==2.13.0\n" in asked and "apt-get install -y python3 python3-pip" in asked
    (autograder / "submission" / "my_answers.py").write_text(NORM)
    # Byte code that an earlier submission left beside the grader is not read: this one would end the command.
    reports = autograder / "source" / "tinyheads" / "demos" / "assignments" / "grader" / "reports.py"
    (autograder / "poison.py").write_text("raise SystemExit('poisoned')")
    py_compile.compile(str(autograder / "poison.py"), importlib.util.cache_from_source(str(reports)), doraise=True,
                       invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    done = run(autograder, "run_autograder")
    assert done.returncode == 0, done.stderr
    results = json.loads((autograder / "results" / "results.json").read_text())
    assert results["score"] == 2 and [test["number"] for test in results["tests"]] == [f"1.{k}" for k in range(1, 10)]
    assert results["extra_data"]["fence"] and "1.1 LayerNorm" in done.stdout
    for name in ("source", "submission", "results"):
        assert (autograder / name).stat().st_mode & 0o077 == 0         # for the submission's own user there is nothing


def test_the_kit_holds_what_one_assignment_takes_and_no_others_solutions(autograder):
    with zipfile.ZipFile(autograder / "kit.zip") as kit:
        names = kit.namelist()
        scripts = {name: kit.getinfo(name).external_attr >> 16 for name in ("setup.sh", "run_autograder")}
    assert scripts == {"setup.sh": 0o755, "run_autograder": 0o755}
    assert not any("__pycache__" in name or "2_head" in name or "reference_2" in name for name in names)
    assert "tinyheads/demos/assignments/1_residual_stream/checks/__init__.py" in names
    before = (autograder / "kit.zip").read_bytes()
    assert grade.main(["1", "--gradescope", str(autograder / "again.zip")]) == 0
    assert (autograder / "again.zip").read_bytes() == before


def test_results_so_far_name_what_is_still_to_come():
    assignment = marks.load_assignment(2)
    first = marks.ExerciseMark(assignment.exercises[0], [marks.PartMark("values", 1.0, 2.0, "wrong")], 0.1)
    results = gradescope(marks.Marks("x", assignment, 7, [first], ["x, 2.1: it looked"], "wall"), 1.0)
    assert results["score"] == 1 and len(results["tests"]) == len(assignment.exercises)
    assert "wrong" in results["tests"][0]["output"] and "not graded yet" in results["tests"][1]["output"]
    assert results["extra_data"] == {"seed": 7, "fence": "wall", "warnings": ["x, 2.1: it looked"]}
    assert "looked" not in json.dumps({**results, "extra_data": None})  # for the instructor alone


@pytest.mark.parametrize("arguments, says", [
    (["1", "--gradescope", "kit.tar"], "Gradescope takes a .zip"),
    (["1", "--gradescope", "no_such_folder/kit.zip"], "there is no folder no_such_folder")])
def test_a_kit_that_cannot_be_written_is_one_line(arguments, says, capsys):
    assert grade.main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["1"], ["1", str(ASSIGNMENTS), "--gradescope", "kit.zip"]])
def test_it_is_one_or_the_other(arguments, capsys):
    with pytest.raises(SystemExit):
        grade.main(arguments)
    assert "say what is to be graded" in capsys.readouterr().err
