"""6.6's figures are the student's own: those that the starter's main prints with the submission's functions."""

import ast
import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest
import reference_6
import torch
from grader import marks
from grader.session import Session, Submission

pytestmark = pytest.mark.long
HERE = Path(__file__).parent
HOLDS = (0.1, 0.3)                      # the first is one of the starter's, the second is not


@pytest.fixture(scope="module")
def printed():
    """What the starter's main prints as MEASURED with the worked functions and these HOLDS."""
    grad = torch.is_grad_enabled()
    file = next(marks.ASSIGNMENTS.glob("6_*/starter.py"))
    spec = importlib.util.spec_from_file_location("starter_6", file)
    starter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(starter)
    for name in ("set_coordinates", "give_the_code", "edit_weights", "fit", "what_it_broke"):
        setattr(starter, name, getattr(reference_6, name))
    starter.HOLDS = HOLDS
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        starter.main()
    torch.set_grad_enabled(grad)
    return [ast.literal_eval(line) for line in re.findall(r"^MEASURED = (.*)$", told.getvalue(), re.MULTILINE)]


def judged(folder, measured, text):
    """The marks of 6.6 for a submission with HOLDS = (0.3,), in this MEASURED and this text."""
    source = (HERE / "reference_6.py").read_text()
    assert source.count("    return MEASURED, JUDGEMENT") == 1
    source = source.replace("    return MEASURED, JUDGEMENT", f"    return {measured!r}, {text!r}")
    (folder / "submission.py").write_text(f"{source}\n\nTRAIN_LENGTH, HOLDS = 12, (0.3,)\n")
    assignment = marks.load_assignment(6)
    alone = marks.Assignment(6, assignment.folder, [each for each in assignment.exercises
                                                    if each.name.startswith("6.6")])
    with Session() as session:
        mark, = marks.grade(session, alone, Submission("s", folder / "submission.py"), 1).exercises
    return mark


def test_recorded_figures_are_what_the_starter_prints(printed):
    file = next(marks.ASSIGNMENTS.glob("6_*/checks/recorded.py"))
    spec = importlib.util.spec_from_file_location("recorded", file)
    recorded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recorded)
    known = recorded.RECORDED[1]
    assert printed[0].keys() == known.keys()
    for name, pair in printed[0].items():
        assert pair == pytest.approx(known[name], abs=0.006, rel=0.02), name


def test_a_run_with_another_hold_is_compared_with_the_submissions_own(printed, tmp_path):
    own = printed[1]
    text = reference_6.JUDGEMENT + " " + " ".join(
        f"For {name} the figures of this run are {before:.4f} before the edit and {after:.4f} after it."
        for name, (before, after) in own.items())
    mark = judged(tmp_path, own, text)
    assert mark.points == 2, mark.output
    assert "Not read by the grader" in mark.note
    invented = {name: (before, min(1.0, after + 0.3)) for name, (before, after) in own.items()} | {
        "perplexity": own["perplexity"], "lists of 16": (own["lists of 16"][0], 0.9)}
    mark = judged(tmp_path, invented, text)
    assert mark.points == 0.5 and "is not what your own functions measure" in mark.output
