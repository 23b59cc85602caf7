"""Predicted edges: by the paper's score written out again, planted ones, and those of the bundled model and GPT-2."""

import pytest
import torch

import tinyheads as th
from helpers import random_model
from test_composition import planted, read_circuit
from tinyheads.edges import distances

SIZES = dict(n_vocab=20, n_ctx=8, n_embd=24, n_layer=4, n_head=3)  # d_head 8


@pytest.fixture(scope="module")
def heads():
    return th.Heads.of(random_model(SIZES, seed=5))


def test_nothing_depends_on_the_basis_inside_a_head():
    heads = th.Heads.of(random_model(SIZES, seed=6))
    A = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) + 3 * torch.eye(8)
    other = th.Heads(heads.config, heads.W_Q @ A, heads.W_K @ A.inverse().mT, heads.W_V @ A, A.inverse() @ heads.W_O,
                     heads.b_Q, heads.b_K, heads.b_V, heads.b_O, heads.gain, heads.bias, True)
    for mode in "QKV":
        edges = [th.predict_edges(each, mode, 20) for each in (heads, other)]
        assert list(map(str, edges[0])) == list(map(str, edges[1]))


@pytest.mark.parametrize("mode", "QKV")
def test_a_planted_channel_comes_first_and_only_in_its_mode(mode):
    """What is planted is the writer's third component of four (C2): that one is found, not the head's strongest."""
    heads = planted(mode)
    for other in "QKV":
        edges = th.predict_edges(heads, other, 1000)
        place = list(map(str, edges)).index(f"L0.H1.C2 -> L2.H0 by {other}")
        if other == mode:
            assert place == 0 and edges[0].distance > 1.5 * edges[1].distance
        else:
            assert place > 0 and edges[place].distance < 0.5 * th.predict_edges(heads, mode, 1)[0].distance


def test_every_component_is_an_edge_with_the_papers_score(heads):
    """|v_i^T M_r| / |M_r| with [D, D] matrices in float64, its distance, and its block; highest score first."""
    edges = th.predict_edges(heads, "K", 10_000)
    assert len({(edge.component, edge.reader) for edge in edges}) == len(edges) == 6 * 9 * 8
    assert [edge.score for edge in edges] == sorted((edge.score for edge in edges), reverse=True)
    svd = th.ov_svd(heads)
    for reader in {edge.reader for edge in edges}:
        M = read_circuit(heads, "K", reader.layer, reader.head)
        into = [edge for edge in edges if edge.reader == reader]
        scores = torch.tensor([edge.score for edge in into])
        sigma = 1.4826 * (scores - scores.median()).abs().median()
        for edge in into:
            c = edge.component
            OV = heads.W_V[c.layer, c.head].double() @ heads.W_O[c.layer, c.head].double()
            v = torch.linalg.svd(OV).Vh[c.index]
            assert c.layer < reader.layer and edge.mode == "K"
            assert edge.score == pytest.approx(((v @ M).norm() / M.norm()).item(), rel=1e-2, abs=1e-4)
            assert edge.distance == pytest.approx(((edge.score - scores.median()) / sigma).item(), rel=1e-3, abs=1e-4)
            assert edge.block == tuple(th.block_of(th.degenerate_blocks(svd), c)) and c in edge.block


def test_an_edge_names_the_components_that_cannot_be_told_apart():
    """The planted writer's strengths made 8, 2.01, 2 and 1: C1 and C2 lie within 1%."""
    heads = planted("Q")
    heads.W_V[0, 1] *= torch.tensor([1.0, 0.5025, 1.0, 1.0])
    edge = th.predict_edges(heads, "Q", 1)[0]
    assert str(edge) == "L0.H1.C2 -> L2.H0 by Q"
    assert list(map(str, edge.block)) == ["L0.H1.C1", "L0.H1.C2"]


def test_top_and_reader_choose_among_all_edges(heads):
    edges = th.predict_edges(heads, "V", 10_000)
    assert th.predict_edges(heads, "V", 5) == edges[:5]
    assert th.predict_edges(heads, "V") == edges[:20]
    into = th.predict_edges(heads, "V", 10_000, "L2.H1")
    assert into == th.predict_edges(heads, "V", 10_000, th.Head(2, 1)) and len(into) == 2 * 3 * 8
    assert into == [edge for edge in edges if edge.reader == th.Head(2, 1)]
    assert th.predict_edges(heads, "V", 2, "L2.H1") == into[:2]
    assert th.predict_edges(heads, "V", 5, "L0.H0") == []  # nothing comes before


def test_a_model_of_one_layer_has_no_edges():
    heads = th.Heads.of(random_model(dict(SIZES, n_layer=1), seed=0))
    assert th.predict_edges(heads, "Q") == []


def test_a_head_of_zeros_is_no_nan(heads):
    W_O, W_Q = heads.W_O.clone(), heads.W_Q.clone()
    W_O[0, 0] = W_Q[3, 1] = 0
    zeroed = th.Heads(heads.config, W_Q, heads.W_K, heads.W_V, W_O, heads.b_Q, heads.b_K, heads.b_V, heads.b_O,
                      heads.gain, heads.bias, True)
    into_zeros = th.predict_edges(zeroed, "Q", 10_000, "L3.H1")
    assert {(edge.score, edge.distance) for edge in into_zeros} == {(0.0, 0.0)}
    for mode in "QKV":
        assert all(edge.distance == edge.distance for edge in th.predict_edges(zeroed, mode, 10_000))


def test_distances_are_robust_standard_deviations():
    torch.testing.assert_close(distances(torch.tensor([0.0, 1.0, 2.0, 3.0, 100.0])),
                               torch.tensor([-2.0, -1.0, 0.0, 1.0, 98.0]) / 1.4826)
    assert distances(torch.full((5,), 5.0)).tolist() == [0.0] * 5 and distances(torch.zeros(0)).tolist() == []
    normal = 3 + 0.5 * torch.randn(100_000, generator=torch.Generator().manual_seed(0))
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


def test_weights_name_the_bundled_models_channels_and_in_tiny_one_component_more():
    """Chapter 4 finds by intervention which of them act: all of `named`'s, and all but the first of `tiny`'s."""
    edges = th.predict_edges(th.Heads.of(th.load("named")), "Q", 3, "L2.H0")
    assert [str(edge.component) for edge in edges] == ["L1.H0.C0", "L1.H2.C0", "L1.H1.C0"]
    edges = th.predict_edges(th.Heads.of(th.load("tiny")), "Q", 4, "L1.H2")
    assert [str(edge.component) for edge in edges] == ["L0.H3.C0", "L0.H0.C0", "L0.H2.C0", "L0.H1.C0"]
    assert [round(edge.score, 2) for edge in edges] == [0.52, 0.44, 0.42, 0.38]


def test_what_a_name_mover_and_an_induction_head_of_gpt2_read_most(gpt2_folder):
    """shared/DESIGN.md, and the induction head L5.H5, whose keys read the previous-token head L4.H11."""
    heads = th.load_heads(gpt2_folder / "model-attention.safetensors")
    components = [str(edge.component) for edge in th.predict_edges(heads, "Q", 6, "L9.H9")]
    assert str(th.predict_edges(heads, "K", 1, "L5.H5")[0].component).startswith("L4.H11")
    assert components == ["L8.H3.C0", "L8.H10.C1", "L8.H6.C2", "L6.H1.C1", "L6.H7.C3", "L7.H3.C1"]
