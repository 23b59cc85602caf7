"""Whitened channels: by their definition in full float64 matrices, planted ones, and GPT-2's known heads."""

import pytest
import torch

import tinyheads as th
from helpers import random_model
from test_composition import planted, read_circuit
from tinyheads.channels import distances, whitened_component_scores, whitening, writer_rows
from tinyheads.composition import reader_rows, unit
from tinyheads.heads import one_thread

SIZES = dict(n_vocab=20, n_ctx=8, n_embd=24, n_layer=4, n_head=3)  # d_head 8


@pytest.fixture(scope="module")
def heads():
    return th.Heads.of(random_model(SIZES, seed=5))


def later_pairs(L, H):
    """Where the reader is in a later layer than the writer: bool [L, H, L, H]."""
    layers = torch.arange(L)
    return (layers[:, None] < layers)[:, None, :, None].expand(L, H, L, H)


def full_circuits(heads):
    """What is written and read, as [D, D] matrices of size 1 in float64: {"write", "Q", "K", "V"} -> [L, H, D, D]."""
    L, H = heads.W_Q.shape[:2]
    places = [(layer, head) for layer in range(L) for head in range(H)]
    full = {mode: torch.stack([read_circuit(heads, mode, *place) for place in places]) for mode in "QKV"}
    full["write"] = full["V"]
    return {which: (M / M.norm(dim=(1, 2), keepdim=True)).unflatten(0, (L, H)) for which, M in full.items()}


def full_whitening(full):
    """The inverse root of everything written (OV^T OV) and read (M M^T), by pseudo-inverse and matrix root."""
    G = sum((M @ M.mT if which != "write" else M.mT @ M).sum((0, 1)) for which, M in full.items())
    values, vectors = torch.linalg.eigh(torch.linalg.pinv(G, rtol=1e-6, hermitian=True))
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T, G


def test_the_writers_rows_have_the_circuits_gram_matrix(heads):
    OV = heads.W_V.double() @ heads.W_O.double()
    rows = writer_rows(heads).double()
    torch.testing.assert_close(rows.mT @ rows, OV.mT @ OV, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(unit(writer_rows(heads)).norm(dim=(2, 3)), torch.ones(4, 3))


def test_whitening_makes_what_all_heads_write_and_read_the_identity(heads):
    J, (expected, G) = whitening(heads).double(), full_whitening(full_circuits(heads))
    torch.testing.assert_close(J, J.T)
    torch.testing.assert_close(J, expected, rtol=1e-3, atol=1e-4)
    used = torch.eye(24, dtype=torch.float64) - 1 / 24  # all directions but the mean, which folding took out
    torch.testing.assert_close(J @ G @ J, used, rtol=0, atol=1e-4)
    faces = [unit(writer_rows(heads)), *(unit(reader_rows(heads, mode)) for mode in "QKV")]
    seen = torch.cat([(rows @ whitening(heads)).flatten(0, 2) for rows in faces]).double()
    torch.testing.assert_close(seen.T @ seen, used, rtol=0, atol=1e-4)


def test_whitening_leaves_out_directions_that_nobody_uses():
    """Heads confined to the first 20 of 32 dimensions: the identity there, zero elsewhere."""
    heads = th.Heads.of(random_model(dict(SIZES, n_embd=24), seed=1), fold=False)
    wide = torch.zeros(32, 24)
    wide[:20, :20] = torch.eye(20)
    confined = th.Heads(heads.config, wide @ heads.W_Q, wide @ heads.W_K, wide @ heads.W_V, heads.W_O @ wide.T,
                        heads.b_Q, heads.b_K, heads.b_V, heads.b_O @ wide.T, False)
    J, (_, G) = whitening(confined).double(), full_whitening(full_circuits(confined))
    assert J.isfinite().all() and J[20:].abs().max() < 1e-5
    torch.testing.assert_close(J @ G @ J, torch.diag((torch.arange(32) < 20).double()), rtol=0, atol=1e-4)


def test_channel_strengths_are_the_definition(heads):
    """||A_w J J B_r||_2 / (||A_w J||_F ||J B_r||_F), all in [D, D] and float64."""
    full = full_circuits(heads)
    J, _ = full_whitening(full)
    strengths = th.channel_strengths(heads)
    assert list(strengths) == ["Q", "K", "V"]
    for mode, scores in strengths.items():
        A, B = (full["write"] @ J)[:, :, None, None], J @ full[mode]              # [L, H, 1, 1, D, D], [L, H, D, D]
        with one_thread():
            largest = torch.linalg.svdvals(A @ B)[..., 0]                         # [L, H, L, H]
        expected = largest / (A.norm(dim=(4, 5)) * B.norm(dim=(2, 3))) * later_pairs(4, 3)
        assert scores.shape == (4, 3, 4, 3) and scores.min() >= 0 and scores.max() <= 1
        torch.testing.assert_close(scores.double(), expected, rtol=0, atol=1e-4)


def test_channel_scores_ask_through_which_door(heads):
    scores, strengths = th.channel_scores(heads), th.channel_strengths(heads)
    later = later_pairs(4, 3)
    stacked = torch.stack([scores[mode] for mode in "QKV"])
    assert (stacked[:, ~later] == -torch.inf).all()
    torch.testing.assert_close(stacked[:, later].sum(0), torch.zeros(6 * 9), rtol=0, atol=1e-5)
    product = strengths["Q"] * strengths["K"] * strengths["V"]
    for mode in "QKV":
        expected = (strengths[mode] / product ** (1 / 3)).log()
        torch.testing.assert_close(scores[mode][later], expected[later], rtol=1e-4, atol=1e-5)


def test_nothing_depends_on_the_basis_inside_a_head():
    heads = th.Heads.of(random_model(SIZES, seed=6))
    A = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) + 3 * torch.eye(8)
    other = th.Heads(heads.config, heads.W_Q @ A, heads.W_K @ A.inverse().mT, heads.W_V @ A, A.inverse() @ heads.W_O,
                     heads.b_Q, heads.b_K, heads.b_V, heads.b_O, True)
    torch.testing.assert_close(whitening(other), whitening(heads), rtol=1e-3, atol=1e-3)
    for mode, scores in th.channel_scores(heads).items():
        torch.testing.assert_close(th.channel_scores(other)[mode], scores, rtol=1e-3, atol=1e-3)
        edges = [th.predict_edges(each, mode, 20) for each in (heads, other)]
        assert list(map(str, edges[0])) == list(map(str, edges[1]))


