"""Steps of help: every exercise has its difficulty, minutes and two hints, in the handout; pictures and predictions."""

import ast
import io
import re
import sys
from pathlib import Path

import grade
import pictures
import pytest
import torch
from grader.hints import exercises_of, tell
from grader.marks import load_assignment
from matplotlib.image import imread

HERE = Path(__file__).parent
NUMBERS = range(1, 7)
PAGE = """# A handout

**1.1 One (1 point; easy; 5 min).** Do it.

It has a second paragraph.

<details><summary>Hint 1</summary>

An idea.

</details>

<details><summary>Hint 2</summary>

A step:

of two paragraphs.

</details>

## Reading
"""


def squeezed(code):
    """Code without blanks, as one string."""
    return re.sub(r"\s+", "", code)


def statements_of(path, function):
    """The statements of a worked function, longest parts of the answer: without blanks, those of a line or more."""
    tree = next(each for each in ast.parse(path.read_text()).body
                if isinstance(each, ast.FunctionDef) and each.name == function)
    values = [each.value for each in ast.walk(tree) if isinstance(each, (ast.Return, ast.Assign)) and each.value]
    return [text for text in (squeezed(ast.unparse(each)) for each in values) if len(text) > 25]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_exercise_has_its_steps_of_help(number):
    assignment = load_assignment(number)
    helps = exercises_of(assignment.folder / "README.md")
    assert list(helps) == [exercise.name.split()[0] for exercise in assignment.exercises]
    for exercise, help in zip(assignment.exercises, helps.values()):
        assert help.points == exercise.points and 5 <= help.minutes <= 90 and help.text
        assert f"`{exercise.function}`" in help.text
        first, second = help.hints
        assert 60 < len(first) < 700 and 60 < len(second) < 700 and first != second
        for hint in (first, second):
            assert "def " not in hint and "```" not in hint and "\n    " not in hint
    assert {help.difficulty for help in helps.values()} == {"easy", "medium", "hard"}


@pytest.mark.parametrize("number", NUMBERS)
def test_no_hint_holds_an_answers_code(number):
    solution = HERE / f"reference_{number}.py"
    for exercise, help in zip(load_assignment(number).exercises,
                              exercises_of(load_assignment(number).folder / "README.md").values()):
        code = statements_of(solution, exercise.function)
        for hint in help.hints:
            assert not [text for text in code if text in squeezed(hint)], exercise.name


@pytest.mark.parametrize("number", NUMBERS)
def test_a_starter_names_its_exercises_as_the_handout_does(number):
    folder = load_assignment(number).folder
    headings = re.findall(r"^# ## (\d\.\d+ .+)$", (folder / "starter.py").read_text(), re.M)
    assert headings == [f"{help.number} {help.title}" for help in exercises_of(folder / "README.md").values()]


def test_hints_open_one_after_the_other(tmp_path, monkeypatch, capsys):
    (tmp_path / "README.md").write_text(PAGE)
    help, = exercises_of(tmp_path / "README.md").values()
    assert help.text == "Do it.\n\nIt has a second paragraph." and help.hints == ["An idea.",
                                                                                 "A step:\n\nof two paragraphs."]
    first = tell(tmp_path, "1.1")
    assert "(1 point; easy; 5 min)" in first and "An idea." in first and "A step" not in first and "1.1.2" in first
    assert "An idea." in tell(tmp_path, "1.1.2") and "of two paragraphs" in tell(tmp_path, "1.1.2")
    terminal = type("Terminal", (io.StringIO,), {"isatty": lambda self: True})
    monkeypatch.setattr(sys, "stdin", terminal("\n"))
    monkeypatch.setattr(sys, "stdout", terminal())
    second = tell(tmp_path, "1.1")
    assert "An idea." in sys.stdout.getvalue() and "A step" not in sys.stdout.getvalue() and "A step" in second
    assert tell(tmp_path, "1.1") == ""                                        # the input has ended: it stays closed


@pytest.mark.parametrize("broken, says", [(PAGE.replace("Hint 2", "Hint 3"), "has 1, 3"),
                                          (PAGE.split("<details>")[0], "has none")])
def test_an_exercise_without_its_hints_is_named(tmp_path, broken, says):
    (tmp_path / "README.md").write_text(broken)
    with pytest.raises(ValueError, match=f"exercise 1.1 should have Hint 1 and Hint 2, and {says}"):
        exercises_of(tmp_path / "README.md")


def test_the_command_tells_a_hint_and_refuses_others(capsys):
    assert grade.main(["2", "--hint", "2.2"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2.2 Fold LayerNorm") and "Hint 1" in said and "Hint 2\n" not in said
    for wrong in ("3.1", "2", "2.2.3", "2.2.2.2"):
        assert grade.main(["2", "--hint", wrong]) == 2
        assert f"there is no hint {wrong!r}; there are 2.1, 2.2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        grade.main(["2"])
    assert "say what is to be graded" in capsys.readouterr().err


# --- pictures and predictions -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
def test_a_handout_begins_with_a_picture_and_asks_for_predictions(number):
    folder = load_assignment(number).folder
    page = (folder / "README.md").read_text()
    title, picture = page.split("\n\n")[:2]
    assert title.startswith("# ") and re.fullmatch(r"!\[[^\]]{20,}\]\(picture.png\)", picture)
    predictions, exercises = page.index("\n## Predict before you run\n"), page.index(f"\n**{number}.1 ")
    section = re.split(r"^## ", page[predictions + 4:], maxsplit=1, flags=re.MULTILINE)[0]
    assert predictions < exercises and 2 <= len(re.findall(r"^\d\. ", section, re.MULTILINE)) <= 3
    shown = re.findall(r"\]\((\w+\.png)\)", page)
    assert shown == ["picture.png", "target.png"][:1 if number == 6 else 2]         # assignment 6 draws no figure
    for name in shown:
        assert (folder / name).read_bytes()[:4] == b"\x89PNG" and (folder / name).stat().st_size < 100_000


@pytest.mark.parametrize("number", NUMBERS)
def test_a_handouts_picture_is_what_its_script_draws_and_reads_in_grey(number, tmp_path):
    """Compared blurred, so that another release's fonts do not matter."""
    grad = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    try:
        pictures.DRAWN[number - 1](tmp_path / "drawn.png")
    finally:
        torch.set_grad_enabled(grad)
    grey = [torch.from_numpy(imread(path)[..., :3].mean(-1).copy())
            for path in (tmp_path / "drawn.png", load_assignment(number).folder / "picture.png")]
    assert grey[0].shape == grey[1].shape
    drawn, kept = (torch.nn.functional.avg_pool2d(each[None], 16) for each in grey)
    assert (drawn - kept).abs().max() < 0.25 and (drawn - kept).abs().mean() < 0.02
    assert grey[0].min() < 0.2 and (grey[0] < 0.6).float().mean() > 0.01            # there is ink, and it is dark
