"""Subspaces, coordinates and edits by closed forms; their errors."""

import math
from types import SimpleNamespace

import pytest
import torch

import tinyheads as th
from tinyheads.planted import laundry_prompts, planted
from helpers import scores_of_head
from tinyheads import ablation, steering
from tinyheads.basis import principal_components, project, span


def random_vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- subspaces -----------------------------------------------------------------------------------------


def test_a_span_is_orthonormal_and_has_the_rank_of_its_vectors():
    vectors = random_vectors(3, 10)
    dependent = torch.cat([vectors, vectors.sum(0, keepdim=True)])
    basis = span(dependent)
    assert basis.shape == (3, 10)
    torch.testing.assert_close(basis @ basis.T, torch.eye(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(project(dependent, basis), dependent, rtol=1e-4, atol=1e-5)


def test_principal_angles_of_planes_turned_by_a_known_angle():
    angle = math.radians(30)
    first = torch.eye(5)[:2]
    second = torch.stack([torch.eye(5)[0], math.cos(angle) * torch.eye(5)[1] + math.sin(angle) * torch.eye(5)[3]])
    assert th.principal_angles(first, second).tolist() == pytest.approx([0, 30], abs=1e-3)
    assert th.principal_angles(first, torch.eye(5)[3:]).tolist() == pytest.approx([90, 90])


def test_principal_components_are_where_the_means_differ():
    directions = torch.linalg.qr(random_vectors(12, 2)).Q.T
    means = random_vectors(7, 2, seed=1) @ directions + random_vectors(12, seed=2)  # in a plane, anywhere
    found = principal_components(means, 2)
    assert th.principal_angles(found, directions).max() < 0.1
    with pytest.raises(th.SubspaceError, match="1 to 6 directions, not 7"):
        principal_components(means, 7)


def test_mean_by_index_is_the_mean_of_each_group():
    writes, index = random_vectors(40, 3), torch.arange(40) % 4
    means = th.by_index(writes, SimpleNamespace(index=index, candidates=torch.zeros(40, 4)))
    for i in range(4):
        torch.testing.assert_close(means[i], writes[index == i].mean(0))
    built, prompts = planted(), laundry_prompts(3, seed=0)                       # of six indices
    circuit = th.Circuit([built.inhibition], [built.mover])
    for need_every_index in (lambda: th.subspace_from_activations(built.model, prompts, circuit),
                             lambda: th.mean_codes(built.model, prompts, circuit, built.channel)):
        with pytest.raises(th.SubspaceError, match="every index from 0 to 5 must be the answer's"):
            need_every_index()


def test_separation_is_the_distance_in_standard_deviations():
    """Two clouds of known spread: d' = distance / sigma."""
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(6000) % 3
    centres = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    points = centres[index] + torch.randn(6000, 2, generator=generator) * torch.tensor([1.5, 0.5])
    prompts = SimpleNamespace(index=index, candidates=torch.zeros(6000, 3))
    assert steering.separation(points, prompts).tolist() == pytest.approx([3 / 1.5, 1 / 0.5], rel=0.05)


def test_grid_and_shares():
    points = th.grid(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 1.0]), 3)
    assert points.shape == (9, 2) and points[0].tolist() == [0, -1] and points[-1].tolist() == [1, 1]
    assert th.grid(torch.tensor([0.0]), torch.tensor([1.0]), 2).tolist() == [[0], [1]]
    assert th.shares(torch.tensor([0, 0, 2, 0]), 3).tolist() == [0.75, 0, 0.25]


def test_a_random_subspace_is_orthonormal_of_mean_zero_and_seeded():
    basis = th.random_subspace(20, 4, seed=1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(4), rtol=0, atol=1e-5)
    assert basis.sum(1).abs().max() < 1e-5
    assert torch.equal(basis, th.random_subspace(20, 4, seed=1))
    assert not torch.equal(basis, th.random_subspace(20, 4, seed=2))


# --- edits of coordinates --------------------------------------------------------------------------------


BASIS = torch.linalg.qr(random_vectors(8, 2, seed=5)).Q.T


@pytest.mark.parametrize("positions", [3, [3], [0, 3, 4]])
def test_set_and_add_change_the_coordinates_and_nothing_else(positions):
    x = random_vectors(4, 5, 8)
    chosen = [positions] if isinstance(positions, int) else positions
    before = x[:, chosen] @ BASIS.T
    values = random_vectors(4, 2, seed=6)
    cases = [(th.set_coordinates(BASIS, values, positions), values[:, None].expand(4, len(chosen), 2)),
             (th.set_coordinates(BASIS, values[0], positions), values[0].expand(4, len(chosen), 2)),
             (th.add_coordinates(BASIS, values, positions), before + values[:, None])]
    untouched = [position for position in range(5) if position not in chosen]
    original = x.clone()
    for change, expected in cases:
        after = change(x)
        torch.testing.assert_close(after[:, chosen] @ BASIS.T, expected, rtol=1e-4, atol=1e-5)
        outside = lambda y: y - (y @ BASIS.T) @ BASIS
        torch.testing.assert_close(outside(after), outside(x), rtol=1e-4, atol=1e-5)
        assert torch.equal(after[:, untouched], x[:, untouched])
        assert torch.equal(x, original)  # what was handed in is left alone