def test_whitened_component_scores_are_the_definition(heads):
    """|v_i^T J J B_r| / (|v_i^T J| ||J B_r||_F), with v_i the writer's own right singular vectors."""
    full = full_circuits(heads)
    J, _ = full_whitening(full)
    for mode in "QKV":
        scores = whitened_component_scores(heads, mode)
        assert scores.shape == (4, 3, 8, 4, 3)
        for w, wh, r, rh in [(0, 0, 1, 2), (1, 2, 3, 0), (2, 1, 3, 1), (2, 0, 2, 1), (3, 0, 1, 1)]:
            V = torch.linalg.svd(full["write"][w, wh]).Vh[:8] @ J
            B = J @ full[mode][r, rh]
            expected = (V @ B).norm(dim=1) / (V.norm(dim=1) * B.norm()) if w < r else torch.zeros(8).double()
            torch.testing.assert_close(scores[w, wh, :, r, rh].double(), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("mode", "QKV")
def test_a_planted_channel_comes_first_and_only_in_its_mode(mode):
    """The plant is the writer's third component of four (C2): it is the channel that is found, not the strong head."""
    heads = planted(mode)
    for other in "QKV":
        edges = th.predict_edges(heads, other, 1000)
        place = [(str(edge.component)[:5], str(edge.reader)) for edge in edges].index(("L0.H1", "L2.H0"))
        if other == mode:
            assert place == 0 and str(edges[0]) == f"L0.H1.C2 -> L2.H0 by {mode}"
            assert edges[0].distance > 1.5 * edges[1].distance
        else:
            assert place > 0 and edges[place].distance < 0.5 * th.predict_edges(heads, mode, 1)[0].distance
    scores = th.channel_scores(heads)
    assert max("QKV", key=lambda door: scores[door][0, 1, 2, 0]) == mode


def test_an_edge_says_what_it_is(heads):
    edges = th.predict_edges(heads, "K", 10_000)
    scores = whitened_component_scores(heads, "K")
    svd = th.ov_svd(heads)
    for edge in edges:
        c, r = edge.component, edge.reader
        among = scores[:r.layer, :, :, r.layer, r.head].flatten()
        sigma = 1.4826 * (among - among.median()).abs().median()
        assert c.layer < r.layer and edge.mode == "K"
        of_pair = scores[c.layer, c.head, :, r.layer, r.head]                 # [K]
        assert of_pair.argmax() == c.index and edge.score == pytest.approx(of_pair[c.index].item(), rel=1e-5)
        assert edge.distance == pytest.approx(((edge.score - among.median()) / sigma).item(), rel=1e-4)
        assert edge.block == tuple(th.block_of(th.degenerate_blocks(svd), c)) and c in edge.block
    assert [edge.distance for edge in edges] == sorted((edge.distance for edge in edges), reverse=True)


def test_an_edge_names_the_components_that_cannot_be_told_apart():
    """The planted writer's strengths made 8, 2.01, 2 and 1: C1 and C2 lie within 1%."""
    heads = planted("Q")
    heads.W_V[0, 1] *= torch.tensor([1.0, 0.5025, 1.0, 1.0])
    edge = th.predict_edges(heads, "Q", 1)[0]
    assert str(edge) == "L0.H1.C2 -> L2.H0 by Q"
    assert list(map(str, edge.block)) == ["L0.H1.C1", "L0.H1.C2"]


def test_top_and_reader_choose_among_all_edges(heads):
    edges = th.predict_edges(heads, "V", 10_000)
    assert len(edges) == len({(edge.component.layer, edge.component.head, edge.reader) for edge in edges}) == 6 * 9
    assert th.predict_edges(heads, "V", 5) == edges[:5]
    assert th.predict_edges(heads, "V") == edges[:20]
    into = th.predict_edges(heads, "V", 10_000, "L2.H1")
    assert into == th.predict_edges(heads, "V", 10_000, th.Head(2, 1)) and len(into) == 2 * 3
    assert into == [edge for edge in edges if edge.reader == th.Head(2, 1)]
    assert th.predict_edges(heads, "V", 2, "L2.H1") == into[:2]
    assert th.predict_edges(heads, "V", 5, "L0.H0") == []  # nothing comes before


def test_a_model_of_one_layer_has_no_edges():
    heads = th.Heads.of(random_model(dict(SIZES, n_layer=1), seed=0))
    assert th.predict_edges(heads, "Q") == []
    assert th.channel_strengths(heads)["K"].abs().max() == 0
    assert (th.channel_scores(heads)["V"] == -torch.inf).all()


def test_a_head_of_zeros_is_no_nan(heads):
    W_O, W_Q = heads.W_O.clone(), heads.W_Q.clone()
    W_O[0, 0] = W_Q[3, 1] = 0
    zeroed = th.Heads(heads.config, W_Q, heads.W_K, heads.W_V, W_O, heads.b_Q, heads.b_K, heads.b_V, heads.b_O, True)
    for mode, strengths in th.channel_strengths(zeroed).items():
        assert strengths.isfinite().all() and strengths[0, 0].abs().max() == 0
        assert not th.channel_scores(zeroed)[mode].isnan().any()
        assert all(edge.distance == edge.distance for edge in th.predict_edges(zeroed, mode, 10_000))


def test_distances_are_robust_standard_deviations():
    scores = torch.tensor([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [100.0, 5.0]])
    expected = torch.tensor([[-2.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [98.0, 0.0]]) / 1.4826
    torch.testing.assert_close(distances(scores), expected)
    normal = 3 + 0.5 * torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(distances(normal), (normal - 3) / 0.5, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("top", [0, -1, 2.0, True, "3", None])
def test_a_top_that_is_no_number_of_edges_is_refused(heads, top):
    with pytest.raises(th.HeadError, match="top must be a whole number from 1"):
        th.predict_edges(heads, "Q", top)


@pytest.mark.parametrize("reader", ["L4.H0", "L0.H3", th.Head(9, 9)])
def test_a_reader_that_the_model_has_not_is_refused(heads, reader):
    with pytest.raises(th.HeadError, match="L0.H0 to L3.H2"):
        th.predict_edges(heads, "Q", 3, reader)


def test_a_reader_that_is_no_head_is_refused(heads):
    for reader in ("9.9", "L1.H1.C0", ""):
        with pytest.raises(th.HeadError, match="it should look like L8.H10"):
            th.predict_edges(heads, "Q", 3, reader)


def test_an_unknown_mode_is_refused(heads):
    for mode in ("q", "QK", "", None):
        with pytest.raises(th.HeadError, match="'Q', 'K' or 'V'"):
            th.predict_edges(heads, mode)


@pytest.fixture(scope="module")
def gpt2_heads(gpt2_folder):
    return th.load_heads(gpt2_folder / "model-attention.safetensors")


def test_how_well_channel_scores_rank_the_ioi_circuit(gpt2_heads):
    scores = th.channel_scores(gpt2_heads)
    for mode, area in [("Q", 0.968), ("K", 0.902), ("V", 0.838)]:
        assert th.circuit_auc(scores[mode], mode) == pytest.approx(area, abs=0.005)


def test_known_heads_of_gpt2_stand_out_for_their_readers(gpt2_heads):
    into_mover = {str(edge.component).rsplit(".", 1)[0] for edge in th.predict_edges(gpt2_heads, "Q", 10, "L9.H9")}
    assert {"L7.H3", "L7.H9", "L8.H6", "L8.H10"} <= into_mover
    into_induction = th.predict_edges(gpt2_heads, "K", 3, "L5.H5")[0].component
    assert (into_induction.layer, into_induction.head) == (4, 11)
