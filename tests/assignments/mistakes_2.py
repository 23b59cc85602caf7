"""Wrong answers to Assignment 2, each with part of the message that its author gets.

Most are the reference with one slip.
"""

import torch
from mistake import Mistake, slip
from reference_2 import (attention_pattern, circuit_norm, effective_components, fold_reading, fold_writing,
                         split_heads, split_write, thin_svd)


def columns_head_by_head(c_attn, c_proj, n_head):
    D = c_proj.shape[0]
    W_Q, W_K, W_V = c_attn.reshape(D, n_head, 3, -1).permute(2, 1, 0, 3)
    return W_Q, W_K, W_V, c_proj.reshape(n_head, -1, D)


def changed_in_place(W, b, gain, bias):
    read = b + bias @ W
    W *= gain[:, None]
    W -= W.mean(dim=1, keepdim=True)
    return W, read


def copied_for_one_seed(W_O, b_O):
    generator = torch.Generator().manual_seed(1)
    W_O = torch.randn(W_O.shape, generator=generator)
    b_O = torch.randn(b_O.shape, generator=generator)
    return W_O - W_O.mean(dim=2, keepdim=True), b_O - b_O.mean()


def zeros_before_the_softmax(x, W_Q, W_K, b_Q, b_K):
    bare = torch.nn.functional.layer_norm(x, x.shape[1:])
    return ((bare @ W_Q + b_Q) @ (bare @ W_K + b_K).T / W_Q.shape[1]**0.5).tril().softmax(-1)


def the_full_matrix(A, B):
    U, scale, Vt = torch.linalg.svd(A @ B.T)
    K = A.shape[1]
    return U[:, :K].T, scale[:K], Vt[:K]


def random_rows(A, B):
    scale = torch.linalg.svdvals(torch.linalg.qr(A).R @ torch.linalg.qr(B).R.T)
    return torch.randn(A.T.shape), scale, torch.randn(B.T.shape)


def norms_of_the_factors(A, B):
    return A.norm() * B.norm()


def on_the_write_direction(x, read, scale, write, index):
    part = (x @ write[index])[:, None] * write[index]
    return part, x @ read.T * scale @ write - part


SPLIT, READING, WRITING, PATTERN = "2.1", "2.2", "2.3", "2.4"
SVD, NORM, PARTS = "2.5", "2.6", "2.7"

