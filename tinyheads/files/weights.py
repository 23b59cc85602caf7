"""From a name or a path to a model, its heads or its tokenizer, and back to a folder.

    "tiny", "124M"  ->  a folder (`locate`: looked for in a few places, downloaded once)
                    ->  named arrays (`open_checkpoint`)  ->  a GPT2 that runs (`load`)

`save` writes what `load` opens, and Hugging Face's libraries too. Everything else in this folder is a step of that way.
"""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Sequence

import numpy as np
import torch

from tinyheads.config import OPENAI_SIZES, PYTHIA_SIZES, PythiaConfig
from tinyheads.errors import CheckpointError, DownloadError, TokenizerError, did_you_mean
from tinyheads.files import tokenizer_files
from tinyheads.files.array_file import as_path
from tinyheads.files.checkpoint import open_checkpoint
from tinyheads.files.download import fetch_model, source_of
from tinyheads.files.neox import stored_name, to_stored
from tinyheads.files.safetensors_file import write_safetensors
from tinyheads.files.tokenizer import Tokenizer
from tinyheads.heads import Heads, heads_from
from tinyheads.model import GPT2
from tinyheads.pythia import Pythia

BUNDLED = ("tiny", "even", "content", "named")  # the models that this repository brings along
# What people who know Hugging Face's libraries call OpenAI's models.
OPENAI_NAMES = {"gpt2": "124M", "gpt2-small": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1558M"}


def load(path: str | Path, device: str | torch.device = "cpu", verify: bool = False, n_head: int | None = None) -> GPT2:
    """A model of the name (BUNDLED; "124M" ... "1558M", "pythia-160m", downloaded once) or at the path, ready to run.

    path: a folder (OpenAI's bundle, safetensors with config.json) or a .safetensors file; for names see `locate`. It is
    a `Pythia` where its config.json says so, and works wherever a GPT2 does.
    verify: check the checksums stored in OpenAI's bundle first; n_head: heads in a layer, only for a
    .safetensors file of another shape than OpenAI's with no config.json beside it (see `open_checkpoint`).
    The weights are float32 and frozen (`model.requires_grad_()` makes them trainable again); heads of
    other tasks are left out with a warning. Raises CheckpointError, DownloadError.
    """
    checkpoint = open_checkpoint(locate(path), verify, n_head)
    missing = [name for name in checkpoint.shapes if name not in checkpoint]
    if missing == ["lm_head.weight"]:
        raise CheckpointError(f"{checkpoint.path}: tensor {checkpoint.stored_name(missing[0])!r} is missing, the "
                              f"unembedding, which is a matrix of its own where the config's tie_word_embeddings is "
                              f"false. If it is {checkpoint.stored_name('wte.weight')} again, write true there")
    if missing:
        raise CheckpointError(f"{checkpoint.path}: {len(missing)} tensors of a whole model are missing, "
                              f"{checkpoint.stored_name(missing[0])!r} the first; it has {checkpoint.names[:6]} ... "
                              f"({len(checkpoint.names)} in all). For heads alone, load_heads is enough")
    model = (Pythia if isinstance(checkpoint.config, PythiaConfig) else GPT2)(checkpoint.config, seed=None)
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
    """Write model.safetensors and config.json (and tokenizer.json and tokenizer_config.json) into a folder.

    `load(folder)` opens it, and so do `transformers.GPT2LMHeadModel.from_pretrained(folder)`, for a Pythia
    GPTNeoXForCausalLM, and AutoTokenizer.
    The tokenizer takes the place of whatever tokenizer was there. Without one, a folder that holds a tokenizer's
    files is refused, since nothing says that they fit this model: give `load_tokenizer(folder)` to keep them.
    Until all files are written, and after an error, the folder is what it was; a process that is killed outright leaves
    a folder `.saving-...`, to be removed. Raises CheckpointError where it cannot be written.
    """
    folder = as_path(folder)
    if not isinstance(tokenizer, Tokenizer | None):
        raise CheckpointError(f"not saved: tokenizer must be a tinyheads.Tokenizer, not {type(tokenizer).__name__}")
    named = model.named_parameters(remove_duplicate=False)  # an untied model's two may have been made one by hand
    arrays = {stored_name(name, model.config): to_stored(name, parameter.detach().float().cpu().numpy(), model.config)
              for name, parameter in named}
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise CheckpointError(f"not saved: {broken[0]} holds values that are not finite")
    config = model.config.to_hugging_face()
    texts = {}
    if tokenizer is not None:
        config.update(bos_token_id=tokenizer.end_of_text, eos_token_id=tokenizer.end_of_text)
        texts = tokenizer_files.tokenizer_files(tokenizer)
    texts["config.json"] = json.dumps(config, indent=2).encode("utf-8")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = [name for name in tokenizer_files.FILES if (folder / name).exists()]
        if there and tokenizer is None:
            raise CheckpointError(f"{folder}: not saved: a tokenizer is there ({', '.join(there)}), and none was "
                                  f"given; give it (load_tokenizer({str(folder)!r})) or another, or remove these files")
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as new:
            write_safetensors(Path(new) / "model.safetensors", arrays)
            for name, text in texts.items():
                (Path(new) / name).write_bytes(text)
            exchange(folder, Path(new), ["model.safetensors", *texts], there)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return folder


def exchange(folder: Path, new: Path, names: list[str], stale: list[str]) -> None:
    """Move the files of these names from `new` into `folder`, and what was there under them, and `stale`, out of it.

    Renaming takes no room on the disk. The old files are out before the first new one comes in, so that at no moment
    one model's weights lie beside another's config or tokenizer. An error, Ctrl-C too, puts back what was there.
    """
    old = new / "old"
    old.mkdir()
    try:
        for name in {*names, *stale}:
            if (folder / name).exists():
                os.replace(folder / name, old / name)
        for name in names:
            os.replace(new / name, folder / name)
    except BaseException:
        for name in names:
            if not (new / name).exists():
                (folder / name).unlink()
        for file in old.iterdir():
            os.replace(file, folder / file.name)
        raise


def load_heads(path: str | Path, fold: bool = True, verify: bool = False, n_head: int | None = None) -> Heads:
    """The heads of a named model or a file, of which nothing but the attention weights is read.

    Works for a file with no embeddings and no MLPs. n_head: as in `load`. Raises CheckpointError for one without heads.
    """
    checkpoint = open_checkpoint(locate(path), verify, n_head)
    return heads_from(checkpoint.config, checkpoint, fold)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a named model ("tiny", "124M", "pythia-160m") or in a folder, from any of these files.

    They are tokenizer.json, or vocab.json and merges.txt, or encoder.json and vocab.bpe (`tokenizer_files.py`). Where
    the folder holds several of these, all must be the same tokenizer. A published model's are downloaded where
    they are missing. Raises TokenizerError, also for a tokenizer that does not encode as GPT-2's does.
    """
    try:
        folder = locate(path, tokenizer=True)
    except CheckpointError as error:
        raise TokenizerError(str(error)) from error
    return tokenizer_files.read_tokenizer(folder if folder.is_dir() else folder.parent)  # beside a .safetensors file


def openai_size(name: object) -> str | None:
    """The size, "124M" to "1558M", of the OpenAI model that a name means, or None.

    "124m", "gpt2", "gpt2-medium", "openai-community/gpt2-xl" and "774M/" are such names; a Path is none.
    """
    if not isinstance(name, str):
        return None
    plain = name.strip().rstrip("/").lower().removeprefix("openai-community/")
    size = OPENAI_NAMES.get(plain, plain.upper())
    return size if size in OPENAI_SIZES else None


def published_name(name: object) -> str | None:
    """The name under which a published model is downloaded and kept, "124M" or "pythia-160m", or None.

    Besides the names of `openai_size` these are "pythia-160m", "EleutherAI/pythia-160m" and the like.
    """
    if not isinstance(name, str):
        return None
    plain = name.strip().rstrip("/").lower().removeprefix("eleutherai/")
    return plain if plain in PYTHIA_SIZES else openai_size(name)


def locate(name: str | Path, tokenizer: bool = False) -> Path:
    """Where a path or a named model lies, for its weights or its tokenizer: a folder or a file.

    A path that exists is that path: a folder `gpt2` in the working directory comes before OpenAI's model. Then names
    are looked for in the search path. Of a published model the files must be complete there, of one kind or another
    (a model.safetensors converted from OpenAI's will do for the weights); else they are downloaded.
    """
    known = published_name(name)
    if known is None or os.path.exists(as_path(name)):
        return find_weights(name)
    source = source_of(known)
    for folder in search_path():
        for kind in tokenizer_files.KINDS if tokenizer else [["model.safetensors"], source.files]:
            if all((folder / known / file).exists() for file in kind):
                return folder / known
    return download(known, files=source.tokenizer if tokenizer else source.files)


def search_path() -> list[Path]:
    """Folders in which a named model is looked for, in order; the first is where downloads go.

    What the environment's TINYHEADS_WEIGHTS says; the repository's weights/, or, where tinyheads was installed from a
    wheel, the user's cache and behind it the copies of the bundled models that the wheel brings. A user without a home
    folder (as in `docker run -u 1234`) has no cache.
    """
    here = Path(__file__).resolve().parents[1]  # the package
    chosen, cache = os.environ.get("TINYHEADS_WEIGHTS"), Path(os.path.expanduser("~/.cache/tinyheads"))
    installed, repository = here / "weights", here.parent / "weights"
    places = [cache, installed] if installed.is_dir() else [repository, cache] if repository.is_dir() else [cache]
    return [*([as_path(chosen)] if chosen else []), *(place for place in places if place.parts[0] != "~")]


def find_weights(name: str | Path) -> Path:
    """The path itself where it exists, else the folder of a named model ("tiny", "124M").

    Raises CheckpointError that lists where it was looked for, and the names that are nearest.
    """
    path, known = as_path(name), published_name(name)
    is_name = isinstance(name, str) and re.fullmatch(r"[\w-]+", known or name)
    looked = [path, *([folder / (known or name) for folder in search_path()] if is_name else [])]
    for place in looked:
        if os.path.exists(place):  # unlike place.exists(), False for a name too long to be one
            return place
    near = did_you_mean(path.name, [*BUNDLED, *OPENAI_SIZES, *OPENAI_NAMES, *PYTHIA_SIZES])
    raise CheckpointError(f"no weights {str(name)!r}; looked for {', '.join(map(str, looked))}; names: {near}")


def download(name: str, folder: str | Path | None = None, base_url: str | None = None,
             files: Sequence[str] | None = None) -> Path:
    """Fetch a published model; gives the folder it lies in.

    name: of OpenAI's "124M", "355M", "774M", "1558M" ("gpt2", ...), of EleutherAI's "pythia-70m", "pythia-160m".
    folder: where to; `weights/<name>` of the first place in the search path if None.
    base_url: address before `/<name>/<file>`; else TINYHEADS_BASE_URL, else OpenAI's own. For a Pythia, address before
    `/<name>/resolve/main/<file>`; else TINYHEADS_HUB_URL, else EleutherAI's on Hugging Face's hub.
    Files that are there already are left alone. Raises DownloadError; run again to continue.
    """
    known = published_name(name)
    if known is None:
        names = [*OPENAI_SIZES, *PYTHIA_SIZES]
        raise DownloadError(f"no model {name!r} can be downloaded; there are {', '.join(names)}; "
                            f"{did_you_mean(str(name), [*names, *OPENAI_NAMES])}")
    places = search_path()
    if not folder and not places:
        raise DownloadError("no home folder is known to download into; say where, with folder= or TINYHEADS_WEIGHTS")
    folder = as_path(folder, DownloadError) if folder else places[0] / known
    fetch_model(known, folder, base_url, files)
    return folder
