"""What a subspace carries, on the planted model: known by construction, and by running the whole prompts instead."""

import pytest
import torch

import tinyheads as th
from tinyheads import plots, plots_of_space
from tinyheads.planted import laundry_prompts, planted

BUILT, PROMPTS = planted(), laundry_prompts(60, seed=5)
CIRCUIT = th.Circuit([BUILT.inhibition], [BUILT.mover])


@pytest.mark.parametrize("keep", [True, False])
def test_the_planted_channel_carries_everything_and_nothing_else_does(keep):
    accuracy, preference = th.carried(BUILT.model, PROMPTS, CIRCUIT, BUILT.channel, keep)
    assert (accuracy == 1.0 and preference > 0.5) if keep else (accuracy < 0.35 and preference < 0)
    random = th.carried(BUILT.model, PROMPTS, CIRCUIT, th.random_subspace(64, 3, seed=1), keep)
    assert random[0] < 0.35 if keep else random[0] == 1.0


def test_end_alone_gives_what_whole_prompts_give():
    basis = BUILT.channel[:1]
    edits = [th.restrict(basis, str(BUILT.inhibition), PROMPTS.end)]
    right = th.correct(BUILT.model(PROMPTS.tokens, th.Stream(edits=edits)), PROMPTS).double().mean().item()
    expected = right, th.preference(BUILT.model, PROMPTS, CIRCUIT.movers, edits)
    earlier = th.before_end(BUILT.model, PROMPTS)
    assert th.carried(BUILT.model, PROMPTS, CIRCUIT, basis, earlier=earlier) == pytest.approx(expected, abs=1e-5)
    assert 0.2 < right < 0.9                    # neither all nor nothing, so that the comparison can fail


def test_a_head_that_is_not_there_is_an_error():
    with pytest.raises(th.HeadError, match="there is no L2.H9"):
        th.carried(BUILT.model, PROMPTS, th.Circuit([BUILT.inhibition], [th.Head(2, 9)]), BUILT.channel)


def test_a_part_of_the_prompts():
    part = PROMPTS.part(20, 50)
    assert torch.equal(part.tokens, PROMPTS.tokens[20:50]) and torch.equal(part.index, PROMPTS.index[20:50])
    assert part.end == PROMPTS.end and part.texts == PROMPTS.texts[20:50]
    assert PROMPTS.first(7).texts == PROMPTS.part(0, 7).texts


def test_a_walk_is_drawn_by_who_is_looked_at_and_who_is_answered():
    attended = torch.tensor([[0.9, 0.0], [0.0, 0.9], [0.05, 0.0], [0.0, 0.9]]).repeat_interleave(16, 0)     # [64, 2]
    answered = attended.flip(1)
    figure, axes = plots.new_figure(6, 3, columns=2)
    corners, codes = (torch.zeros(2), torch.ones(2)), torch.full((2, 2), 0.5)
    plots_of_space.draw_walk(axes[0], attended, answered, corners, codes, "2 items")
    labels = [[text.get_text() for text in panel.texts if text.get_fontsize() > 10] for panel in axes[0]]
    assert sorted(labels[0]) == ["0", "1", "1", "none"] and sorted(set(labels[1])) == ["0", "1"]


def test_levels_and_one_legend_for_all_panels():
    figure, axes = plots.new_figure(6, 3, columns=2)
    for panel in axes[0]:
        plots.draw_lines(panel, {"a": torch.tensor([0.1, 0.2])}, "k", "rate", start=1, levels={"chance": 0.125})
    assert [text.get_text() for text in axes[0, 0].texts] == ["chance"]
    assert axes[0, 0].lines[-1].get_ydata()[0] == 0.125 and axes[0, 0].lines[-1].get_linestyle() == "--"
    plots.join_legends(figure)
    assert all(panel.get_legend() is None for panel in axes[0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a"]
