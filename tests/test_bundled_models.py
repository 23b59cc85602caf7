"""What is claimed of the bundled models, on lists of their own: each is the others' control. 200 lists a rate."""

import pytest

import tinyheads as th
from tinyheads.files.weights import BUNDLED

N_JUDGED = 200
BY = {"tiny": ["ordinal"], "even": ["ordinal"], "content": ["name"], "named": ["name", "ordinal"]}


@pytest.fixture(scope="module")
def bundled():
    return {name: th.load(name) for name in BUNDLED}


@pytest.fixture(scope="module")
def tokenizer():
    return th.load_tokenizer("tiny")


def lists(tokenizer, n, N, by, seed):
    return th.laundry_list(tokenizer, n, N, by, seed)


def followed(model, tokenizer, N, by, random=False):
    """How often a random index's mean code is followed in 3 dimensions; found on 400 lists, judged on others."""
    found, judged = lists(tokenizer, 400, N, by, 71), lists(tokenizer, N_JUDGED, N, by, 72)
    circuit = th.find_circuit(model, found)
    basis = (th.random_subspace(model.config.n_embd, 3, 5) if random
             else th.subspace_from_activations(model, found, circuit, 3))
    return th.steering_rate(model, judged, circuit, basis, th.mean_codes(model, found, circuit, basis), seed=73)


def accuracy(model, tokenizer, N, by):
    return th.accuracy(model, lists(tokenizer, N_JUDGED, N, by, 74))


def test_tiny_and_even_are_of_one_make(bundled):
    assert bundled["tiny"].config == bundled["even"].config
    sizes = [sum(p.numel() for p in model.parameters()) for model in bundled.values()]
    assert sum(sizes) * 4 < 4e6


def test_long_lists_fail_in_tiny_alone(bundled, tokenizer):
    for N in (3, 5):
        assert accuracy(bundled["tiny"], tokenizer, N, "ordinal") >= 0.95
    assert accuracy(bundled["tiny"], tokenizer, 12, "ordinal") < 0.6
    for N in (5, 8, 12, 16):
        assert accuracy(bundled["even"], tokenizer, N, "ordinal") >= 0.93
    for model in bundled.values():                                  # and not for want of reading the list
        assert th.accuracy(model, th.ordinal_recall(tokenizer, N_JUDGED, 16, 75)) >= 0.95


@pytest.mark.parametrize("N", [5, 8, 12])
def test_a_random_index_is_followed_where_the_code_is_of_places(bundled, tokenizer, N):
    assert followed(bundled["even"], tokenizer, N, "ordinal") >= 0.9
    assert followed(bundled["even"], tokenizer, N, "ordinal", random=True) < 1 / N + 0.1
    # content's heads look at the same places and it is as often right, but it crosses off words, not places
    assert accuracy(bundled["content"], tokenizer, N, "name") >= 0.9
    assert followed(bundled["content"], tokenizer, N, "name") < 1 / N + 0.1
    if N <= 8:
        assert followed(bundled["named"], tokenizer, N, "name") >= 0.75


def test_some_heads_move_and_others_do_not(bundled, tokenizer):
    for name, ways in BY.items():
        for by in ways:
            model, prompts = bundled[name], lists(tokenizer, N_JUDGED, 8, by, 76)
            circuit = th.find_circuit(model, prompts)
            on_answer = th.attention_on(model, prompts, th.answer_places(prompts))[-1]              # [H]
            assert circuit.found and 1 <= len(circuit.movers) < model.config.n_head
            assert all(on_answer[head.head] >= 0.6 for head in circuit.movers if name != "tiny")