MISTAKES = [
    Mistake("c_attn's columns head by head", SPLIT, columns_head_by_head, "the queries of ALL heads"),
    Mistake("reshape without moving axes", SPLIT, slip(split_heads, "reshape(D, n_head, D // n_head).transpose(0, 1)",
            "reshape(n_head, D, D // n_head)"), "reshape fills the shape row by row"),
    Mistake("c_proj by columns", SPLIT, slip(split_heads, "c_proj.reshape(n_head, D // n_head, D)",
            "c_proj.reshape(D, n_head, -1).permute(1, 2, 0)"), "Its ROWS go by head"),
    Mistake("LayerNorm not folded", READING, slip(fold_reading, "folded - folded.mean(dim=1, keepdim=True), b + bias "
                                                                "@ W",
                                                  "W, b"),
            "LayerNorm's gain is to be folded"),
    Mistake("gain on columns", READING, slip(fold_reading, "gain[:, None]", "gain[:W.shape[2]]"), "it multiplies ROWS"),
    Mistake("mean over d_head", READING, slip(fold_reading, "dim=1", "dim=2"), "you took the mean over K"),
    Mistake("bias through the folded weights", READING, slip(fold_reading, "bias @ W", "bias @ folded"),
            "the bias comes after the gain"),
    Mistake("edited in place", READING, changed_in_place, "changed its argument number 1 in place"),
    Mistake("written mean over d_head", WRITING, slip(fold_writing, "dim=-1", "dim=1"), "each ROW has mean 0"),
    Mistake("attention bias not centred", WRITING, slip(fold_writing, "b_O - b_O.mean()", "b_O"),
            "its mean over D comes out as well"),
    Mistake("answers copied for one seed", WRITING, copied_for_one_seed, "of its entries are wrong"),
    Mistake("no square root of d_head", PATTERN, slip(attention_pattern, " / W_Q.shape[1]**0.5", ""),
            "not divided by the square root"),
    Mistake("queries and keys exchanged", PATTERN, slip(attention_pattern, "(bare @ W_Q + b_Q) @ (bare @ W_K + b_K).T",
            "(bare @ W_K + b_K) @ (bare @ W_Q + b_Q).T"), "the transposed QK"),
    Mistake("softmax over the queries", PATTERN, slip(attention_pattern, "dim=-1", "dim=0"),
            "the softmax runs over the queries"),
    Mistake("off by one in the mask", PATTERN, slip(attention_pattern, "triu(1)", "triu(2)"),
            "the position just after it"),
    Mistake("zeros in place of a mask", PATTERN, zeros_before_the_softmax, "exp(0) is 1"),
    Mistake("a sample's variance", PATTERN, slip(attention_pattern, ", unbiased=False", ""), "LayerNorm divides by D"),
    Mistake("stream not normalised", PATTERN, slip(attention_pattern, "bare = ", "bare = x  # "),
            "x was not normalised"),
    Mistake("V in place of V^T", SVD, slip(thin_svd, "Vt @ Q_2.T", "Vt.T @ Q_2.T"), "whose ROWS are the v_i"),
    Mistake("core without its transpose", SVD, slip(thin_svd, "R_1 @ R_2.T", "R_1 @ R_2"),
            "R_1 @ R_2 with no transpose"),
    Mistake("singular values squared", SVD, slip(thin_svd, "scale, Vt @", "scale**2, Vt @"),
            "the squared singular values"),
    Mistake("the [D, D] matrix made", SVD, the_full_matrix, "MB of memory"),
    Mistake("right shape, random values", SVD, random_rows, "are not of length 1"),
    Mistake("norm of the factors", NORM, norms_of_the_factors, "the product of the factors' norms"),
    Mistake("no root of the norm", NORM, slip(circuit_norm, ".sqrt()", ""), "the square root is missing"),
    Mistake("norm of another product", NORM, slip(circuit_norm, "((A.T @ A) * (B.T @ B)).sum().sqrt()",
                                                  "(A.T @ B).norm()"),
            "another matrix than A B^T"),
    Mistake("read and write exchanged", PARTS, slip(split_write, "x @ read.T * scale", "x @ write.T * scale"),
            "you measured x along"),
    Mistake("counted from 1", PARTS, slip(split_write, "strength[:, index, None] * write[index]",
            "strength[:, index - 1, None] * write[index - 1]"), "counted from 0"),
    Mistake("rest of what is read", PARTS, slip(split_write, "strength @ write - part", "x - part"),
            "which the head READS"),
    Mistake("projected on the write direction", PARTS, on_the_write_direction, "you projected what is picked up"),
]


# --- 2.8 and 2.9 ------------------------------------------------------------------------------------------


def strongest_components(x, W_V, W_O, m):
    read, scale, write = thin_svd(W_V, W_O.T)
    return read[:m].T * scale[:m], write[:m]


def too_wide(x, W_V, W_O, m):
    return W_V, W_O


MISTAKES += [
    Mistake("G's squared entries", "2.8", slip(effective_components, "(G @ G).trace()", "G.pow(2).sum()"),
            "G is not symmetric"),
    Mistake("upside down", "2.8", slip(effective_components, "G.trace()**2 / (G @ G).trace()",
            "(G @ G).trace() / G.trace()**2"), "upside down"),
    Mistake("not squared", "2.8", slip(effective_components, "G.trace()**2 / (G @ G).trace()",
            "G.trace() / (G @ G).trace().sqrt()"), "its square root"),
    Mistake("all K", "2.8", slip(effective_components, "G.trace()**2 / (G @ G).trace()", "torch.tensor(len(G))"),
            "this is K"),
    Mistake("strongest by weights", "2.9", strongest_components, "your score is 0.00"),
    Mistake("too wide", "2.9", too_wide, "the narrow W_V is of shape"),
]
