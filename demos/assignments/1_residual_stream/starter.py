# %% [markdown]
# # Assignment 1. The residual stream
#
# Fill in the functions, and hand this in as `submission.py` or `submission.ipynb`; README.md, beside it, is the
# handout. Run cell by cell, in Jupyter, Colab, or an editor that knows `# %%` cells (VS Code, Spyder), `check("1.1")`
# grades exercise 1.1 at once; elsewhere it does nothing.
#
# Only torch, numpy and the standard library: tinyheads cannot be imported while this is graded. Axes: B batch, T
# position (query), S position (key), H head, D d_model, K d_head, V vocabulary. All counted from 0. Row vectors: a
# linear map is x @ W + b. Return new tensors: never change an argument in place.

# %%
import math

import torch
from torch import Tensor

try:
    from tinyheads.course import check                         # in a notebook check("1.1") grades exercise 1.1
except ImportError:                                            # where the grader runs this file: nothing to do
    def check(exercise):
        pass

# %% [markdown]
# ## Worked example: nothing to do

# %%
def embed(tokens: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """The first write to the stream: each token's vector plus its position's. (A worked example: nothing to do.)

    tokens: int64 [B, T]; weights: a GPT-2's tensors by name, here "wte.weight" [V, D] and "wpe.weight" [n_ctx, D].
    Gives [B, T, D].
    """
    T = tokens.shape[1]
    token_vectors = weights["wte.weight"][tokens]              # [B, T, D]: one row of the table for each token
    position_vectors = weights["wpe.weight"][:T]               # [T, D]: positions 0 to T - 1
    return token_vectors + position_vectors                    # [B, T, D] + [T, D] -> [B, T, D]

# %% [markdown]
# ## 1.1 LayerNorm

# %%
def layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """1.1  Each position's vector brought to mean 0 and variance 1, times the gain, plus the bias.

    x: [B, T, D]; gain, bias: [D]. Gives [B, T, D]. Epsilon is 1e-5, inside the square root. Write it from mean, square
    and square root (handout, equation 1).
    """
    raise NotImplementedError

# %%
check("1.1")

# %% [markdown]
# ## 1.2 The MLP's write

# %%
def mlp_write(x: Tensor, W_in: Tensor, b_in: Tensor, W_out: Tensor, b_out: Tensor) -> Tensor:
    """1.2  What an MLP writes, from what it read: a linear map, gelu in its tanh form, a linear map.

    x: [B, T, D], behind the LayerNorm; W_in: [D, 4D]; b_in: [4D]; W_out: [4D, D]; b_out: [D]. Gives [B, T, D].
    """
    raise NotImplementedError

# %%
check("1.2")

# %% [markdown]
# ## 1.3 Split the heads

# %%
def split_heads(c_attn_weight: Tensor, c_attn_bias: Tensor, c_proj_weight: Tensor, n_head: int) -> dict[str, Tensor]:
    """1.3  A layer's fused attention matrices, taken apart by head.

    c_attn_weight: [D, 3D]; c_attn_bias: [3D]; c_proj_weight: [D, D]; n_head: H. With K = D / H, gives a dict of
    "W_Q", "W_K", "W_V": [H, D, K]; "b_Q", "b_K", "b_V": [H, K]; "W_O": [H, K, D], in this order.
    """
    raise NotImplementedError

# %%
check("1.3")

# %% [markdown]
# ## 1.4 The attention pattern

# %%
def attention_pattern(x: Tensor, W_Q: Tensor, b_Q: Tensor, W_K: Tensor, b_K: Tensor) -> Tensor:
    """1.4  How much each query position attends to each key position.

    x: [B, T, D], behind the LayerNorm; W_Q, W_K: [H, D, K]; b_Q, b_K: [H, K]. Gives [B, H, T, S] with S = T, query by
    key: rows sum to 1, and what lies in a query's future gets exactly 0.
    """
    raise NotImplementedError

# %%
check("1.4")

# %% [markdown]
# ## 1.5 Each head's write

# %%
def head_writes(x: Tensor, pattern: Tensor, W_V: Tensor, b_V: Tensor, W_O: Tensor) -> Tensor:
    """1.5  What each head writes into the stream, apart from the others.

    x: [B, T, D], behind the LayerNorm; pattern: [B, H, T, S], query by key; W_V: [H, D, K]; b_V: [H, K];
    W_O: [H, K, D]. Gives [B, T, H, D]. The layer's output bias (c_proj.bias) belongs to no head, and is not in it.
    """
    raise NotImplementedError

# %%
check("1.5")

# %% [markdown]
# ## 1.6 The whole stream

# %%
def residual_stream(tokens: Tensor, weights: dict[str, Tensor], n_head: int) -> dict[str, Tensor]:
    """1.6  Every write of a whole GPT-2, by name, in the order in which they happen.

    tokens: int64 [B, T]; weights: by name, see the handout's table (the number of layers follows from the names).
    Gives a dict {"embed", "L0.H0", "L0.H1", ..., "L0.attn.bias", "L0.mlp", "L1.H0", ...}, each [B, T, D]. Their sum is
    the stream.
    """
    raise NotImplementedError

# %%
check("1.6")

# %% [markdown]
# ## 1.7 Direct logit attribution

# %%
def logit_attribution(writes: dict[str, Tensor], weights: dict[str, Tensor],
                      token: int) -> tuple[Tensor, dict[str, Tensor]]:
    """1.7  A token's logit, and how much of it each write accounts for (direct logit attribution).

    writes: as from 1.6, each [B, T, D]; weights: "ln_f.weight" and "ln_f.bias" [D], "wte.weight" [V, D]; token: an id.
    Gives (logit [B, T], parts {name: [B, T]}): the parts have the writes' names in their order, then "ln_f.bias", the
    part that no write makes; they sum to the logit.
    """
    raise NotImplementedError

# %%
check("1.7")

# %% [markdown]
# ## 1.8 The logit without one write

# %%
def logit_without(parts: Tensor, rest: float, covariance: Tensor) -> Tensor:
    """1.8  A token's logit at one position with each write left out in turn, from a few numbers: [n].

    parts: [n], what each of n writes gives to the logit by 1.7 (with the scale s of the whole stream); rest: the
    bias's part, b . u; covariance: [n, n], mean over D of (w_i - mean(w_i)) (w_j - mean(w_j)), for all pairs of
    writes. Entry i: the logit of LN_f(sum of all writes but w_i), exactly, later layers left as they were. Epsilon is
    1e-5.
    """
    raise NotImplementedError

# %%
check("1.8")

# %% [markdown]
# ## 1.9 Open: which heads does the answer need?

# %%
def order_of_removal(weights: dict[str, Tensor], n_head: int, tokens: Tensor, candidates: Tensor,
                     index: Tensor) -> list[str]:
    """1.9 (open)  All heads of a model in the order in which to take them away, the first to go first.

    weights, n_head: an unknown model; tokens: int64 [B, T], its prompts; candidates: int64 [B, N], the tokens that may
    be the answer; index: int64 [B], which of them is it. Returns all names "L0.H0", "L0.H1", ..., each once.
    """
    raise NotImplementedError

# %%
check("1.9")
