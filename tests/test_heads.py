"""Heads, folding and SVDs, held to the definitions written out in full [D, D] matrices."""

import pytest
import torch
import torch.nn.functional as F

import tinyheads as th
from helpers import random_model, random_tokens

SIZES = dict(n_vocab=50, n_ctx=16, n_embd=24, n_layer=3, n_head=4)


@pytest.fixture(scope="module")
def model():
    return random_model(SIZES, seed=3)


def test_splitting_by_head_gives_the_layers_queries_keys_and_values(model):
    heads = th.Heads.of(model, fold=False)
    x = torch.randn(7, 24, generator=torch.Generator().manual_seed(0))
    for layer in range(3):
        q, k, v = (x @ model.h[layer].attn.c_attn.weight + model.h[layer].attn.c_attn.bias).split(24, dim=-1)
        for fused, W, b in [(q, heads.W_Q, heads.b_Q), (k, heads.W_K, heads.b_K), (v, heads.W_V, heads.b_V)]:
            for head in range(4):
                torch.testing.assert_close(x @ W[layer, head] + b[layer, head], fused[:, 6 * head:6 * head + 6])


def test_folded_heads_give_the_same_attention_and_the_same_write_up_to_its_mean(model):
    """From the bare normalised stream (no gain, no bias), the folded weights do what the model did."""
    heads = th.Heads.of(model)
    tokens = random_tokens(model.config)
    stream = th.Stream(record=True)
    model(tokens, stream)
    names = th.write_names(model.config)
    for layer in range(3):
        before = sum(stream.writes[name] for name in names[:names.index(f"L{layer}.H0")])
        bare = F.layer_norm(before, (24,))
        for head in range(4):
            q = bare @ heads.W_Q[layer, head] + heads.b_Q[layer, head]
            k = bare @ heads.W_K[layer, head] + heads.b_K[layer, head]
            v = bare @ heads.W_V[layer, head] + heads.b_V[layer, head]
            scores = (q @ k.transpose(1, 2) / 6 ** 0.5).masked_fill(torch.ones(16, 16).triu(1).bool(), -torch.inf)
            pattern = scores.softmax(-1)
            torch.testing.assert_close(pattern, stream.patterns[f"L{layer}"][:, head], rtol=1e-3, atol=1e-4)
            write = stream.writes[f"L{layer}.H{head}"]
            torch.testing.assert_close(pattern @ v @ heads.W_O[layer, head], write - write.mean(-1, keepdim=True),
                                       rtol=1e-3, atol=1e-4)
        bias = stream.writes[f"L{layer}.attn.bias"][0, 0]
        torch.testing.assert_close(heads.b_O[layer], bias - bias.mean())


def test_folding_takes_the_mean_out_of_what_is_read_and_written(model):
    heads = th.Heads.of(model)
    for W in (heads.W_Q, heads.W_K, heads.W_V):
        assert W.sum(2).abs().max() < 1e-5
    assert heads.W_O.sum(3).abs().max() < 1e-5


