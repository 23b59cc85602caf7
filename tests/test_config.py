"""Sizes of a model: where they are read from, what follows from them, and what cannot be one."""

import json
import math

import pytest

import tinyheads as th
from file_writers import parse_safetensors

OPENAI = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}  # hparams.json of 124M
HUGGING_FACE = {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_ctx": 1024, "n_embd": 768,
                "n_head": 12,
                "n_layer": 12, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "n_inner": None}

# The attribute_map of transformers' GPT2Config, and OpenAI's names beside Hugging Face's.
ALIASES = [("n_embd", "hidden_size"), ("n_positions", "max_position_embeddings"), ("n_head", "num_attention_heads"),
           ("n_layer", "num_hidden_layers"), ("n_positions", "n_ctx"), ("vocab_size", "n_vocab")]


def read(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return th.GPT2Config.from_json(path)


@pytest.mark.parametrize("size, n_parameters, d_head", [
    ("124M", 124_439_808, 64), ("355M", 354_823_168, 64), ("774M", 774_030_080, 64), ("1558M", 1_557_611_200, 64)])
def test_openais_sizes_have_the_published_numbers_of_parameters(size, n_parameters, d_head):
    config = th.OPENAI_SIZES[size]
    assert sum(math.prod(shape) for shape in config.tensor_shapes().values()) == n_parameters
    assert config.d_head == d_head
    assert list(th.OPENAI_SIZES) == ["124M", "355M", "774M", "1558M"]


def test_the_defaults_are_the_smallest_of_openais_models():
    assert th.GPT2Config() == th.OPENAI_SIZES["124M"]


@pytest.mark.parametrize("shape", ["wide", "deep", "one"])
def test_tensor_names_and_shapes_are_those_that_transformers_wrote(shape, golden):
    header, _ = parse_safetensors((golden / shape / "model.safetensors").read_bytes())
    header.pop("__metadata__")
    written = {name.removeprefix("transformer."): tuple(fields["shape"]) for name, fields in header.items()}
    assert th.GPT2Config.from_json(golden / shape / "config.json").tensor_shapes() == written


@pytest.mark.parametrize("shape", ["wide", "deep", "one"])
def test_hparams_json_and_config_json_give_the_same(shape, golden):
    sizes = json.loads((golden / f"{shape}_tf" / "hparams.json").read_text())
    config = th.GPT2Config.from_json(golden / f"{shape}_tf" / "hparams.json")
    assert config == th.GPT2Config.from_json(str(golden / shape / "config.json")) == th.GPT2Config(**sizes)
    assert config.d_head * sizes["n_head"] == sizes["n_embd"]


def test_openais_own_hparams_and_hugging_faces_own_config(tmp_path):
    assert read(tmp_path, OPENAI) == read(tmp_path, HUGGING_FACE) == th.OPENAI_SIZES["124M"]


def test_what_is_written_for_transformers_reads_back_the_same(tmp_path):
    config = th.GPT2Config(n_vocab=19, n_ctx=7, n_embd=12, n_layer=3, n_head=4)
    written = config.to_hugging_face()
    assert read(tmp_path, json.dumps(written)) == config
    assert [written[key] for key in ["vocab_size", "n_positions", "n_embd", "n_layer", "n_head"]] == [19, 7, 12, 3, 4]


@pytest.mark.parametrize("name, other", ALIASES)
def test_a_size_may_stand_under_any_name_that_transformers_takes_for_it_or_several(name, other, tmp_path):
    both = {**HUGGING_FACE, "n_inner": 3072, other: HUGGING_FACE[name]}
    alone = {key: value for key, value in both.items() if key not in (name, "n_ctx") or key == other}
    assert read(tmp_path, both) == read(tmp_path, alone) == th.OPENAI_SIZES["124M"]


def test_an_unembedding_of_its_own_is_read_and_written(tmp_path):
    config = read(tmp_path, {**HUGGING_FACE, "tie_word_embeddings": False})
    assert config == th.GPT2Config(tied=False) != th.GPT2Config()
    assert read(tmp_path, config.to_hugging_face()) == config
    assert config.to_hugging_face()["tie_word_embeddings"] is False
    assert set(config.tensor_shapes().items()) - set(th.GPT2Config().tensor_shapes().items()) == {
        ("lm_head.weight", (50257, 768))}
    assert read(tmp_path, {**HUGGING_FACE, "tie_word_embeddings": True}) == read(tmp_path, OPENAI) == th.GPT2Config()


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize("name, other", ALIASES)
def test_two_names_of_one_size_that_contradict_each_other_are_both_named(name, other, tmp_path):
    rest = {key: value for key, value in HUGGING_FACE.items() if key != "n_ctx"}
    for value in [HUGGING_FACE[name] + 1, None, [1024]]:
        with pytest.raises(th.ConfigError) as caught:
            read(tmp_path, {**rest, other: value})
        assert f"config.json: {name} is {HUGGING_FACE[name]} and {other} is {value!r}, two names" in str(caught.value)


def test_a_key_that_stands_twice_is_named(tmp_path):
    with pytest.raises(th.ConfigError, match="config.json: cannot be read as JSON .*'n_head' twice"):
        read(tmp_path, json.dumps(HUGGING_FACE)[:-1] + ', "n_head": 16}')


@pytest.mark.parametrize("value", [None, 0, 1, "false", []], ids=repr)
def test_tying_that_is_neither_true_nor_false_is_named(value, tmp_path):
    with pytest.raises(th.ConfigError, match=r"config.json: tied \(tie_word_embeddings in config.json\) must be true"):
        read(tmp_path, {**HUGGING_FACE, "tie_word_embeddings": value})


@pytest.mark.parametrize("name", ["n_vocab", "n_ctx", "n_embd", "n_layer", "n_head"])
@pytest.mark.parametrize("value", [0, -1, 2**31, 12.0, "12", None, True, [12]], ids=repr)
def test_a_size_that_is_no_positive_whole_number_is_named(name, value, tmp_path):
    with pytest.raises(th.ConfigError, match=f"{name} must be a positive whole number, not ") as caught:
        th.GPT2Config(**{name: value})
    assert repr(value) in str(caught.value)
    with pytest.raises(th.ConfigError, match=f"config.json: {name} must be"):
        read(tmp_path, {**OPENAI, name: value})


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(th.ConfigError, match="n_embd=10 does not divide into n_head=4 heads"):
        th.GPT2Config(n_embd=10, n_head=4)


@pytest.mark.parametrize("key", OPENAI)
def test_a_missing_size_is_named_with_what_is_there(key, tmp_path):
    rest = {name: value for name, value in OPENAI.items() if name != key}
    with pytest.raises(th.ConfigError, match=rf"{key}.* is missing; it has \[") as caught:
        read(tmp_path, rest)
    assert str(sorted(rest)) in str(caught.value)


@pytest.mark.parametrize("change", [
    {"model_type": "gpt_neo"}, {"activation_function": "gelu"}, {"layer_norm_epsilon": 1e-6}, {"n_inner": 1000},
    {"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True}, {"add_cross_attention": True}],
    ids=str)
def test_models_that_gpt2s_forward_pass_would_get_wrong_are_refused(change, tmp_path):
    (key, value), = change.items()
    with pytest.raises(th.ConfigError, match=f"{key} is {value!r}; tinyheads implements GPT-2"):
        read(tmp_path, {**HUGGING_FACE, **change})


@pytest.mark.parametrize("change", [{"n_inner": 3072}, {"activation_function": "gelu_pytorch_tanh"},
                                    {"anything": "else"}], ids=str)
def test_other_ways_to_write_the_same_model_are_accepted(change, tmp_path):
    assert read(tmp_path, {**HUGGING_FACE, **change}) == th.OPENAI_SIZES["124M"]


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, '{"n_embd": ' + "9" * 5000 + "}"],
                         ids=lambda text: text[:12])
def test_a_file_that_is_no_json_is_named(content, tmp_path):
    with pytest.raises(th.ConfigError, match="config.json: cannot be read as JSON"):
        read(tmp_path, content)


@pytest.mark.parametrize("content", ["[]", "1", "null", '"n_embd"'])
def test_json_that_is_no_table_of_sizes_is_named(content, tmp_path):
    with pytest.raises(th.ConfigError, match="config.json: holds a .*, not the sizes of a model"):
        read(tmp_path, content)


def test_a_missing_or_unreadable_file_is_named(tmp_path):
    with pytest.raises(th.ConfigError, match="nowhere.json: cannot be read"):
        th.GPT2Config.from_json(tmp_path / "nowhere.json")
    with pytest.raises(th.ConfigError, match="cannot be read"):
        th.GPT2Config.from_json(tmp_path)


def test_config_errors_are_value_errors_and_tinyheads_errors():
    assert issubclass(th.ConfigError, th.TinyheadsError) and issubclass(th.TinyheadsError, ValueError)


def test_a_file_far_too_long_for_a_config_is_not_read(tmp_path):
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(10**12)  # takes no room on the disk
    with pytest.raises(th.ConfigError, match="1000000000000 bytes are too many"):
        th.GPT2Config.from_json(tmp_path / "config.json")
