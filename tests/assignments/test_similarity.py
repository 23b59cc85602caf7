"""Copies are found under other names and layouts; work of one's own is not, nor what the starter gave."""

import re
from pathlib import Path

import pytest
from grader.checkout import ASSIGNMENTS
from grader.similarity import near_pairs, report

HERE = Path(__file__).parent
NUMBERS = range(1, 7)


def disguised(source):
    """The same work with other names, comments, docstrings and blank lines."""
    for old, new in [("heads", "my_heads"), ("model", "net"), ("prompts", "texts"), ("x", "stuff"), ("basis", "space")]:
        source = re.sub(rf"\b{old}\b", new, source)
    return "# all mine\n\n\n" + source.replace("\n\n", "\n\n# and this\n\n")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_copy_in_disguise_is_near_and_the_starter_is_not(tmp_path, number):
    starter = next(ASSIGNMENTS.glob(f"{number}_*")) / "starter.py"
    reference = HERE / f"reference_{number}.py"
    for name, text in [("ada", reference.read_text()), ("bob", disguised(reference.read_text())),
                       ("eve", starter.read_text())]:
        (tmp_path / f"{name}.py").write_text(text)
    files = {name: tmp_path / f"{name}.py" for name in ("ada", "bob", "eve")}
    pairs = near_pairs(files, starter, {"the worked solution": reference})
    assert {(one, other) for _, one, other in pairs} == {("ada", "bob"), ("ada", "the worked solution"),
                                                         ("bob", "the worked solution")}
    assert min(part for part, *_ in pairs) > 0.95
    assert "100%  ada  and  the worked solution" in report(pairs, 3)


def test_different_work_is_not_near(tmp_path):
    files = {f"work {number}": HERE / f"reference_{number}.py" for number in NUMBERS}
    assert near_pairs(files, ASSIGNMENTS / "1_residual_stream" / "starter.py") == []
    assert "none" in report([], 6)


def test_what_is_no_python_or_hardly_anything_is_left_out(tmp_path):
    (tmp_path / "broken.py").write_bytes(b"\xff\x00def f(:")
    (tmp_path / "short.py").write_text("def f(x):\n    return x\n")
    files = {name: tmp_path / f"{name}.py" for name in ("broken", "short")} | {"again": tmp_path / "short.py"}
    assert near_pairs(files, tmp_path / "short.py") == [] == near_pairs(files, tmp_path / "broken.py")
