"""Composition scores, held to their definition in full matrices, to planted circuits and to known heads of GPT-2."""

import pytest
import torch

import tinyheads as th
from helpers import random_model
from tinyheads.composition import BLOCK, later, narrow

SIZES = dict(n_vocab=20, n_ctx=8, n_embd=24, n_layer=4, n_head=3)


@pytest.fixture(scope="module")
def heads():
    return th.Heads.of(random_model(SIZES, seed=5))


def read_circuit(heads, mode, layer, head):
    """M_r, the [D, D] matrix that a reader multiplies what it reads with, in float64."""
    if mode == "V":
        return heads.W_V[layer, head].double() @ heads.W_O[layer, head].double()
    QK = heads.W_Q[layer, head].double() @ heads.W_K[layer, head].double().T
    return QK if mode == "Q" else QK.T


def test_the_score_of_one_pair_in_closed_form():
    """Of two identities 1 / sqrt(D); of two rank-1 matrices the cosine of where they meet; of zeros 0."""
    eye = torch.eye(16)
    assert th.composition_score(eye, 5 * eye).item() == pytest.approx(1 / 4)
    u, v, w = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    cosine = abs(torch.nn.functional.cosine_similarity(v, w, dim=0).item())
    assert th.composition_score(torch.outer(u, v), torch.outer(w, u)).item() == pytest.approx(cosine, rel=1e-4)
    assert th.component_score(v / v.norm(), torch.outer(w, u)).item() == pytest.approx(cosine, rel=1e-4)
    torch.testing.assert_close(th.component_score(torch.eye(16)[:3], torch.diag(torch.arange(16.0))),
                               torch.arange(3.0) / torch.arange(16.0).norm())
    assert th.composition_score(0 * eye, eye) == th.composition_score(eye, 0 * eye) == 0
    assert th.component_score(v, 0 * eye) == 0


@pytest.mark.parametrize("mode", "QKV")
def test_all_pairs_at_once_get_the_scores_of_each_pair_alone(heads, mode):
    whole, components, ov = th.composition_scores(heads, mode), th.component_scores(heads, mode), th.ov_svd(heads)
    for w, wh, r, rh in [(0, 0, 1, 2), (1, 2, 3, 0), (2, 1, 3, 1), (0, 1, 2, 2)]:
        OV, M = heads.W_V[w, wh] @ heads.W_O[w, wh], read_circuit(heads, mode, r, rh).float()
        torch.testing.assert_close(whole[w, wh, r, rh], th.composition_score(OV, M), rtol=1e-4, atol=1e-5)
        expected = th.component_score(ov.write[w, wh], M)                  # [K]
        torch.testing.assert_close(components[w, wh, :, r, rh], expected, rtol=1e-4, atol=1e-5)


def test_a_reader_is_later_in_a_later_layer_only():
    table = torch.zeros(3, 2, 3, 2).bool() | later(3)
    for w, wh, r, rh in torch.cartesian_prod(*(torch.arange(n) for n in (3, 2, 3, 2))).tolist():
        assert table[w, wh, r, rh].item() == (w < r)


def test_the_narrow_matrix_gives_every_length_that_the_wide_one_gives():
    generator = torch.Generator().manual_seed(0)
    A, B, v = (torch.randn(2, 12, n, generator=generator, dtype=torch.float64) for n in (3, 3, 5))
    N, M = narrow(A, B), A @ B.mT                                          # [2, 12, 3], [2, 12, 12]
    assert N.shape == (2, 12, 3)
    torch.testing.assert_close((v.mT @ N).norm(dim=-1), (v.mT @ M).norm(dim=-1))
    torch.testing.assert_close(N.norm(dim=(1, 2)), M.norm(dim=(1, 2)))


@pytest.mark.parametrize("mode", "QKV")
def test_whole_head_scores_are_the_definition(heads, mode):
    scores = th.composition_scores(heads, mode)
    assert scores.shape == (4, 3, 4, 3)
    for w in range(4):
        for wh in range(3):
            OV = heads.W_V[w, wh].double() @ heads.W_O[w, wh].double()
            for r in range(4):
                for rh in range(3):
                    M = read_circuit(heads, mode, r, rh)
                    expected = (OV @ M).norm() / (OV.norm() * M.norm()) if w < r else 0.0
                    assert scores[w, wh, r, rh].item() == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("mode", "QKV")
