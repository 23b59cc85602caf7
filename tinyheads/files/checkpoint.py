"""A model's weights as named arrays, whatever the file they lie in.

Three ways in, one way to look at them: OpenAI's TensorFlow bundle, a safetensors file (bare, or in a
folder with `config.json`, there in one piece or in shards), and what `tinyheads.save` wrote, which is
the second again. All end as the same names, Hugging Face's without their `transformer.` prefix
(`h.0.attn.c_attn.weight`, in the `x @ W + b` orientation; a Pythia's too: `neox.py`), and are checked
against the sizes in the config. Arrays stay in the file, behind a memory map, until they are asked for.

The shapes in a file do not say how many heads share n_embd, nor LayerNorm's epsilon, nor the activation.
A file without a config is therefore read only where these are known, or given.
"""

import re
import warnings
from pathlib import Path

import numpy as np

from tinyheads.config import OPENAI_SIZES, GPT2Config, PythiaConfig, read_config, read_json
from tinyheads.errors import CheckpointError, ConfigError, did_you_mean
from tinyheads.files.array_file import Entry, as_path, map_file, read_array
from tinyheads.files.neox import from_stored, our_name, stored_name, stored_shape
from tinyheads.files.progress import Progress
from tinyheads.files.safetensors_file import read_safetensors
from tinyheads.files.tensorflow_bundle import read_bundle, tensor_is_intact

PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz"}
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x93NUM")
PICKLE_MESSAGE = ("{}: looks like a Python pickle (torch.save, np.save), which can run code when it is opened; "
                  "tinyheads reads .safetensors files and OpenAI's model.ckpt.index")
LONGEST_MESSAGE = 2000  # characters: names in a damaged file can be of any length
# What stands in front of a name: transformers' own, and what torch.compile, DataParallel and a wrapping class add.
PREFIXES = re.compile(r"^((transformer|_orig_mod|module|model)\.)+")
# The heads that transformers' other GPT-2 classes, and trl's model with a value head, put beside the language model.
OTHER_HEADS = re.compile(r"(score|classifier|qa_outputs|multiple_choice_head|v_head)\.")


