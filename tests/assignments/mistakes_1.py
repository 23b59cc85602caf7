"""Mistakes that students make in assignment 1."""

import torch
from mistake import Mistake, slip
from reference_1 import (attention_pattern, head_writes, layer_norm, logit_attribution, logit_without, mlp_write,
                         residual_stream, split_heads)


def sample_variance(x, gain, bias):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt() * gain + bias


def epsilon_outside(x, gain, bias):
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + 1e-5) * gain + bias


def over_positions(x, gain, bias):
    return (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt() * gain + bias


def without_gain(x, gain, bias):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()


def in_place(x, gain, bias):
    x -= x.mean(-1, keepdim=True)
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * gain + bias


def random_values(x, gain, bias):
    return torch.randn(x.shape)


def one_seed_only(x, gain, bias):
    return torch.linspace(-1.9, 2.2, x.numel()).reshape(x.shape).double()  # copied from a run


def erf_gelu(x, W_in, b_in, W_out, b_out):
    return torch.nn.functional.gelu(x @ W_in + b_in) @ W_out + b_out


def adds_what_it_read(x, W_in, b_in, W_out, b_out):
    return x + mlp_write(x, W_in, b_in, W_out, b_out)


def no_return(x, W_in, b_in, W_out, b_out):
    torch.nn.functional.gelu(x @ W_in + b_in, approximate="tanh") @ W_out + b_out


def every_hth_column(c_attn_weight, c_attn_bias, c_proj_weight, n_head):
    D = len(c_proj_weight)
    W = c_attn_weight.reshape(D, 3, D // n_head, n_head).permute(1, 3, 0, 2)
    right = split_heads(c_attn_weight, c_attn_bias, c_proj_weight, n_head)
    return {**right, "W_Q": W[0], "W_K": W[1], "W_V": W[2]}


def head_by_head(c_attn_weight, c_attn_bias, c_proj_weight, n_head):
    D = len(c_proj_weight)
    W = c_attn_weight.reshape(D, n_head, 3, D // n_head).permute(2, 1, 0, 3)
    b = c_attn_bias.reshape(n_head, 3, D // n_head).transpose(0, 1)
    W_O = c_proj_weight.reshape(n_head, D // n_head, D)
    return dict(zip(("W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V", "W_O"), (*W, *b, W_O)))


def reshaped_at_once(c_attn_weight, c_attn_bias, c_proj_weight, n_head):
    D = len(c_proj_weight)
    right = split_heads(c_attn_weight, c_attn_bias, c_proj_weight, n_head)
    return {**right, "W_Q": c_attn_weight[:, :D].reshape(n_head, D, D // n_head)}


def columns_of_W_O(c_attn_weight, c_attn_bias, c_proj_weight, n_head):
    right = split_heads(c_attn_weight, c_attn_bias, c_proj_weight, n_head)
    return {**right, "W_O": c_proj_weight.T.reshape(n_head, -1, len(c_proj_weight))}


def no_scale(x, W_Q, b_Q, W_K, b_K):
    q, k = x[:, None] @ W_Q + b_Q[:, None], x[:, None] @ W_K + b_K[:, None]
    scores = q @ k.transpose(2, 3)
    return scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf).softmax(-1)


def scale_of_the_model(x, W_Q, b_Q, W_K, b_K):
    q, k = x[:, None] @ W_Q + b_Q[:, None], x[:, None] @ W_K + b_K[:, None]
    scores = q @ k.transpose(2, 3) / x.shape[-1]**0.5
    return scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf).softmax(-1)


def softmax_over_queries(x, W_Q, b_Q, W_K, b_K):
    q, k = x[:, None] @ W_Q + b_Q[:, None], x[:, None] @ W_K + b_K[:, None]
    scores = q @ k.transpose(2, 3) / W_Q.shape[-1]**0.5
    return scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf).softmax(-2)


def sees_the_future(x, W_Q, b_Q, W_K, b_K):
    q, k = x[:, None] @ W_Q + b_Q[:, None], x[:, None] @ W_K + b_K[:, None]
    return (q @ k.transpose(2, 3) / W_Q.shape[-1]**0.5).softmax(-1)


def masked_behind_the_softmax(x, W_Q, b_Q, W_K, b_K):
    q, k = x[:, None] @ W_Q + b_Q[:, None], x[:, None] @ W_K + b_K[:, None]
    return (q @ k.transpose(2, 3) / W_Q.shape[-1]**0.5).softmax(-1).tril()


def does_not_see_itself(x, W_Q, b_Q, W_K, b_K):
    q, k = x[:, None] @ W_Q + b_Q[:, None], x[:, None] @ W_K + b_K[:, None]
    scores = q @ k.transpose(2, 3) / W_Q.shape[-1]**0.5
    return scores.masked_fill(torch.ones(scores.shape[-2:]).triu(0).bool(), -torch.inf).softmax(-1)


def key_by_query(x, W_Q, b_Q, W_K, b_K):
    return attention_pattern(x, W_Q, b_Q, W_K, b_K).transpose(2, 3)


def without_b_V(x, pattern, W_V, b_V, W_O):
    return head_writes(x, pattern, W_V, 0 * b_V, W_O)


def pattern_transposed(x, pattern, W_V, b_V, W_O):
    return head_writes(x, pattern.transpose(2, 3), W_V, b_V, W_O)


def heads_summed(x, pattern, W_V, b_V, W_O):
    return head_writes(x, pattern, W_V, b_V, W_O).sum(2)


def positions_from_1(tokens, weights, n_head):
    return residual_stream(tokens, {**weights, "wpe.weight": weights["wpe.weight"].roll(-1, 0)}, n_head)


def bias_in_the_first_head(tokens, weights, n_head):
    writes = residual_stream(tokens, weights, n_head)
    for name in [name for name in writes if name.endswith("attn.bias")]:
        writes[name.replace("attn.bias", "H0")] = writes[name.replace("attn.bias", "H0")] + writes.pop(name)
    return writes


def names_in_another_order(tokens, weights, n_head):
    return dict(sorted(residual_stream(tokens, weights, n_head).items()))


def changes_the_weights(tokens, weights, n_head):
    writes = residual_stream(tokens, weights, n_head)
    weights["wte.weight"][0] += 1
    return writes


def own_scale(writes, weights, token):
    logit, parts = logit_attribution(writes, weights, token)
    u, g = weights["wte.weight"][token], weights["ln_f.weight"]
    for name, w in writes.items():
        parts[name] = ((w - w.mean(-1, keepdim=True)) / (w.var(-1, keepdim=True, correction=0) + 1e-5).sqrt() * g) @ u
    return logit, parts


def not_centred(writes, weights, token):
    logit, parts = logit_attribution(writes, weights, token)
    s = (sum(writes.values()).var(-1, correction=0) + 1e-5).sqrt()
    g, u = weights["ln_f.weight"], weights["wte.weight"][token]
    return logit, {**parts, **{name: (w * g) @ u / s for name, w in writes.items()}}


def without_the_last_norm(writes, weights, token):
    logit, parts = logit_attribution(writes, weights, token)
    return logit, {**parts, **{name: w @ weights["wte.weight"][token] for name, w in writes.items()}}


def parts_alone(writes, weights, token):
    return logit_attribution(writes, weights, token)[1]


def logit_of_the_raw_stream(writes, weights, token):
    return sum(writes.values()) @ weights["wte.weight"][token], logit_attribution(writes, weights, token)[1]


def another_token(writes, weights, token):
    return logit_attribution(writes, weights, (token + 1) % len(weights["wte.weight"]))


MISTAKES = [
    Mistake("variance over D - 1", "1.1", sample_variance, "divides by D, not by D - 1"),
    Mistake("epsilon outside the root", "1.1", epsilon_outside, "inside the square root"),
    Mistake("norm over positions", "1.1", over_positions, "taken over the positions"),
    Mistake("gain and bias forgotten", "1.1", without_gain, "gain and bias are missing"),
    Mistake("argument changed in place", "1.1", in_place, "changed its argument number 1 in place"),
    Mistake("random values", "1.1", random_values, "of its entries are wrong"),
    Mistake("copied for one seed", "1.1", one_seed_only, "of its entries are wrong"),
    Mistake("the erf gelu", "1.2", erf_gelu, "exact (erf) form"),
    Mistake("write plus read", "1.2", adds_what_it_read, "the write alone is asked for"),
    Mistake("no return", "1.2", no_return, "is a `return` missing?"),
    Mistake("every Hth column", "1.3", every_hth_column, "has every H-th column"),
    Mistake("head by head", "1.3", head_by_head, "all queries, then all keys, then all values"),
    Mistake("reshape moves no axes", "1.3", reshaped_at_once, "reshape cannot move axes"),
    Mistake("columns of W_O", "1.3", columns_of_W_O, "W_O is transposed"),
    Mistake("no scale", "1.4", no_scale, "not divided by sqrt(d_head)"),
    Mistake("scale of d_model", "1.4", scale_of_the_model, "divided by sqrt(d_model)"),
    Mistake("softmax over queries", "1.4", softmax_over_queries, "the softmax runs over the queries"),
    Mistake("no mask", "1.4", sees_the_future, "the causal mask is missing"),
    Mistake("mask behind softmax", "1.4", masked_behind_the_softmax, "set to 0 behind the softmax"),
    Mistake("not itself", "1.4", does_not_see_itself, "a position should see itself"),
    Mistake("key by query", "1.4", key_by_query, "it is key by query"),
    Mistake("no b_V", "1.5", without_b_V, "the bias b_V is missing"),
    Mistake("transposed pattern", "1.5", pattern_transposed, "the pattern is used transposed"),
    Mistake("heads summed", "1.5", heads_summed, "they are to be kept apart"),
    Mistake("positions from 1", "1.6", positions_from_1, "positions are off by one"),
    Mistake("bias in a head", "1.6", bias_in_the_first_head, "missing, such as 'L0.attn.bias'"),
    Mistake("MLP beside attention", "1.6", slip(residual_stream, "        n = layer_norm(x, of[\"ln_2.weight\"]",
            "        n = layer_norm(x - of[\"attn.c_proj.bias\"] - sum(writes[f\"L{layer}.H{head}\"] for head in "
            "range(n_head)), of[\"ln_2.weight\"]"),
            "the MLP reads the stream as it was before"),
    Mistake("names sorted", "1.6", names_in_another_order, "in the wrong order"),
    Mistake("weights changed", "1.6", changes_the_weights, "changed its argument number 2 in place"),
    Mistake("each write's own scale", "1.7", own_scale, "its own standard deviation"),
    Mistake("not centred", "1.7", not_centred, "the mean of each write is not taken away"),
    Mistake("no last LayerNorm", "1.7", without_the_last_norm, "without the last LayerNorm"),
    Mistake("parts alone", "1.7", parts_alone, "should be a tuple of 2"),
    Mistake("raw logit", "1.7", logit_of_the_raw_stream, "the last LayerNorm is missing"),
    Mistake("another token", "1.7", another_token, "of its entries are wrong"),
]


# --- 1.8 and 1.9 ------------------------------------------------------------------------------------------


def least_direct_part_first(weights, n_head, tokens, candidates, index):
    answer = weights["wte.weight"][candidates.gather(1, index[:, None])[:, 0]]      # [B, D]
    parts = {name: (write[:, -1] * answer).sum(1).mean().item()
             for name, write in residual_stream(tokens, weights, n_head).items() if ".H" in name}
    return sorted(parts, key=parts.get)


def some_heads_only(weights, n_head, tokens, candidates, index):
    return ["L0.H0", "L0.H1"]


VARIANCE = "before - 2 * covariance.sum(1) + covariance.diagonal()"
MISTAKES += [
    Mistake("the scale kept", "1.8", slip(logit_without, " * (before / after).sqrt()", ""), "the scale s stayed as it"),
    Mistake("its own variance alone", "1.8", slip(logit_without, VARIANCE, "before - covariance.diagonal()"),
            "uncorrelated with all others"),
    Mistake("covariance once", "1.8", slip(logit_without, VARIANCE, "before - covariance.sum(1)"), "counts once"),
    Mistake("var(w) forgotten", "1.8", slip(logit_without, " + covariance.diagonal()", ""), "var(w) is missing"),
    Mistake("upside down", "1.8", slip(logit_without, "before / after", "after / before"), "upside down"),
    Mistake("the bias rescaled", "1.8", slip(logit_without, "(parts.sum() - parts) * (before / after).sqrt() + rest",
            "(parts.sum() - parts + rest) * (before / after).sqrt()"), "b.u was rescaled too"),
    Mistake("epsilon forgotten", "1.8", slip(logit_without, " + 1e-5 ", " "), "epsilon, 1e-5"),
    Mistake("by direct attribution", "1.9", least_direct_part_first, "your score is 0."),
    Mistake("some heads only", "1.9", some_heads_only, "a list of all 12 heads' names"),
]
