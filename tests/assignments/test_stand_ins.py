"""A slip costs its own exercise alone: what calls the wrong function is run again with ours in its place."""

import ast
import itertools
import re
from pathlib import Path

import pytest
from grader import marks, stand_ins
from grader.reports import table
from grader.session import Session, Submission

HERE = Path(__file__).parent
SEED = 5
RAISES = "def {name}(*arguments):\n    raise ValueError('this slip')\n"


@pytest.fixture(scope="module")
def session():
    with Session() as session:
        yield session


def graded(session, folder, number, source):
    (folder / "submission.py").write_text(source)
    return marks.grade(session, marks.load_assignment(number), Submission("s", folder / "submission.py"), SEED)


def reference(number, right="", wrong="", behind=""):
    text = (HERE / f"reference_{number}.py").read_text()
    assert not right or text.count(right) == 1
    return (text.replace(right, wrong) if right else text) + "\n\n" + behind


def without_points(result):
    return [mark.exercise.function for mark in result.exercises if not mark.full]


def test_a_forgotten_keepdim_costs_no_other_exercise(session, tmp_path):
    source = reference(1, "variance = (centred**2).mean(-1, keepdim=True)", "variance = (centred**2).mean(-1)")
    result = graded(session, tmp_path, 1, source)
    assert without_points(result) == ["layer_norm"]
    told = ("Graded with our layer_norm in place of yours, which lost points: layer_norm (1.1 LayerNorm).")
    assert {mark.exercise.function: mark.note for mark in result.exercises if mark.note} == {
        "residual_stream": told, "logit_attribution": told, "order_of_removal": told}
    assert f"    {told}" in table(result).splitlines()


@pytest.mark.parametrize("number", [1, 3])
def test_whatever_is_called_may_be_wrong(session, tmp_path, number):
    """All functions that other exercises' call raise: they alone lose points."""
    source = reference(number)
    (tmp_path / "right.py").write_text(source)
    called = stand_ins.functions_called(tmp_path / "right.py")
    functions = {exercise.function for exercise in marks.load_assignment(number).exercises}
    helpers = sorted(functions & set().union(*(called[name] for name in functions)))
    result = graded(session, tmp_path, number, source + "".join(RAISES.format(name=name) for name in helpers))
    assert sorted(without_points(result)) == helpers != []


def test_a_slip_of_its_own_still_costs_and_is_named(session, tmp_path):
    behind = RAISES.format(name="layer_norm")
    result = graded(session, tmp_path, 1, reference(1, "(bias @ u).expand", "(0 * bias @ u).expand", behind))
    assert without_points(result) == ["layer_norm", "logit_attribution"]
    last = next(mark for mark in result.exercises if mark.exercise.function == "logit_attribution")
    assert last.points == 0.5 and "Graded with our layer_norm" in last.note and "ValueError" not in last.output


def test_where_ours_does_not_fit_the_better_marks_stay(session, tmp_path):
    """It calls its own function in a way of its own."""
    behind = ("def layer_norm(x, gain, bias, eps=1e-4):\n"
              "    return torch.nn.functional.layer_norm(x, gain.shape, gain, bias, eps)\n")
    source = reference(1, "logit = layer_norm(x, gain, bias) @ u", "logit = layer_norm(x, gain, bias, eps=1e-5) @ u",
                       behind)
    result = graded(session, tmp_path, 1, source)
    assert without_points(result) == ["layer_norm"]


def test_where_there_is_no_worked_solution_the_table_says_so(session, tmp_path, monkeypatch):
    monkeypatch.setattr(marks, "worked_solution", lambda number: None)
    result = graded(session, tmp_path, 1, reference(1, behind=RAISES.format(name="layer_norm")))
    assert without_points(result) == ["layer_norm", "residual_stream", "logit_attribution", "order_of_removal"]
    assert "Graded with your own layer_norm (1.1 LayerNorm), which lost points: mend that first." in table(result)


@pytest.mark.parametrize("number", range(1, 7))
def test_the_function_being_graded_never_goes_along(number):
    solution = stand_ins.worked_solution(number)
    functions = [exercise.function for exercise in marks.load_assignment(number).exercises]
    for graded, wanted in itertools.permutations(functions, 2):
        text, names = stand_ins.taken_out(solution, [wanted], graded)
        assert graded not in stand_ins.definitions(ast.parse(text))
        assert (names == [wanted]) == (wanted in stand_ins.definitions(ast.parse(text)))


SPY = """
def composition_score(writer, reader, mode):
    return 0

def composition_table(heads, mode):
    import inspect, sys
    told = sorted(name for name in globals() if "compo" in name or name == "ours")
    try:
        told += ["source", inspect.getsource(composition_score)]
    except (OSError, TypeError):
        told += ["none"]
    print("SPY", told)
    raise ValueError("x" * 60 + str(told))
"""


def test_our_text_cannot_be_printed(session, tmp_path):
    """The spy sees what stands in the module; the table shows nothing of what it prints or raises beside ours."""
    result = graded(session, tmp_path, 3, SPY)
    mark = result.exercises[1]
    assert "Graded with our composition_score" in mark.note and "SPY" not in mark.output
    assert re.search(r"ValueError \(no more is told of a run with our functions\)", mark.output)
    text, _ = stand_ins.taken_out(stand_ins.worked_solution(3), ["composition_score"], "composition_table")
    submission = Submission("s", tmp_path / "submission.py")
    (tmp_path / "copy").mkdir()
    copy, _ = stand_ins.with_ours(submission, stand_ins.worked_solution(3), ["composition_score"],
                                  "composition_table", tmp_path / "copy")
    assert "qr(B)" in text and "qr(B)" not in copy.main.read_text()


def test_right_work_and_a_file_that_is_no_python_run_once(session, tmp_path, monkeypatch):
    runs, run = [], Session.run
    monkeypatch.setattr(Session, "run", lambda self, exercise, *rest: runs.append(exercise) or run(self, exercise,
                                                                                                   *rest))
    for behind in ("", "raise ValueError('at import')\n"):
        graded(session, tmp_path, 3, reference(3, behind=behind))
    assert len(runs) == 2 * len(marks.load_assignment(3).exercises)
