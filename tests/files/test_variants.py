"""The same model as others leave it: untied, without a config, under prefixes, beside another head, as an adapter."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch

import tinyheads as th
from file_writers import golden_arrays, safetensors_bytes, safetensors_table


@pytest.fixture
def written(golden, tmp_path):
    """Writes arrays, and a golden model's config.json with some settings changed, into a folder; gives the folder."""
    def write(arrays, shape=None, without=(), **settings):
        (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(*safetensors_table(arrays)))
        if shape:
            config = {**json.loads((golden / shape / "config.json").read_text()), **settings}
            config = {key: value for key, value in config.items() if key not in without}
            (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path
    return write


def refused(folder, *words, load=th.load, **arguments):
    with pytest.raises(th.CheckpointError) as caught:
        load(folder, **arguments)
    for word in [str(folder), *words]:
        assert word in str(caught.value)


# --- an unembedding of its own -------------------------------------------------------------------


def test_an_untied_models_logits_are_those_of_transformers(golden, expected):
    model, tokens = th.load(golden / "one_untied"), torch.from_numpy(expected["one.tokens"])
    theirs = expected["one_untied.logits"]
    assert np.abs(model(tokens).numpy() - theirs).max() < 1e-5
    assert list(model.state_dict())[-1] == "lm_head.weight" and model.unembedding is model.lm_head.weight
    model.lm_head.weight = model.wte.weight
    assert np.abs(model(tokens).numpy() - theirs).max() > 1


def test_a_saved_untied_model_holds_the_tensors_that_transformers_saved_and_loads_again(golden, tmp_path):
    model = th.load(golden / "one_untied")
    th.save(model, tmp_path)
    ours, theirs = golden_arrays(tmp_path), golden_arrays(golden / "one_untied")
    assert sorted(ours) == sorted(theirs) and "lm_head.weight" in ours
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False
    tokens = torch.arange(12)[None]
    assert torch.equal(th.load(tmp_path)(tokens), model(tokens))


def test_an_untied_model_whose_matrices_were_made_one_is_saved_whole(golden, tmp_path):
    model = th.load(golden / "one_untied")
    model.lm_head.weight = model.wte.weight
    tokens = torch.arange(12)[None]
    th.save(model, tmp_path)
    assert torch.equal(th.load(tmp_path)(tokens), model(tokens))


@pytest.mark.parametrize("tie", [dict(tie_word_embeddings=True), dict(without=["tie_word_embeddings"])], ids=str)
def test_two_matrices_where_the_config_asks_for_one_are_refused_unless_they_are_equal(tie, golden, written):
    arrays = golden_arrays(golden / "one_untied")
    refused(written(arrays, "one_untied", **tie), "lm_head.weight differs from wte.weight", "tie_word_embeddings")
    refused(written({**arrays, "lm_head.weight": arrays["lm_head.weight"][:-1]}, "one_untied", **tie),
            "lm_head.weight differs from wte.weight")
    model = th.load(written({**arrays, "lm_head.weight": arrays["wte.weight"]}, "one_untied", **tie))
    assert model.config.tied and "lm_head.weight" not in model.state_dict()


def test_two_equal_matrices_stay_two_where_the_config_says_so(golden, written, expected):
    tied = golden_arrays(golden / "one")
    model = th.load(written({**tied, "lm_head.weight": tied["wte.weight"]}, "one_untied"))
    assert model.lm_head.weight is not model.wte.weight
    assert np.abs(model(torch.from_numpy(expected["one.tokens"])).numpy() - expected["one.logits"]).max() < 1e-5


def test_an_untied_model_with_one_matrix_of_two_is_refused_and_its_heads_are_read(golden, written):
    whole = golden_arrays(golden / "one_untied")
    heads = th.load_heads(golden / "one_untied")
    for missing in ["lm_head.weight", "wte.weight"]:
        folder = written({name: array for name, array in whole.items() if name != missing}, "one_untied")
        refused(folder, missing, "missing", "tie_word_embeddings is false" if missing == "lm_head.weight" else "")
        assert torch.equal(th.load_heads(folder).W_O, heads.W_O)


# --- without a config.json -----------------------------------------------------------------------


@pytest.mark.parametrize("size, change", [
    *((size, {}) for size in th.OPENAI_SIZES), ("124M", {"n_vocab": 50258}), ("124M", {"n_ctx": 512}),
    ("124M", {"n_layer": 6}), ("355M", {"n_embd": 768})], ids=str)
def test_openais_shapes_are_known_and_others_are_refused(size, change, tmp_path):
    config = th.OPENAI_SIZES[size]
    shapes = th.GPT2Config(**{**vars(config), "n_head": 1, **change}).tensor_shapes()
    header, at = {}, 0
    for name, shape in shapes.items():
        nbytes = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + nbytes]}
        at += nbytes
    path = tmp_path / "bare.safetensors"
    path.write_bytes(safetensors_bytes(header))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + at)  # zeros that take no room on the disk
    if not change:
        assert th.open_checkpoint(path).config == config
    else:
        refused(path, *(f"{key}={n}" for key, n in change.items()), "Give n_head=", load=th.open_checkpoint)
        assert th.open_checkpoint(path, n_head=8).config == th.GPT2Config(**{**vars(config), **change, "n_head": 8})


def test_the_real_attention_weights_are_of_the_smallest_of_openais_models(gpt2_folder):
    assert th.open_checkpoint(gpt2_folder / "model-attention.safetensors").config == th.OPENAI_SIZES["124M"]


def test_a_bare_file_with_n_head_has_the_logits_of_transformers(golden, expected, tmp_path):
    path = shutil.copy(golden / "wide_bare.safetensors", tmp_path)
    refused(path, "Give n_head=")
    for place in [path, tmp_path]:
        model = th.load(place, n_head=3)
        logits = model(torch.from_numpy(expected["wide.tokens"])).numpy()
        assert model.config.tied and np.abs(logits - expected["wide.logits"]).max() < 1e-4


