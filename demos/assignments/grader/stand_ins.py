"""Grading a function by itself: the worked solution's functions in place of those that it calls and that lost points.

    layer_norm forgot its keepdim  ->  residual_stream, which calls it, runs once more with our layer_norm

The run is that of a copy of the submission which ends with our functions: they get the names that its own have, and a
function looks such a name up when it is called. Only what is put in place goes along, with what it needs, and never
the function that is being graded. It goes along compiled, so that no print shows its text; and of what such a run
prints or raises the author is told little (`hushed`).
"""

import ast
import base64
import dataclasses
import marshal
from collections.abc import Iterable
from pathlib import Path

from .checkout import REPOSITORY
from .comparing import Wrong
from .grading import Outputs
from .session import Run, Submission

LONGEST = 120                    # characters that are told of an error in such a run


def worked_solution(number: int) -> Path | None:
    """The file with an assignment's worked solution; None where this checkout has none (a student's has not)."""
    file = REPOSITORY / "tests" / "assignments" / f"reference_{number}.py"
    return file if file.is_file() else None


def definitions(tree: ast.Module) -> dict[str, tuple[ast.stmt, set[str]]]:
    """What a module defines at its top: each name's statement, and the names that stand in that."""
    found = {}
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            names = [statement.name]
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            names = [each.asname or each.name.split(".")[0] for each in statement.names]
        else:
            names = [each.id for each in ast.walk(statement) if isinstance(each, ast.Name)
                     and isinstance(each.ctx, ast.Store)]
        used = {each.id for each in ast.walk(statement) if isinstance(each, ast.Name)}
        found |= {name: (statement, used - {name}) for name in names}
    return found


def reached(found: dict[str, tuple[ast.stmt, set[str]]]) -> dict[str, set[str]]:
    """For each name of `definitions` those that it uses, directly or through others; not itself."""
    uses = {name: used & found.keys() for name, (_, used) in found.items()}
    for _ in uses:
        uses = {name: used.union(*(uses[other] for other in used)) for name, used in uses.items()}
    return {name: used - {name} for name, used in uses.items()}


def functions_called(file: Path) -> dict[str, set[str]]:
    """For each name that a file defines those of its own that it uses, directly or through others."""
    try:
        return reached(definitions(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}  # the runner tells what is wrong with it


def taken_out(solution: Path, wanted: Iterable[str], graded: str) -> tuple[str, list[str]]:
    """The text of a worked solution's functions with what they need, and which of those wanted are in it.

    A function that needs the one being graded is left out.
    """
    found = definitions(ast.parse(solution.read_bytes()))
    uses = reached(found)
    names = [name for name in wanted if name in found and graded not in uses[name] | {name}]
    needed = set(names).union(*(uses[name] for name in names))
    statements = {id(found[name][0]): found[name][0] for name in found if name in needed}   # in the file's order
    return "\n".join(map(ast.unparse, statements.values())), names


def with_ours(submission: Submission, solution: Path, wanted: Iterable[str], graded: str,
              folder: Path) -> tuple[Submission, list[str]]:
    """A copy of a submission, in `folder`, that ends with our functions; and which of those wanted these are."""
    text, names = taken_out(solution, wanted, graded)
    return ending_with(submission, "\n".join(as_code(text, names)), folder), names


def as_code(text: str, names: list[str]) -> list[str]:
    """Lines that define some functions of a text, itself compiled."""
    code = base64.b64encode(marshal.dumps(compile(text, "<our functions>", "exec", optimize=2))).decode()
    return ["ours = {'__name__': 'ours'}",
            f"exec(__import__('marshal').loads(__import__('base64').b64decode('{code}')), ours)",
            *(f"{name} = ours['{name}']" for name in names), "del ours"]


def ending_with(submission: Submission, text: str, folder: Path) -> Submission:
    """A copy of a submission, in `folder`, with some text behind its own."""
    main = folder / submission.main.name
    main.write_bytes(submission.main.read_bytes() + f"\n\n{text}\n".encode())
    return dataclasses.replace(submission, main=main)


def hushed(run: Run) -> Run:
    """A run without what the submission printed, and with no more of its errors than their kind."""
    cut = lambda wrong: Wrong(f"{str(wrong).partition(':')[0][:LONGEST]} (no more is told of a run with our functions)")
    values = [cut(value) if isinstance(value, Wrong) else value for value in run.outputs.values]
    return dataclasses.replace(run, outputs=Outputs(values), printed="")