def test_component_scores_are_the_definition(heads, mode):
    scores = th.component_scores(heads, mode)
    assert scores.shape == (4, 3, 8, 4, 3)
    for w, wh, r, rh in [(0, 0, 1, 2), (1, 2, 3, 0), (2, 1, 3, 1), (2, 0, 2, 1), (3, 0, 1, 1)]:
        OV = heads.W_V[w, wh].double() @ heads.W_O[w, wh].double()
        M = read_circuit(heads, mode, r, rh)
        Vt = torch.linalg.svd(OV).Vh[:8]
        expected = (Vt @ M).norm(dim=-1) / M.norm() if w < r else torch.zeros(8).double()
        torch.testing.assert_close(scores[w, wh, :, r, rh].double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", "QKV")
def test_the_whole_is_the_mean_of_its_components_weighted_by_their_strength(heads, mode):
    """score_w^2 = sum_i (s_i^2 / sum s^2) score_i^2, against scores of full matrices."""
    components, scale = th.component_scores(heads, mode), th.ov_svd(heads).scale
    for w, wh, r, rh in [(0, 2, 3, 1), (1, 1, 2, 0)]:
        weight = scale[w, wh] ** 2 / (scale[w, wh] ** 2).sum()
        OV = heads.W_V[w, wh].double() @ heads.W_O[w, wh].double()
        M = read_circuit(heads, mode, r, rh)
        whole = ((OV @ M).norm() / (OV.norm() * M.norm())).item()
        assert (weight * components[w, wh, :, r, rh] ** 2).sum().sqrt().item() == pytest.approx(whole, abs=1e-5)


def test_random_circuits_score_one_over_the_square_root_of_d_model():
    config = th.GPT2Config(n_vocab=10, n_ctx=4, n_embd=256, n_layer=2, n_head=4)
    scores = th.component_scores(th.Heads.of(th.GPT2(config, seed=0)), "Q")[0, :, :, 1]  # [H, K, H]
    assert (scores**2).mean().item() == pytest.approx(1 / 256, rel=0.1)


def planted(mode, component=2, strength=6.0, seed=0):
    """Random heads, but component C2 of L0.H1 writes exactly what L2.H0 reads in this mode (and no other)."""
    L, H, D, K = 3, 2, 64, 4
    generator = torch.Generator().manual_seed(seed)
    W_Q, W_K, W_V = (torch.randn(L, H, D, K, generator=generator) for _ in range(3))
    W_O = torch.randn(L, H, K, D, generator=generator)
    U, V = (torch.linalg.qr(torch.randn(D, K, generator=generator)).Q for _ in range(2))
    scale = torch.tensor([8.0, 4.0, 2.0, 1.0])
    W_V[0, 1], W_O[0, 1] = U * scale, V.T
    channel = V[:, component]
    reader = {"Q": W_Q, "K": W_K, "V": W_V}[mode]
    reader[2, 0] += strength * 8 * torch.outer(channel, torch.randn(K, generator=generator))
    config = th.GPT2Config(n_vocab=2, n_ctx=2, n_embd=D, n_layer=L, n_head=16)
    zero = torch.zeros(L, H, K)
    return th.Heads(config, W_Q, W_K, W_V, W_O, zero, zero, zero, *[torch.zeros(L, D)] * 3, True)


@pytest.mark.parametrize("mode", "QKV")
def test_whole_head_scores_are_the_weighted_mean_of_component_scores(mode):
    """The same identity for all pairs, in a stream of several blocks of rows, the last one short."""
    heads = th.Heads.of(random_model(dict(n_vocab=5, n_ctx=4, n_embd=2 * BLOCK + 8, n_layer=3, n_head=6), seed=7))
    scale = th.ov_svd(heads).scale
    weight = scale**2 / (scale**2).sum(-1, keepdim=True)                                       # [L, H, K]
    squares = torch.einsum("lhk,lhkmn->lhmn", weight, th.component_scores(heads, mode) ** 2)    # [L, H, L, H]
    torch.testing.assert_close(th.composition_scores(heads, mode), squares.sqrt(), rtol=1e-4, atol=1e-5)
    assert squares.count_nonzero() == 3 * 6 * 6


def test_scores_of_one_layer_are_zero_for_nothing_comes_later():
    heads = th.Heads.of(random_model(dict(n_vocab=5, n_ctx=4, n_embd=8, n_layer=1, n_head=2)))
    for mode in "QKV":
        assert th.composition_scores(heads, mode).tolist() == [[[[0.0] * 2]] * 2]
        assert th.component_scores(heads, mode).shape == (1, 2, 4, 1, 2) and th.component_scores(heads, mode).max() == 0


def test_a_reader_that_reads_nothing_of_a_writer_scores_almost_zero():
    """The worst case for rounding: everything cancels. The sum over [D, D] leaves less than 1e-4."""
    heads = th.Heads.of(random_model(dict(n_vocab=5, n_ctx=4, n_embd=192, n_layer=2, n_head=12), seed=8))
    W_O = heads.W_O.clone()
    W_O[0, 0, 1:] = 0                                                                           # writes one direction,
    direction = W_O[0, 0, 0] / W_O[0, 0, 0].norm()                                              # [D]
    W_Q = heads.W_Q - direction[:, None] * (direction @ heads.W_Q)[:, :, None]                  # which nobody reads
    deaf = th.Heads(heads.config, W_Q, heads.W_K, heads.W_V, W_O, heads.b_Q, heads.b_K, heads.b_V, heads.b_O,
                    heads.gain, heads.bias, True)
    scores = th.composition_scores(deaf, "Q")[0, :, 1]
    assert scores[0].max() < 1e-4 and scores[1:].min() > 1e-2


@pytest.mark.parametrize("mode", "QKV")
def test_a_planted_channel_is_the_strongest_component_and_only_in_its_mode(mode):
    for other in "QKV":
        scores = th.component_scores(planted(mode), other)
        strongest = (scores == scores.max()).nonzero().flatten().tolist()
        if other == mode:
            assert strongest == [0, 1, 2, 2, 0] and scores.max() > 0.8
        else:
            assert scores[0, 1, 2, 2, 0] < 0.4


def test_scores_do_not_depend_on_the_basis_inside_a_head():
    """A head is its circuits: W_V -> W_V A, W_O -> A^-1 W_O (and likewise W_Q, W_K) is the same head."""
    heads = th.Heads.of(random_model(SIZES, seed=6))
    A = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) + 3 * torch.eye(8)
    other = th.Heads(heads.config, heads.W_Q @ A, heads.W_K @ A.inverse().transpose(2, 3), heads.W_V @ A,
                     A.inverse() @ heads.W_O, heads.b_Q, heads.b_K, heads.b_V, heads.b_O, heads.gain, heads.bias, True)
    for mode in "QKV":
        torch.testing.assert_close(th.composition_scores(other, mode), th.composition_scores(heads, mode), rtol=1e-3,
                                   atol=1e-4)


