"""Makes pythia/ and pythia.npz in this folder, with the real libraries, once. Not run by the tests.

    pip install torch==2.13.0 transformers==5.24.0 safetensors==0.8.0
    PYTHONPATH=. python tests/golden/make_pythia.py

Random models of several shapes, built by transformers.GPTNeoXForCausalLM, with its logits for a prompt and what it
generates greedily; saved by it in float32, in bfloat16 and in shards with their index; and one in float16 laid out as
EleutherAI's release is: its config.json as transformers 4.24 wrote it, and the buffers that were saved along. All
numbers in pythia.npz come from transformers, with the rounded weights. At the end transformers opens what th.save
writes, and must find the same model (with transformers 4.57.6, which writes an older config.json, this was seen too).
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

HERE = Path(__file__).parent
FOLDER = HERE / "pythia"
SHAPES = {"wide": dict(vocab_size=61, max_position_embeddings=40, hidden_size=24, intermediate_size=96,
                       num_hidden_layers=2, num_attention_heads=3, rotary_pct=0.25),
          "deep": dict(vocab_size=40, max_position_embeddings=32, hidden_size=16, intermediate_size=64,
                       num_hidden_layers=4, num_attention_heads=2, rotary_pct=0.5, rotary_emb_base=100),
          "tied": dict(vocab_size=33, max_position_embeddings=12, hidden_size=8, intermediate_size=32,
                       num_hidden_layers=1, num_attention_heads=1, rotary_pct=1.0, tie_word_embeddings=True)}
AS_RELEASED = {  # EleutherAI/pythia-160m's config.json, but for the sizes
    "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
    "hidden_size": 24, "initializer_range": 0.02, "intermediate_size": 96, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 40, "model_type": "gpt_neox", "num_attention_heads": 3, "num_hidden_layers": 2,
    "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False, "torch_dtype": "float16",
    "transformers_version": "4.24.0", "use_cache": True, "use_parallel_residual": True, "vocab_size": 61}


def random_model(sizes: dict, seed: int) -> GPTNeoXForCausalLM:
    """A model with weights so large that attention, gelu and the biases all matter."""
    torch.manual_seed(seed)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.4)
    return model


def main() -> None:
    import tinyheads as th

    shutil.rmtree(FOLDER, ignore_errors=True)
    expected = {}
    for seed, (shape, sizes) in enumerate(SHAPES.items()):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(0, sizes["vocab_size"], (2, sizes["max_position_embeddings"]), generator=generator)
        for name, dtype, shard_size in [("", torch.float32, "1GB"), ("_bf16_shards", torch.bfloat16, "10KB"),
                                        ("_f16", torch.float16, "1GB")]:
            if name and shape != "wide":
                continue
            folder = FOLDER / (shape + name)
            random_model(sizes, seed).to(dtype).save_pretrained(folder, max_shard_size=shard_size)
            (folder / "generation_config.json").unlink()
            model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            with torch.no_grad():
                output = model(tokens, output_hidden_states=True)
                greedy = model.generate(tokens[:1, :4], attention_mask=torch.ones(1, 4), do_sample=False,
                                        max_new_tokens=sizes["max_position_embeddings"] - 4, pad_token_id=0,
                                        eos_token_id=None)
            expected |= {f"{shape}{name}.tokens": tokens.numpy(), f"{shape}{name}.logits": output.logits.numpy(),
                         f"{shape}{name}.hidden_1": output.hidden_states[1].numpy(),
                         f"{shape}{name}.greedy": greedy.numpy()}
            with tempfile.TemporaryDirectory() as saved, torch.no_grad():
                th.save(th.load(folder), saved)
                theirs, loading = GPTNeoXForCausalLM.from_pretrained(saved, output_loading_info=True)
                if any(loading.values()) or not torch.equal(theirs(tokens).logits, output.logits):
                    raise SystemExit(f"transformers does not open what th.save wrote as the same model: {loading}")
    released = FOLDER / "wide_f16"
    (released / "config.json").write_text(json.dumps(AS_RELEASED, indent=2))
    tensors = load_file(released / "model.safetensors")
    for layer in range(2):
        prefix = f"gpt_neox.layers.{layer}.attention."
        tensors |= {prefix + "bias": torch.ones(1, 1, 40, 40, dtype=torch.bool).tril(),
                    prefix + "masked_bias": torch.tensor(-1e9), prefix + "rotary_emb.inv_freq": torch.ones(1)}
    save_file(tensors, released / "model.safetensors", metadata={"format": "pt"})
    np.savez_compressed(HERE / "pythia.npz", **expected)
    total = sum(file.stat().st_size for file in [HERE / "pythia.npz", *FOLDER.rglob("*")] if file.is_file())
    print(f"{total / 1e3:.0f} kB in {FOLDER}")


if __name__ == "__main__":
    main()