def test_attention_alone_with_n_head_has_the_heads_of_the_whole_model(golden, written):
    arrays, whole = golden_arrays(golden / "wide"), th.load_heads(golden / "wide")
    folder = written({name: array for name, array in arrays.items() if "attn" in name or "ln_1" in name})
    refused(folder, "n_layer=2, n_embd=24 are the sizes of no GPT-2", load=th.load_heads)
    assert torch.equal(th.load_heads(folder, n_head=3).W_Q, whole.W_Q)


def test_a_bare_file_may_have_the_one_matrix_under_its_other_name(golden, written):
    arrays = golden_arrays(golden / "one")
    arrays["lm_head.weight"] = arrays.pop("wte.weight")
    model = th.load(written(arrays), n_head=1)
    assert model.config == th.load(golden / "one").config
    assert torch.equal(model.wte.weight, th.load(golden / "one").wte.weight)


def test_two_different_matrices_are_refused_without_a_config_too(golden, written):
    refused(written(golden_arrays(golden / "one_untied")), "lm_head.weight differs from wte.weight", n_head=1)


def test_n_head_that_contradicts_the_config_is_refused(golden):
    for folder in [golden / "wide", golden / "wide_tf"]:
        assert th.load(folder, n_head=3).config.n_head == 3
        refused(folder, "n_head=4 is asked for; its config says 3", n_head=4)


# --- prefixes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.", "transformer.", "_orig_mod.transformer.",
                                    "module._orig_mod.transformer.", "_orig_mod.module.model."])
def test_what_wrappers_put_before_the_names_is_taken_off(prefix, golden, written):
    arrays = golden_arrays(golden / "one_untied")
    renamed = {prefix + name: array for name, array in arrays.items()}
    mask = {f"{prefix}h.0.attn.bias": np.ones((1, 1, 12, 12), np.float32)}
    checkpoint = th.open_checkpoint(written({**renamed, **mask}, "one_untied"))
    assert checkpoint.names == sorted(arrays)
    assert all(checkpoint[name].tobytes() == array.tobytes() for name, array in arrays.items())


def test_a_name_that_is_there_with_a_prefix_and_without_is_refused(golden, written):
    arrays = golden_arrays(golden / "one")
    again = {"module.transformer.ln_f.bias": arrays["ln_f.bias"]}
    refused(written({**arrays, **again}, "one"), "tensor 'ln_f.bias' is there twice", "'module.transformer.ln_f.bias'")


@pytest.mark.parametrize("prefix", ["base_model.model.", "gpt2.", "modules.", "models.", "h.0._orig_mod."])
def test_other_prefixes_are_refused(prefix, golden, written):
    arrays = {prefix + name: array for name, array in golden_arrays(golden / "one").items()}
    refused(written(arrays, "one"), f"tensor '{prefix}", "has no place in a GPT-2")


# --- other heads, and adapters -------------------------------------------------------------------


@pytest.mark.parametrize("heads", [  # as transformers 5.23 names them in its five other classes, and trl its value head
    {"score.weight": (2, 8)}, {"classifier.weight": (2, 8), "classifier.bias": (2,)},
    {"qa_outputs.weight": (2, 8), "qa_outputs.bias": (2,)},
    {"v_head.summary.weight": (1, 8), "v_head.summary.bias": (1,)},
    {"multiple_choice_head.summary.weight": (1, 8), "multiple_choice_head.summary.bias": (1,)},
    {"_orig_mod.score.weight": (2, 8)}], ids=lambda heads: next(iter(heads)))
def test_a_head_for_another_task_is_named_once_and_left_out(heads, golden, written):
    extra = {name: np.ones(shape, np.float32) for name, shape in heads.items()}
    folder = written({**golden_arrays(golden / "one"), **extra}, "one")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = th.load(folder)
    (message,) = [str(each.message) for each in caught]
    assert "\n" not in message and str(folder) in message
    assert all(name.removeprefix("_orig_mod.") in message for name in heads)
    assert torch.equal(model(torch.arange(12)[None]), th.load(golden / "one")(torch.arange(12)[None]))


def test_a_model_without_another_head_warns_of_nothing_and_a_head_alone_is_no_model(golden, written):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        th.load(golden / "one")
        refused(written({"score.weight": np.ones((2, 8), np.float32)}, "one"), "holds no tensors of a GPT-2")


@pytest.mark.parametrize("name", ["h.0.attn.foo", "foo.weight", "lm_head.bias", "scores.weight", "h.0.score.weight",
                                  "score", "transformer.h.0.attn.foo", "wte.bias"])
def test_a_tensor_of_unknown_meaning_stays_refused(name, golden, written):
    arrays = {**golden_arrays(golden / "one"), name: np.ones(8, np.float32)}
    refused(written(arrays, "one"), f"tensor '{name.removeprefix('transformer.')}' has no place in a GPT-2")


@pytest.mark.parametrize("route", ["one", "one_tf", "deep_shards"])
def test_weights_beside_an_adapter_config_are_refused(route, golden, tmp_path):
    folder = shutil.copytree(golden / route, tmp_path / "model")
    th.load(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "gpt2"}))
    for load in [th.load, th.load_heads]:
        refused(folder, "adapter_config.json", "Merge it into that model first", load=load)


def test_an_adapter_alone_is_refused_as_one(golden, written):
    folder = written({"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": np.ones((2, 8), np.float32)})
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "Merge it into that model first")
    with pytest.raises(th.CheckpointError, match="Merge it into that model first"):
        th.load(folder / "adapter_model.safetensors")