@pytest.mark.parametrize("fold", [True, False])
def test_the_thin_svds_are_those_of_the_full_matrices(model, fold):
    heads = th.Heads.of(model, fold)
    circuits = {"OV": (heads.W_V.double() @ heads.W_O.double(), th.ov_svd(heads)),
                "QK": (heads.W_Q.double() @ heads.W_K.double().transpose(2, 3), th.qk_svd(heads))}
    for full, svd in circuits.values():
        assert svd.read.shape == svd.write.shape == (3, 4, 6, 24) and svd.scale.shape == (3, 4, 6)
        rebuilt = torch.einsum("lhkd,lhk,lhke->lhde", svd.read, svd.scale, svd.write)
        torch.testing.assert_close(rebuilt.double(), full, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(svd.scale.double(), torch.linalg.svdvals(full)[..., :6], rtol=1e-4, atol=1e-6)
        identity = torch.eye(6).expand(3, 4, 6, 6)
        torch.testing.assert_close(svd.read @ svd.read.transpose(2, 3), identity, rtol=0, atol=1e-5)
        torch.testing.assert_close(svd.write @ svd.write.transpose(2, 3), identity, rtol=0, atol=1e-5)
        assert (svd.scale[..., :-1] >= svd.scale[..., 1:]).all()


def test_load_heads_equals_the_heads_of_the_loaded_model(golden):
    for path in (golden / "wide", golden / "wide_tf"):
        from_file, from_model = th.load_heads(path), th.Heads.of(th.load(path))
        for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"):
            assert torch.equal(getattr(from_file, name), getattr(from_model, name)), name
    assert th.load_heads(golden / "wide").folded and not th.load_heads(golden / "wide", fold=False).folded


def planted_scales(*scales):
    """One head whose OV has exactly these singular values."""
    K, D = len(scales), 4 * len(scales)
    generator = torch.Generator().manual_seed(1)
    U, V = (torch.linalg.qr(torch.randn(D, K, generator=generator)).Q for _ in range(2))
    W_V, W_O = U * torch.tensor(scales), V.T
    config = th.GPT2Config(n_vocab=2, n_ctx=2, n_embd=D, n_layer=1, n_head=4)
    zero = torch.zeros(1, 1, D, K)
    return th.Heads(config, zero, zero, W_V[None, None], W_O[None, None], *[torch.zeros(1, 1, K)] * 3,
                    *[torch.zeros(1, D)] * 3, True), U, V


def test_equal_singular_values_are_reported_as_blocks():
    heads, U, V = planted_scales(5.0, 4.98, 4.95, 2.0, 1.0, 0.999)
    svd = th.ov_svd(heads)
    torch.testing.assert_close(svd.scale[0, 0], torch.tensor([5.0, 4.98, 4.95, 2.0, 1.0, 0.999]), rtol=1e-4, atol=0)
    blocks = th.degenerate_blocks(svd)
    assert blocks[0, 0].tolist() == [0, 0, 0, 1, 2, 2]
    assert th.degenerate_blocks(svd, within=0.0005)[0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert list(map(str, th.block_of(blocks, th.Component(0, 0, 1)))) == ["L0.H0.C0", "L0.H0.C1", "L0.H0.C2"]
    assert list(map(str, th.block_of(blocks, th.Component(0, 0, 3)))) == ["L0.H0.C3"]
    alone = svd.write[0, 0, 3]  # a component by itself is the planted direction, up to its sign
    assert abs(alone @ V[:, 3]).item() == pytest.approx(1, abs=1e-4)


def test_a_head_of_one_component_is_a_block_of_its_own():
    heads, _, _ = planted_scales(3.0)
    assert th.degenerate_blocks(th.ov_svd(heads)).tolist() == [[[0]]]


def test_names_print_as_the_field_writes_them_and_read_back():
    assert str(th.Component(8, 10, 1)) == "L8.H10.C1" and th.Component.parse("L8.H10.C1") == th.Component(8, 10, 1)
    assert str(th.Head(9, 6)) == "L9.H6" and th.Head.parse("L9.H6") == th.Head(9, 6)
    for text in ("8.10.1", "L8.H10", "L8.H10.C", "l8.h10.c1", "L8.H10.C1 ", 7):
        with pytest.raises(th.HeadError, match="L8.H10.C1"):
            th.Component.parse(text)
    with pytest.raises(th.HeadError, match="L8.H10"):
        th.Head.parse("L8.H10.C1")


def test_a_component_that_does_not_exist_is_refused(model):
    blocks = th.degenerate_blocks(th.ov_svd(th.Heads.of(model)))
    with pytest.raises(th.HeadError, match="L0.H0 to L2.H3"):
        th.block_of(blocks, th.Component(3, 0, 0))
    with pytest.raises(th.HeadError, match="C0 to C5"):
        th.block_of(blocks, th.Component(0, 0, 6))
    with pytest.raises(th.HeadError, match="within"):
        th.degenerate_blocks(th.ov_svd(th.Heads.of(model)), within=-1)


def test_all_heads_of_openais_gpt2(gpt2_folder):
    """The real weights: 144 heads, and an SVD that rebuilds a real OV circuit."""
    heads = th.load_heads(gpt2_folder / "model-attention.safetensors")
    assert heads.W_Q.shape == (12, 12, 768, 64) and heads.W_O.shape == (12, 12, 64, 768)
    svd = th.ov_svd(heads)
    full = heads.W_V[8, 10].double() @ heads.W_O[8, 10].double()
    rebuilt = svd.read[8, 10].T.double() @ torch.diag(svd.scale[8, 10].double()) @ svd.write[8, 10].double()
    assert ((rebuilt - full).norm() / full.norm()).item() < 1e-5


# --- fold, gain and names of places ----------------------------------------------------------------------


def test_a_folded_head_makes_of_the_bare_stream_what_the_plain_one_makes_of_the_models_layernorm(model):
    plain = th.Heads.of(model, fold=False)
    folded = th.fold(plain)
    assert folded.folded and not plain.folded
    x = 3 + 5 * torch.randn(9, 24, generator=torch.Generator().manual_seed(1))
    bare = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    for layer in range(3):
        read = model.h[layer].ln_1(x)
        for part in "QKV":
            W, b = (getattr(plain, f"{kind}_{part}")[layer] for kind in "Wb")                  # [H, D, K], [H, K]
            W_folded, b_folded = (getattr(folded, f"{kind}_{part}")[layer] for kind in "Wb")
            torch.testing.assert_close(bare @ W_folded + b_folded[:, None], read @ W + b[:, None], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(folded.W_O[layer], plain.W_O[layer] - plain.W_O[layer].mean(-1, keepdim=True))


def test_folding_twice_changes_nothing(model):
    folded = th.fold(th.Heads.of(model, fold=False))
    again, at_once = th.fold(folded), th.Heads.of(model)
    for name, value in vars(folded).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(again, name)), name
            torch.testing.assert_close(value, getattr(at_once, name), rtol=1e-5, atol=1e-6)
    assert again.folded and (folded.gain == 1).all() and (folded.bias == 0).all()


def test_gain_and_bias_are_those_of_the_layernorm_that_heads_read_through(model):
    heads = th.Heads.of(model, fold=False)
    assert heads.gain.shape == heads.bias.shape == (3, 24)
    for layer in range(3):
        assert torch.equal(heads.gain[layer], model.h[layer].ln_1.weight)
        assert torch.equal(heads.bias[layer], model.h[layer].ln_1.bias)


def test_places_in_a_flat_table_components_of_heads_and_their_order():
    table = torch.zeros(3, 5)
    table[2, 3] = 1
    assert th.Head.at(int(table.argmax()), 5) == th.Head(2, 3) and th.Head.at(4, 5) == th.Head(0, 4)
    component = th.Component.of(th.Head(2, 3), 7)
    assert component == th.Component(2, 3, 7) and component.of_head == th.Head(2, 3)
    heads = [th.Head(10, 0), th.Head(2, 11), th.Head(2, 3)]             # by number, where text would put L10 first
    assert list(map(str, sorted(heads))) == ["L2.H3", "L2.H11", "L10.H0"]
    components = [th.Component(1, 0, 10), th.Component(1, 0, 9), th.Component(0, 5, 60)]
    assert list(map(str, sorted(components))) == ["L0.H5.C60", "L1.H0.C9", "L1.H0.C10"]
    assert len({th.Head(1, 2), th.Head.parse("L1.H2")}) == 1            # equal ones are one key
