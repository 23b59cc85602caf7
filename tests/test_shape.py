"""The shape of the house: ideas need no files and no network, imports run one way, and no file is too long to read."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
           for path in sorted((ROOT / "tinyheads").rglob("*.py"))}


def imports(module: str, tree: ast.Module) -> set[str]:
    """The modules that a module's import statements name, inside functions too; one of tinyheads by its full name."""
    package = module if MODULES.get(module, Path()).name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[:len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join(parts + ([node.module] if node.module else []))
            # "from tinyheads import plots" names the module plots, and "from tinyheads.plots import x" plots as well
            names |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return names


GRAPH = {module: imports(module, ast.parse(path.read_text(encoding="utf-8"))) for module, path in MODULES.items()}


def reached(module: str) -> dict[str, str]:
    """Every module that importing this one brings in, and by whom; tinyheads' own __init__ is not followed."""
    by, ahead = {}, [module]
    while ahead:
        at = ahead.pop()
        for name in GRAPH.get(at, set()) - by.keys() - {"tinyheads"}:
            by[name] = at
            ahead.append(name)
    return by


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of imports, its first module again at the end; [] where there is none."""
    done, path = set(), []

    def visit(module: str) -> list[str]:
        if module in path:
            return path[path.index(module):] + [module]
        if module in done or module not in graph:
            return []
        path.append(module)
        found = next(filter(None, map(visit, sorted(graph[module]))), [])
        path.pop()
        done.add(module)
        return found
    return next(filter(None, map(visit, sorted(graph))), [])


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def python_files() -> list[Path]:
    """Every .py file that git knows, or in an unpacked archive every one there is."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"], cwd=ROOT,
                            capture_output=True, text=True)
    names = listed.stdout.split("\0")[:-1] if listed.returncode == 0 else []
    return sorted(path for path in (map(ROOT.joinpath, names) if names else ROOT.rglob("*.py")) if path.exists())


@pytest.mark.parametrize("idea", ["stream", "model", "heads", "composition"])
def test_an_idea_needs_no_files_and_no_network(idea):
    by = reached(f"tinyheads.{idea}")
    assert "torch" in by
    unwanted = [f"{name}, by {who}" for name, who in sorted(by.items())
                if name.split(".")[0] in ("urllib", "tiktoken") or (name + ".").startswith("tinyheads.files.")]
    assert unwanted == []


def test_imports_run_one_way():
    inside = {module: names & MODULES.keys() - {"tinyheads"} for module, names in GRAPH.items()}
    assert circle(inside) == []
    importers = [module for module, names in GRAPH.items() if "tinyheads" in names and module != "tinyheads.__main__"]
    assert importers == []  # of the package as a whole, which imports them


def test_no_file_is_longer_than_300_lines_and_no_chapter_than_150():
    files = [path for path in python_files() if path.relative_to(ROOT).parts[0] in ("tinyheads", "demos", "tests")]
    chapters = [path for path in files if path.parent == ROOT / "demos" and path.name[0] == "0"]
    assert len(files) > 50 and len(chapters) >= 6
    too_long = {str(path.relative_to(ROOT)): length(path) for path in files
                if length(path) > (150 if path in chapters else 300)}
    assert too_long == {}


def test_no_line_is_longer_than_120_characters():
    lines = {path: path.read_text(encoding="utf-8").splitlines() for path in python_files()}
    too_long = [f"{path.relative_to(ROOT)}:{number}" for path in lines
                for number, line in enumerate(lines[path], start=1) if len(line) > 120]
    assert too_long == []


def test_what_looks_for_circles_and_imports_finds_them():
    graph = {"a": {"b", "torch"}, "b": {"c"}, "c": {"d"}, "d": {"b"}}
    assert circle(graph) == ["b", "c", "d", "b"] and circle({**graph, "d": set()}) == []
    lines = "import urllib.request\nfrom tinyheads import plots, GPT2\ndef f():\n    from .files.weights import load"
    assert imports("tinyheads.model", ast.parse(lines)) == {
        "urllib.request", "tinyheads.plots", "tinyheads", "tinyheads.files.weights"}
