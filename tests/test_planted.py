"""The methods against a ground truth: a channel planted by hand must be found where it is, and only there."""

import pytest
import torch

import tinyheads as th
from tinyheads.planted import CHANNEL_SCALE, CODES, N_ITEMS, laundry_prompts, planted
from helpers import circuit_of, scores_of_head
from tinyheads import ablation, basis


@pytest.fixture(scope="module")
def built():
    return planted()


@pytest.fixture(scope="module")
def prompts():
    return laundry_prompts(300, seed=1)


@pytest.fixture(scope="module")
def some(prompts):
    """Fewer, where the model runs once for every component."""
    return prompts.first(60)


def accuracy(model, prompts, edits=()):
    logits = model(prompts.tokens, th.Stream(edits=list(edits)))[:, prompts.end]
    return (logits.argmax(-1) == prompts.answer).double().mean().item()


def end_codes(built, prompts):
    """The inhibition head's write at END in the channel's own coordinates, and its mean for each index."""
    writes = th.writes_at_end(built.model, prompts, circuit_of(built))
    return th.by_index(th.coordinates(writes, built.channel), prompts)


def test_the_planted_model_solves_its_task_through_its_channel_alone(built, prompts):
    assert accuracy(built.model, prompts) == 1.0
    assert accuracy(planted(with_channel=False).model, prompts) < 0.35  # chance is 1 / 6


# --- found from weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("inhibition, mover", [((1, 1), (2, 2)), ((0, 3), (1, 0)), ((0, 0), (2, 3))])
def test_composition_finds_the_channel_wherever_it_is_planted(inhibition, mover):
    built = planted(th.Head(*inhibition), th.Head(*mover))
    heads = th.Heads.of(built.model)
    edge = th.predict_edges(heads, "Q", 1)[0]
    assert (edge.component.layer, edge.component.head) == inhibition and edge.reader == th.Head(*mover)
    whole = th.composition_scores(heads, "Q")
    assert (whole == whole.max()).nonzero().tolist() == [[*inhibition, *mover]]


def test_without_the_channel_nothing_stands_out():
    heads = th.Heads.of(planted(with_channel=False).model)
    found = th.predict_edges(heads, "Q", 1)[0]
    real = th.predict_edges(th.Heads.of(planted().model), "Q", 1)[0]
    assert found.score < 0.6 * real.score and found.distance < 0.6 * real.distance


def test_the_svd_finds_the_channels_rank_scale_and_directions(built):
    ov = th.ov_svd(th.Heads.of(built.model))
    scale = ov.scale[built.inhibition.layer, built.inhibition.head]
    torch.testing.assert_close(scale[:3], CHANNEL_SCALE, rtol=1e-4, atol=0)
    assert scale[3:].max() < 1e-4
    found = ov.write[built.inhibition.layer, built.inhibition.head, :3]
    torch.testing.assert_close((found * built.channel).sum(-1).abs(), torch.ones(3), rtol=0, atol=1e-4)


# --- verified by intervention -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ablation.WAYS)
def test_removing_a_channel_component_costs_the_movers_attention_and_no_other_does(built, some, how):
    scores = scores_of_head(built.model, some, built.inhibition, built.mover, how)
    assert scores[:3].min() > 0.3 and scores[3:].abs().max() < 1e-3
    # A head that is not in the circuit has no component that matters.
    other = scores_of_head(built.model, some, th.Head(1, 0), built.mover, how)
    assert other.abs().max() < 0.05


def test_composition_and_inhibition_scores_agree_on_the_planted_channel(built, some):
    mover, places = built.mover, [th.Head(1, 0), th.Head(1, 1), th.Head(1, 2), th.Head(1, 3)]
    measured = torch.cat([scores_of_head(built.model, some, place, built.mover) for place in places])
    scores = th.component_scores(th.Heads.of(built.model), "Q")[..., mover.layer, mover.head]       # [L, H, K]
    predicted = torch.cat([scores[place.layer, place.head] for place in places])
    top = set(predicted.topk(3).indices.tolist())
    assert top == set(measured.topk(3).indices.tolist()) == {16, 17, 18}  # L1.H1.C0 to C2 of 64


def test_removing_all_three_components_leaves_chance(built, prompts):
    mended = accuracy(built.model, prompts, [th.remove(built.channel, str(built.inhibition), "zero")])
    assert mended < 0.35


# --- the subspace ---------------------------------------------------------------------------------------


def test_the_subspace_is_found_from_weights_and_from_activations(built, prompts):
    ov = th.ov_svd(th.Heads.of(built.model))
    from_weights = th.subspace_of_components(ov, [th.Component(1, 1, i) for i in range(3)])
    writes = th.writes_at_end(built.model, prompts, circuit_of(built))
    from_activations = basis.principal_components(th.by_index(writes, prompts), 3)
    for found in (from_weights, from_activations):
        assert th.principal_angles(found, built.channel).max() < 2  # degrees
    control = th.random_subspace(64, 3, seed=1)
    assert th.principal_angles(control, built.channel).max() > 45


