"""Assignment 1, answered with the library: for the grader's tests."""

import torch
from torch import Tensor

import tinyheads as th
from tinyheads.model import MLP, Attention, LayerNorm


def model_of(weights: dict[str, Tensor], n_head: int) -> th.GPT2:
    """The library's model with these weights."""
    V, D = weights["wte.weight"].shape
    n_layer = sum(name.endswith("ln_1.weight") for name in weights)
    model = th.GPT2(th.GPT2Config(V, len(weights["wpe.weight"]), D, n_layer, n_head), seed=None)
    model.load_state_dict(weights)
    return model.requires_grad_(False)


def layer_norm(x, gain, bias):
    norm = LayerNorm(len(gain))
    norm.load_state_dict({"weight": gain, "bias": bias})
    return norm(x).detach()


def mlp_write(x, W_in, b_in, W_out, b_out):
    mlp = MLP(th.GPT2Config(n_embd=len(W_in), n_head=1))
    mlp.load_state_dict({"c_fc.weight": W_in, "c_fc.bias": b_in, "c_proj.weight": W_out, "c_proj.bias": b_out})
    return mlp(x).detach()


def split_heads(c_attn_weight, c_attn_bias, c_proj_weight, n_head):
    D = len(c_proj_weight)
    config = th.GPT2Config(1, 1, D, 1, n_head)
    tensors = {"ln_1.weight": torch.ones(D), "ln_1.bias": torch.zeros(D), "attn.c_attn.weight": c_attn_weight,
               "attn.c_attn.bias": c_attn_bias, "attn.c_proj.weight": c_proj_weight, "attn.c_proj.bias": torch.zeros(D)}
    heads = th.heads.heads_from(config, {f"h.0.{name}": x for name, x in tensors.items()}, folded=False)
    return {name: getattr(heads, name)[0] for name in ("W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V", "W_O")}


def recorded_attention(x, W_Q, b_Q, W_K, b_K, W_V=None, b_V=None, W_O=None, edits=()):
    """The library's attention sublayer on these matrices, with its record."""
    H, D, K = W_Q.shape
    attention = Attention(th.GPT2Config(n_embd=D, n_head=H), 0)
    fused = [torch.zeros_like(W_Q) if W is None else W for W in (W_Q, W_K, W_V)]
    biases = [torch.zeros_like(b_Q) if b is None else b for b in (b_Q, b_K, b_V)]
    attention.load_state_dict({
        "c_attn.weight": torch.cat([W.transpose(0, 1).reshape(D, D) for W in fused], dim=1),
        "c_attn.bias": torch.cat([b.reshape(D) for b in biases]),
        "c_proj.weight": torch.zeros(D, D) if W_O is None else W_O.reshape(D, D), "c_proj.bias": torch.zeros(D)})
    stream = th.Stream(record=True, edits=edits)
    stream.write("embed", x)
    with torch.no_grad():
        attention(x, stream, None)
        return stream.patterns["L0"], torch.stack([stream.writes[f"L0.H{head}"] for head in range(H)], dim=2)


def attention_pattern(x, W_Q, b_Q, W_K, b_K):
    return recorded_attention(x, W_Q, b_Q, W_K, b_K)[0]


def head_writes(x, pattern, W_V, b_V, W_O):
    edit = th.Edit("L0", lambda _: pattern, of="patterns")
    return recorded_attention(x, 0 * W_V, 0 * b_V, 0 * W_V, 0 * b_V, W_V, b_V, W_O, edits=[edit])[1]


def residual_stream(tokens, weights, n_head):
    stream = th.Stream(record=True)
    model_of(weights, n_head)(tokens, stream)
    return dict(stream.writes.items())


def logit_attribution(writes, weights, token):
    V, D = weights["wte.weight"].shape
    model = th.GPT2(th.GPT2Config(V, 1, D, 1, 1), seed=0).requires_grad_(False)
    model.load_state_dict(weights, strict=False)
    stream = th.Stream(record=True)
    for name, write in writes.items():
        stream.write(name, write)
    x = stream.read("unembed", model.ln_f)
    stream.last_logits = (x @ model.unembedding.T)[0, -1]                           # as a run leaves them
    return x @ weights["wte.weight"][token], th.logit_attribution(model, stream, token)


def logit_without(parts, rest, covariance):
    before = covariance.sum() + 1e-5                                                # s squared, with all writes
    after = before - 2 * covariance.sum(1) + covariance.diagonal()                  # [n], without each
    return (parts.sum() - parts) * (before / after).sqrt() + rest


def without(weights, n_head, silent):
    """A model's weights with some heads writing nothing: their rows of c_proj are 0."""
    weights = dict(weights)
    for name in silent:
        layer, head = name[1:].split(".H")
        W_O = weights[f"h.{layer}.attn.c_proj.weight"].clone()                      # [D, D], K rows a head
        W_O.view(n_head, -1, W_O.shape[1])[int(head)] = 0
        weights[f"h.{layer}.attn.c_proj.weight"] = W_O
    return weights


def order_of_removal(weights, n_head, tokens, candidates, index):
    """The heads whose silence alone costs the lead least go first."""
    n_layer = sum(name.endswith("ln_1.weight") for name in weights)
    names = [f"L{layer}.H{head}" for layer in range(n_layer) for head in range(n_head)]

    def lead(silent):
        stream = sum(residual_stream(tokens, without(weights, n_head, silent), n_head).values())[:, -1:]  # [B, 1, D]
        x = layer_norm(stream, weights["ln_f.weight"], weights["ln_f.bias"])[:, 0]                        # [B, D]
        among = (x @ weights["wte.weight"].T).gather(1, candidates)                                       # [B, N]
        return (among.gather(1, index[:, None])[:, 0] - among.mean(1)).mean().item()

    return sorted(names, key=lambda name: -lead([name]))