@pytest.mark.parametrize("make, words", [
    (lambda: th.set_coordinates(BASIS, torch.zeros(2), 5), "position 5 is outside the prompt, 0 to 4"),
    (lambda: th.set_coordinates(BASIS, torch.zeros(2), -1), "position -1"),
    (lambda: th.set_coordinates(BASIS, torch.zeros(2), []), "one position"),
    (lambda: th.set_coordinates(BASIS, torch.zeros(3), 0), "do not fit"),
    (lambda: th.set_coordinates(BASIS, torch.zeros(3, 2), 0), "do not fit"),
    (lambda: th.set_coordinates(BASIS[:, :7], torch.zeros(2), 0), "as wide as the stream"),
    (lambda: th.set_coordinates(2 * BASIS, torch.zeros(2), 0), "orthonormal")])
def test_an_edit_that_does_not_fit_or_would_do_nothing_is_refused(make, words):
    with pytest.raises(th.SubspaceError, match=words):
        make()(random_vectors(4, 5, 8))


# --- removing components -----------------------------------------------------------------------------------


def test_removing_by_zero_mean_and_resampling_are_their_definitions():
    write, v = random_vectors(6, 5, 8), BASIS[:1]
    c = write @ v.T
    rest = write - c @ v
    torch.testing.assert_close(th.remove(v, "L0.H0", "zero").change(write), rest)
    torch.testing.assert_close(th.remove(v[0], "L0.H0", "mean").change(write), rest + c.mean(0) @ v)
    partner = ablation.derangement(6, seed=4)
    assert sorted(partner.tolist()) == list(range(6)) and (partner != torch.arange(6)).all()
    torch.testing.assert_close(th.remove(v, "L0.H0", "resample", seed=4).change(write), rest + c[partner] @ v)


def test_errors_of_ablations():
    built, prompts = planted(), laundry_prompts(4, 0)
    ov = th.ov_svd(th.Heads.of(built.model))
    with pytest.raises(th.InputError, match="zero, mean, resample"):
        th.remove(BASIS, "L0.H0", "noise")
    with pytest.raises(th.HeadError, match="later layer"):
        scores_of_head(built.model, prompts, built.mover, built.inhibition)
    with pytest.raises(th.InputError, match="two"):
        ablation.derangement(1, 0)
    with pytest.raises(th.HeadError, match="C0 to C15"):
        th.subspace_of_components(ov, [th.Component(0, 0, 16)])
    with pytest.raises(th.SubspaceError, match="span nothing"):
        span(torch.zeros(2, 8))


def test_procrustes_finds_a_planted_turn_scale_and_shift():
    draw = torch.Generator().manual_seed(4)
    x, shift = torch.randn(7, 3, generator=draw), torch.randn(3, generator=draw)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=draw)).Q                     # one of the two kinds mirrors
    for planted in (turn, turn * torch.tensor([1.0, 1.0, -1.0])):
        found, scale, moved = th.procrustes(x, 2.5 * x @ planted + shift)
        torch.testing.assert_close(found, planted, rtol=1e-4, atol=1e-5)
        assert scale == pytest.approx(2.5, rel=1e-4)
        torch.testing.assert_close(moved, shift, rtol=1e-3, atol=1e-4)
    y = torch.randn(7, 3, generator=draw)
    best = lambda turn, scale, moved: (scale * x @ turn + moved - y).pow(2).sum().item()
    turn, scale, moved = th.procrustes(x, y)
    for _ in range(50):                                                             # nothing near it is nearer
        nudged = torch.linalg.qr(turn + 0.1 * torch.randn(3, 3, generator=draw)).Q
        nudged = nudged * (nudged * turn).sum(0).sign()
        assert best(turn, scale, moved) <= best(nudged, scale, y.mean(0) - scale * x.mean(0) @ nudged)
        assert best(turn, scale, moved) <= best(turn, scale * 1.05, moved) and best(turn, scale, moved + 0.1) > best(
            turn, scale, moved)
    for bad in [(x[:1], y[:1]), (x, y[:6]), (x, y[:, :2]), (x[0], y[0]), (torch.ones(4, 3), y[:4])]:
        with pytest.raises(th.SubspaceError, match="points"):
            th.procrustes(*bad)
