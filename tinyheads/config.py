"""The five numbers that fix a GPT-2, and the tensors that follow from them; and what fixes a Pythia.

Everything else about GPT-2 is the same at every size: pre-LayerNorm blocks, an MLP four
times as wide as the residual stream, the tanh form of gelu and learned positions
(Radford et al. 2019). The unembedding is the token embedding again (the two are tied),
unless a model says otherwise. The sizes are read from OpenAI's `hparams.json` or from a
Hugging Face `config.json`. A Pythia (Biderman et al. 2023) has the same five numbers and
two more, which say how its heads learn of positions (`pythia.py`).
"""

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tinyheads.errors import ConfigError

LAYER_NORM_EPS = 1e-5   # the same in every GPT-2 and every Pythia
LARGEST_JSON = 1 << 20  # bytes; a config.json has 800, an index of shards for the largest GPT-2 42 thousand

# The names under which each size may stand in a file: Hugging Face's, those that its GPT2Config takes for the same
# (its attribute_map), and OpenAI's.
NAMES_IN_FILES = {"n_vocab": ("vocab_size", "n_vocab"), "n_ctx": ("n_positions", "max_position_embeddings", "n_ctx"),
                  "n_embd": ("n_embd", "hidden_size"), "n_layer": ("n_layer", "num_hidden_layers"),
                  "n_head": ("n_head", "num_attention_heads")}


