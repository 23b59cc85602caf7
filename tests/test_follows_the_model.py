"""float32 bases on double and bfloat16 models: computed in the wider dtype, rounded once, in the model's own dtype."""

import copy
from types import SimpleNamespace

import pytest
import torch

import tinyheads as th
from tinyheads.planted import laundry_prompts, planted
from helpers import circuit_of, scores_of_head
from tinyheads import ablation, steering
from tinyheads.basis import check_basis, project, span

DTYPES = [torch.float64, torch.bfloat16, torch.float16]
BASIS = th.random_subspace(64, 3, seed=2)
X = 3 * torch.randn(5, 4, 64, generator=torch.Generator().manual_seed(0)).double()
VALUES = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
ORDER = torch.tensor([1, 2, 3, 4, 0])
TURN = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])


@pytest.fixture(scope="module")
def built():
    return planted()


@pytest.fixture(scope="module")
def prompts():
    return laundry_prompts(30, seed=4)


def cast(model, dtype):
    return copy.deepcopy(model).to(dtype)


def rounded(got, expected):
    """That `got` is `expected`, computed in double, up to one rounding of its own dtype."""
    torch.testing.assert_close(got.double(), expected, rtol=max(torch.finfo(got.dtype).eps, 1e-12), atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_edits_of_the_stream(dtype):
    x, B = X.to(dtype), BASIS.double()
    exact = x.double()
    c = exact[:, [3]] @ B.T                                                        # [B, 1, k]
    mean = exact[:, [3]].mean(0)
    everywhere = exact @ B.T
    cases = [(th.set_coordinates(BASIS, VALUES, 3), exact[:, [3]] + (VALUES.double()[:, None] - c) @ B),
             (th.add_coordinates(BASIS, VALUES, 3), exact[:, [3]] + VALUES.double()[:, None] @ B),
             (th.restrict(BASIS, "L0.H0", 3).change, mean + (exact[:, [3]] - mean) @ B.T @ B),
             (th.restrict(BASIS, "L0.H0", 3, keep=False).change, exact[:, [3]] - (exact[:, [3]] - mean) @ B.T @ B)]
    for change, expected in cases:
        after = change(x)
        assert after.dtype == dtype and torch.equal(after[:, :3], x[:, :3])
        rounded(after[:, [3]], expected)
    removed = {"zero": exact - everywhere @ B, "mean": exact + (everywhere.mean(0) - everywhere) @ B,
               "resample": exact + (everywhere[ablation.derangement(5, 7)] - everywhere) @ B}
    for how, expected in removed.items():
        after = th.remove(BASIS, "L0.H0", how, seed=7).change(x)
        assert after.dtype == dtype
        rounded(after, expected)
    rounded(project(x, BASIS), exact @ B.T @ B)
    assert project(x, BASIS).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_basis_of_half_precision_is_taken_and_used_in_float32(dtype):
    basis = BASIS.to(dtype)
    rounded(th.coordinates(X.float(), basis), X.float().double() @ basis.double().T)
    with pytest.raises(th.SubspaceError, match="orthonormal"):
        check_basis(1.02 * basis, 64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_edits_while_the_model_runs(built, prompts, dtype):
    model = cast(built.model, dtype)
    change = th.set_coordinates(BASIS, VALUES[0], prompts.end)
    seen = th.seen_at_end(model, prompts, ["L2.attn"], "stream", [th.Edit("L2.attn", change, of="stream")])[0]
    assert seen.dtype == dtype
    close = 1e-5 if dtype == torch.float64 else 0.1                                # 64 numbers of about 6, rounded
    torch.testing.assert_close(th.coordinates(seen, BASIS), VALUES[0].expand(30, 3), rtol=0, atol=close,
                               check_dtype=False)
    for how in (th.remove(built.channel, "L1.H1", "mean"), th.restrict(built.channel, "L1.H1", prompts.end)):
        assert model(prompts.tokens, th.Stream(edits=[how])).dtype == dtype
    codes = th.mean_codes(built.model, prompts, circuit_of(built), built.channel)
    assert th.steering_rate(model, prompts, circuit_of(built), built.channel, codes) == 1.0
    points, readers = codes[:2], [built.mover]
    for got, expected in zip(th.traverse(model, prompts, circuit_of(built), built.channel, points),
                             th.traverse(built.model, prompts, circuit_of(built), built.channel, points)):
        torch.testing.assert_close(got.float(), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_edit_of_the_weights_is_rounded_once(built, dtype):
    model = cast(built.model, dtype)
    rows = model.h[1].attn.c_proj.weight[16:32]                                    # L1.H1's W_O [K, D]
    W, B = rows.double().clone(), built.channel.double()
    report = th.edit_output(model, built.inhibition, built.channel, TURN)
    assert rows.dtype == dtype and report.factors == pytest.approx((2, 1, 1))
    rounded(rows, W + W @ B.T @ (TURN.double() - torch.eye(3)) @ B)


def test_an_edit_that_rounding_swallows_is_refused(built):
    nearly = torch.eye(3) * (1 + 1e-4)
    th.edit_output(cast(built.model, torch.float32), built.inhibition, built.channel, nearly)
    with pytest.raises(th.SubspaceError, match="do nothing"):
        th.edit_output(cast(built.model, torch.bfloat16), built.inhibition, built.channel[:1], nearly[:1, :1])
    with pytest.raises(th.SubspaceError, match="no longer finite in torch.float16"):
        th.edit_output(cast(built.model, torch.float16), built.inhibition, built.channel, 1e6 * torch.eye(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_repair(built, prompts, dtype):
    """Its first loss is by hand; matrices are in float32 at least; in double they are those of the float32 model."""
    damaged = copy.deepcopy(built.model)
    th.edit_output(damaged, built.inhibition, built.channel, TURN)
    fit = lambda model: th.fit_repair(model, circuit_of(built), built.channel, [prompts], [prompts.tokens[:4]],
                                          hold=0.1, steps=6, rate=0.1)
    model = cast(damaged, dtype)
    found, among = fit(model), model(prompts.tokens)[:, -1].double().gather(1, prompts.candidates)
    M = found.matrices[built.inhibition]
    assert M.dtype == torch.promote_types(dtype, torch.float32)
    by_hand = -among.log_softmax(1)[torch.arange(30), prompts.index].mean().item()
    near = 1e-4 if dtype == torch.float64 else 1e-2  # an edited head is added by itself: one more rounding in bf16
    assert found.loss[0] == pytest.approx(by_hand, rel=near) and found.loss[-1] < found.loss[0]
    write, B = X.to(dtype), built.channel.double()
    after = found.edits()[0].change(write)
    assert after.dtype == model(prompts.tokens, th.Stream(edits=found.edits())).dtype == dtype
    rounded(after, write.double() + write.double() @ B.T @ (M.double() - torch.eye(3)) @ B)
    assert found.apply(model)[0].rank == 3
    if dtype == torch.float64:
        torch.testing.assert_close(M.float(), fit(damaged).matrices[built.inhibition], rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_subspaces_codes_and_scores_are_those_of_the_float32_model(built, prompts, dtype):
    model = cast(built.model, dtype)
    heads, plain = th.Heads.of(model), th.Heads.of(built.model)
    assert heads.W_Q.dtype == torch.promote_types(dtype, torch.float32)
    ov = th.ov_svd(heads)
    found = th.subspace_from_weights(model, circuit_of(built))
    assert th.principal_angles(found, built.channel).max() < 2
    torch.testing.assert_close(th.composition_scores(heads, "Q").float(), th.composition_scores(plain, "Q"), rtol=0,
                               atol=0.01)
    writes = th.writes_at_end(model, prompts, circuit_of(built))
    found = th.subspace_from_activations(model, prompts, circuit_of(built))
    assert th.principal_angles(found, built.channel).max() < 2
    points = th.stream_at_end(model, prompts, "L2.attn").double() @ built.channel.double().T          # [B, 3]
    expected = torch.stack([points[prompts.index == i].mean(0) for i in range(6)])
    torch.testing.assert_close(th.mean_codes(model, prompts, circuit_of(built), built.channel).double(), expected)
    assert steering.separation(writes @ built.channel.to(writes).T, prompts).min() > 3
    few = laundry_prompts(6, seed=4)
    assert scores_of_head(model, few, built.inhibition, built.mover)[:3].min() > 0.02
    assert th.correct(th.logits_at_end(model, prompts), prompts).float().mean() > 0.95
    expected = th.perplexity(built.model, prompts.tokens)
    assert th.perplexity(model, prompts.tokens) == pytest.approx(expected, rel=0.05)


def test_means_and_spans_of_half_precision_are_in_float32():
    writes, index = X[:, 0].bfloat16().repeat(300, 1), torch.arange(1500) % 2
    expected = torch.stack([writes[index == i].double().mean(0) for i in (0, 1)])
    prompts = SimpleNamespace(index=index, candidates=torch.zeros(1500, 2))
    torch.testing.assert_close(th.by_index(writes, prompts), expected.float(), rtol=1e-4, atol=1e-5)
    half = BASIS.half()
    assert span(half).dtype == th.grid(half[0, :2], half[1, :2], 2).dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_bases_and_prompts_on_the_cpu_follow_a_model_on_the_gpu(built, prompts):
    model = copy.deepcopy(built.model).cuda()
    codes = th.mean_codes(built.model, prompts, circuit_of(built), built.channel)
    assert th.steering_rate(model, prompts, circuit_of(built), built.channel, codes) == 1.0
    assert th.mean_codes(model, prompts, circuit_of(built), built.channel).is_cuda
    th.traversed_codes(model, prompts, circuit_of(built), built.channel, codes, 3)
    ov = th.ov_svd(th.Heads.of(built.model))
    assert scores_of_head(model, prompts, built.inhibition, built.mover)[:3].min() > 0.05
    model(prompts.tokens, th.Stream(edits=[th.restrict(built.channel, "L1.H1", prompts.end)]))
    th.edit_output(model, built.inhibition, built.channel, TURN)
    found = th.fit_repair(model, circuit_of(built), built.channel, [prompts], [prompts.tokens], steps=2)
    found.apply(copy.deepcopy(built.model))
    assert th.correct(model(prompts.tokens), prompts).shape == (30,)
    th.perplexity(model, prompts.tokens)
