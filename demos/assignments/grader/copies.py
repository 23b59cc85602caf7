"""The copies that the runner works with, in a temporary folder: its own files, models, the library as it may be used.

Nothing else of this checkout is ever named to the runner. The copies are hashed around every exercise.
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import matplotlib
import numpy as np
import tiktoken
import torch

import tinyheads as th

from .checkout import REPOSITORY
from .closed import copy_without
from .grading import Exercise, Model, TokenizerOf
from .values import Reference

GRADER = Path(__file__).resolve().parent
RUNNERS = ("runner.py", "values.py", "wall.py", "watching.py", "noticed.py")
NOT_TO_BE_SEEN = ("tinyheads", "transformers", "transformer_lens")


class Copies:
    """Everything that goes to the runner, under one folder: `root`."""

    def __init__(self, root: Path):
        self.root = root
        self.models: dict[object, Model] = {}                         # kept alive, so that ids stay theirs
        self.build()

    def build(self) -> None:
        """All of them anew. The folder itself stays: others than its owner may pass through it, and read no list."""
        for name in ("runner", "libraries", "models", "work", "home", "wall"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir()
        for folder in (self.root, self.root / "work", self.root / "libraries", self.root / "models"):
            folder.chmod(0o711)
        for name in RUNNERS:
            shutil.copyfile(GRADER / name, self.root / "runner" / name)
        for model in self.models.values():
            self.copy_model(model)
        self.take_hashes()

    def take_hashes(self) -> None:
        self.hashes = self.hashes_now()

    def hashes_now(self) -> dict[str, str]:
        return hashes([self.root / name for name in ("runner", "libraries", "models")], byte_code=True)

    # --- the library ---

    def library(self, exercise: Exercise) -> str:
        """The copy of the package that an exercise may use, made when it is first asked for; "" for none."""
        if exercise.uses != "tinyheads":
            return ""
        key = hashlib.sha256("\n".join(sorted(exercise.forbidden)).encode()).hexdigest()[:16]
        folder = self.root / "libraries" / key
        if not folder.exists():
            copy_without(exercise.forbidden, folder)
            self.take_hashes()
        return str(folder / "tinyheads")

    # --- models ---

    def copy_model(self, model: Model) -> None:
        """A folder with the model's files, for the runner to load."""
        folder = self.model_folder(model.source)
        if isinstance(model.source, th.GPT2):
            th.save(model.source, folder)
        elif (source := th.find_weights(model.source)).is_dir():
            shutil.copytree(source, folder, dirs_exist_ok=True)
        else:
            folder.mkdir()
            shutil.copyfile(source, folder / "model.safetensors")
            if (config := source.with_name("config.json")).exists():  # else the file must be of OpenAI's shape
                shutil.copyfile(config, folder / "config.json")
        for file in [folder, *folder.rglob("*")]:
            file.chmod(0o755 if file.is_dir() else 0o644)

    def model_folder(self, source: object) -> Path:
        key = str(id(source)) if isinstance(source, th.GPT2) else str(source)
        return self.root / "models" / hashlib.sha256(key.encode()).hexdigest()[:16]

    def with_paths(self, value: object, used: set[str]) -> object:
        """An argument with models and tokenizers replaced by their folders for the runner; `used` gains these."""
        if isinstance(value, (Model, TokenizerOf)):
            model = value if isinstance(value, Model) else Model(value.name)
            key = id(model.source) if isinstance(model.source, th.GPT2) else str(model.source)
            if key not in self.models:
                self.models[key] = model
                self.copy_model(model)
                self.take_hashes()
            used.add(folder := str(self.model_folder(model.source)))
            return Reference("model" if isinstance(value, Model) else "tokenizer", folder)
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            return type(value)(self.with_paths(each, used) for each in value)
        if isinstance(value, dict):
            return {key: self.with_paths(each, used) for key, each in value.items()}
        return value


# --- what of this machine a submission may see ------------------------------------------------------------------


def sites() -> list[str]:
    """The folders of the packages that submissions may import."""
    return list(dict.fromkeys(str(Path(module.__file__).parents[1]) for module in (torch, np, tiktoken, matplotlib)))


def shown() -> list[str]:
    """What the wall leaves in sight, for reading: the interpreter's library, those packages, the system's libraries."""
    standard = Path(os.__file__).parents[1]                           # lib/ of lib/python3.12/os.py: libpython, too
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    wanted = [*system, str(standard), *(str(standard.parent / name) for name in ("lib", "lib64")), *sites()]
    return list(dict.fromkeys(path for path in wanted if os.path.exists(path)))


def hidden() -> list[str]:
    """What may lie in there and is not to be seen: this checkout, and the library wherever it is installed."""
    folders = {*sites(), *(each for each in sys.path if each.endswith("-packages"))}
    found = [os.path.join(folder, name) for folder in sorted(folders) if os.path.isdir(folder)
             for name in sorted(os.listdir(folder))
             if name.removeprefix("__editable__").lstrip("._").lower().startswith(NOT_TO_BE_SEEN)]
    return list(dict.fromkeys([str(REPOSITORY), *found, *map(os.path.realpath, found)]))


def others_may_read(path: Path) -> bool:
    """Whether any user may read a file here."""
    folders = [each for each in path.resolve().parents]
    return bool(path.stat().st_mode & 0o004) and all(each.stat().st_mode & 0o001 for each in folders)


# --- hashes -----------------------------------------------------------------------------------------------------


def hashes(paths: list[Path], byte_code: bool = False) -> dict[str, str]:
    """SHA-256 of each file, those in folders too. byte_code: whether __pycache__ counts."""
    by_file = {}
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and (byte_code or "__pycache__" not in file.parts):
                by_file[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return by_file


def differing(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Files that are not what they were, are gone, or are new."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
