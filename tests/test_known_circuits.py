"""The known circuit and the area under its ROC curve: by ranks, in closed form, and against the paper's lists."""

import math

import numpy as np
import pytest
import torch

import tinyheads as th
from tinyheads import known_circuits
from tinyheads.known_circuits import IOI_CIRCUIT, KnownEdges, circuit_pairs, heads_named, resampled_auc, roc_area

# Wang et al. 2022, Figure 2, written out again: (layer, head).
S_INHIBITION = [(7, 3), (7, 9), (8, 6), (8, 10)]
NAME_MOVERS = [(9, 9), (9, 6), (10, 0)]
PREVIOUS_TOKEN = [(2, 2), (4, 11)]
INDUCTION = [(5, 5), (6, 9), (5, 8), (5, 9)]
DUPLICATE_TOKEN = [(0, 1), (3, 0), (0, 10)]
EDGES = {"Q": (S_INHIBITION, NAME_MOVERS), "K": (PREVIOUS_TOKEN, INDUCTION),
         "V": (DUPLICATE_TOKEN + INDUCTION, S_INHIBITION)}
COUNTS = {"Q": (12, 336), "K": (8, 252), "V": (28, 360)}  # known edges, and all pairs with the same readers


def known_and_other_scores(scores, mode):
    """The same pairs, found by walking through them one by one."""
    writers, readers = EDGES[mode]
    known, others = [], []
    for r, rh in readers:
        for w in range(r):
            for wh in range(12):
                (known if (w, wh) in writers else others).append(float(scores[w, wh, r, rh]))
    return known, others


def area_by_ranks(known, others):
    """Mann and Whitney: (sum of the known ones' ranks, ties at their mean rank, less the least it can be) / (n m)."""
    values, where, counts = np.unique(known + others, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)                     # the rank of each value's last occurrence, from 1
    ranks = (last - (counts - 1) / 2)[where]     # the mean of its ranks
    n, m = len(known), len(others)
    return (ranks[:n].sum() - n * (n + 1) / 2) / (n * m)


