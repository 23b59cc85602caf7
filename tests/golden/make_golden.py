"""Makes the files of this folder, with the real libraries, once. Not run by the tests.

    pip install torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 tensorflow-cpu==2.21.0
    PYTHONPATH=. python tests/golden/make_golden.py

Random GPT-2 models of several shapes, built by transformers.GPT2LMHeadModel, with its logits for a
prompt; the same weights written by safetensors (F32, F16, BF16, with and without the prefix) and by
TensorFlow's own checkpoint writer, laid out as openai/gpt-2's download_model.py does (one shard, two
shards, several index blocks). transformers also saves one of them in float16, in bfloat16 and in shards with their
index, opens what th.save wrote after an edit, and saves a model whose unembedding is a matrix of its own. All numbers
in `expected.npz` come from the reference libraries. The scores that TransformerLens gives are made by
make_composition.py.
"""

import json
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

HERE = Path(__file__).parent
SHAPES = {"wide": dict(vocab_size=61, n_positions=24, n_embd=24, n_layer=2, n_head=3),
          "deep": dict(vocab_size=40, n_positions=16, n_embd=16, n_layer=4, n_head=4),
          "one": dict(vocab_size=33, n_positions=12, n_embd=8, n_layer=1, n_head=1)}


def random_model(sizes: dict, seed: int) -> GPT2LMHeadModel:
    """A model with weights so large that attention, gelu and the biases all matter."""
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0, 0.3)
    return model


def openai_name(name: str) -> str:
    """transformer.h.0.attn.c_attn.weight -> model/h0/attn/c_attn/w, as in OpenAI's checkpoint."""
    name = name.removeprefix("transformer.")
    if name in ("wte.weight", "wpe.weight"):
        return "model/" + name.removesuffix(".weight")
    parts = name.replace("h.", "h", 1).split(".") if name.startswith("h.") else name.split(".")
    parts[-1] = {"bias": "b", "weight": "g" if "ln_" in name else "w"}[parts[-1]]
    return "model/" + "/".join(parts)


def write_bundle(folder: Path, tensors: dict, sizes: dict, shards: int = 1, extra: dict = {}) -> None:
    """TensorFlow's SaveV2 (and MergeV2Checkpoints, for several shards) under the name model.ckpt."""
    folder.mkdir(exist_ok=True)
    named = {}
    for name, array in tensors.items():
        matrix = "c_attn.weight" in name or "c_proj.weight" in name or "c_fc.weight" in name
        named[openai_name(name)] = array[None] if matrix else array  # [1, in, out], as OpenAI has it
    named.update(extra)
    prefix, names = str(folder / "model.ckpt"), sorted(named)
    parts = [names[i::shards] for i in range(shards)]
    prefixes = [prefix if shards == 1 else f"{prefix}_temp_{i}" for i in range(shards)]
    for one_prefix, part in zip(prefixes, parts):
        tf.raw_ops.SaveV2(prefix=one_prefix, tensor_names=part, shape_and_slices=[""] * len(part),
                          tensors=[tf.constant(named[name]) for name in part])
    if shards > 1:
        tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=prefixes, destination_prefix=prefix)
    hparams = {"n_vocab": sizes["vocab_size"], "n_ctx": sizes["n_positions"], "n_embd": sizes["n_embd"],
               "n_layer": sizes["n_layer"], "n_head": sizes["n_head"]}
    (folder / "hparams.json").write_text(json.dumps(hparams))


def saved_by_transformers(expected: dict) -> None:
    """"deep" as save_pretrained writes it in three dtypes, whole and in shards; the logits of what it reads back."""
    tokens = torch.from_numpy(expected["deep.tokens"])
    layouts = [("deep_shards", torch.float32, "20KB"), ("deep_f16", torch.float16, "1GB"),
               ("deep_bf16_shards", torch.bfloat16, "20KB")]
    for name, dtype, shard_size in layouts:
        model = GPT2LMHeadModel.from_pretrained(HERE / "deep").to(dtype)
        model.save_pretrained(HERE / name, max_shard_size=shard_size)
        (HERE / name / "generation_config.json").unlink()
        back = GPT2LMHeadModel.from_pretrained(HERE / name, dtype=torch.float32)
        with torch.no_grad():
            expected[f"{name}.logits"] = back(tokens).logits.numpy()


