"""Crowding on the planted model, where every number is known, and each number against its parts computed by hand."""

import math

import pytest
import torch

import tinyheads as th
from tinyheads import basis, steering
from tinyheads.planted import N_ITEMS, laundry_prompts, planted

N = N_ITEMS


@pytest.fixture(scope="module")
def built():
    return planted()


@pytest.fixture(scope="module")
def circuit(built):
    return th.Circuit([built.inhibition], [built.mover], "L2.attn")


@pytest.fixture(scope="module")
def prompts():
    return laundry_prompts(120, seed=1)


@pytest.fixture(scope="module")
def found(built, circuit, prompts):
    return th.crowding(built.model, {N: prompts}, circuit, steps=3)[N]


def shares_by_hand(built, circuit, source, few, steps):
    """The shares of the space walked through: END set to each point in a run of the whole prompt."""
    writes = th.writes_at_end(built.model, source, circuit)
    axes = basis.principal_components(torch.stack([writes[source.index == i].mean(0) for i in range(N)]), 3)
    stream, own = th.Stream(record=True), []
    built.model(source.tokens, stream)
    at_end = sum(value[:, source.end] for name, value in stream.writes.items()
                 if not name.startswith("L2"))                                             # [B, D], before L2.attn
    codes = torch.stack([(at_end @ axes.T)[source.index == i].mean(0) for i in range(N)])  # [N, 3]
    low, high = codes.min(0).values, codes.max(0).values
    low, high = low - (high - low) / 4, high + (high - low) / 4
    for point in torch.cartesian_prod(*(torch.linspace(a, b, steps) for a, b in zip(low.tolist(), high.tolist()))):
        stream = th.Stream(record=True, edits=[
            th.Edit("L2.attn", th.set_coordinates(axes, point, few.end), of="stream")])
        built.model(few.tokens, stream)
        looks = stream.patterns["L2"][:, built.mover.head, few.end, :N].mean(0)            # the list stands first
        own.append(int(looks.argmax()))
    return [own.count(i) / len(own) for i in range(N)], axes


def test_the_planted_model_is_not_crowded(found):
    assert found.accuracy == 1.0 and found.by_index.tolist() == [1.0] * N
    assert found.shares.shape == (N,) and found.shares.sum().item() == pytest.approx(1)
    assert found.apart.shape == (N - 1,) and found.apart.min() > 3
    assert found.largest_weight == pytest.approx(1 / (N - 1), abs=0.01)
    assert 0.5 < found.evenness <= 1


def test_evenness_of_equal_shares_is_1_and_of_a_single_owner_1_in_n():
    def evenness(shares):
        return th.Crowding(1.0, torch.ones(4), torch.ones(3), torch.tensor(shares), 0.3).evenness
    assert evenness([0.25] * 4) == pytest.approx(1)
    assert evenness([0.0, 0.0, 1.0, 0.0]) == pytest.approx(1 / 4)
    assert evenness([0.5, 0.5, 0.0, 0.0]) == pytest.approx(2 / 4)
    assert evenness([0.7, 0.1, 0.1, 0.1]) == pytest.approx(math.exp(-0.7 * math.log(0.7) - 0.3 * math.log(0.1)) / 4)


def test_accuracy_by_index_and_separation_are_their_parts(built, circuit):
    """On a model that is sometimes wrong: half of the inhibition head's first direction is gone from its weights."""
    model = planted().model
    th.edit_output(model, built.inhibition, built.channel[:1], torch.tensor([[-0.3]]))
    prompts = laundry_prompts(120, seed=1)
    found = th.crowding(model, {N: prompts}, circuit, steps=2)[N]
    stream = th.Stream(record=True)
    logits = model(prompts.tokens, stream)[:, prompts.end]                                 # [B, V]
    right = [prompts.candidates[b, logits[b, prompts.candidates[b]].argmax()] == prompts.answer[b] for b in range(120)]
    right = torch.stack(right).double()
    assert 0.05 < right.mean() < 0.95 and found.accuracy == pytest.approx(right.mean().item())
    by_index = [right[prompts.index == i].mean().item() for i in range(N)]
    assert found.by_index.tolist() == pytest.approx(by_index) and len(set(by_index)) > 1

    axes = th.subspace_from_activations(model, prompts, circuit, 3)
    before = sum(value[:, prompts.end] for name, value in stream.writes.items() if not name.startswith("L2"))
    points = before @ axes.T                                                               # [B, 3]
    for i in range(N - 1):
        first, second = points[prompts.index == i], points[prompts.index == i + 1]
        line = second.mean(0) - first.mean(0)
        along = [(group @ line / line.norm()).var(unbiased=False) for group in (first, second)]
        assert found.apart[i].item() == pytest.approx((line.norm() / (sum(along) / 2).sqrt()).item(), rel=1e-2)


