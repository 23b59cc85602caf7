"""Checks of assignment 1: GPT-2's forward pass as reads and writes. ../../grader/grading.py says what they are made of.

layers.py has those of 1.1 to 1.3, attention.py those of 1.4 and 1.5, stream.py those of 1.6 and 1.7,
derivation.py those of 1.8, open_problem.py those of 1.9.
"""

from grader.grading import Exercise, Part, agrees, all_of
from grader.open_problems import scored

from .attention import (PATTERN_MISTAKES, WRITES_MISTAKES, pattern, pattern_calls, rows_are_distributions, write_calls,
                        writes)
from .derivation import calls_without, check_without
from .layers import (MATRICES, MLP_MISTAKES, NORM_MISTAKES, SMALL_MISTAKES, check_matrices, mlp, mlp_calls, norm,
                     norm_calls, split_calls, split_shapes)
from .open_problem import calls_order, score_order
from .stream import (STREAM_MISTAKES, attribution_calls, embed_write, layer_0, logit_check, names_and_shapes,
                     parts_check, stream_calls, stream_of)

EXERCISES = [
    Exercise("1.1 LayerNorm", "layer_norm", 2, norm_calls, [
        Part("values", 1, agrees(0, norm, mistakes=NORM_MISTAKES)),
        Part("another size", 0.5, agrees(1, norm, mistakes=NORM_MISTAKES)),
        Part("vectors of small variance", 0.5, agrees(2, norm, mistakes=SMALL_MISTAKES))]),
    Exercise("1.2 the MLP's write", "mlp_write", 2, mlp_calls, [
        Part("values", 1.5, agrees(0, mlp, mistakes=MLP_MISTAKES)),
        Part("another size", 0.5, agrees(1, mlp, mistakes=MLP_MISTAKES))]),
    Exercise("1.3 split the heads", "split_heads", 3, split_calls, [
        Part("names and shapes", 0.5, split_shapes),
        Part("W_Q, W_K, W_V", 1, check_matrices(0, MATRICES[:3])),
        Part("biases", 0.5, check_matrices(0, MATRICES[3:6])),
        Part("W_O", 0.5, check_matrices(0, MATRICES[6:])),
        Part("another size", 0.5, check_matrices(1, MATRICES))]),
    Exercise("1.4 the attention pattern", "attention_pattern", 3, pattern_calls, [
        Part("each query's row sums to 1", 0.5, rows_are_distributions),
        Part("values", 1.5, agrees(0, pattern, mistakes=PATTERN_MISTAKES)),
        Part("another size", 0.5, agrees(1, pattern, mistakes=PATTERN_MISTAKES)),
        Part("the bundled model", 0.5, agrees(2, pattern, mistakes=PATTERN_MISTAKES))]),
    Exercise("1.5 each head's write", "head_writes", 3, write_calls, [
        Part("values", 2, agrees(0, writes, mistakes=WRITES_MISTAKES)),
        Part("another size", 0.5, agrees(1, writes, mistakes=WRITES_MISTAKES)),
        Part("the bundled model", 0.5, agrees(2, writes, mistakes=WRITES_MISTAKES))]),
    Exercise("1.6 the whole stream", "residual_stream", 4, stream_calls, [
        Part("names and shapes", 0.5, names_and_shapes),
        Part("embed", 0.5, embed_write),
        Part("layer 0", 1, layer_0),
        Part("all layers", 1, agrees(0, stream_of, mistakes=STREAM_MISTAKES)),
        Part("another size", 0.5, agrees(1, stream_of, mistakes=STREAM_MISTAKES)),
        Part("the bundled model", 0.5, agrees(2, stream_of, mistakes=STREAM_MISTAKES))]),
    Exercise("1.7 direct logit attribution", "logit_attribution", 3, attribution_calls, [
        Part("the logit", 0.5, logit_check),
        Part("the parts", 1.5, parts_check(0)),
        Part("another size, and a stream of small variance", 0.5, all_of(parts_check(1), parts_check(3))),
        Part("the bundled model", 0.5, parts_check(2))]),
    Exercise("1.8 the logit without one write", "logit_without", 2, calls_without, [
        Part("values", 1, check_without(0)), Part("writes that cancel", 0.5, check_without(1)),
        Part("a stream of small variance", 0.5, check_without(2))]),
    Exercise("1.9 open: which heads does the answer need?", "order_of_removal", 3, calls_order, scored(
        3, score_order, "a random order", "the order that is right by construction"), seconds=120),
]