def untied(expected: dict) -> None:
    """A model of the sizes of "one" whose unembedding is a matrix of its own; also opened again from th.save."""
    import tinyheads as th

    model = random_model({**SHAPES["one"], "tie_word_embeddings": False}, seed=3)
    model.save_pretrained(HERE / "one_untied")
    (HERE / "one_untied" / "generation_config.json").unlink()
    tokens = torch.from_numpy(expected["one.tokens"])
    with torch.no_grad():
        expected["one_untied.logits"] = model(tokens).logits.numpy()
        with tempfile.TemporaryDirectory() as folder:
            th.save(th.load(HERE / "one_untied"), folder)
            theirs, loading = GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
            if any(loading.values()) or not np.array_equal(theirs(tokens).logits, expected["one_untied.logits"]):
                raise SystemExit(f"transformers does not open what th.save wrote as the same model: {loading}")


def saved_by_tinyheads(expected: dict) -> None:
    """"wide" after a weight edit of tinyheads, saved by th.save; the logits are those of transformers, opening it."""
    import tinyheads as th

    model = th.load(HERE / "wide")
    th.edit_output(model, th.Head(1, 2), torch.eye(24)[[3, 7]], torch.tensor([[2.0, 0.5], [0.0, -1.0]]))
    th.save(model, HERE / "wide_edited")
    theirs, loading = GPT2LMHeadModel.from_pretrained(HERE / "wide_edited", output_loading_info=True)
    if any(loading.values()):
        raise SystemExit(f"transformers does not open what th.save wrote without complaint: {loading}")
    with torch.no_grad():
        expected["wide_edited.logits"] = theirs(torch.from_numpy(expected["wide.tokens"])).logits.numpy()


def main() -> None:
    expected = {}
    for seed, (shape, sizes) in enumerate(SHAPES.items()):
        model = random_model(sizes, seed)
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(0, sizes["vocab_size"], (2, sizes["n_positions"]), generator=generator)
        with torch.no_grad():
            output = model(tokens, output_hidden_states=True, output_attentions=False)
            expected[f"{shape}.tokens"] = tokens.numpy()
            expected[f"{shape}.logits"] = output.logits.numpy()
            expected[f"{shape}.hidden_1"] = output.hidden_states[1].numpy()
            greedy = model.generate(tokens[:1, :4], attention_mask=torch.ones(1, 4),
                                    max_new_tokens=sizes["n_positions"] - 4, do_sample=False, pad_token_id=0,
                                    eos_token_id=None)
            expected[f"{shape}.greedy"] = greedy.numpy()
        folder = HERE / shape
        folder.mkdir(exist_ok=True)
        model.save_pretrained(folder)  # config.json and model.safetensors, names with the prefix
        (folder / "generation_config.json").unlink()
        arrays = {name: value.detach().numpy() for name, value in model.named_parameters()}
        write_bundle(HERE / f"{shape}_tf", arrays, sizes)
        if shape != "wide":
            continue
        write_bundle(HERE / "wide_tf_2_shards", arrays, sizes, shards=2)
        # Names of 30 kB each push the index over TensorFlow's 256 kB block size: several blocks.
        long_names = {f"zz/{i:02d}" + "x" * 30_000: np.float32(i) for i in range(20)}
        write_bundle(HERE / "wide_tf_blocks", arrays, sizes, extra=long_names)
        index = HERE / "wide_tf_blocks" / "model.ckpt.index"
        (HERE / "wide_tf_blocks.index.zlib").write_bytes(zlib.compress(index.read_bytes(), 9))
        shutil.rmtree(HERE / "wide_tf_blocks")  # its data file is made again by the test: see test_checkpoint.py
        bare = {name.removeprefix("transformer."): torch.from_numpy(array.copy()) for name, array in arrays.items()}
        buffers = {f"h.{i}.attn.bias": torch.ones(1, 1, 24, 24, dtype=torch.uint8).tril() for i in range(2)}
        buffers.update({f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)})
        tied = {"lm_head.weight": bare["wte.weight"].clone()}
        save_file({**bare, **buffers, **tied}, HERE / "wide_bare.safetensors", metadata={"format": "pt"})
        for dtype, torch_dtype in [("f16", torch.float16), ("bf16", torch.bfloat16)]:
            save_file({name: value.to(torch_dtype) for name, value in bare.items()}, HERE / f"wide_{dtype}.safetensors")
            rounded = {f"transformer.{name}": value.to(torch_dtype).float() for name, value in bare.items()}
            model.load_state_dict({**rounded, "lm_head.weight": rounded["transformer.wte.weight"]})
            with torch.no_grad():
                expected[f"wide_{dtype}.logits"] = model(tokens).logits.numpy()
    saved_by_transformers(expected)
    untied(expected)
    saved_by_tinyheads(expected)
    np.savez_compressed(HERE / "expected.npz", **expected)
    total = sum(file.stat().st_size for file in HERE.rglob("*") if file.is_file())
    print(f"{total / 1e3:.0f} kB in {HERE}")


if __name__ == "__main__":
    main()