def test_the_largest_weight_is_a_mean_over_prompts_and_inhibition_heads(built, prompts):
    heads = [built.inhibition, th.Head(0, 2)]
    circuit = th.Circuit(heads, [built.mover])
    stream, by_hand = th.Stream(record=True), []
    built.model(prompts.tokens, stream)
    for head in heads:
        for row in stream.patterns[f"L{head.layer}"][:100, head.head, prompts.end, N:2 * N - 1].tolist():
            by_hand.append(max(row) / sum(row))
    found = th.crowding(built.model, {N: prompts}, circuit, steps=2)[N]
    assert found.largest_weight == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)


def test_the_shares_are_of_the_first_four_prompts_unless_others_are_given(built, circuit, prompts, found):
    by_hand, _ = shares_by_hand(built, circuit, prompts, prompts.first(4), steps=3)
    assert found.shares.tolist() == pytest.approx(by_hand)
    other = laundry_prompts(2, seed=9)
    walked = th.crowding(built.model, {N: prompts}, circuit, to_walk={N: other}, steps=3)[N]
    assert walked.shares.tolist() == pytest.approx(shares_by_hand(built, circuit, prompts, other, steps=3)[0])


def test_how_many_prompts_are_walked_through(built, circuit, prompts, monkeypatch):
    walked, traverse = [], steering.traverse
    monkeypatch.setattr(steering, "traverse",
                        lambda model, few, *rest: walked.append(few) or traverse(model, few, *rest))
    th.crowding(built.model, {N: prompts}, circuit, steps=2)
    assert torch.equal(walked[0].tokens, prompts.tokens[:4])


def test_where_an_index_never_occurs_there_is_nan_and_the_subspace_is_found_in_other_prompts(built, circuit, prompts):
    few = prompts.first(3)
    there = set(few.index.tolist())
    with pytest.raises(th.SubspaceError, match="every index"):
        th.crowding(built.model, {N: few}, circuit)
    found = th.crowding(built.model, {N: few}, circuit, to_find={N: prompts}, steps=3)[N]
    assert found.accuracy == 1.0
    assert found.by_index.isnan().tolist() == [i not in there for i in range(N)]
    assert found.apart.isnan().tolist() == [not {i, i + 1} <= there for i in range(N - 1)]
    by_hand, axes = shares_by_hand(built, circuit, prompts, few, steps=3)
    assert found.shares.tolist() == pytest.approx(by_hand)
    assert th.principal_angles(axes, built.channel).max() < 5                              # degrees


def test_every_length_has_a_row_of_its_own_and_n_items_have_n_minus_1_dimensions(built, circuit, prompts):
    """Lists of two: the planted prompts whose answer is at 0 or 1, with these two candidates only."""
    two = prompts.index < 2
    short = th.Prompts(prompts.tokens[two], prompts.answer[two], prompts.candidates[two, :2],
                       prompts.positions[two, :2], prompts.index[two], prompts.mentions[two], prompts.end,
                       [text for text, is_there in zip(prompts.texts, two) if is_there])
    table = th.crowding(built.model, {N: prompts, 2: short}, circuit, k=3, steps=3)
    assert list(table) == [N, 2] and table[2].shares.shape == (2,) and table[2].apart.shape == (1,)
    assert (3 * table[2].shares).frac().abs().max() < 1e-6              # thirds: a line of 3 points, not a cube of 27


def test_heads_that_the_model_lacks_are_refused(built, prompts):
    with pytest.raises(th.HeadError, match="no L1.H4"):
        th.crowding(built.model, {N: prompts}, th.Circuit([th.Head(1, 4)], [built.mover]))
    with pytest.raises(th.HeadError, match="no L2.H4"):
        th.crowding(built.model, {N: prompts}, th.Circuit([built.inhibition], [th.Head(2, 4)]), steps=2)