class Checkpoint:
    """Named arrays in files. `checkpoint["wpe.weight"]` reads one: float32, in the config's shape.

    config: the model's sizes; names: what is there, sorted; all errors are CheckpointError.
    second_wte: lm_head.weight of a file whose config ties it to wte.weight: the two must hold the same.
    """

    def __init__(self, path: Path, config: GPT2Config, entries: dict[str, Entry], second_wte: Entry | None = None):
        self.path, self.config, self.entries, self.second_wte = path, config, entries, second_wte
        if config.n_layer > len(entries):
            raise CheckpointError(f"{path}: {len(entries)} tensors are too few for {config.n_layer} layers; it has "
                                  f"{sorted(entries)[:10]}")
        self.shapes = config.tensor_shapes()
        for name, entry in entries.items():
            if name not in self.shapes:
                stored, valid = stored_name(name, config), [stored_name(each, config) for each in self.shapes]
                raise CheckpointError(f"{path}: tensor {stored!r} has no place in a {config.kind} of {config.n_layer} "
                                      f"layers; {did_you_mean(stored, valid)}")
            stored = entry.shape[1:] if len(entry.shape) == 3 and entry.shape[0] == 1 else entry.shape
            wanted = stored_shape(self.shapes[name], name, config)
            if stored != wanted:  # OpenAI stores [1, D, 3D]: its matrices are convolutions of width 1
                raise CheckpointError(f"{path}: tensor {self.stored_name(name)!r} has shape {list(entry.shape)}; the "
                                      f"config asks for {list(wanted)}")
        # Maps of all files, made now: a file that is saved over later stays, for this checkpoint, what it was.
        files = {entry.file for entry in [*entries.values(), *([second_wte] if second_wte else [])]}
        self.maps = {file: map_file(file) for file in files}

    @property
    def names(self) -> list[str]:
        """The tensors that are there, sorted."""
        return sorted(self.entries)

    def stored_name(self, name: str) -> str:
        """The name that a tensor has in the file, for a reader who looks there."""
        return stored_name(name, self.config)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.entries:
            raise CheckpointError(f"{self.path}: tensor {name!r} is missing; it has {len(self.entries)} tensors, "
                                  f"{did_you_mean(name, self.names)}")
        entry = self.entries[name]
        array = read_array(entry, self.maps[entry.file], name)
        array = from_stored(name, array.reshape(stored_shape(self.shapes[name], name, self.config)), self.config)
        if name == "wte.weight" and self.second_wte:
            self.refuse_untied(array)
        return array

    def refuse_untied(self, embedding: np.ndarray) -> None:
        """Raise CheckpointError for a second matrix that is not the first, where the config says that they are one.

        What is right cannot be known: some versions of transformers take both as they are, others the first alone
        (https://github.com/huggingface/transformers/pull/42612).
        """
        other = read_array(self.second_wte, self.maps[self.second_wte.file], "lm_head.weight")
        if not np.array_equal(embedding, other, equal_nan=True):
            first, second = (self.stored_name(name) for name in ("wte.weight", "lm_head.weight"))
            raise CheckpointError(f"{self.path}: {second} differs from {first}, and tie_word_embeddings, true where no "
                                  f"config.json says otherwise, asks for one matrix. If the model has two, write "
                                  f"\"tie_word_embeddings\": false into its config.json")
        self.second_wte = None  # once is enough

    def verify(self) -> None:
        """Compare every tensor with its stored crc32c (TensorFlow bundles have one). Raises CheckpointError."""
        stored = {name: entry for name, entry in self.entries.items() if entry.crc32c is not None}
        total = sum(entry.nbytes for entry in stored.values())
        with Progress("checking", total, "MB", scale=1e6) as bar:
            for name, entry in stored.items():
                if not tensor_is_intact(entry, self.maps[entry.file], bar.add):
                    raise CheckpointError(f"{entry.file}: tensor {name!r} is damaged: its bytes do not have the "
                                          f"crc32c stored in the index. Fetch the file again")


def open_checkpoint(path: str | Path, verify: bool = False, n_head: int | None = None) -> Checkpoint:
    """Open a folder or a .safetensors file; `verify` checks stored checksums. Raises CheckpointError.

    n_head: heads in a layer, for a .safetensors file of another shape than OpenAI's with no config.json beside it. What
    else its shapes cannot say is then taken to be GPT-2's: LayerNorm's epsilon 1e-5, and the tanh form of gelu.
    """
    path = as_path(path)
    try:
        if not path.exists():
            raise CheckpointError(f"{path}: no such file or folder")
        refuse_adapters(path if path.is_dir() else path.parent)
        if path.is_dir():
            checkpoint = open_folder(path, n_head)
        elif path.suffix in PICKLE_SUFFIXES:
            raise CheckpointError(PICKLE_MESSAGE.format(path))
        elif path.suffix == ".index":
            checkpoint = open_bundle(path, path)
        else:
            checkpoint = open_safetensors(path, [path], path.with_name("config.json"), n_head)
        if n_head not in (None, checkpoint.config.n_head):
            raise CheckpointError(f"{path}: n_head={n_head!r} is asked for; its config says {checkpoint.config.n_head}")
    except (ConfigError, CheckpointError) as error:
        start = map_file(path)[:9].tobytes() if path.is_file() else b""
        if start.startswith(PICKLE_STARTS) and start[8:] != b"{":  # "{": safetensors, with a length that begins alike
            raise CheckpointError(PICKLE_MESSAGE.format(path)) from error
        printable = str(error).encode("utf-8", "backslashreplace").decode("utf-8")  # a name may have lone surrogates
        raise CheckpointError(printable[:LONGEST_MESSAGE]) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    if verify:
        checkpoint.verify()
    return checkpoint


