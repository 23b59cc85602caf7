"""A right answer in another form is right: float64, numpy arrays, lists, 0-dimensional tensors, other whole numbers."""

from pathlib import Path

import pytest
import torch
from grader import marks
from in_process import Lazy, messages

HERE = Path(__file__).parent
MANY, BYTES = 100_000, torch.uint8                 # longer ones cannot travel as lists; a picture is no list of numbers
FORMS = {
    "float64": lambda x: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x,
    "numpy arrays": lambda x: x.detach().numpy() if isinstance(x, torch.Tensor) else x,
    "lists": lambda x: x.tolist() if isinstance(x, torch.Tensor) and x.numel() < MANY and x.dtype != BYTES else x,
    "0-dimensional tensors": lambda x: torch.tensor(x) if isinstance(x, float) else x,
    "numpy numbers": lambda x: torch.tensor(x).numpy() if isinstance(x, (int, float)) else x,
    "int32": lambda x: x.int() if isinstance(x, torch.Tensor) and x.dtype == torch.int64 else x,
    "Python numbers": lambda x: x.item() if isinstance(x, torch.Tensor) and not x.dim() else x,
}


def every_leaf(form, value):
    """A value with all its tensors and numbers in another form; models and records as they are."""
    if isinstance(value, dict):
        return {key: every_leaf(form, each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(every_leaf(form, each) for each in value)
    return form(value)


@pytest.mark.long
@pytest.mark.parametrize("number", range(1, 7))
def test_right_answers_in_another_form_get_full_marks(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assignment = marks.load_assignment(number)
    source = (HERE / f"reference_{number}.py").read_text()
    for exercise, calls in zip(assignment.exercises, marks.draw(assignment, 3)):
        right = Lazy(source, exercise, calls)
        given = [right.function(*arguments) for arguments in right.arguments()]
        for name, form in FORMS.items():
            outputs = Lazy(source, exercise, calls)
            outputs.function = lambda *_, answers=iter(given): every_leaf(form, next(answers))
            [outputs[k] for k in range(len(calls))]
            assert messages(exercise, calls, outputs, False) == {}, f"{exercise.name} as {name}"