def random_scores(seed):
    return torch.randn(12, 12, 12, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", "QKV")
def test_the_area_is_that_of_the_ranks(mode):
    for seed in range(3):
        scores = random_scores(seed)
        coarse = (2 * scores).round()            # many ties
        for each in (scores, coarse, scores.double() * 1e-9, scores.exp() * 1e9):
            expected = area_by_ranks(*known_and_other_scores(each, mode))
            assert th.circuit_auc(each, mode) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("mode", "QKV")
def test_perfect_reversed_and_constant_scores(mode):
    known, others = circuit_pairs(12, 12, mode)
    assert th.circuit_auc(known.float(), mode) == 1.0
    assert th.circuit_auc(-known.float(), mode) == 0.0
    assert th.circuit_auc(others.int(), mode) == 0.0
    assert th.circuit_auc(torch.zeros(12, 12, 12, 12), mode) == 0.5
    assert th.circuit_auc(torch.full((12, 12, 12, 12), -math.inf), mode) == 0.5


@pytest.mark.parametrize("mode", "QKV")
def test_random_scores_are_at_chance_with_the_known_spread(mode):
    n, total = COUNTS[mode]
    m = total - n
    sigma = math.sqrt((n + m + 1) / (12 * n * m))  # of the area under the null hypothesis
    areas = torch.tensor([th.circuit_auc(random_scores(seed), mode) for seed in range(200)])
    assert abs(areas.mean().item() - 0.5) < 4 * sigma / math.sqrt(200)
    assert areas.std().item() == pytest.approx(sigma, rel=0.25)


@pytest.mark.parametrize("mode", "QKV")
def test_the_pairs_are_those_of_the_paper(mode):
    known, others = circuit_pairs(12, 12, mode)
    assert known.dtype == others.dtype == torch.bool and known.shape == others.shape == (12, 12, 12, 12)
    assert (known.sum().item(), (known | others).sum().item()) == COUNTS[mode]
    assert not (known & others).any()
    writers, readers = EDGES[mode]
    assert {(w, wh) for w, wh, _, _ in known.nonzero().tolist()} == set(writers)
    assert {(r, rh) for _, _, r, rh in (known | others).nonzero().tolist()} == set(readers)
    assert all(w < r for w, _, r, _ in (known | others).nonzero().tolist())


def test_a_hand_example_with_ties():
    """Into L1.H0: known L0.H0 at 2, others at 2 and 1: it beats one and ties with one, 1.5 of 2."""
    circuit = {"Q": KnownEdges(heads_named("0.0"), heads_named("1.0"))}
    scores = torch.zeros(2, 3, 2, 3)
    scores[0, :, 1, 0] = torch.tensor([2.0, 2.0, 1.0])
    assert th.circuit_auc(scores, "Q", circuit) == 0.75
    scores[0, :, 1, 0] = torch.tensor([1.0, 2.0, 3.0])
    assert th.circuit_auc(scores, "Q", circuit) == 0.0


def test_only_pairs_of_the_circuits_readers_count():
    known, others = circuit_pairs(12, 12, "Q")
    scores = random_scores(7)
    area = th.circuit_auc(scores, "Q")
    scores[~(known | others)] = math.nan
    assert th.circuit_auc(scores, "Q") == area
    assert th.circuit_auc(scores.numpy(), "Q") == area


def test_a_writer_in_the_readers_own_layer_is_no_edge():
    circuit = {"V": KnownEdges(heads_named("0.0 1.1 2.0"), heads_named("1.0"))}
    known, others = circuit_pairs(3, 2, "V", circuit)
    assert known.nonzero().tolist() == [[0, 0, 1, 0]] and others.nonzero().tolist() == [[0, 1, 1, 0]]


def test_a_score_that_is_no_number_is_refused():
    known, others = circuit_pairs(12, 12, "K")
    for pairs in (known, others):
        scores = random_scores(0)
        scores[tuple(pairs.nonzero()[0])] = math.nan
        with pytest.raises(th.HeadError, match="nan"):
            th.circuit_auc(scores, "K")


@pytest.mark.parametrize("mode", ["q", "QK", "", None, 0])
def test_a_mode_without_edges_is_refused(mode):
    with pytest.raises(th.HeadError, match="Q, K, V"):
        th.circuit_auc(torch.zeros(12, 12, 12, 12), mode)


@pytest.mark.parametrize("shape", [(12, 12, 64, 12, 12), (12, 12, 12), (144, 144), (12, 12, 12, 11), (12, 12, 11, 12),
                                   ()])
def test_scores_of_another_shape_are_refused(shape):
    with pytest.raises(th.HeadError, match=r"\[L, H, L, H\].*amax\(2\)"):
        th.circuit_auc(torch.zeros(shape), "Q")


def test_a_model_without_the_circuits_heads_is_refused():
    with pytest.raises(th.HeadError, match=r"L7\.H3.*L0\.H0 to L3\.H11.*GPT-2 124M"):
        th.circuit_auc(torch.zeros(4, 12, 4, 12), "Q")
    with pytest.raises(th.HeadError, match=r"L4\.H11.*L0\.H0 to L11\.H10"):
        th.circuit_auc(torch.zeros(12, 11, 12, 11), "K")


def test_a_larger_model_has_room_for_it():
    known, others = circuit_pairs(24, 16, "Q")
    assert known.sum() == 12 and (known | others).sum() == 16 * (9 + 9 + 10)


def test_heads_are_named_as_the_paper_names_them():
    assert heads_named("7.3 8.10") == (th.Head(7, 3), th.Head(8, 10)) and heads_named("") == ()
    assert {mode: ([(h.layer, h.head) for h in edges.writers], [(h.layer, h.head) for h in edges.readers])
            for mode, edges in IOI_CIRCUIT.items()} == EDGES


def test_a_circuit_without_an_edge_between_layers_cannot_be_judged():
    backwards = {"Q": KnownEdges(heads_named("9.9"), heads_named("7.3"))}
    with pytest.raises(th.HeadError, match="0 edges"):
        th.circuit_auc(torch.zeros(12, 12, 12, 12), "Q", backwards)
    with pytest.raises(th.HeadError, match="must be numbers"):
        th.circuit_auc("scores", "Q")


def test_resampling_the_readers_counts_each_as_often_as_it_was_drawn():
    """Against the area by ranks of the drawn readers' pairs, one list put behind the other."""
    known, others = circuit_pairs(12, 12, "V")
    scores = (3 * random_scores(3)).round()          # with ties
    areas = resampled_auc(scores, known, others, draws=6, seed=4)
    readers = sorted({(r, rh) for _, _, r, rh in known.nonzero().tolist()})
    drawn = torch.randint(4, (6, 4), generator=torch.Generator().manual_seed(4)).tolist()
    for area, choice in zip(areas.tolist(), drawn):
        pairs = {which: [x for i in choice for x in scores[:, :, *readers[i]][mask[:, :, *readers[i]]].tolist()]
                 for which, mask in [("known", known), ("others", others)]}
        assert area == pytest.approx(area_by_ranks(pairs["known"], pairs["others"]), abs=1e-12)


def test_resampling_is_repeatable_and_of_one_reader_always_the_area():
    known, others = circuit_pairs(12, 12, "Q")
    state = torch.get_rng_state()
    first, again, other = (resampled_auc(random_scores(1), known, others, 50, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other) and torch.equal(state, torch.get_rng_state())
    one = {"Q": KnownEdges(heads_named("7.3 8.6"), heads_named("9.9"))}
    areas = resampled_auc(random_scores(1), *circuit_pairs(12, 12, "Q", one), 20)
    torch.testing.assert_close(areas, torch.full((20,), th.circuit_auc(random_scores(1), "Q", one)).double())


def test_the_area_of_any_ranking_is_the_share_of_pairs_in_order():
    scores, known = torch.tensor([3.0, 1.0, 2.0, 2.0]), torch.tensor([True, False, True, False])
    assert roc_area(scores, known) == (1 + 1 + 1 + 0.5) / 4
    assert math.isnan(roc_area(scores, torch.zeros(4, dtype=torch.bool)))


def test_pythias_circuit_is_found_by_its_config_and_its_edges_run_forward():
    """Of Tigges et al. 2024: 12 known edges by Q, 3 by K, 9 by V; a score that marks them has area 1."""
    edges, roles = known_circuits.ioi_circuit_of(th.PYTHIA_SIZES["pythia-160m"])
    assert edges is th.PYTHIA_IOI_CIRCUIT and len(roles) == 11
    assert {role: sorted(str(head) for head in roles if roles[head] == role) for role in roles.values()} == {
        "previous token": ["L2.H6"], "induction": ["L4.H11", "L4.H6", "L5.H0"],
        "S-inhibition": ["L6.H6", "L7.H2", "L7.H9"], "name mover": ["L10.H7", "L8.H10", "L8.H2", "L9.H4"]}
    for mode, n in (("Q", 12), ("K", 3), ("V", 9)):
        known, _ = circuit_pairs(12, 12, mode, edges)
        assert known.sum() == n and th.circuit_auc(known.float(), mode, edges) == 1.0
    assert known_circuits.ioi_circuit_of(th.OPENAI_SIZES["124M"]) == (IOI_CIRCUIT, known_circuits.ROLES)
    assert known_circuits.ioi_circuit_of(th.OPENAI_SIZES["355M"]) == ({}, {}) == known_circuits.ioi_circuit_of(
        th.PYTHIA_SIZES["pythia-70m"])
