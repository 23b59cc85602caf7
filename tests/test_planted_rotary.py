"""Weights alone where positions rotate: the score's definition, and a planted Pythia whose channel it must find."""

import pytest
import torch

import tinyheads as th
from tinyheads.composition import component_score, composition_score
from tinyheads.planted import laundry_prompts
from tinyheads.planted_rotary import CIRCLE, CIRCLE_SCALE, planted_rotary, turn
from tinyheads.pythia import rotate


@pytest.fixture(scope="module")
def built():
    return planted_rotary()


@pytest.fixture(scope="module")
def prompts():
    return laundry_prompts(300, seed=1)


def qk(heads, reader, distance):
    """QK(d) = W_Q R(d) W_K^T of one head: [D, D]."""
    place = (reader.layer, reader.head)
    return rotate(heads.W_Q[place], distance, heads.config) @ heads.W_K[place].T


# --- the definition ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["Q", "K"])
def test_scores_are_those_of_qk_at_all_distances_side_by_side(golden, mode):
    model = th.load(golden / "pythia" / "deep")
    heads = th.Heads.of(model)
    ov, whole, parts = th.ov_svd(heads), th.composition_scores(heads, mode), th.component_scores(heads, mode)
    edges = th.predict_edges(heads, mode, 1000, "L3.H1")
    for writer, reader in [((0, 1), th.Head(2, 0)), ((2, 0), th.Head(3, 1)), ((1, 1), th.Head(3, 1))]:
        at = [qk(heads, reader, d) for d in range(model.config.n_ctx)]
        M = torch.cat([each if mode == "Q" else each.T for each in at], dim=1)             # [D, n_ctx * D]
        OV, place = heads.W_V[writer] @ heads.W_O[writer], (reader.layer, reader.head)
        torch.testing.assert_close(whole[writer][place], composition_score(OV, M), rtol=1e-4, atol=1e-6)
        scores = component_score(ov.write[writer], M)                                      # [K]
        torch.testing.assert_close(parts[writer][:, place[0], place[1]], scores, rtol=1e-4, atol=1e-6)
        if reader == th.Head(3, 1):
            found = {edge.component.index: edge.score for edge in edges if edge.component.of_head == th.Head(*writer)}
            torch.testing.assert_close(torch.tensor([found[i] for i in range(8)]), scores, rtol=1e-4, atol=1e-6)


