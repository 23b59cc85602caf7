"""The scores of demos/study, held to their definitions in [D, D] matrices, and how it reads the traced edges."""

import importlib.util
from pathlib import Path

import pytest
import torch

import tinyheads as th
from helpers import random_model
from test_composition import read_circuit
from tinyheads.composition import later, narrow, read_circuits

SCRIPT = Path(__file__).parents[1] / "demos/study/choosing_a_score.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("choosing_a_score", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def heads():
    return th.Heads.of(random_model(dict(n_vocab=9, n_ctx=4, n_embd=24, n_layer=3, n_head=3), seed=5))


@pytest.fixture(scope="module")
def full(heads):
    """What every head writes and reads, as [D, D] matrices of size 1 in float64: {"Q", "K", "V"} -> [L, H, D, D]."""
    M = {mode: torch.stack([torch.stack([read_circuit(heads, mode, layer, head) for head in range(3)])
                            for layer in range(3)]) for mode in "QKV"}
    return {mode: x / x.norm(dim=(2, 3), keepdim=True) for mode, x in M.items()}


@pytest.fixture(scope="module")
def J(full):
    """The inverse root of everything written (OV^T OV) and read (M M^T), by pseudo-inverse and matrix root."""
    G = (full["V"].mT @ full["V"] + sum(x @ x.mT for x in full.values())).sum((0, 1))
    values, vectors = torch.linalg.eigh(torch.linalg.pinv(G, rtol=1e-6, hermitian=True))
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T


def test_the_four_scores_are_their_definitions(study, heads, full, J):
    scores, strengths = study.four_scores(heads), {}
    assert list(scores) == ["whole head", "best component", "best component, whitened", "chosen among 498"]
    written = study.scaled(narrow(heads.W_O.mT, heads.W_V))
    read = {mode: study.scaled(narrow(*read_circuits(heads, mode))) for mode in "QKV"}
    whitening = study.whitening([written, *read.values()])
    torch.testing.assert_close(whitening.double(), J, rtol=1e-3, atol=1e-4)
    for mode in "QKV":
        assert torch.equal(scores["whole head"][mode], th.composition_scores(heads, mode))
        assert torch.equal(scores["best component"][mode], th.component_scores(heads, mode).amax(2))
        A, B = (full["V"] @ J)[:, :, None, None], J @ full[mode]                  # [L, H, 1, 1, D, D], [L, H, D, D]
        largest = torch.linalg.svdvals(A @ B)[..., 0] / (A.norm(dim=(4, 5)) * B.norm(dim=(2, 3)))
        strengths[mode] = study.strongest_channel_in(whitening, written, read[mode])
        torch.testing.assert_close(strengths[mode].double(), largest * later(3), rtol=0, atol=1e-4)
        for w, wh, r, rh in [(0, 0, 1, 2), (1, 2, 2, 0)]:
            v = torch.linalg.svd(full["V"][w, wh]).Vh[:8] @ J                     # [K, D]
            best = ((v @ B[r, rh]).norm(dim=1) / (v.norm(dim=1) * B[r, rh].norm())).max()
            found = scores["best component, whitened"][mode][w, wh, r, rh]
            assert found.item() == pytest.approx(best.item(), rel=1e-3)
    product = strengths["Q"] * strengths["K"] * strengths["V"]
    for mode in "QKV":
        expected = (strengths[mode] / product ** (1 / 3)).log()
        at = later(3).expand(3, 3, 3, 3)
        torch.testing.assert_close(scores["chosen among 498"][mode][at], expected[at], rtol=1e-4, atol=1e-5)


def test_the_traced_edges_are_those_found_often_against_pairs_never_found(study, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "TRACED", tmp_path / "traced.csv")
    study.TRACED.write_text("mode,writer,reader,count\nQ,L0.H1,L2.H0,100\nQ,L1.H0,L2.H0,99\nQ,L0.H0,L1.H1,5\n"
                            "K,L0.H0,L1.H1,300\n")
    known, others = study.traced_pairs("Q", 3, 2)
    assert known.nonzero().tolist() == [[0, 1, 2, 0]]
    assert others.nonzero().tolist() == [[0, 0, 2, 0], [1, 1, 2, 0]]
