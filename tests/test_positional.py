"""The subspace from weights, what k dimensions carry, codes by traversal, and END run alone: on the planted model."""

import numpy as np
import pytest
import torch

import tinyheads as th
from tinyheads.planted import CHANNEL_SCALE, N_ITEMS, laundry_prompts, planted
from helpers import circuit_of
from tinyheads import plots, plots_of_space
from tinyheads.subspace import lengths_read


@pytest.fixture(scope="module")
def built():
    return planted()


@pytest.fixture(scope="module")
def prompts():
    return laundry_prompts(200, seed=4)


@pytest.fixture(scope="module")
def circuit(built):
    return circuit_of(built)


def accuracy(model, prompts, edits=()):
    logits = model(prompts.tokens, th.Stream(edits=list(edits)))
    return th.correct(logits, prompts).double().mean().item()


# --- who looks where ----------------------------------------------------------------------------------


def test_attention_on_places_is_that_of_a_recorded_run(built, prompts):
    stream = th.Stream(record=True)
    built.model(prompts.tokens, stream)
    expected = stream.patterns["L2"][:, 2, -1].gather(1, prompts.mentions).sum(1).mean()
    attention = th.attention_on(built.model, prompts, prompts.mentions)                 # [L, H]
    assert attention.shape == (3, 4)
    torch.testing.assert_close(attention[2, 2], expected, rtol=1e-4, atol=1e-5)


# --- the subspace from weights ------------------------------------------------------------------------


def test_the_components_read_most_and_their_subspace_are_the_planted_channel(built, circuit):
    found = th.subspace_from_weights(built.model, circuit)
    assert th.principal_angles(found, built.channel).max() < 2
    assert set(th.components_read_most(built.model, circuit, 3)) == {th.Component(1, 1, i) for i in range(3)}
    # With heads that write noise beside it, the movers still read the channel most, and only the planted mover does.
    among = th.subspace_from_weights(built.model, th.Circuit([th.Head(1, h) for h in range(4)], [built.mover]))
    assert th.principal_angles(among, built.channel).max() < 3
    elsewhere = th.subspace_from_weights(built.model, th.Circuit([th.Head(1, 0)], [th.Head(2, 0)]))
    assert th.principal_angles(elsewhere, built.channel).max() > 45
    whole = th.subspace_from_weights(built.model, circuit, None)                        # [rank, D]
    assert len(whole) >= 3 and torch.equal(whole[:3], found)


def test_how_much_of_a_component_is_read_is_its_singular_value_times_its_score(built):
    circuit = th.Circuit([built.inhibition], [built.mover, th.Head(2, 0)])
    scores = th.component_scores(th.Heads.of(built.model), "Q")
    _, lengths = lengths_read(built.model, circuit)                                     # [1, K]
    by_hand = torch.tensor([(CHANNEL_SCALE[i] ** 2 * (scores[1, 1, i, 2, 2] ** 2 + scores[1, 1, i, 2, 0] ** 2)) ** 0.5
                            for i in range(3)])
    torch.testing.assert_close(lengths[0, :3], by_hand, rtol=1e-3, atol=0)


def test_a_subspace_that_cannot_be_is_refused(built, circuit):
    with pytest.raises(th.SubspaceError, match="dimensions, not 17"):
        th.subspace_from_weights(built.model, circuit, 17)
    with pytest.raises(th.HeadError, match="L0.H0 to L2.H3"):
        th.subspace_from_weights(built.model, th.Circuit([built.inhibition], [th.Head(3, 0)]), 1)
    with pytest.raises(th.SubspaceError, match="components, not 0"):
        th.components_read_most(built.model, circuit, 0)


# --- what k dimensions carry ----------------------------------------------------------------------------


def test_keeping_the_channel_keeps_the_task_and_removing_it_leaves_chance(built, prompts):
    writer, end = str(built.inhibition), prompts.end
    assert accuracy(built.model, prompts, [th.restrict(built.channel, writer, end, keep=True)]) == 1.0
    assert accuracy(built.model, prompts, [th.restrict(built.channel, writer, end, keep=False)]) < 0.35
    control = th.random_subspace(64, 3, seed=9)
    control = torch.linalg.qr((control - control @ built.channel.T @ built.channel).T).Q.T      # nothing of the channel
    assert accuracy(built.model, prompts, [th.restrict(control, writer, end, keep=True)]) < 0.35
    assert accuracy(built.model, prompts, [th.restrict(control, writer, end, keep=False)]) == 1.0


def test_every_further_dimension_of_the_channel_carries_more(built, prompts):
    rates = [accuracy(built.model, prompts, [th.restrict(built.channel[:k], str(built.inhibition), prompts.end)])
             for k in (1, 2, 3)]
    assert rates[0] < rates[1] < rates[2] == 1.0


def test_restricting_touches_end_alone_and_keeps_the_mean(built):
    write = torch.randn(5, 7, 64, generator=torch.Generator().manual_seed(0))
    before = write.clone()
    kept, removed = (th.restrict(built.channel, "L1.H1", 6, keep).change(write) for keep in (True, False))
    assert torch.equal(write, before)
    assert torch.equal(kept[:, :6], write[:, :6]) and torch.equal(removed[:, :6], write[:, :6])
    mean = write[:, 6].mean(0)
    torch.testing.assert_close(kept[:, 6] - mean + removed[:, 6] - mean, write[:, 6] - mean, rtol=0, atol=1e-5)
    torch.testing.assert_close((removed[:, 6] - mean) @ built.channel.T, torch.zeros(5, 3), rtol=0, atol=1e-5)


