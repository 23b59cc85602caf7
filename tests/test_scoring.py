"""Right answers, means by index, and ranks: counted here by loops over what the model says."""

import dataclasses
import math

import pytest
import torch

import tinyheads as th
from helpers import random_model
from tinyheads.planted import CONFIG, N_ITEMS, laundry_prompts, planted


@pytest.fixture(scope="module")
def tiny():
    return th.load_tokenizer("tiny")


def test_an_answer_is_right_among_the_candidates_or_in_the_whole_vocabulary(tiny):
    prompts = th.laundry_list(tiny, 50, 4, seed=2)
    logits = torch.zeros(50, prompts.tokens.shape[1], tiny.n_vocab)
    logits[:, -1, 7] = 9.0                                       # something outside the list
    logits[:, -1].scatter_(1, prompts.candidates, torch.tensor([4.0, 3.0, 1.0, 2.0]).expand(50, 4))
    assert th.correct(logits, prompts, "candidates").tolist() == (prompts.index == 0).tolist()
    assert not th.correct(logits, prompts, "vocabulary").any()
    logits[:, -1, 7] = 0
    assert th.correct(logits[:, -1], prompts, "vocabulary").tolist() == (prompts.index == 0).tolist()
    assert th.by_index(th.correct(logits, prompts), prompts).tolist() == [1, 0, 0, 0]


