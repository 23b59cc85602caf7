"""A notebook as a submission: its code cells, and of these what the exercises' functions need.

A notebook is a log as much as a text: cells are tried, mended and run again, and experiments stand between them, which
may take minutes, or use what the grader takes away. So its functions are graded as they stand in the last cell that
defines them, together with what they use: imports, other functions, constants, and whatever changes these. Outputs and
IPython's own lines (%magic, !command, help?) are left out, and so are cells in another language (%%bash).

Which names a statement binds, reads at once, or reads when a function is called is what Python's symtable says.
"""

import ast
import builtins
import json
import re
import symtable
from dataclasses import dataclass, field

PYTHON_CELLS = ("%%time", "%%timeit", "%%capture", "%%prun")              # cell magics whose cell is Python
IPYTHON_LINE = re.compile(r"\s*([%!?]|[\w.,\s]+=\s*[%!])|.*\?\s*$")
AT_ONCE = ("listcomp", "setcomp", "dictcomp", "genexpr")                  # to symtable functions, but run on the spot
DEFINED = re.compile(r"^(?:async )?def (\w+)", re.MULTILINE)


@dataclass
class Statement:
    """One statement at the top of a cell, and the names that it has to do with.

    defines: made anew; changes: changed, or made on some way through it; calls: on which a method is called for what it
    does; now: globals that it reads; later: those that its functions read when they are called.
    """

    cell: int
    text: str
    defines: set[str]
    changes: set[str] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    now: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    is_import: bool = False


def code_cells(data: bytes) -> list[str]:
    """The text of a notebook's code cells. Raises ValueError that says why there are none."""
    try:
        book = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a notebook that is broken: its text is no JSON ({error})") from None
    if not isinstance(book, dict) or not isinstance(book.get("cells"), list):
        old = isinstance(book, dict) and "worksheets" in book
        raise ValueError("a notebook of the old form nbformat 3; open it in Jupyter and save it anew" if old
                         else "a notebook that is broken: it has no list of cells")
    cells = [each.get("source", "") for each in book["cells"]
             if isinstance(each, dict) and each.get("cell_type") == "code"]
    cells = ["".join(map(str, each)) if isinstance(each, list) else str(each) for each in cells]
    if not any(each.strip() for each in cells):
        raise ValueError("a notebook without code: no code cell in it has a text")
    return cells


def module_of(cells: list[str], functions: list[str]) -> str:
    """A Python file with these functions, as the cells define them, and all that they need; torch's settings too."""
    statements = [each for number, cell in enumerate(cells, start=1) for each in statements_of(cell, number)]
    kept, ahead, seen = set(), [(name, len(statements)) for name in ["torch", *functions]], set()
    while ahead:
        name, end = ahead.pop()
        if (name, end) in seen:
            continue
        seen.add((name, end))
        for k in making(name, statements[:end]):
            kept.add(k)
            ahead += [(other, k) for other in statements[k].now] + [(other, end) for other in statements[k].later]
    chosen = [statements[k] for k in sorted(kept)]
    future = [each for each in statements if each.text.startswith("from __future__")]
    lines, cell = [each.text for each in future], 0
    for each in chosen:
        if each in future:
            continue
        if each.cell != cell:
            cell = each.cell
            lines += ["", f"# cell {cell}"]
        lines.append(each.text)
    return "\n".join(lines) + "\n"


def making(name: str, statements: list[Statement]) -> list[int]:
    """Which statements make a name what it is behind the last of them: where it is defined, and what changes it."""
    found = []
    for k in reversed(range(len(statements))):
        each = statements[k]
        if name in each.defines:
            if each.is_import:                                   # of calls, settings alone: torch.manual_seed(0)
                found = [i for i in found if name in statements[i].changes or statements[i].now <= {name}]
            return [k, *found]
        if name in each.changes | each.calls:
            found.append(k)
    if hasattr(builtins, name):
        return found
    return found + [k for k, each in enumerate(statements) if "*" in each.defines]


# --- a cell's statements ------------------------------------------------------------------------------------


def statements_of(cell: str, number: int) -> list[Statement]:
    """A cell's statements; where it is no Python, a function in place of each that it defines, which says so."""
    first, _, rest = cell.lstrip().partition("\n")
    if first.startswith("%%"):
        cell = "\n" + rest if first.split()[0] in PYTHON_CELLS else ""
    try:
        cell, tree = parsed(cell)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = f"in cell {number}: {getattr(error, 'msg', error)} (line {getattr(error, 'lineno', '?')} of the cell)"
        return [Statement(number, f"def {name}(*arguments, **options):\n    raise SyntaxError({said!r})", {name})
                for name in DEFINED.findall(cell)]
    lines, found = cell.splitlines(), []
    for k, node in enumerate(tree.body):
        start = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        alone = all(other.end_lineno < start or other.lineno > node.end_lineno for other in tree.body if other != node)
        found.append(described(node, number, "\n".join(lines[start - 1:node.end_lineno]) if alone
                               else ast.unparse(node)))
    return found


def parsed(cell: str) -> tuple[str, ast.Module]:
    """A cell's text and tree, without IPython's own lines: those that Python refuses. Raises SyntaxError for others."""
    lines = cell.splitlines()
    while True:
        try:
            return "\n".join(lines), ast.parse("\n".join(lines))
        except SyntaxError as error:
            k = (error.lineno or 0) - 1
            if not (0 <= k < len(lines) and IPYTHON_LINE.match(lines[k])):
                raise
            lines[k] = lines[k][:len(lines[k]) - len(lines[k].lstrip())] + "pass"


def described(node: ast.stmt, cell: int, text: str) -> Statement:
    """A statement with the names that it has to do with."""
    table = symtable.symtable(ast.unparse(node), "cell", "exec")
    bound = {each.get_name() for each in table.get_symbols() if each.is_assigned() or each.is_imported()}
    function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    is_import = isinstance(node, (ast.Import, ast.ImportFrom))
    if is_import and node.names[0].name == "*":
        bound = {"*"}
    whole = function or is_import or isinstance(node, (ast.Assign, ast.AnnAssign))
    inside = [] if function else list(ast.walk(node))
    stored = {base(each) for each in inside if isinstance(each, (ast.Attribute, ast.Subscript))
              and isinstance(each.ctx, (ast.Store, ast.Del))}                 # TABLE[3] = 1
    called = {base(each.value.func) for each in inside if isinstance(each, ast.Expr)
              and isinstance(each.value, ast.Call) and isinstance(each.value.func, ast.Attribute)}  # TABLE.append(3)
    return Statement(cell, text, bound if whole else set(), stored if whole else stored | bound, called,
                     *reads(table), is_import)


def base(node: ast.expr) -> str:
    """The name that x.y[0].z begins with, or ""."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def reads(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """The globals that a statement reads at once, and those that its functions read when they are called."""
    top = table.get_type() == "module"
    now = {each.get_name() for each in table.get_symbols() if each.is_referenced() and (top or each.is_global())}
    later = set()
    for child in table.get_children():
        names, when_called = reads(child)
        waits = child.get_type() == "function" and child.get_name() not in AT_ONCE
        now, later = now | (set() if waits else names), later | when_called | (names if waits else set())
    return now, later
