"""The library without what an exercise asks for: a copy in which those functions have no body.

The text of such a function is exchanged for its docstring and a `raise`, in the copy's source, before anything imports
it. So there is nothing to find: not in the files, in a module loaded anew, in a frame, in gc, in another process.
A function that stays open and calls a closed one raises, too: what is left open is left open with all that it calls
(grading.all_but). What a module calls while it is imported keeps its body: today known_circuits.heads_named, which
reads names such as "9.6".
"""

import ast
import importlib
import inspect
import py_compile
import shutil
import sys
from pathlib import Path
from typing import Callable

import tinyheads as th

from .checkout import LIBRARY

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SAYS = "tinyheads.{} cannot be used here: this exercise is to write this yourself"


def copy_without(forbidden: tuple[str, ...], folder: Path) -> Path:
    """A copy of the package tinyheads in a folder, its byte code too, without the bodies of the functions named."""
    by_module: dict[str, dict[str, str]] = {}
    for name in forbidden:
        function = found(name)
        by_module.setdefault(function.__module__, {})[function.__qualname__] = name
    package = folder / "tinyheads"
    shutil.copytree(LIBRARY, package, ignore=shutil.ignore_patterns("__pycache__", "__main__.py"))
    for module, names in by_module.items():
        file = package.parent.joinpath(*module.split(".")).with_suffix(".py")
        file.write_text(without(file.read_text(encoding="utf-8"), names), encoding="utf-8")
    for file in package.rglob("*.py"):                    # beside the source, wherever this process keeps its own
        code = file.parent / "__pycache__" / f"{file.stem}.{sys.implementation.cache_tag}.pyc"
        py_compile.compile(str(file), str(code), doraise=True,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    return package


def found(name: str) -> Callable:
    """The library's function of a name such as "ov_svd", "basis.span" or "Heads.of". Raises ValueError."""
    owner: object = th
    for part in name.split("."):
        owner = getattr(owner, part, None) or importlib.import_module(f"tinyheads.{part}")
    function = inspect.unwrap(getattr(owner, "__func__", owner)) if callable(owner) else None
    if not inspect.isfunction(function) or not function.__module__.startswith("tinyheads."):
        raise ValueError(f"tinyheads.{name} is no function of the library's, to be closed")
    return function


def without(source: str, names: dict[str, str]) -> str:
    """A module's text with some functions closed. names: {qualified name in the module: what to call it}."""
    tree = ast.parse(source)
    left = dict(names)
    kept = called_on_import(tree)

    def close(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                close(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, FUNCTIONS) and prefix + node.name in left:
                says = SAYS.format(left.pop(prefix + node.name))
                if prefix + node.name in kept:
                    continue
                docstring = node.body[:1] if ast.get_docstring(node) is not None else []
                node.body = [*docstring, ast.parse(f"raise ImportError({says!r})").body[0]]
                node.decorator_list = [each for each in node.decorator_list
                                       if getattr(each, "id", "") in ("classmethod", "staticmethod", "property")]

    close(tree.body, "")
    if left:
        raise ValueError(f"{', '.join(left)}: not defined at the top of a module, nor in a class there")
    return ast.unparse(ast.fix_missing_locations(tree))


def called_on_import(tree: ast.Module) -> set[str]:
    """A module's functions that its own text calls while it is imported, and those that these call."""
    functions = {each.name: each for each in tree.body if isinstance(each, FUNCTIONS)}
    names = lambda nodes: {node.func.id for top in nodes for node in ast.walk(top)
                           if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)} & functions.keys()
    called: set[str] = set()
    ahead = names([each for each in tree.body if not isinstance(each, (*FUNCTIONS, ast.ClassDef))])
    while ahead:
        called |= ahead
        ahead = names([functions[name] for name in ahead]) - called
    return called
