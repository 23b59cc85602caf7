"""Each index's code: the planted ones are found again, from means and by traversal, and both kinds steer."""

import pytest
import torch

import tinyheads as th
from tinyheads.planted import CHANNEL_SCALE, CODES, N_ITEMS, laundry_prompts, planted


@pytest.fixture(scope="module")
def built():
    return planted()


@pytest.fixture(scope="module")
def prompts():
    return laundry_prompts(200, seed=1)


@pytest.fixture(scope="module")
def circuit(built):
    return th.Circuit([built.inhibition], [built.mover])


def recorded(model, prompts, edits=()):
    stream = th.Stream(record=True, edits=edits)
    return model(prompts.tokens, stream)[:, -1], stream


@pytest.mark.parametrize("inhibition, mover", [((1, 1), (2, 2)), ((0, 3), (1, 0))])
def test_both_subspaces_are_the_planted_channel(prompts, inhibition, mover):
    built = planted(th.Head(*inhibition), th.Head(*mover))
    circuit = th.Circuit([built.inhibition], [built.mover])
    for found in (th.subspace_from_weights(built.model, circuit, 3),
                  th.subspace_from_activations(built.model, prompts, circuit, 3)):
        assert found.shape == (3, 64) and th.principal_angles(found, built.channel).max() < 2   # degrees
    with pytest.raises(th.SubspaceError, match="1 to 5 directions, not 6"):
        th.subspace_from_activations(built.model, prompts, circuit, 6)


def test_mean_codes_are_the_planted_codes(built, prompts, circuit):
    """Of the ordinals crossed off each gets a fifth, so that minus their mean is a fifth of the code left out."""
    codes = th.mean_codes(built.model, prompts, circuit, built.channel)
    factor = (64 / (1 + 1 + 36)) ** 0.5 / 5      # LayerNorm brings code, is_ordinal and 6 * constant to length sqrt(D)
    torch.testing.assert_close(codes, factor * CODES * CHANNEL_SCALE, rtol=0, atol=0.15)
    assert (factor * CHANNEL_SCALE).min() > 0.5                                         # so that 0.15 is little
    _, stream = recorded(built.model, prompts)
    names = th.write_names(built.model.config)
    x = sum(stream.writes[name] for name in names[:names.index("L1.mlp")])[:, -1] @ built.channel.T    # [B, 3]
    by_hand = torch.stack([x[prompts.index == i].mean(0) for i in range(N_ITEMS)])
    torch.testing.assert_close(codes, by_hand, rtol=1e-4, atol=1e-4)


def test_traversed_codes_point_where_the_planted_ones_do_and_both_kinds_steer(built, prompts, circuit):
    unseen, few = laundry_prompts(200, seed=2), prompts.first(12)
    means = th.mean_codes(built.model, prompts, circuit, built.channel)
    walked = th.traversed_codes(built.model, few, circuit, built.channel, around=means, steps=5)
    own = th.traversed_codes(built.model, prompts.first(40), circuit, built.channel, steps=5)   # around their own means
    earlier = th.before_end(built.model, unseen)
    for codes in (means, walked, own):
        assert ((codes / CHANNEL_SCALE) @ CODES.T).argmax(1).tolist() == list(range(N_ITEMS))
        rates = [th.steering_rate(built.model, unseen, circuit, built.channel, codes, seed=3, earlier=before)
                 for before in (None, earlier)]
        assert rates == [1.0, 1.0]
    wrong = means.roll(1, 0)                                                            # each index has its neighbour's
    for before in (None, earlier):
        assert th.steering_rate(built.model, unseen, circuit, built.channel, wrong, 3, before) == 0.0


def test_steered_answers_are_alike_with_and_without_what_stands_before_end(built, prompts, circuit):
    values = torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
    change = th.set_coordinates(built.channel, values, prompts.end)
    logits, _ = recorded(built.model, prompts, [th.Edit("L1.mlp", change, of="stream")])
    expected = logits.gather(1, prompts.candidates).argmax(1)
    assert len(expected.unique()) == N_ITEMS
    for earlier in (None, th.before_end(built.model, prompts)):
        assert torch.equal(th.steered_answers(built.model, prompts, circuit, built.channel, values, earlier), expected)
