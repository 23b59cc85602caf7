"""A place in each prompt: every way to name one, and unequal prompts held against each prompt run alone."""

import numpy as np
import pytest
import torch

import tinyheads as th
from helpers import random_model, random_tokens
from tinyheads import positions

SIZES = dict(n_vocab=30, n_ctx=12, n_embd=16, n_layer=2, n_head=2)
BASIS = th.random_subspace(16, 3, seed=5)
X = torch.randn(4, 5, 16, generator=torch.Generator().manual_seed(0))
circuit = lambda where: th.Circuit([th.Head(0, 1)], [th.Head(1, 0)], where)
VALUES = torch.tensor([3.0, -1.0, 2.0])
MOVED = th.add_coordinates(BASIS, VALUES, [3])(X)


@pytest.mark.parametrize("position", [
    3, np.int64(3), np.int32(3), torch.tensor(3), torch.tensor(3, dtype=torch.uint8), [3], (np.int64(3),), range(3, 4),
    [torch.tensor(3)], [3, 3], torch.tensor([3, 3, 3, 3]),
    torch.tensor([3, 3, 3, 3], dtype=torch.int32), np.full(4, 3)])
def test_one_position_named_in_every_way(position):
    assert torch.equal(th.add_coordinates(BASIS, VALUES, position)(X), MOVED)
    assert torch.equal(th.restrict(BASIS, "L0.H0", position).change(X),
                       th.restrict(BASIS, "L0.H0", 3).change(X))


@pytest.mark.parametrize("position, words", [
    (True, "not True"), (torch.tensor(True), "whole number"), (np.bool_(True), "whole number"),
    ([0, True], "whole number"),
    (3.0, "not 3.0"), (torch.tensor([0.0, 1, 2, 3]), "whole number"), (None, "not None"), ("3", "not '3'"),
    ([[1]], "whole number"),
    (torch.zeros(4, 1, dtype=torch.int64), "whole number"), (-1, "position -1 is outside the prompt, 0 to 4"),
    ([0, -1], "position -1"), (5, "position 5"), (torch.tensor([0, 1, 2, 5]), "position 5"), ([], "one position"),
    (torch.tensor([0, 1, 2]), "one for each of the 4 prompts, not 3"), (torch.tensor([3]), "the 4 prompts, not 1")])
def test_what_is_no_position_is_refused_in_words(position, words):
    with pytest.raises(th.SubspaceError, match=words):
        th.add_coordinates(BASIS, VALUES, position)(X)
    with pytest.raises(th.InputError, match=words):
        positions.places(position, 4, 5)