def test_logits_at_end_are_those_of_the_whole_run_whatever_the_batch():
    built, prompts = planted(), laundry_prompts(20, seed=1)
    expected = built.model(prompts.tokens)[:, -1]
    for batch in (1, 7, 20, 256):
        torch.testing.assert_close(th.logits_at_end(built.model, prompts, batch), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(th.TaskError, match="batch must be a whole number from 1"):
        th.logits_at_end(built.model, prompts, 0)


def test_a_list_longer_than_the_context(tiny):
    model = th.GPT2(th.GPT2Config(tiny.n_vocab, 64, 8, 1, 2), seed=0)
    with pytest.raises(th.InputError, match="longer than the model's n_ctx=64"):
        th.logits_at_end(model, th.laundry_list(tiny, 2, 20))


@pytest.mark.parametrize("D", [None, 1, 3])
def test_by_index_is_the_mean_of_each_group_and_nan_where_there_is_none(D):
    prompts = laundry_prompts(9, seed=2)
    prompts = dataclasses.replace(prompts, index=torch.tensor([0, 3, 3, 5, 0, 3, 5, 5, 1]))     # none at 2 and 4
    values = torch.randn(9, *([D] if D else []), generator=torch.Generator().manual_seed(0))
    groups = {0: [0, 4], 1: [8], 3: [1, 2, 5], 5: [3, 6, 7]}
    expected = torch.full((N_ITEMS, *values.shape[1:]), math.nan)
    for index, members in groups.items():
        expected[index] = sum(values[member] for member in members) / len(members)
    torch.testing.assert_close(th.by_index(values, prompts), expected, equal_nan=True)
    right = values > 0                                                                          # bool counts as 0 and 1
    torch.testing.assert_close(th.by_index(right, prompts), th.by_index(right.float(), prompts), equal_nan=True)


@pytest.mark.parametrize("values", [torch.zeros(()), torch.zeros(8), torch.zeros(6, 9), torch.zeros(9, 2, 2)])
def test_values_that_are_not_one_a_prompt_are_refused(values):
    with pytest.raises(th.TaskError, match=r"one value a prompt is \[9\] or \[9, D\]"):
        th.by_index(values, laundry_prompts(9, seed=2))


@pytest.mark.parametrize("among", ["candidates", "vocabulary"])
def test_accuracy_is_the_share_of_prompts_answered_rightly(among):
    """Of a model that knows nothing: right in some prompts, in more of them among the six candidates; and by length."""
    model = random_model(vars(CONFIG), seed=1)
    batches = {n: laundry_prompts(20 * n, seed=n) for n in (2, 3, 5)}
    expected = {}
    for n, prompts in batches.items():
        right = 0
        for row, candidates, answer in zip(model(prompts.tokens)[:, -1], prompts.candidates, prompts.answer):
            choice = range(len(row)) if among == "vocabulary" else candidates.tolist()
            right += max(choice, key=row.__getitem__) == answer
        expected[n] = int(right) / (20 * n)
    low, high = {"candidates": (0.1, 0.3), "vocabulary": (0.005, 0.1)}[among]
    assert th.accuracy(model, batches[5], among) == pytest.approx(expected[5]) and low < expected[5] < high
    assert th.accuracy_by_length(model, batches.__getitem__, [2, 3, 5], among) == pytest.approx(expected)
    with pytest.raises(th.TaskError, match="among is one of 'candidates', 'vocabulary', not 'list'"):
        th.accuracy(model, batches[2], "list")


def test_a_random_model_is_at_chance_by_length(tiny):
    model = th.GPT2(th.GPT2Config(tiny.n_vocab, 64, 8, 1, 2), seed=0)
    chance = th.accuracy_by_length(model, lambda n_items: th.ordinal_recall(tiny, 200, n_items), [1, 2])
    assert chance[1] == 1 and 0.3 < chance[2] < 0.7


@pytest.mark.parametrize("logits, words", [
    (torch.zeros(3, 2016), "logits of these prompts are"), (torch.zeros(4, 5), "logits of these prompts are"),
    (torch.full((4, 2016), math.nan), "not numbers")])
def test_logits_of_other_prompts_are_refused(tiny, logits, words):
    with pytest.raises(th.TaskError, match=words):
        th.correct(logits, th.ioi(tiny, 4))


def test_rank_correlation_of_known_orders():
    x = torch.tensor([1.0, 2, 3, 4, 5])
    assert th.rank_correlation(x, x**3) == pytest.approx(1)
    assert th.rank_correlation(x, -x) == pytest.approx(-1)
    # With ties: ranks 1.5 1.5 3 4 against 1 2 3 4: Pearson's of these is 4.5 / sqrt(4.5 * 5).
    assert th.rank_correlation(torch.tensor([7.0, 7, 8, 9]), torch.tensor([1.0, 2, 3, 4])) == pytest.approx(
        4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(th.rank_correlation(x, torch.ones(5)))


@pytest.mark.parametrize("right, n, low, high", [
    (15, 50, 0.1910, 0.4375), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0),
    (500, 1000, 0.4691, 0.5309)])
def test_wilson_s_interval_is_that_of_the_tables(right, n, low, high):
    assert th.wilson_interval(right / n, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_s_interval_holds_the_rates_that_chance_could_have_brought_here():
    low, high = th.wilson_interval(0.3, 80)
    for p in (low, high):                                        # the equation that defines it
        assert abs(0.3 - p) == pytest.approx(1.96 * math.sqrt(p * (1 - p) / 80))
    draw = torch.Generator().manual_seed(0)
    for p in (0.05, 0.5, 0.9):                                   # it covers the true rate in about 95 of 100 samples
        rates = (torch.rand(2000, 100, generator=draw) < p).double().mean(1).tolist()
        held = sum(low <= p <= high for low, high in (th.wilson_interval(rate, 100) for rate in rates))
        assert 0.92 <= held / 2000 <= 0.98
    for rate, n in [(1.1, 5), (-0.1, 5), (math.nan, 5)]:
        with pytest.raises(th.InputError, match="from 0 to 1"):
            th.wilson_interval(rate, n)
    with pytest.raises(th.TaskError, match="n must be"):
        th.wilson_interval(0.5, 0)


def test_a_bootstrap_of_the_mean_is_as_wide_as_theory_says():
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(400, generator=draw).double()
    low, high = th.bootstrap_interval(lambda x: x.mean().item(), x, seed=2)
    assert low < x.mean() < high and high - low == pytest.approx(2 * 1.96 * x.std().item() / 20, rel=0.15)
    assert th.bootstrap_interval(lambda x: x.mean().item(), x, seed=2) == (low, high)
    low, high = th.bootstrap_interval(th.rank_correlation, x, x + 0.1 * torch.randn(400, generator=draw))
    assert 0.97 < low < high < 1
    assert all(map(math.isnan, th.bootstrap_interval(th.rank_correlation, torch.ones(9), x[:9])))
    with pytest.raises(th.InputError, match="equally long"):
        th.bootstrap_interval(th.rank_correlation, x, x[:-1])
