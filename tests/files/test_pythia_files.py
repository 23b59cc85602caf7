"""Pythia's files: names and layout, what is refused, its tokenizer, and the download by name."""

import json
import runpy
import shutil
import sys

import numpy as np
import pytest
import torch

import tinyheads as th
from download_server import broken_off, files, ranges, server, status  # noqa: F401
from file_writers import safetensors_arrays, safetensors_bytes, safetensors_table
from tinyheads.config import read_config
from tinyheads.files.tokenizer_files import tokenizer_files
from tinyheads.files.weights import published_name

LAYER = "gpt_neox.layers.1."


@pytest.fixture
def folder(golden, tmp_path):
    """A copy of a golden model in float32, to be changed."""
    return shutil.copytree(golden / "pythia" / "wide", tmp_path / "model")


def write(folder, arrays):
    (folder / "model.safetensors").write_bytes(safetensors_bytes(*safetensors_table(arrays)))


def arrays_of(folder):
    return safetensors_arrays(folder / "model.safetensors")


def configure(folder, **changes):
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**found, **changes}))


def refused(folder, *words, load=th.load):
    with pytest.raises(th.CheckpointError) as caught:
        load(folder)
    for word in words:
        assert word in str(caught.value), str(caught.value)


# --- names and layout ----------------------------------------------------------------------------------


def test_each_heads_weights_are_where_gpt_neox_has_them(golden, folder):
    """The fused rows are [head, 3, d_head]; here D = 24, H = 3, K = 8."""
    fused, bias = (arrays_of(folder)[f"{LAYER}attention.query_key_value.{kind}"] for kind in ("weight", "bias"))
    dense = arrays_of(folder)[LAYER + "attention.dense.weight"]
    heads = th.load_heads(folder, fold=False)
    for head in range(3):
        for which, (W, b) in enumerate([(heads.W_Q, heads.b_Q), (heads.W_K, heads.b_K), (heads.W_V, heads.b_V)]):
            start = head * 24 + which * 8
            np.testing.assert_array_equal(W[1, head].numpy(), fused[start:start + 8].T)
            np.testing.assert_array_equal(b[1, head].numpy(), bias[start:start + 8])
        np.testing.assert_array_equal(heads.W_O[1, head].numpy(), dense[:, head * 8:head * 8 + 8].T)
    of_model = th.Heads.of(th.load(folder), fold=False)
    assert all(torch.equal(a, b) for a, b in zip(vars(heads).values(), vars(of_model).values())
               if isinstance(a, torch.Tensor))


@pytest.mark.parametrize("name", ["wide", "deep", "tied"])
def test_what_is_saved_is_what_transformers_saved_tensor_by_tensor(golden, name, tmp_path):
    source = golden / "pythia" / name
    th.save(th.load(source), tmp_path)
    theirs, ours = arrays_of(source), arrays_of(tmp_path)
    if name == "tied":                              # stored once, as transformers does
        ours.pop("embed_out.weight", None)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
    assert read_config(tmp_path / "config.json") == read_config(source / "config.json")


def test_a_file_without_the_prefix_and_one_of_heads_alone_are_read(golden, folder, tmp_path):
    whole = th.load(folder)
    write(folder, {name.removeprefix("gpt_neox."): array for name, array in arrays_of(folder).items()})
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), th.load(folder).parameters()))
    write(folder, {name: array for name, array in arrays_of(folder).items() if "attention" in name or "input" in name})
    torch.testing.assert_close(th.load_heads(folder).W_Q, th.Heads.of(whole).W_Q)
    refused(folder, "of a whole model are missing, 'gpt_neox.embed_in.weight' the first", "load_heads is enough")


def test_the_released_config_and_that_of_the_newest_transformers_mean_the_same_model(golden):
    assert read_config(golden / "pythia" / "wide_f16" / "config.json") == read_config(
        golden / "pythia" / "wide" / "config.json") == th.PythiaConfig(61, 40, 24, 2, 3)
    deep = read_config(golden / "pythia" / "deep" / "config.json")
    assert (deep.rotary_pct, deep.rotary_base, deep.n_rotary) == (0.5, 100, 4)
    assert read_config(golden / "deep" / "config.json") == th.GPT2Config(40, 16, 16, 4, 4)


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [
    {"use_parallel_residual": False}, {"hidden_act": "gelu_new"}, {"hidden_act": "relu"}, {"layer_norm_eps": 1e-6},
    {"intermediate_size": 100}, {"attention_bias": False}, {"rope_scaling": {"type": "linear"}}], ids=str)
def test_settings_that_would_change_the_arithmetic_are_refused(folder, change):
    configure(folder, **change)
    (key, value), = change.items()
    refused(folder, f"{key} is {value!r}; tinyheads implements Pythia")