def test_a_tensor_is_one_for_each_prompt_and_a_list_is_all_of_them_in_each_even_where_sizes_are_equal():
    """Four prompts, four positions, and as many dimensions as prompts: nothing is decided by sizes."""
    order, basis = [3, 0, 4, 1], th.random_subspace(16, 4, seed=1)
    values = torch.arange(16.0).view(4, 4)
    each = th.set_coordinates(basis, values, torch.tensor(order))(X) @ basis.T           # [B, T, k]
    every = th.set_coordinates(basis, values, order)(X) @ basis.T
    alike = th.set_coordinates(basis, values[0], order)(X) @ basis.T
    for b in range(4):
        for t in range(5):
            before = X[b, t] @ basis.T
            torch.testing.assert_close(each[b, t], values[b] if t == order[b] else before, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(every[b, t], values[b] if t in order else before, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(alike[b, t], values[0] if t in order else before, rtol=1e-4, atol=1e-4)


def test_at_picks_one_row_of_each_prompt():
    x, ends = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5), torch.tensor([3, 1])
    assert torch.equal(positions.at(x, ends), torch.stack([x[0, :, 3], x[1, :, 1]]))
    assert torch.equal(positions.at(x, 2), x[:, :, 2])
    with pytest.raises(th.InputError, match="one position of each"):
        positions.at(x, [0, 1])


# --- unequal prompts, padded on the right ----------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return random_model(SIZES, seed=1)


@pytest.fixture(scope="module")
def unequal():
    """Four prompts of 6, 12, 9 and 7 tokens, the rest padding; three candidates in each."""
    tokens, ends = random_tokens(th.GPT2Config(**SIZES), B=4, seed=2), torch.tensor([5, 11, 8, 6])
    tokens[:, :6] = torch.rand(4, 30, generator=torch.Generator().manual_seed(3)).argsort(1)[:, :6]   # all different
    tokens[torch.arange(12) > ends[:, None]] = 0
    places = torch.tensor([[0, 2, 4], [1, 3, 5], [0, 1, 2], [3, 4, 5]])
    index = torch.tensor([0, 1, 2, 1])
    candidates = tokens.gather(1, places)
    answer = candidates.gather(1, index[:, None])[:, 0]
    return th.Prompts(tokens, answer, candidates, places, index, places[:, :2], ends, [""] * 4)


@pytest.fixture(scope="module")
def alone(unequal):
    """The same prompts one by one, without padding."""
    names = ("answer", "candidates", "positions", "index", "mentions")
    return [th.Prompts(unequal.tokens[[b], :end + 1], *(getattr(unequal, name)[[b]] for name in names), end, [""])
            for b, end in enumerate(unequal.end.tolist())]


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_what_is_seen_at_each_prompts_own_end(model, unequal, alone):
    for name, of in [("L1.H1", "writes"), ("L1.mlp", "stream"), ("unembed", "reads")]:
        close(th.seen_at_end(model, unequal, [name], of)[0],
              torch.cat([th.seen_at_end(model, one, [name], of)[0] for one in alone]))
    pattern = th.seen_at_end(model, unequal, ["L1"], "patterns")[0]                    # [B, H, T]
    for b, one in enumerate(alone):
        close(pattern[b, :, :one.end + 1], th.seen_at_end(model, one, ["L1"], "patterns")[0][0])
    close(th.attention_on(model, unequal, unequal.mentions),
          torch.stack([th.attention_on(model, one, one.mentions) for one in alone]).mean(0))
    close(th.mean_codes(model, unequal, circuit("L1.mlp"), BASIS)[1],
          sum(th.stream_at_end(model, one, "L1.mlp")[0] for one in (alone[1], alone[3])) @ BASIS.T / 2)


def test_logits_and_accuracy_at_each_prompts_own_end(model, unequal, alone):
    logits = th.logits_at_end(model, unequal, batch=3)
    close(logits, torch.cat([model(one.tokens)[:, -1] for one in alone]))
    assert torch.equal(th.correct(model(unequal.tokens), unequal), th.correct(logits, unequal))


def test_an_edit_at_each_prompts_own_end(model, unequal, alone):
    values = 9 * torch.randn(4, 3, generator=torch.Generator().manual_seed(4))
    change = th.set_coordinates(BASIS, values, unequal.end)
    run = lambda tokens, change: model(tokens, th.Stream(edits=[th.Edit("L1.attn", change, of="stream")]))
    logits = positions.at(run(unequal.tokens, change), unequal.end)
    expected = torch.cat([run(one.tokens, th.set_coordinates(BASIS, values[b], one.end))[:, -1]
                          for b, one in enumerate(alone)])
    close(logits, expected)
    assert (logits - th.logits_at_end(model, unequal)).abs().max() > 0.1                # and it did something
    assert torch.equal(th.steered_answers(model, unequal, circuit("L1.attn"), BASIS, values),
                       expected.gather(1, unequal.candidates).argmax(1))


def test_restricting_at_each_prompts_own_end(unequal):
    write = torch.randn(4, 12, 16, generator=torch.Generator().manual_seed(5))
    after = th.restrict(BASIS, "L0.H0", unequal.end).change(write)
    here = torch.stack([write[b, end] for b, end in enumerate(unequal.end.tolist())])
    mean = here.mean(0)
    for b, end in enumerate(unequal.end.tolist()):
        close(after[b, end], mean + (here[b] - mean) @ BASIS.T @ BASIS)
        assert torch.equal(after[b, :end], write[b, :end]) and torch.equal(after[b, end + 1:], write[b, end + 1:])


def test_a_repair_is_fitted_at_each_prompts_own_end(model, unequal):
    """Its first loss is the cross-entropy by hand."""
    found = th.fit_repair(model, circuit("L0.mlp"), BASIS, [unequal], [unequal], steps=2)
    among = th.logits_at_end(model, unequal).gather(1, unequal.candidates)
    expected = -among.log_softmax(1)[torch.arange(4), unequal.index].mean().item()
    assert found.loss[0] == pytest.approx(expected, rel=1e-5)


def test_end_alone_needs_prompts_that_end_together(model, unequal, alone):
    with pytest.raises(th.TaskError, match="unequal length"):
        th.before_end(model, unequal)
    with pytest.raises(th.TaskError, match="unequal length"):
        th.traverse(model, unequal, circuit("L1.attn"), BASIS, torch.zeros(1, 3))
    earlier = th.before_end(model, alone[0])
    with pytest.raises(th.TaskError, match="1 prompts of 12 tokens"):
        th.run_end(model, alone[1], earlier)
