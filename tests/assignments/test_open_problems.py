"""Open problems, judged: the stated baseline scores near 0, and the worked solution well, whatever the seed."""

import importlib

import pytest
import torch
from grader import marks
from grader.comparing import Wrong
from grader.grading import Outputs, loaded
from grader.open_problems import STEPS, between, scored

import tinyheads as th


def baseline_1(weights, n_head, tokens, candidates, index):
    n_layer = sum(name.endswith("ln_1.weight") for name in weights)
    names = [f"L{layer}.H{head}" for layer in range(n_layer) for head in range(n_head)]
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(int(tokens.sum())))
    return [names[i] for i in order]


def baseline_2(x, W_V, W_O, m):
    U, S, Vh = torch.linalg.svd(W_V @ W_O)
    return U[:, :m] * S[:m], Vh[:m]


def baseline_3(heads):
    return importlib.import_module("reference_3").composition_table(heads, "Q")


def baseline_4(model, prompts, n):
    return [(0, head, 15) for head in range(n)]


def baseline_5(model, found_on, circuit):
    plane = th.subspace_from_activations(model, found_on, circuit, 2)
    return plane, th.mean_codes(model, found_on, circuit, plane)


def baseline_6(model, circuit, basis, train, text, bound):
    head, K = circuit.inhibition[0], model.config.d_head
    return model.h[head.layer].attn.c_proj.weight[head.head * K:(head.head + 1) * K].detach().clone()


def exercise_and_score(number):
    """An assignment's open problem, and the function that scores one answer to it."""
    exercise = marks.load_assignment(number).exercises[-1]
    module = importlib.import_module(f"checks_{number}.open_problem")
    return exercise, next(each for name, each in vars(module).items() if name.startswith("score_"))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("number", range(1, 7))
def test_the_baseline_scores_near_0_and_the_reference_well(number, seed):
    exercise, score = exercise_and_score(number)
    reference = getattr(importlib.import_module(f"reference_{number}"), exercise.function)
    calls, found = exercise.calls(torch.Generator().manual_seed(seed)), {}
    with torch.no_grad():
        for what, answer in (("baseline", globals()[f"baseline_{number}"]), ("reference", reference)):
            scores = [score(call, answer(*loaded(call.args)))[0] for call in calls]
            found[what] = sum(scores) / len(scores)
    assert found["reference"] > 0.9, found
    assert found["baseline"] < (0.5 if number == 1 else 0.1), found    # of 1.9: one random order, not their mean


def test_points_come_in_steps():
    parts = scored(3, lambda call, output: (output, f"it is {output}"), "nothing", "all")
    assert len(parts) == len(STEPS) and sum(part.points for part in parts) == 3

    def points(value):
        outputs, earned = Outputs([value]), 0.0
        for part in parts:
            try:
                part.check([None], outputs)
                earned += part.points
            except Wrong as wrong:
                assert str(wrong) == (f"your score is {value:.2f}; 0 is nothing, 1 is all. Measured: it is {value}")
        return earned

    assert [points(value) for value in (0.0, 0.15, 0.5, 0.89, 0.9, 1.0)] == [0, 0.5, 1.5, 2.5, 3, 3]
    assert [between(value, 2, 4) for value in (1, 2, 3, 4, 5)] == [0, 0, 0.5, 1, 1]


def test_what_is_no_answer_is_told_so():
    for number, answer, says in [(1, ["L0.H0"], "a list of all 12 heads' names"), (2, None, "two matrices"),
                                 (3, torch.zeros(4, 4), r"of shape \[4, 4\]"),
                                 (4, [(0, 0, 0)] * 3, "3 different triples"), (5, None, "two tensors"),
                                 (6, torch.zeros(3, 3), "the new W_O is of shape")]:
        exercise, score = exercise_and_score(number)
        call = exercise.calls(torch.Generator().manual_seed(3))[0]
        with pytest.raises(Wrong, match=says):
            score(call, answer)
