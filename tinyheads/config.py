"""The five numbers that fix a GPT-2, and the tensors that follow from them.

Everything else about GPT-2 is the same at every size: pre-LayerNorm blocks, an MLP four
times as wide as the residual stream, the tanh form of gelu and learned positions
(Radford et al. 2019). The unembedding is the token embedding again (the two are tied),
unless a model says otherwise. The sizes are read from OpenAI's `hparams.json` or from a
Hugging Face `config.json`.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tinyheads.errors import ConfigError

LAYER_NORM_EPS = 1e-5   # the same in every GPT-2
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
        refuse_other_architectures(path, found)
        sizes = {}
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
            return cls(**sizes, tied=found.get("tie_word_embeddings", True))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

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


# The four sizes that OpenAI released.
OPENAI_SIZES = {
    "124M": GPT2Config(n_embd=768, n_layer=12, n_head=12),
    "355M": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "774M": GPT2Config(n_embd=1280, n_layer=36, n_head=20),
    "1558M": GPT2Config(n_embd=1600, n_layer=48, n_head=25),
}


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


def refuse_other_architectures(path: Path, found: dict) -> None:
    """Raise `ConfigError` for a config.json whose model GPT-2's forward pass would get wrong."""
    n_embd = found.get("n_embd", found.get("hidden_size"))
    four_times = 4 * n_embd if isinstance(n_embd, int) else None
    allowed = {
        "model_type": ("gpt2",), "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "layer_norm_epsilon": (LAYER_NORM_EPS,), "n_inner": (None, four_times),
        "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }
    for key, values in allowed.items():
        if key in found and found[key] not in values:
            raise ConfigError(f"{path}: {key} is {found[key]!r}; tinyheads implements GPT-2, "
                              f"where it is {' or '.join(repr(v) for v in values)}")