def test_the_svd_of_qk_is_at_a_distance_and_ov_knows_none(golden):
    heads = th.Heads.of(th.load(golden / "pythia" / "deep"))
    for distance in (0, 5):
        svd = th.qk_svd(heads, distance)
        whole = torch.einsum("lhkd,lhk,lhke->lhde", svd.read, svd.scale, svd.write)
        torch.testing.assert_close(whole[2, 1], qk(heads, th.Head(2, 1), distance), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(th.qk_svd(heads, 0).scale, th.qk_svd(heads, 5).scale, rtol=1e-2)
    plain = th.Heads.of(th.load(golden / "deep"))
    assert torch.equal(th.qk_svd(plain, 0).scale, th.qk_svd(plain, 5).scale)


def test_where_nothing_turns_noticeably_the_scores_are_the_plain_ones():
    config = th.PythiaConfig(30, 8, 24, 3, 3, rotary_pct=0.25, rotary_base=1.0)     # one pair, 1 radian a token
    model = th.Pythia(config, seed=1)
    with torch.no_grad():
        for block in model.h:
            for start in range(0, 48, 8):                                            # queries and keys of that pair
                block.attn.c_attn.weight[:, start:start + 2] = 0
    heads = th.Heads.of(model)
    OV, QK = heads.W_V[0, 1] @ heads.W_O[0, 1], heads.W_Q[2, 2] @ heads.W_K[2, 2].T
    torch.testing.assert_close(th.composition_scores(heads, "Q")[0, 1, 2, 2], composition_score(OV, QK))


# --- the planted model: found where it is, and only there -----------------------------------------------


@pytest.mark.parametrize("inhibition, mover", [((1, 1), (2, 2)), ((0, 3), (1, 0)), ((0, 0), (2, 3))])
def test_the_circuit_is_found_by_running_and_by_weights_wherever_it_is_planted(prompts, inhibition, mover):
    built = planted_rotary(th.Head(*inhibition), th.Head(*mover))
    assert th.accuracy(built.model, prompts, "vocabulary") == 1.0
    circuit = th.find_circuit(built.model, prompts)
    assert circuit == th.Circuit([built.inhibition], [built.mover], f"L{inhibition[0] + 1}.attn")
    found = th.predict_edges(th.Heads.of(built.model), "Q", 2)
    assert {edge.component for edge in found} == {th.Component(*inhibition, 0), th.Component(*inhibition, 1)}
    assert {edge.reader for edge in found} == {built.mover}


def test_without_the_channel_nothing_stands_out(built, prompts):
    empty = planted_rotary(with_channel=False)
    assert th.accuracy(empty.model, prompts) < 0.35                             # chance is 1 / 6
    found, real = (th.predict_edges(th.Heads.of(each.model), "Q", 2)[1] for each in (empty, built))
    assert found.score < 0.6 * real.score and found.distance < 0.6 * real.distance


def test_other_readings_of_qk_are_blind_to_what_is_planted(built):
    """At distance 0 one of the channel's two components is not read at all; the dimensions that stay still read none,
    and the mean of QK over distances is nearly nothing. All distances side by side read both."""
    heads = th.Heads.of(built.model)
    ov, r = th.ov_svd(heads), heads.config.n_rotary
    channel, mover = ov.write[1, 1, :2], built.mover
    at_zero = component_score(channel, qk(heads, mover, 0))
    assert at_zero[0] < 0.01 and at_zero[1] > 0.99
    still = heads.W_Q[2, 2][:, r:] @ heads.W_K[2, 2][:, r:].T
    assert still.norm() < 1e-3 * qk(heads, mover, 0).norm()
    assert sum(qk(heads, mover, d) for d in range(2048)).norm() / 2048 < 0.01 * qk(heads, mover, 0).norm()
    scores = th.component_scores(heads, "Q", ov)[..., 2, 2]                     # [L, H, K]
    others = scores.flatten()[scores.flatten().argsort(descending=True)[2]]
    assert scores[1, 1, :2].min() > 0.5 and others < 0.35


def test_weights_intervention_and_activations_agree_on_the_channel(built, prompts):
    circuit = th.find_circuit(built.model, prompts)
    some = [th.Component(1, head, i) for head in (0, 1) for i in range(16)]
    measured = {how: th.inhibition_scores(built.model, prompts.first(20), circuit, how, components=some)
                for how in ("zero", "mean", "resample")}
    found = th.channel(built.model, prompts.first(20), circuit, measured=measured)
    assert set(found) == {th.Component(1, 1, 0), th.Component(1, 1, 1)}
    attributed = th.attributed_scores(built.model, prompts.first(60), circuit)
    assert sorted(attributed, key=lambda name: -abs(attributed[name]))[:2] in (["L1.H1.C0", "L1.H1.C1"],
                                                                             ["L1.H1.C1", "L1.H1.C0"])
    scale = th.ov_svd(th.Heads.of(built.model)).scale[1, 1]
    torch.testing.assert_close(scale[:2], CIRCLE_SCALE, rtol=1e-4, atol=0)
    for basis in (th.subspace_from_weights(built.model, circuit, 2),
                  th.subspace_from_activations(built.model, prompts, circuit, 2)):
        assert th.principal_angles(basis, built.channel).max() < 2              # degrees


def test_a_random_index_is_followed_in_the_channel_and_at_chance_elsewhere(built, prompts):
    circuit, unseen = th.find_circuit(built.model, prompts), laundry_prompts(300, seed=2)
    codes = th.mean_codes(built.model, prompts, circuit, built.channel)
    centred = (codes - codes.mean(0)) / CIRCLE_SCALE
    ratio = centred.norm() / (CIRCLE - CIRCLE.mean(0)).norm()
    torch.testing.assert_close(centred / ratio, CIRCLE - CIRCLE.mean(0), rtol=0, atol=0.1)
    assert th.steering_rate(built.model, unseen, circuit, built.channel, codes) > 0.98
    earlier = th.before_end(built.model, unseen)                                # END alone, behind cached keys
    assert th.steering_rate(built.model, unseen, circuit, built.channel, codes, earlier=earlier) > 0.98
    control = th.random_subspace(64, 2, seed=3)
    control_codes = th.mean_codes(built.model, prompts, circuit, control)
    assert abs(th.steering_rate(built.model, unseen, circuit, control, control_codes) - 1 / 6) < 0.08


def test_a_repair_of_the_weights_undoes_a_turned_channel(prompts):
    built = planted_rotary()
    circuit = th.find_circuit(built.model, prompts)
    th.edit_output(built.model, built.inhibition, built.channel, turn(1.3))
    assert th.accuracy(built.model, prompts) < 0.5
    repair = th.fit_repair(built.model, circuit, built.channel, [prompts.first(60)], steps=60, rate=0.1)
    repair.apply(built.model)
    assert th.accuracy(built.model, laundry_prompts(300, seed=2)) > 0.95


def test_a_circuit_by_hand_must_say_a_place_that_its_heads_have_written_to(built, prompts):
    circuit = th.Circuit([built.inhibition], [built.mover])                     # where: as in a GPT-2
    for act in (lambda: th.mean_codes(built.model, prompts, circuit, built.channel),
                lambda: th.steered_answers(built.model, prompts, circuit, built.channel, torch.zeros(300, 2)),
                lambda: circuit.check(built.model)):
        with pytest.raises(th.HeadError, match="where is 'L1.mlp'; the first read .* what L1.H1 writes is 'L2.attn'"):
            act()
    by_hand = th.Circuit.of(built.model, [built.inhibition], [built.mover])
    assert by_hand == th.find_circuit(built.model, prompts) and by_hand.where == "L2.attn"
    with pytest.raises(th.HeadError, match="needs one inhibition head and one mover"):
        th.Circuit.of(built.model, [], [built.mover])
