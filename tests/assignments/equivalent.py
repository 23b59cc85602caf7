"""Mutants that no check can catch, since they are right: (function, pattern of the line, why), by assignment.

The pattern (a regular expression) is that of the whole line with the slip; an empty function stands for any, and
"chance_scores/circuit" for a helper where that exercise is tried with it.
"""

HALF = "float16 is off by less than the handout's tolerance, 1e-3 of the largest"
PART_FLOAT16 = "a part of the way in float16 is off by less than the handout's tolerance"
SAME_AXES = "transpose(a, b) is transpose(b, a)"
SYMMETRIC = "a norm or a scalar product is the same in either order"
ONE_ENTRY = "the list holds one entry"
NO_TENSOR = "what is cast holds no tensors and no fractions"
PERSON = "left to a person: how the figure looks, beyond its size and its colours"

EQUIVALENT = {
    1: [
        ("", r".*\.transpose\((1, 0|3, 2|2, 1)\).*", SAME_AXES),
        ("attention_pattern", r"k = x\[:, None\] @ W_K( - b_K\[:, None\])?",
         "q @ b_K is the same for all keys, and a softmax takes no notice of what is added to all alike"),
        ("residual_stream", r"x \+= .*", "x is a tensor of the function's own by then"),
        ("residual_stream", r"of = .* in weights\.items\(\)\}", "names of other layers keep their prefix, unused"),
        ("residual_stream", r"for layer in .*ln_1\.bias.*", "each layer has one of both"),
        ("logit_attribution", r"return .*(u @ bias|scale\.shape).*", "the same number; the same shape"),
        ("logit_without", r"after = .*covariance\.sum\(0\).*", "a covariance is symmetric"),
        ("logit_without", r"return as_half\(.*", HALF),
    ],
    2: [
        ("split_heads", r"D = c_proj\.shape\[-?1\]|D = c_attn\.shape\[0\]", "c_proj is square, and c_attn as long"),
        ("", r".*\.transpose\(1, 0\).*", SAME_AXES),
        ("attention_pattern",
         r"bare = (x|\(x \+ x\.mean\(-1, keepdim=True\)\)|\(x - x\.sum\(-1, .*\)\)) / .*\+ 1e-05\)\.sqrt\(\)",
         "the columns of folded weights have mean 0: whatever is the same in all of x[t] is not read"),
        ("attention_pattern", r"bare = .*x\.(mean|var)\(1, .*", "of two axes, the last is axis 1"),
        ("attention_pattern", r".*softmax\(dim=1\)", "of two axes, the last is axis 1"),
        ("attention_pattern", r"scores = .* \+ b_Q\) @ \(bare @ W_K( - b_K| \+ b_Q)?\)\.T / W_Q\.shape\[1\] \*\* 0\.5",
         "q @ b_K is the same for all keys, and a softmax takes no notice of what is added to all alike"),
        ("attention_pattern", r"scores = .*W_K\.shape\[1\] \*\* 0\.5", "W_Q and W_K are of one shape"),
        ("", r"return as_half\(.*", HALF),
        ("split_write", r"part = strength\[:, None, index\].*", "[T, 1] both ways"),
    ],
    3: [
        ("", r"return as_half\(.*", HALF),
        ("", r"return as_whole\(\[text .*", NO_TENSOR),
        ("composition_score", r"return norm\(.*", SYMMETRIC),
        ("chance_scores", r"D, G = \(len\(A\), B\.T @ B @ \(A\.T @ A\)\)", "both products have the same eigenvalues"),
        ("chance_scores", r"D, G = \(len\(B\), .*", "A and B are equally long"),
        ("chance_scores/circuit",
         r"return {'Q': \(head\['W_K'\], head\['W_Q'\]\), 'K': \(head\['W_Q'\], head\['W_K'\]\).*",
         "a matrix and its transpose have the same singular values, and nothing else counts"),
        ("top_edges", r"edges = .*for a in range\(L [-+] 1\).*for c in range\(a \+ 1, L\).*",
         "the last layer has no later one, and there is none behind it"),
        ("roc_area", r"return .*", "a bool times 0.5, or plus a double, is the same number"),
    ],
    4: [
        ("pattern_without", r"new = .* else c\.mean\(\)", "one number for all prompts, as it is without expand_as"),
        ("pick_heads", r"return as_(half|whole)\(.*", NO_TENSOR),
        ("", r"return as_half\(.*", HALF),
        ("remove", r"instead = .*'mean': part\.mean\(0\), .*", "[T, D] is subtracted from each of [B, T, D]"),
        ("rank_correlation", r"a, b = .*", "both rankings have the same mean"),
        ("rank_correlation", r"return \(b @ a .*", SYMMETRIC),
        ("channel", r"measured = th\.inhibition_scores\(model, found_on, circuit, 'mean'(, components=predicted)?\)",
         "all components are the default; the keys of predicted are the components"),
        ("channel", r"highest = \[sorted\(predicted, .*", "the keys of predicted are the components"),
    ],
    5: [
        ("", r"return as_half\(.*", HALF),
        ("steered", r"return as_whole\(.*", NO_TENSOR),
        ("principal_components", r"centred = means\.mean\(0\) - means", "all signs turned: the same directions"),
        ("principal_angles", r".*clamp\((-2|-0), 1\).*", "singular values are not negative"),
        ("traverse", r".*circuit\.movers\[-1\].*", ONE_ENTRY),
        ("stream_at_end", r"return seen\[-1\]", ONE_ENTRY),
        ("draw_regions", r"figure.*|axes\.(set|annotate).*|axes\.scatter\(.*c=owners.*", PERSON),
        ("draw_regions", r"for i, code in .*", PERSON),
    ],
    6: [
        ("least_change", r"gram = .*eye\(len\(wanted\)\)", "z and wanted have n rows each"),
        ("", r"return as_half\(.*", HALF),
        ("accuracy", r"logits = model\(prompts\.tokens, th\.Stream\(\)\).*", "no exercise hands edits to it"),
        ("stream_at_end", r"return seen\[-1\]", ONE_ENTRY),
        ("edit_weights", r"change = .*torch\.eye\(len\(basis\)\).*", "M is as wide as the basis"),
        ("edit_weights", r"rank = .*", "no singular value lies between these bounds"),
        ("fit", r"k, B = \(len\(basis\), len\((stream|left)\)\)", "all have a row for each prompt"),
        ("perplexity", r"log_p = model\(text\)\[:, :\].*", "gather takes no more rows than the index has"),
    ],
}