# --- END alone ---------------------------------------------------------------------------------------------


def test_end_alone_gives_what_the_whole_prompt_gives(built, prompts):
    earlier = th.before_end(built.model, prompts)
    logits, stream = th.run_end(built.model, prompts, earlier)
    whole = th.Stream(record=True)
    torch.testing.assert_close(logits, built.model(prompts.tokens, whole)[:, -1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stream.patterns["L2"][:, :, 0], whole.patterns["L2"][:, :, -1], rtol=1e-4, atol=1e-5)
    again, _ = th.run_end(built.model, prompts, earlier)                            # and does so again
    assert torch.equal(again, logits)


def test_steering_end_alone_is_steering_the_whole_prompt(built, prompts):
    values = torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
    answers = th.steered_answers(built.model, prompts, circuit_of(built), built.channel, values)
    change = th.set_coordinates(built.channel, values, 0)
    edit = th.Edit("L2.attn", change, of="stream")
    logits, _ = th.run_end(built.model, prompts, th.before_end(built.model, prompts), [edit])
    assert torch.equal(logits.gather(1, prompts.candidates).argmax(1), answers)


def test_copies_stand_one_after_another(built):
    few = laundry_prompts(3, seed=5)
    earlier = th.before_end(built.model, few)
    once, _ = th.run_end(built.model, few, earlier)
    thrice, stream = th.run_end(built.model, few, earlier, copies=3)
    torch.testing.assert_close(thrice, once.repeat_interleave(3, dim=0), rtol=1e-4, atol=1e-5)
    assert stream.patterns["L1"].shape == (9, 4, 1, 2 * N_ITEMS) and earlier.length == 2 * N_ITEMS - 1


def test_traversal_finds_codes_that_steer_in_the_channel_and_none_outside_it(built, prompts, circuit):
    few = laundry_prompts(10, seed=6)
    rates = []
    control = th.random_subspace(64, 3, seed=9)
    control = torch.linalg.qr((control - control @ built.channel.T @ built.channel).T).Q.T      # nothing of the channel
    for basis in (built.channel, control):
        middle = th.mean_codes(built.model, prompts, circuit, basis).mean(0)
        codes = th.traversed_codes(built.model, few, circuit, basis, torch.stack([middle - 2, middle + 2]), steps=7)
        assert codes.shape == (N_ITEMS, 3)
        rates.append(th.steering_rate(built.model, prompts, circuit, basis, codes))
    assert rates[0] == 1.0 and rates[1] < 0.4


def test_traversed_codes_are_a_grids_points_of_the_surest_answers(built, prompts, circuit):
    few, codes = laundry_prompts(4, seed=6), th.mean_codes(built.model, prompts, circuit, built.channel)
    middle = codes.mean(0)
    reach = 2 * (codes - middle).abs().max()
    points = th.grid(middle - reach, middle + reach, 5)
    answers = torch.stack([built.model(few.tokens, th.Stream(edits=[th.Edit(
        "L2.attn", th.set_coordinates(built.channel, point, few.end), of="stream")]))[:, few.end].softmax(-1)
        .gather(1, few.candidates).mean(0) for point in points])                        # [G, N]
    found = th.traversed_codes(built.model, few, circuit, built.channel, codes, steps=5)
    assert torch.equal(found, points[answers.argmax(0)])
    of_themselves = th.traversed_codes(built.model, prompts, circuit, built.channel, steps=2)  # around their own codes
    assert of_themselves.shape == (N_ITEMS, 3)


# --- the figures -------------------------------------------------------------------------------------------


def test_each_region_is_labelled_inside_itself_and_clear_of_what_is_taken():
    owners = np.zeros((9, 9), int)
    owners[:, 5:] = 1
    owners[0, 0] = 2                                                                     # too small for a label
    owners[7:, :2] = 1                                                                   # a second region of index 1
    taken = np.zeros_like(owners, bool)
    taken[3:6, 6:8] = True
    places = plots_of_space.inner_points(owners, taken, least=4)
    assert sorted(index for _, index in places) == [0, 1, 1]
    for place, index in places:
        assert owners[place] == index and not taken[place]


def test_regions_and_clouds_write_every_index():
    figure, axes = plots.new_figure(4, 3)
    owners = torch.zeros(10, 10, dtype=torch.int64)
    owners[5:] = 1
    owners[:, 8:] = -1
    codes = torch.tensor([[0.1, 0.1], [0.9, 0.1]])
    plots_of_space.draw_regions(axes[0, 0], owners, torch.zeros(2), torch.ones(2), codes, "x", "y", "title")
    assert sorted(text.get_text() for text in axes[0, 0].texts) == ["0", "0", "1", "1", "none"]
    for text in axes[0, 0].texts:
        x, y = text.get_position()
        assert text.get_text() == ("none" if y > 0.8 else "0" if x < 0.5 else "1")
    figure, axes = plots.new_figure(4, 3, subplot_kw={"projection": "3d"})
    points, index = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    plots_of_space.draw_clouds(axes[0, 0], points, index, "title")
    assert [text.get_text() for text in axes[0, 0].texts] == ["0", "1", "2"]


def test_lines_can_start_at_one():
    figure, axes = plots.new_figure(4, 3)
    plots.draw_lines(axes[0, 0], {"a": torch.tensor([0.1, 0.2])}, "k", "rate", start=1)
    assert axes[0, 0].lines[0].get_xdata().tolist() == [1, 2]