@pytest.mark.parametrize("changes, words", [
    ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "rope_parameters is"),
    ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type is 'yarn'"),
    ({"rope_parameters": [1]}, "rope_parameters is [1]"),
    ({"rotary_pct": 0.5}, "rotary_pct and partial_rotary_factor are [0.5, 0.25]"),
    ({"rotary_emb_base": 500}, "rotary_emb_base and rope_theta are [500, 10000.0]"),
    ({"rope_parameters": None, "rotary_pct": 0.2}, "are 1 to be rotated; they are rotated in pairs"),
    ({"rope_parameters": None, "rotary_pct": 1.5}, "are 12 to be rotated"),
    ({"rope_parameters": None, "rotary_pct": "0.25"}, "rotary_pct must be a number above 0, not '0.25'"),
    ({"rope_parameters": None, "rotary_emb_base": 0}, "rotary_base must be a number above 0, not 0"),
    ({"rope_parameters": None, "rotary_emb_base": float("nan")}, "rotary_base must be a number above 0"),
    ({"tie_word_embeddings": None}, "tied (tie_word_embeddings in config.json) must be true or false"),
    ({"hidden_size": 25}, "n_embd=25 does not divide into n_head=3"),
    ({"model_type": "gpt_neo"}, "model_type is 'gpt_neo'; tinyheads implements GPT-2, where it is 'gpt2', and Pythia"),
    ({"num_hidden_layers": 10**9}, "too few for 1000000000 layers")], ids=str)
def test_numbers_that_make_no_pythia_are_refused(folder, changes, words):
    if "hidden_size" in changes:
        changes = {**changes, "intermediate_size": 100}
    configure(folder, **changes)
    refused(folder, words)


@pytest.mark.parametrize("share, base", [("rotary_pct", "rotary_emb_base"), ("partial_rotary_factor", "rope_theta")])
def test_settings_of_the_rotation_are_honoured_under_each_name(golden, folder, share, base):
    before = th.load(folder)
    configure(folder, rope_parameters=None, **{share: 0.5, base: 100})
    model = th.load(folder)
    assert (model.config.n_rotary, model.config.rotary_base) == (4, 100)
    tokens = torch.arange(20)[None]
    assert (model(tokens) - before(tokens)).abs().max() > 0.1


def test_a_missing_width_of_the_mlp_is_not_taken_to_be_four_times(folder):
    """transformers would take GPT-NeoX-20B's, 24,576."""
    found = json.loads((folder / "config.json").read_text())
    del found["intermediate_size"]
    (folder / "config.json").write_text(json.dumps(found))
    refused(folder, "intermediate_size, the width of the MLP, is missing")


def test_tensors_that_do_not_fit_are_named_as_the_file_names_them(folder):
    arrays = arrays_of(folder)
    fused = arrays[LAYER + "attention.query_key_value.weight"]
    for changed, words in [
            ({LAYER + "attention.query_key_value.weight": fused.T.copy()},
             [f"tensor '{LAYER}attention.query_key_value.weight' has shape [24, 72]; the config asks for [72, 24]"]),
            ({LAYER + "mlp.dense.weight": fused}, [f"tensor '{LAYER}mlp.dense.weight' has no place in a Pythia of 2",
                                                   f"{LAYER}mlp.dense_h_to_4h.weight"]),
            ({"gpt_neox.layers.2.input_layernorm.bias": fused[0]}, ["'gpt_neox.layers.2.input_layernorm.bias' has no"]),
            ({"wpe.weight": fused}, ["tensor 'wpe.weight' has no place in a Pythia"]),
            ({"embed_in.weight": arrays["gpt_neox.embed_in.weight"]}, ["'wte.weight' is there twice"])]:
        write(folder, {**arrays, **changed})
        refused(folder, *words)
    write(folder, {name: array for name, array in arrays.items() if name != "embed_out.weight"})
    refused(folder, "tensor 'embed_out.weight' is missing, the unembedding", "If it is gpt_neox.embed_in.weight again")
    write(folder, arrays)
    configure(folder, tie_word_embeddings=True)
    refused(folder, "embed_out.weight differs from gpt_neox.embed_in.weight")


def test_gpt_neoxs_names_need_their_config(golden, folder):
    shutil.copy(golden / "wide" / "config.json", folder / "config.json")
    refused(folder, "its tensors have GPT-NeoX's names", "model_type should be gpt_neox")
    (folder / "config.json").unlink()
    refused(folder, "its tensors have GPT-NeoX's names, and no config.json is beside it")
    refused(folder, "no config.json is beside it", load=th.load_heads)


# --- the tokenizer -----------------------------------------------------------------------------------------