@dataclass(frozen=True)
class GPT2Config:
    """Sizes of a GPT-2; raises `ConfigError` where they cannot be those of a model.

    n_vocab: tokens in the vocabulary (V); n_ctx: longest prompt (T at most);
    n_embd: width of the residual stream, d_model (D); n_layer: blocks (L);
    n_head: heads in each block (H), each of width d_head = n_embd / n_head (K).
    tied: whether the unembedding is the token embedding wte; if not, it is a matrix of its own, lm_head.
    """

    n_vocab: int = 50257
    n_ctx: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    tied: bool = True
    # What every GPT-2 has, and a Pythia otherwise: how many dimensions of each head positions rotate, and whether a
    # layer's MLP reads the same sum as its attention, so that it does not see what that writes.
    kind: ClassVar[str] = "GPT-2"
    n_rotary: ClassVar[int] = 0
    parallel: ClassVar[bool] = False

    def __post_init__(self):
        for name in NAMES_IN_FILES:
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value < 2**31:
                raise ConfigError(f"{name} must be a positive whole number, not {value!r}")
        if type(self.tied) is not bool:
            raise ConfigError(f"tied (tie_word_embeddings in config.json) must be true or false, not {self.tied!r}")
        if self.n_embd % self.n_head:
            raise ConfigError(f"n_embd={self.n_embd} does not divide into n_head={self.n_head} "
                              f"heads; d_head = n_embd / n_head must be whole")

    @property
    def d_head(self) -> int:
        """Width of one head (K)."""
        return self.n_embd // self.n_head

    @classmethod
    def from_json(cls, path: str | Path) -> "GPT2Config":
        """Read OpenAI's hparams.json or Hugging Face's config.json. Raises ConfigError, which says what is off.

        A size that stands there under two names must be the same under both.
        """
        path = Path(path)
        found = read_json(path)
        if not isinstance(found, dict):
            raise ConfigError(f"{path}: holds a {type(found).__name__}, not the sizes of a model")
        sizes = cls.more_than_sizes(path, found)
        for ours, names in NAMES_IN_FILES.items():
            given = [name for name in names if name in found]
            if not given:
                raise ConfigError(f"{path}: {' or '.join(names)} is missing; it has {sorted(found)[:50]}")
            sizes[ours] = found[given[0]]
            for name in given[1:]:
                if found[name] != sizes[ours]:
                    raise ConfigError(f"{path}: {given[0]} is {sizes[ours]!r} and {name} is {found[name]!r}, two names "
                                      f"of one size; take away the one that is wrong")
        try:
            return cls(**sizes)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def more_than_sizes(cls, path: Path, found: dict) -> dict[str, object]:
        """What a config.json says besides the sizes, as arguments. Raises ConfigError for another architecture."""
        n_embd = found.get("n_embd", found.get("hidden_size"))
        refuse_other_values(path, found, cls.kind, {
            "model_type": ("gpt2",), "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "layer_norm_epsilon": (LAYER_NORM_EPS,), "n_inner": (None, four_times(n_embd)),
            "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,)})
        return {"tied": found.get("tie_word_embeddings", True)}

    def to_hugging_face(self) -> dict[str, object]:
        """The config.json from which `transformers.GPT2LMHeadModel` builds the same model."""
        return {
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
            "activation_function": "gelu_new", "layer_norm_epsilon": LAYER_NORM_EPS,
            "vocab_size": self.n_vocab, "n_positions": self.n_ctx, "n_ctx": self.n_ctx,
            "n_embd": self.n_embd, "n_layer": self.n_layer, "n_head": self.n_head,
            "n_inner": None, "tie_word_embeddings": self.tied,
            "bos_token_id": self.n_vocab - 1, "eos_token_id": self.n_vocab - 1,
            "torch_dtype": "float32",
        }

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each tensor of one block, in the `x @ W + b` orientation."""
        D = self.n_embd
        return {
            "ln_1.weight": (D,), "ln_1.bias": (D,),
            "attn.c_attn.weight": (D, 3 * D), "attn.c_attn.bias": (3 * D,),
            "attn.c_proj.weight": (D, D), "attn.c_proj.bias": (D,),
            "ln_2.weight": (D,), "ln_2.bias": (D,),
            "mlp.c_fc.weight": (D, 4 * D), "mlp.c_fc.bias": (4 * D,),
            "mlp.c_proj.weight": (4 * D, D), "mlp.c_proj.bias": (D,),
        }

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the model, under Hugging Face's names."""
        D = self.n_embd
        shapes = {"wte.weight": (self.n_vocab, D), "wpe.weight": (self.n_ctx, D)}
        for layer in range(self.n_layer):
            shapes.update({f"h.{layer}.{name}": shape for name, shape in self.layer_shapes().items()})
        shapes.update({"ln_f.weight": (D,), "ln_f.bias": (D,)})
        return shapes if self.tied else {**shapes, "lm_head.weight": (self.n_vocab, D)}


@dataclass(frozen=True)
class PythiaConfig(GPT2Config):
    """Sizes of a Pythia, GPT-NeoX's architecture: those of a GPT-2, and two numbers. Raises `ConfigError`.

    rotary_pct: the share of each head's dimensions that positions rotate; rotary_base: the slowest pair of them turns
    by nearly 1 / rotary_base radians a token, the fastest by 1 (Su et al. 2021). n_vocab: the rows of the embedding,
    50,304, are a few more than the tokenizer has tokens, 50,277.
    """

    n_vocab: int = 50304
    n_ctx: int = 2048
    tied: bool = False
    rotary_pct: float = 0.25
    rotary_base: float = 10000.0
    kind: ClassVar[str] = "Pythia"
    parallel: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        for name in ("rotary_pct", "rotary_base"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise ConfigError(f"{name} must be a number above 0, not {value!r}")
        if not 2 <= self.n_rotary <= self.d_head or self.n_rotary % 2:
            raise ConfigError(f"rotary_pct={self.rotary_pct} of d_head={self.d_head} dimensions are {self.n_rotary} to "
                              f"be rotated; they are rotated in pairs, from 2 to {self.d_head}")

    @property
    def n_rotary(self) -> int:
        """How many dimensions of each head, the first ones, are rotated by position."""
        return int(self.d_head * self.rotary_pct)

    @classmethod
    def more_than_sizes(cls, path: Path, found: dict) -> dict[str, object]:
        """What a config.json says besides the sizes, as arguments. Raises ConfigError for another architecture.

        transformers 5 has the rotation's numbers in `rope_parameters`, older versions in the config itself.
        """
        refuse_other_values(path, found, cls.kind, {
            "model_type": ("gpt_neox",), "hidden_act": ("gelu",), "layer_norm_eps": (LAYER_NORM_EPS,),
            "intermediate_size": (four_times(found.get("hidden_size")),), "use_parallel_residual": (True,),
            "attention_bias": (True,), "rope_scaling": (None,)})
        if "intermediate_size" not in found:                    # transformers would take that of GPT-NeoX-20B
            raise ConfigError(f"{path}: intermediate_size, the width of the MLP, is missing")
        rope = found.get("rope_parameters") or {}
        if not isinstance(rope, dict) or rope.keys() - {"rope_type", "rope_theta", "partial_rotary_factor"}:
            raise ConfigError(f"{path}: rope_parameters is {rope!r}; tinyheads knows rope_theta and "
                              f"partial_rotary_factor, and rope_type 'default'")
        refuse_other_values(path, rope, cls.kind, {"rope_type": ("default",)})
        numbers = {"tied": found.get("tie_word_embeddings", False)}
        for ours, *names in [("rotary_pct", "rotary_pct", "partial_rotary_factor"),
                             ("rotary_base", "rotary_emb_base", "rope_theta")]:
            given = [where[name] for where in (found, rope) for name in names if name in where]
            if any(value != given[0] for value in given[1:]):
                raise ConfigError(f"{path}: {' and '.join(names)} are {given}, and should be one number")
            numbers |= {ours: given[0]} if given else {}
        return numbers

    def to_hugging_face(self) -> dict[str, object]:
        """The config.json from which `transformers.GPTNeoXForCausalLM` builds the same model, of version 4 or 5."""
        return {
            "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox",
            "hidden_act": "gelu", "layer_norm_eps": LAYER_NORM_EPS, "use_parallel_residual": True,
            "attention_bias": True, "vocab_size": self.n_vocab, "max_position_embeddings": self.n_ctx,
            "hidden_size": self.n_embd, "intermediate_size": 4 * self.n_embd, "num_hidden_layers": self.n_layer,
            "num_attention_heads": self.n_head, "rotary_pct": self.rotary_pct, "rotary_emb_base": self.rotary_base,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rotary_base,
                                "partial_rotary_factor": self.rotary_pct},
            "tie_word_embeddings": self.tied, "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "float32",
        }

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the model: those of a GPT-2, without position embeddings."""
        return {name: shape for name, shape in super().tensor_shapes().items() if name != "wpe.weight"}


# The four sizes that OpenAI released.
OPENAI_SIZES = {
    "124M": GPT2Config(n_embd=768, n_layer=12, n_head=12),
    "355M": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "774M": GPT2Config(n_embd=1280, n_layer=36, n_head=20),
    "1558M": GPT2Config(n_embd=1600, n_layer=48, n_head=25),
}
# The two smallest Pythias that are found by name; the paper's is pythia-160m.
PYTHIA_SIZES = {
    "pythia-70m": PythiaConfig(n_embd=512, n_layer=6, n_head=8),
    "pythia-160m": PythiaConfig(n_embd=768, n_layer=12, n_head=12),
}


def read_config(path: str | Path) -> GPT2Config:
    """The sizes in a config.json, of a Pythia where its model_type says gpt_neox. Raises ConfigError."""
    found = read_json(Path(path))
    model_type = found.get("model_type", "gpt2") if isinstance(found, dict) else "gpt2"
    if model_type not in ("gpt2", "gpt_neox"):
        raise ConfigError(f"{path}: model_type is {model_type!r}; tinyheads implements GPT-2, where it is 'gpt2', and "
                          f"Pythia, where it is 'gpt_neox'")
    return (GPT2Config if model_type == "gpt2" else PythiaConfig).from_json(path)


def read_json(path: Path) -> object:
    """What a small JSON file holds, no key of it twice. Raises ConfigError."""
    def refuse_duplicates(pairs):
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"it has the name {Counter(names).most_common(1)[0][0][:100]!r} twice")
        return dict(pairs)

    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes are too many for what a model's files hold as JSON")
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=refuse_duplicates)
    except ConfigError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from error


def refuse_other_values(path: Path, found: dict, kind: str, allowed: dict[str, tuple]) -> None:
    """Raise `ConfigError` for a config.json whose model our forward pass would get wrong. allowed: values by key."""
    for key, values in allowed.items():
        if key in found and found[key] not in values:
            raise ConfigError(f"{path}: {key} is {found[key]!r}; tinyheads implements {kind}, "
                              f"where it is {' or '.join(repr(v) for v in values)}")


def four_times(n_embd: object) -> int | None:
    """The width of an MLP, where that of the stream is a number."""
    return 4 * n_embd if isinstance(n_embd, int) else None
