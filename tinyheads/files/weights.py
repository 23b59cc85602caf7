"""From a name or a path to a model, its heads or its tokenizer, and back to a folder.

    "tiny", "124M"  ->  a folder (`locate`: looked for in a few places, downloaded once)
                    ->  named arrays (`open_checkpoint`)  ->  a GPT2 that runs (`load`)

`save` writes what `load` opens, and Hugging Face's libraries too. Everything else in this folder is a step of that way.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import torch

from tinyheads.config import OPENAI_SIZES
from tinyheads.errors import CheckpointError, DownloadError, TokenizerError
from tinyheads.files.array_file import write_atomically
from tinyheads.files.checkpoint import open_checkpoint
from tinyheads.files.download import FILES, fetch_model
from tinyheads.files.safetensors_file import write_safetensors
from tinyheads.files.tokenizer import Tokenizer, read_ranks
from tinyheads.heads import Heads, heads_from
from tinyheads.model import GPT2


def load(path: str | Path, device: str | torch.device = "cpu", verify: bool = False, n_head: int | None = None) -> GPT2:
    """A model of the name ("tiny"; "124M" ... "1558M", downloaded once) or at the path, ready to run.

    path: a folder (OpenAI's bundle, safetensors with config.json) or a .safetensors file.
    verify: check the checksums stored in OpenAI's bundle first; n_head: heads in a layer, only for a
    .safetensors file of another shape than OpenAI's with no config.json beside it (see `open_checkpoint`).
    The weights are float32 and frozen (`model.requires_grad_()` makes them trainable again); heads of
    other tasks are left out with a warning. Raises CheckpointError, DownloadError.
    """
    checkpoint = open_checkpoint(locate(path), verify, n_head)
    missing = [name for name in checkpoint.shapes if name not in checkpoint]
    if missing == ["lm_head.weight"]:
        raise CheckpointError(f"{checkpoint.path}: tensor 'lm_head.weight' is missing, the unembedding, which is a "
                              f"matrix of its own where the config's tie_word_embeddings is false. If it is wte.weight "
                              f"again, write true there")
    if missing:
        raise CheckpointError(f"{checkpoint.path}: {len(missing)} tensors of a whole model are missing, {missing[0]!r} "
                              f"the first; it has {checkpoint.names[:6]} ... ({len(checkpoint.names)} in all). For "
                              f"heads alone, load_heads is enough")
    model = GPT2(checkpoint.config, seed=None)
    # The file's map is read-only: copy it, into one buffer, since fresh memory for each tensor costs as much again.
    buffer = np.empty(sum(parameter.numel() for parameter in model.parameters()), dtype=np.float32)
    start = 0
    for name, parameter in model.named_parameters():
        part = buffer[start:start + parameter.numel()].reshape(parameter.shape)
        part[...] = checkpoint[name]
        parameter.data = torch.from_numpy(part)
        start += parameter.numel()
    return model.requires_grad_(False).to(device)


def save(model: GPT2, folder: str | Path, tokenizer: Tokenizer | None = None) -> Path:
    """Write model.safetensors and config.json (and the tokenizer's two files) into a folder.

    `load(folder)` opens it, and so does `transformers.GPT2LMHeadModel.from_pretrained(folder)`.
    Each file is complete under its name or not there. Raises CheckpointError where it cannot be written.
    """
    folder = Path(folder)
    named = model.named_parameters(remove_duplicate=False)  # an untied model's two may have been made one by hand
    arrays = {name: parameter.detach().float().cpu().numpy() for name, parameter in named}
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise CheckpointError(f"not saved: {broken[0]} holds values that are not finite")
    texts = {"config.json": json.dumps(model.config.to_hugging_face(), indent=2).encode("utf-8")}
    texts.update(tokenizer.files if tokenizer else {})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(folder / "model.safetensors", arrays)
        for name, text in texts.items():
            with write_atomically(folder / name) as file:
                file.write(text)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return folder


def load_heads(path: str | Path, fold: bool = True, verify: bool = False, n_head: int | None = None) -> Heads:
    """The heads of a named model or a file, of which nothing but the attention weights is read.

    Works for a file with no embeddings and no MLPs. n_head: as in `load`. Raises CheckpointError for one without heads.
    """
    checkpoint = open_checkpoint(locate(path), verify, n_head)
    return heads_from(checkpoint.config, checkpoint, fold)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a named model ("tiny", "124M") or of a folder with vocab.bpe and encoder.json.

    A named OpenAI model's two files are downloaded where they are missing. Raises TokenizerError.
    """
    try:
        folder = locate(path, ["vocab.bpe", "encoder.json"])
    except CheckpointError as error:
        raise TokenizerError(str(error)) from error
    folder = folder if folder.is_dir() else folder.parent  # beside a bare .safetensors file
    files = {}
    for name in ["vocab.bpe", "encoder.json"]:
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise TokenizerError(f"{folder / name}: cannot be read ({error.strerror}); a tokenizer needs vocab.bpe "
                                 f"and encoder.json in one folder") from error
    return Tokenizer(read_ranks(folder, files["vocab.bpe"], files["encoder.json"]), files)


def locate(name: str | Path, files: list[str] = FILES) -> Path:
    """Where a named model or a path lies; of OpenAI's models, `files` are downloaded first where missing.

    A model.safetensors under a size's name (converted from OpenAI's, say) will do for the weights.
    """
    if name not in OPENAI_SIZES:
        return find_weights(name)
    for folder in search_path():
        converted = "model.ckpt.index" in files and (folder / name / "model.safetensors").exists()
        if converted or all((folder / name / file).exists() for file in files):
            return folder / name
    return download(name, files=files)


def search_path() -> list[Path]:
    """Folders in which a named model is looked for, in order; the first is where downloads go.

    What the environment's TINYHEADS_WEIGHTS says; the repository's weights/, or, where tinyheads was installed from a
    wheel, the user's cache and behind it the copy of weights/tiny that the wheel brings along.
    """
    here = Path(__file__).resolve().parents[1]  # the package
    chosen, cache = os.environ.get("TINYHEADS_WEIGHTS"), Path.home() / ".cache" / "tinyheads"
    installed, repository = here / "weights", here.parent / "weights"
    places = [cache, installed] if installed.is_dir() else [repository, cache] if repository.is_dir() else [cache]
    return [*([Path(chosen)] if chosen else []), *places]


def find_weights(name: str | Path) -> Path:
    """The folder of a named model ("tiny", "124M"), or the path itself where that exists.

    Raises CheckpointError that lists where it was looked for.
    """
    is_name = isinstance(name, str) and re.fullmatch(r"[\w-]+", name)
    looked = [folder / name for folder in search_path()] if is_name else []
    for path in [*looked, Path(name)]:
        if os.path.exists(path):  # unlike path.exists(), False for a name too long to be one
            return path
    raise CheckpointError(f"no weights {str(name)!r}; looked for {', '.join(map(str, [*looked, Path(name)]))}")


def download(size: str, folder: str | Path | None = None, base_url: str | None = None,
             files: list[str] = FILES) -> Path:
    """Fetch a model of OpenAI's ("124M", "355M", "774M", "1558M"); gives the folder it lies in.

    folder: where to; `weights/<size>` of the first place in the search path if None.
    base_url: address before `/<size>/<file>`; else TINYHEADS_BASE_URL, else OpenAI's own.
    Files that are there already are left alone. Raises DownloadError; run again to continue.
    """
    if size not in OPENAI_SIZES:
        raise DownloadError(f"no OpenAI model {size!r}; there are {', '.join(OPENAI_SIZES)}")
    folder = Path(folder) if folder else search_path()[0] / size
    fetch_model(size, folder, base_url, files)
    return folder
