"""Which submissions are near-equal? By the structure of their syntax trees: names, comments and layout do not count.

A file becomes the sequence of its tree's kinds of nodes, in order ("FunctionDef", "Assign", "BinOp", "MatMult", ...;
what a name or a number is stays out), and its fingerprints are all runs of K of them (Schleimer, Wilkerson and Aiken
2003, "Winnowing", without the winnowing: files are short). What the starter has is taken out first. Two files share

    |fingerprints of both| / |fingerprints of the shorter|

of what was written. A report for the instructor to look into, and no proof: short exercises have few good answers.
"""

import ast
from itertools import combinations
from pathlib import Path

K = 20                           # nodes in a fingerprint: about two lines
FEW = 60                         # fingerprints of a file's own, below which it is too short to be compared
NEAR = 0.6                       # a pair that shares this much is reported


def fingerprints(source: bytes | str) -> set[tuple[str, ...]]:
    """All runs of K kinds of nodes in a file's syntax tree; none where it is no Python."""
    try:
        kinds = [type(node).__name__ for node in in_order(without_docstrings(ast.parse(source)))]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {tuple(kinds[i:i + K]) for i in range(len(kinds) - K + 1)}


def in_order(node: ast.AST) -> list[ast.AST]:
    """A tree's nodes as they are written, from the outside in."""
    found, ahead = [], [node]
    while ahead:
        found.append(ahead.pop())
        ahead.extend(reversed(list(ast.iter_child_nodes(found[-1]))))
    return found


def without_docstrings(tree: ast.Module) -> ast.Module:
    """A tree less the strings that say what a function does: the starter's, as a rule."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not (isinstance(each, ast.Expr)
                                                       and isinstance(each.value, ast.Constant))]
    return tree


def near_pairs(files: dict[str, Path], starter: Path, known: dict[str, Path] = {}) -> list[tuple[float, str, str]]:
    """Pairs that share NEAR or more of what they wrote, the nearest first: (share, one, other).

    files: submissions by name; known: worked solutions, compared with submissions but not with each other.
    """
    given = fingerprints(starter.read_bytes())
    own = {name: fingerprints(file.read_bytes()) - given for name, file in {**known, **files}.items()}
    own = {name: prints for name, prints in own.items() if len(prints) >= FEW}
    pairs = [(share(own[one], own[other]), one, other) for one, other in combinations(sorted(own), 2)
             if one in files or other in files]
    return sorted((pair for pair in pairs if pair[0] >= NEAR), key=lambda pair: (-pair[0], *pair[1:]))


def share(one: set, other: set) -> float:
    """The part of the smaller set that both have."""
    return len(one & other) / min(len(one), len(other))


def report(pairs: list[tuple[float, str, str]], n: int) -> str:
    """The pairs as text."""
    lines = [f"{n} submissions compared by structure; pairs that share {NEAR:.0%} or more of what they wrote:"]
    lines += [f"{part:6.0%}  {one}  and  {other}" for part, one, other in pairs] or ["none"]
    return "\n".join([*lines, "Look into them: short exercises have few good answers."]) + "\n"