def test_a_tokenizer_laid_out_as_the_released_one_gives_the_ids_of_hugging_faces_library(golden, tmp_path):
    """"blanks" is trained as GPT-NeoX-20B's was: NFC, two special tokens first, runs of blanks behind the vocabulary.

    EleutherAI's file is of an older layout: merges as strings, and none of the newer settings.
    """
    theirs = json.loads((golden / "tokenizers.json").read_text())
    found = json.loads((golden / "tokenizers" / "blanks" / "tokenizer.json").read_text())
    assert found["normalizer"] == {"type": "NFC"} and [token["id"] for token in found["added_tokens"]][:2] == [0, 1]
    found["model"] = {key: found["model"][key] for key in ("type", "vocab", "merges")} | {
        "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "merges": [" ".join(pair) for pair in found["model"]["merges"]]}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    found |= {"pre_tokenizer": byte_level, "post_processor": byte_level, "decoder": byte_level}
    (tmp_path / "tokenizer.json").write_text(json.dumps(found), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "unk_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
        "add_prefix_space": False, "name_or_path": "EleutherAI/gpt-neox-20b", "tokenizer_class": "GPTNeoXTokenizer"}))
    tokenizer = th.load_tokenizer(tmp_path)
    assert tokenizer.end_of_text == 0 and tokenizer.nfc
    for kind in ("plain", "special"):
        for text, ids in zip(theirs["texts"], theirs["ids"]["blanks"][kind]):
            assert tokenizer.encode(text, special=kind == "special") == ids, text[:50]


def test_a_model_has_a_few_more_rows_than_its_tokenizer_has_tokens(golden, tmp_path):
    tokenizer = th.load_tokenizer(golden / "tokenizers" / "blanks")
    model = th.Pythia(th.PythiaConfig(tokenizer.n_vocab + 27, 32, 16, 1, 2))
    th.save(model, tmp_path, tokenizer)
    back = th.load_tokenizer(tmp_path)
    assert th.load(tmp_path).config == model.config and back.ids == tokenizer.ids
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 0
    with pytest.raises(th.TokenizerError, match="outside the vocabulary"):
        back.decode([tokenizer.n_vocab])


# --- the download --------------------------------------------------------------------------------------------


@pytest.fixture
def hub(golden, server, monkeypatch, tmp_path):  # noqa: F811
    """A server with the files of a Pythia, asked by name; and where they go."""
    tokenizer = tokenizer_files(th.load_tokenizer(golden / "tokenizers" / "blanks"))
    server.files = {name: (golden / "pythia" / "wide_f16" / name).read_bytes()
                    for name in ("config.json", "model.safetensors")} | {"tokenizer.json": tokenizer["tokenizer.json"]}
    monkeypatch.setenv("TINYHEADS_HUB_URL", server.url)
    monkeypatch.setenv("TINYHEADS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)
    return server


@pytest.mark.parametrize("name, known", [
    ("pythia-160m", "pythia-160m"), ("EleutherAI/pythia-160m", "pythia-160m"), (" Pythia-70M/", "pythia-70m"),
    ("gpt2", "124M"), ("124m", "124M"), ("pythia-1b", None), ("openai-community/pythia-70m", None), ("tiny", None),
    (None, None)])
def test_the_names_of_published_models(name, known):
    assert published_name(name) == known


def test_a_name_downloads_what_it_means_once(hub, tmp_path):
    model, tokenizer = th.load("pythia-160m"), th.load_tokenizer("EleutherAI/pythia-160m")
    assert isinstance(model, th.Pythia) and tokenizer.nfc and th.load_heads("pythia-160m").W_Q.shape == (2, 3, 24, 8)
    assert [path for path, _ in hub.asked] == [f"/models/pythia-160m/resolve/main/{file}" for file in
                                               ("config.json", "tokenizer.json", "model.safetensors")]
    assert sorted(file.name for file in (tmp_path / "weights" / "pythia-160m").iterdir()) == sorted(hub.files)


def test_a_tokenizer_alone_is_one_file(hub, tmp_path):
    assert th.load_tokenizer("pythia-70m").end_of_text == 0
    assert [path for path, _ in hub.asked] == ["/models/pythia-70m/resolve/main/tokenizer.json"]


def test_a_download_resumes_and_says_what_is_missing_without_a_network(hub, tmp_path):
    content = hub.files["model.safetensors"]
    part = tmp_path / "weights" / "pythia-160m" / "model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content[:1234])
    hub.plan = {"model.safetensors": [broken_off(10_000), status(503)]}
    assert th.download("pythia-160m") == part.parent
    assert ranges(hub, "model.safetensors") == ["bytes=1234-", "bytes=11234-", "bytes=11234-"]
    assert (part.parent / "model.safetensors").read_bytes() == content and not part.exists()
    with pytest.raises(th.DownloadError, match=r"put them into .*: config.json, tokenizer.json, model.safetensors$"):
        th.download("pythia-70m", tmp_path / "there", "http://127.0.0.1:1/")
    with pytest.raises(th.DownloadError, match="there are 124M, .*, pythia-160m; nearest valid: pythia-160m"):
        th.download("pythia-16m")
    refused("pythia-160", "names: nearest valid: pythia-160m")


def test_the_command_downloads_by_name(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tinyheads", "download", "pythia-70m", "--folder", str(tmp_path / "here")])
    runpy.run_module("tinyheads", run_name="__main__")
    assert capsys.readouterr().out == f"pythia-70m is in {tmp_path / 'here'}\n"
    assert sorted(file.name for file in (tmp_path / "here").iterdir()) == sorted(hub.files)
