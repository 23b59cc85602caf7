"""GPT-NeoX's names and layout in files, and ours: a Pythia's parameters are called, and lie, as GPT-2's do.

    gpt_neox.embed_in.weight                              wte.weight
    gpt_neox.layers.0.attention.query_key_value.weight    h.0.attn.c_attn.weight           and so on: PARTS
    embed_out.weight                                      lm_head.weight

Two things differ in the layout. Matrices are stored [out, in], ours [in, out]; and the rows of query_key_value are
[head, 3, d_head], head by head its query, key and value, where our columns are [3, head, d_head]. Functions that take a
config leave a GPT-2's tensors as they are: OpenAI's layout is ours.
"""

import re

import numpy as np

from tinyheads.config import GPT2Config, PythiaConfig

PREFIX = "gpt_neox."
WHOLE = {"embed_in": "wte", "final_layer_norm": "ln_f", "embed_out": "lm_head"}
PARTS = {"input_layernorm": "ln_1", "attention.query_key_value": "attn.c_attn", "attention.dense": "attn.c_proj",
         "post_attention_layernorm": "ln_2", "mlp.dense_h_to_4h": "mlp.c_fc", "mlp.dense_4h_to_h": "mlp.c_proj"}
THEIRS = {ours: theirs for theirs, ours in {**WHOLE, **PARTS}.items()}
# What older versions of transformers saved along: the causal mask, what stands behind it, and the rotation's speeds.
NO_WEIGHTS = re.compile(r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)")


def our_name(stored: str) -> str | None:
    """The name of a file's tensor here; as it is, where it is none of GPT-NeoX's; None for what holds no weights."""
    name = stored.removeprefix(PREFIX)
    if NO_WEIGHTS.fullmatch(name):
        return None
    layer = re.match(r"(layers\.\d+\.)?", name)[0]
    part, _, kind = name.removeprefix(layer).rpartition(".")
    known = (PARTS if layer else WHOLE).get(part)
    return f"{layer.replace('layers', 'h')}{known}.{kind}" if known else stored


def stored_name(name: str, config: GPT2Config) -> str:
    """The name that one of our tensors has in a file: "h.0.ln_1.bias" -> "gpt_neox.layers.0.input_layernorm.bias".

    A name that is none of ours stays as it is.
    """
    layer = re.match(r"(h\.\d+\.)?", name)[0]
    part, _, kind = name.removeprefix(layer).rpartition(".")
    if not isinstance(config, PythiaConfig) or part not in THEIRS:
        return name
    prefix = "" if part == "lm_head" else PREFIX
    return f"{prefix}{layer.replace('h', 'layers')}{THEIRS[part]}.{kind}"


def is_transposed(name: str, config: GPT2Config) -> bool:
    """Whether a tensor is stored the other way round: a Pythia's matrices are, not its embeddings and vectors."""
    matrix = name.startswith("h.") and name.endswith(".weight") and ".ln_" not in name
    return matrix and isinstance(config, PythiaConfig)


def stored_shape(shape: tuple[int, ...], name: str, config: GPT2Config) -> tuple[int, ...]:
    """The shape that one of our tensors has in a file."""
    return shape[::-1] if is_transposed(name, config) else shape


def from_stored(name: str, array: np.ndarray, config: GPT2Config) -> np.ndarray:
    """A tensor as we have it, from how it is stored."""
    if "attn.c_attn" in name and isinstance(config, PythiaConfig):
        array = swapped(array, config.n_head, 3)                          # [H * 3 * K, ...] -> [3 * H * K, ...]
    return transposed(array) if is_transposed(name, config) else array    # [out, in] -> [in, out]


def to_stored(name: str, array: np.ndarray, config: GPT2Config) -> np.ndarray:
    """A tensor as it is stored, from how we have it: `from_stored` undone."""
    array = transposed(array) if is_transposed(name, config) else array   # [in, out] -> [out, in]
    if "attn.c_attn" in name and isinstance(config, PythiaConfig):
        array = swapped(array, 3, config.n_head)                          # [3 * H * K, ...] -> [H * 3 * K, ...]
    return array


def transposed(array: np.ndarray) -> np.ndarray:
    """A matrix [n, m] as one of its own, [m, n]: copied in blocks of rows that stay in the processor's cache."""
    result = np.empty(array.shape[::-1], dtype=array.dtype)
    for start in range(0, len(array), 64):                                # three times as fast as a copy of array.T
        result[:, start:start + 64] = array[start:start + 64].T
    return result


def swapped(array: np.ndarray, n: int, m: int) -> np.ndarray:
    """Rows [n * m * K, ...] in the order [m * n * K, ...]."""
    return array.reshape(n, m, -1, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)