def refuse_adapters(folder: Path) -> None:
    """Weights beside an adapter_config.json are a change to another model. Raises CheckpointError."""
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(f"{folder}: adapter_config.json says that the weights beside it are an adapter (PEFT, "
                              f"LoRA) for another model. Merge it into that model first (merge_and_unload in peft), "
                              f"and save the whole model into a folder of its own")


def open_folder(folder: Path, n_head: int | None) -> Checkpoint:
    """A folder as OpenAI, Hugging Face or `tinyheads.save` lays it out."""
    whole, shard_index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists():
        return open_safetensors(folder, [whole], folder / "config.json", n_head)
    if shard_index.exists():
        return open_safetensors(folder, shards_of(shard_index), folder / "config.json", n_head)
    safetensors, indexes = sorted(folder.glob("*.safetensors")), sorted(folder.glob("*.index"))
    if safetensors:
        return open_safetensors(folder, safetensors, folder / "config.json", n_head)
    if len(indexes) == 1:
        return open_bundle(folder, indexes[0])
    if indexes:
        raise CheckpointError(f"{folder}: several checkpoints are there, name one: {', '.join(map(str, indexes))}")
    files = sorted(file for file in folder.iterdir() if file.is_file())
    for file in files:
        if file.suffix in PICKLE_SUFFIXES:
            raise CheckpointError(PICKLE_MESSAGE.format(file))
    raise CheckpointError(f"{folder}: neither *.safetensors nor model.ckpt.index is there; it has "
                          f"{[file.name for file in files[:10]]}")


def shards_of(index_path: Path) -> list[Path]:
    """The files that transformers' index of shards names, each once. All must be there; others are left alone."""
    index = read_json(index_path)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index_path}: has no weight_map, which says what tensor lies in what file")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if name in ("", ".", "..") or Path(name).name != name:
            raise CheckpointError(f"{index_path}: names the file {name[:100]!r}; shards lie beside their index")
        if not index_path.with_name(name).is_file():
            raise CheckpointError(f"{index_path.with_name(name)}: missing, though {index_path.name} names it")
    return [index_path.with_name(name) for name in names]


def open_bundle(path: Path, index_path: Path) -> Checkpoint:
    """OpenAI's bundle, whose sizes stand in hparams.json beside the index."""
    hparams = index_path.with_name("hparams.json")
    if not hparams.exists():
        raise CheckpointError(f"{path}: {index_path.name} is there, hparams.json is missing beside it")
    entries: dict[str, Entry] = {}
    found = read_bundle(index_path)
    for tensorflow_name, entry in found.items():
        if not re.fullmatch(r"model/.*(?<!/Adam)(?<!/Adam_1)", tensorflow_name):
            continue  # an optimizer's, left behind by fine-tuning
        name = hugging_face_name(tensorflow_name)
        if name in entries:
            raise CheckpointError(f"{path}: tensor {tensorflow_name!r} is there under a second name")
        entries[name] = entry
    if not entries:
        raise CheckpointError(f"{path}: {index_path.name} names no weights of a GPT-2, which are called model/...; it "
                              f"has {[name[:100] for name in found][:10]}")
    return Checkpoint(path, GPT2Config.from_json(hparams), entries)


