"""Makes composition.npz, with TransformerLens, once. Not run by the tests.

    pip install torch==2.13.0 'transformer_lens==3.9.0'       (it brings transformers along)
    python tests/golden/make_composition.py

The whole-head composition scores of the golden models "wide" and "deep" as TransformerLens has them: weights opened by
transformers, converted, folded (`fold_ln`, `center_writing_weights`) and scored (`all_composition_scores`) by its own
code, each [layer, head, layer, head], writer by reader. No line of tinyheads takes part.
"""

from pathlib import Path

import numpy as np
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2LMHeadModel

HERE = Path(__file__).parent


def folded_model(folder: Path) -> HookedTransformer:
    """A folder of transformers' as a HookedTransformer, LayerNorm folded and writes centred."""
    theirs = GPT2LMHeadModel.from_pretrained(folder)
    sizes = theirs.config
    config = HookedTransformerConfig(
        n_layers=sizes.n_layer, d_model=sizes.n_embd, n_ctx=sizes.n_positions, n_heads=sizes.n_head,
        d_head=sizes.n_embd // sizes.n_head, d_vocab=sizes.vocab_size, act_fn="gelu_new", normalization_type="LN",
        eps=sizes.layer_norm_epsilon, device="cpu")
    model = HookedTransformer(config)
    model.load_and_process_state_dict(convert_gpt2_weights(theirs, config), fold_ln=True, center_writing_weights=True,
                                      center_unembed=False, fold_value_biases=False)
    return model


def main() -> None:
    scores = {}
    for shape in ["wide", "deep"]:
        model = folded_model(HERE / shape)
        for mode in "QKV":
            scores[f"{shape}.{mode}"] = model.all_composition_scores(mode).detach().numpy().astype(np.float32)
    np.savez_compressed(HERE / "composition.npz", **scores)
    print({name: (array.shape, float(array.max())) for name, array in scores.items()})


if __name__ == "__main__":
    main()