def test_a_head_of_zeros_scores_zero_not_nan(heads):
    W_O = heads.W_O.clone()
    W_O[0, 0] = 0
    zeroed = th.Heads(heads.config, heads.W_Q, heads.W_K, heads.W_V, W_O, heads.b_Q, heads.b_K, heads.b_V, heads.b_O,
                      heads.gain, heads.bias, True)
    for mode in "QKV":
        assert th.composition_scores(zeroed, mode)[0, 0].abs().max() == 0
        assert th.component_scores(zeroed, mode).isfinite().all()


def test_an_unknown_mode_is_refused(heads):
    for mode in ("q", "QK", "", None):
        with pytest.raises(th.HeadError, match="'Q', 'K' or 'V'"):
            th.composition_scores(heads, mode)


def test_known_inhibition_components_of_gpt2_stand_where_the_prototype_found_them(gpt2_folder):
    """shared/DESIGN.md: Q-composition with L9.H9, of the 6,912 components of layers 0 to 8."""
    heads = th.load_heads(gpt2_folder / "model-attention.safetensors")
    scores = th.component_scores(heads, "Q")[:9, :, :, 9, 9]
    order = [th.Component(i // 768, i // 64 % 12, i % 64) for i in scores.flatten().argsort(descending=True).tolist()]
    for name, score, rank in [("L8.H10.C1", 0.105, 2), ("L8.H6.C2", 0.104, 3), ("L7.H3.C1", 0.097, 6)]:
        c = th.Component.parse(name)
        assert scores[c.layer, c.head, c.index].item() == pytest.approx(score, abs=5e-4)
        assert order.index(c) + 1 == rank
