"""The autograder, graded: full marks for the reference, none for the starter, and each mistake costs its own exercise.

One runner serves nearly all of it. References and mistakes are graded as a student's submission is.
"""

import dataclasses
import importlib
from pathlib import Path

import pytest
from grader import marks
from grader.session import Session, Submission
from mistake import write_submission

TEXTS = Path(__file__).parent
NUMBERS = [1, 2, 3, 4, 5, 6]
SEED = 20240611


def rounds():
    """The mistakes of each assignment, dealt out to submissions: gives (number, k, {function: mistake}).

    At most one mistake an exercise, and one exercise at least is right.
    """
    for number in NUMBERS:
        assignment, dealt = marks.load_assignment(number), []
        for mistake in importlib.import_module(f"mistakes_{number}").MISTAKES:
            function, most = exercise_of(assignment, mistake).function, len(assignment.exercises) - 1
            place = next((each for each in dealt if function not in each and len(each) < most), None)
            if place is None:
                dealt.append(place := {})
            place[function] = mistake
        for k, wrong in enumerate(dealt):
            yield pytest.param(number, k, wrong, id=f"{number}-{k}", marks=[pytest.mark.long] if k else [])


def exercise_of(assignment, mistake):
    """The exercise that a mistake names: by its number, its name or its function."""
    return next(each for each in assignment.exercises
                if mistake.exercise in (each.name, each.name.split()[0], each.function))


@pytest.fixture(scope="module")
def session():
    with Session() as session:
        yield session


@pytest.fixture(scope="module")
def drawn():
    """Each assignment's calls, drawn once."""
    return {number: marks.draw(marks.load_assignment(number), SEED) for number in NUMBERS}


@pytest.mark.parametrize("number", NUMBERS)
def test_the_reference_gets_full_marks(session, drawn, number):
    assignment = marks.load_assignment(number)
    reference = Submission("reference", TEXTS / f"reference_{number}.py")
    result = marks.grade(session, assignment, reference, SEED, drawn[number])
    assert [mark.output for mark in result.exercises if not mark.full] == []
    assert result.points == assignment.points == 25
    assert not result.warnings


def test_a_figure_in_which_an_item_owns_little_is_not_refused(session):
    """With seed 11 two items own 2 and 3 of the plane's 36 points."""
    assignment = marks.load_assignment(5)
    exercise, calls = assignment.exercises[-1], marks.draw(assignment, 11)[-1]
    alone = dataclasses.replace(assignment, exercises=[exercise])
    result = marks.grade(session, alone, Submission("reference", TEXTS / "reference_5.py"), 11, [calls])
    assert result.exercises[0].full, result.exercises[0].output


@pytest.mark.parametrize("number", NUMBERS)
def test_the_starter_gets_nothing_yet(session, drawn, number):
    assignment = marks.load_assignment(number)
    starter = Submission("starter", assignment.folder / "starter.py")
    result = marks.grade(session, assignment, starter, SEED, drawn[number])
    assert result.points == 0
    for mark in result.exercises:
        assert mark.output.count("not implemented yet") == 1, mark.output


@pytest.mark.parametrize("number, k, wrong", list(rounds()))
def test_mistakes_cost_their_own_exercises_and_are_named(session, drawn, tmp_path, number, k, wrong):
    """Of the exercises that are right two are graded along, others each time: they must keep their marks.

    (Without 6.6's longer look, in which a right judgement is compared with what the wrong functions measure.)
    """
    assignment = marks.load_assignment(number)
    exercises = [dataclasses.replace(exercise, again=None) for exercise in assignment.exercises]
    assignment = dataclasses.replace(assignment, exercises=exercises)
    right = [exercise.function for exercise in assignment.exercises if exercise.function not in wrong]
    chosen = {*wrong, right[k % len(right)], right[(k + 1) % len(right)]}
    graded = [(each, calls) for each, calls in zip(assignment.exercises, drawn[number]) if each.function in chosen]
    assignment = dataclasses.replace(assignment, exercises=[each for each, _ in graded])
    files = write_submission(tmp_path, TEXTS / f"reference_{number}.py", wrong)
    result = marks.grade(session, assignment, Submission("wrong", *files), SEED, [calls for _, calls in graded])
    for mark in result.exercises:
        mistake = wrong.get(mark.exercise.function)
        if mistake is None:
            assert mark.full, mark.output
        else:
            assert mark.points < mark.exercise.points, f"{mistake.name}: full marks"
            assert mistake.says in mark.output, f"{mistake.name}: {mark.output}"


@pytest.mark.parametrize("number", NUMBERS)
def test_at_least_six_mistakes_are_tried(number):
    assert len(importlib.import_module(f"mistakes_{number}").MISTAKES) >= 6
