"""Checks of 5.9, an open problem: two dimensions in which six places can be told to a model that was built for three.

The planted model's codes are the corners of an octahedron. The plane of largest variance holds four of them and shows
the other two as one point; a plane can be laid so that all six stand apart. Judged by the test of a random index, on
prompts that were not handed in.
"""

import torch
from torch import Generator

import tinyheads as th
from grader.comparing import Wrong, same_shape
from grader.grading import Call, Model
from grader.inputs import circuit_of, planted, planted_prompts
from grader.open_problems import Posed, between


def calls_plane(generator: Generator) -> list[Call]:
    calls = []
    for _ in range(2):
        built = planted(generator)
        found_on, fresh = planted_prompts(generator, 100), planted_prompts(generator, 200)
        circuit = circuit_of(built)
        plane = th.subspace_from_activations(built.model, found_on, circuit, 2)
        baseline = th.steering_rate(built.model, fresh, circuit, plane,
                                    th.mean_codes(built.model, found_on, circuit, plane))
        calls.append(Posed((Model(built.model), found_on, circuit), truth=(built.model, fresh, baseline)))
    return calls


def score_plane(call: Posed, output: object) -> tuple[float, str]:
    (_, found_on, circuit), (model, fresh, baseline) = call.args, call.truth
    D, N = model.config.n_embd, found_on.candidates.shape[1]
    if not isinstance(output, (list, tuple)) or len(output) != 2:
        raise Wrong(f"the result should be two tensors: (basis [2, {D}], codes [{N}, 2])")
    output = [same_shape(each, shape, "", what) for each, shape, what
              in zip(output, ([2, D], [N, 2]), ("the basis", "the codes"))]
    for each, what in zip(output, ("the basis", "the codes")):
        if not each.is_floating_point() or not each.isfinite().all():
            raise Wrong(f"{what} should be floats, without nan or inf")
    basis, codes = (each.float() for each in output)
    if not torch.allclose(basis @ basis.T, torch.eye(2), atol=1e-3):
        raise Wrong("the rows of the basis should be of length 1 and at right angles")
    rate = th.steering_rate(model, fresh, circuit, basis, codes)
    told = f"a random index is followed in {rate:.0%} of fresh lists, with two principal components in {baseline:.0%}"
    return between(rate, baseline, 1.0), told