def test_the_codes_found_at_end_are_the_octahedron(built, prompts):
    codes = end_codes(built, prompts) / CHANNEL_SCALE
    directions = codes / codes.norm(dim=1, keepdim=True)
    torch.testing.assert_close(directions @ directions.T, CODES @ CODES.T, rtol=0, atol=0.25)  # 1, 0 or -1


def test_steering_to_a_random_index_works_in_the_channel_and_is_at_chance_elsewhere(built, prompts):
    codes = end_codes(built, prompts)
    unseen = laundry_prompts(300, seed=2)
    assert th.steering_rate(built.model, unseen, circuit_of(built), built.channel, codes) > 0.98
    control = th.random_subspace(64, 3, seed=3)
    writes = th.writes_at_end(built.model, prompts, circuit_of(built))
    control_codes = th.by_index(th.coordinates(writes, control), prompts)
    assert abs(th.steering_rate(built.model, unseen, circuit_of(built), control, control_codes) - 1 / 6) < 0.08


def test_traversing_the_channel_gives_each_index_its_own_region(built, prompts):
    reach = end_codes(built, prompts).abs().amax(0)
    points = th.grid(-reach, reach, 5)
    few = laundry_prompts(8, seed=3)
    attention, _ = th.traverse(built.model, few, circuit_of(built), built.channel, points)
    owners = attention.argmax(dim=1)
    for point, owner in zip(points / reach, owners.tolist()):
        nearest = (CODES @ point.sort(descending=True).values).max()
        if point.abs().sort().values[1] < 0.1 and point.abs().max() > 0.9:  # close to one corner
            assert CODES[owner] @ point > 0.9, (point, owner, nearest)
    share = th.shares(owners, N_ITEMS)
    assert share.sum().item() == pytest.approx(1) and share.min() > 0.05


def test_visiting_a_code_gives_its_item_and_agrees_with_running_the_whole_prompt(built, prompts):
    codes, few = end_codes(built, prompts), laundry_prompts(8, seed=3)
    attention, answers = th.traverse(built.model, few, circuit_of(built), built.channel, codes)
    assert answers.argmax(1).tolist() == list(range(N_ITEMS))
    for code, looks, answered in zip(codes, attention, answers):
        change = th.set_coordinates(built.channel, code, few.end)
        stream = th.Stream(record=True, edits=[th.Edit("L2.attn", change, of="stream")])
        logits = built.model(few.tokens, stream)[:, few.end]
        pattern = stream.patterns["L2"][:, built.mover.head, few.end]
        torch.testing.assert_close(looks, pattern.gather(1, few.positions).mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(answered, logits.softmax(-1).gather(1, few.candidates).mean(0), rtol=1e-4, atol=1e-5)


# --- edits in the weights ------------------------------------------------------------------------------


def test_an_edit_of_the_weights_does_what_the_edit_in_the_stream_does(prompts):
    M = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    in_stream = planted()
    channel = in_stream.channel
    stream = th.Stream(edits=[
        th.Edit("L1.H1", lambda write: write + (write @ channel.T) @ (M - torch.eye(3)) @ channel)])
    expected = in_stream.model(prompts.tokens, stream)
    in_weights = planted()
    report = th.edit_output(in_weights.model, in_weights.inhibition, in_weights.channel, M)
    torch.testing.assert_close(in_weights.model(prompts.tokens), expected, rtol=1e-4, atol=1e-4)
    assert report.rank == 3 and sorted(report.factors) == pytest.approx([1, 1, 2])
    change = torch.diag(CHANNEL_SCALE) @ (M - torch.eye(3))
    assert report.relative_norm == pytest.approx((change.norm() / CHANNEL_SCALE.norm()).item(), rel=1e-3)


def test_erasing_the_channel_from_the_weights_leaves_chance_and_restoring_it_mends_the_model(prompts, tmp_path):
    built = planted()
    th.edit_output(built.model, built.inhibition, built.channel, 0.01 * torch.eye(3))
    assert accuracy(built.model, prompts) < 0.5
    th.edit_output(built.model, built.inhibition, built.channel, 100 * torch.eye(3))
    assert accuracy(built.model, prompts) == 1.0
    th.save(built.model, tmp_path)
    assert torch.equal(th.load(tmp_path)(prompts.tokens), built.model(prompts.tokens))


def test_an_edit_of_the_weights_that_would_do_nothing_is_refused(built):
    model, channel = built.model, built.channel
    with pytest.raises(th.SubspaceError, match="do nothing"):
        th.edit_output(model, built.inhibition, channel, torch.eye(3))
    with pytest.raises(th.SubspaceError, match="do nothing"):  # the mover writes words, none of it in the channel
        th.edit_output(model, built.mover, channel, torch.zeros(3, 3))
    with pytest.raises(th.HeadError, match="L0.H0 to L2.H3"):
        th.edit_output(model, th.Head(3, 0), channel, torch.zeros(3, 3))
    with pytest.raises(th.SubspaceError, match="wide"):
        th.edit_output(model, built.inhibition, channel[:, :60], torch.zeros(3, 3))
    with pytest.raises(th.SubspaceError, match=r"\[3, 3\]"):
        th.edit_output(model, built.inhibition, channel, torch.zeros(2, 2))