def open_safetensors(path: Path, files: list[Path], config_path: Path, n_head: int | None) -> Checkpoint:
    """One or several safetensors files as one checkpoint, with the sizes of config_path if it exists.

    Warns, in one line, of the heads of other tasks beside the language model, which are left out.
    """
    entries: dict[str, Entry] = {}
    other_heads: list[str] = []
    neox = False
    for file in files:
        for stored, entry in read_safetensors(file).items():
            plain = PREFIXES.sub("", stored)
            name = our_name(plain)
            if name is None or re.fullmatch(r"h\.\d+\.attn\.(bias|masked_bias)", name):
                continue  # the causal mask, which old versions of transformers saved along
            neox = neox or name != plain
            if OTHER_HEADS.match(name):
                other_heads.append(name)
                continue
            if name in entries:
                raise CheckpointError(f"{file}: tensor {name!r} is there twice, the second time as {stored!r}")
            entries[name] = entry
    if not entries:
        raise CheckpointError(f"{path}: holds no tensors of a GPT-2")
    if neox and not config_path.exists():
        raise CheckpointError(f"{path}: its tensors have GPT-NeoX's names, and no config.json is beside it: nothing "
                              f"says how many heads there are, and what positions rotate")
    config = read_config(config_path) if config_path.exists() else config_from_shapes(path, entries, n_head)
    if neox and not isinstance(config, PythiaConfig):
        raise CheckpointError(f"{path}: its tensors have GPT-NeoX's names, and {config_path} is a GPT-2's; its "
                              f"model_type should be gpt_neox")
    second_wte = None
    if config.tied and "lm_head.weight" in entries:
        second_wte = entries.pop("lm_head.weight")
        if "wte.weight" not in entries:  # stored under one of its two names
            entries["wte.weight"], second_wte = second_wte, None
    checkpoint = Checkpoint(path, config, entries, second_wte)
    if other_heads:
        named = ", ".join(name[:100] for name in sorted(other_heads)[:10])
        warnings.warn(f"{path}: left out a head for another task than predicting tokens: {named}")
    return checkpoint


def config_from_shapes(path: Path, entries: dict[str, Entry], n_head: int | None) -> GPT2Config:
    """Sizes of a safetensors file without a config, from its tensors' shapes and the number of heads.

    n_head: may be None where the shapes are those of one of OpenAI's models, whose number of heads is known.
    Embeddings that are not there are taken to be of OpenAI's sizes; heads alone do not depend on them.
    """
    layers = [int(match[1]) for name in entries if (match := re.match(r"h\.(\d{1,6})\.", name))]
    c_attn = entries.get("h.0.attn.c_attn.weight")
    if c_attn is None or len(c_attn.shape) != 2:
        raise CheckpointError(f"{path}: no config.json beside it, and no matrix h.0.attn.c_attn.weight to take the "
                              f"sizes from; it has {did_you_mean('h.0.attn.c_attn.weight', sorted(entries))}")
    sizes = {"n_layer": max(layers) + 1, "n_embd": c_attn.shape[0]}
    for key, name in [("n_vocab", "lm_head.weight"), ("n_vocab", "wte.weight"), ("n_ctx", "wpe.weight")]:
        if name in entries and len(entries[name].shape) == 2:
            sizes[key] = entries[name].shape[0]
    if n_head is None:
        for config in OPENAI_SIZES.values():
            if sizes.items() <= vars(config).items():
                return config
        raise CheckpointError(f"{path}: no config.json beside it, and "
                              f"{', '.join(f'{key}={n}' for key, n in sizes.items())} are the sizes of no GPT-2 of "
                              f"OpenAI's, so that the number of heads is unknown. Give n_head=, or put the model's "
                              f"config.json beside it, which also says LayerNorm's epsilon and the activation")
    try:
        return GPT2Config(**sizes, n_head=n_head)
    except ConfigError as error:
        raise CheckpointError(f"{path}: no config.json beside it, and the shapes of its tensors with n_head={n_head!r} "
                              f"are no model's: {error}") from error


def hugging_face_name(name: str) -> str:
    """model/h0/attn/c_attn/w -> h.0.attn.c_attn.weight; model/wte -> wte.weight."""
    name = re.sub(r"^model/", "", name)
    name = re.sub(r"^h(\d+)/", r"h.\1/", name)
    name = re.sub(r"/(w|g)$", "/weight", name)
    name = re.sub(r"/b$", "/bias", name)
    name = re.sub(r"^(wte|wpe)$", r"\1/weight", name)
    return name.replace("/", ".")
