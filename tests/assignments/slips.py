"""Slips made from right code: each mutant differs from a worked solution in one place, as a student's slip does.

    x.mean(-1, keepdim=True)   ->   x.mean(-1)       x.mean(0, keepdim=True)       x.mean(-2, keepdim=True)
    a < b                      ->   a <= b           a > b
    return part, rest          ->   return rest, part

A worked solution's syntax tree is walked, and `variants` says for one node by which others it may be replaced.
"""

import ast
import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grader.stand_ins import definitions, reached

COMPARED = {ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt,), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt,),
            ast.Eq: (ast.NotEq,), ast.In: (ast.NotIn,)}
SIGNS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
SIBLINGS = {"mean": "sum", "sum": "mean", "amin": "amax", "amax": "amin", "argmax": "argmin", "T": "H",
            "argsort": "msort", "solve": "lstsq"}
DROPPED = ("sqrt", "transpose", "clone", "deepcopy", "exp", "clamp", "flip", "softmax", "log_softmax", "triu", "abs",
           "double", "expand_as", "rad2deg", "arccos", "tanh", "norm", "T", "float", "sort", "square")
CASTS = """
def cast(x, to):
    if isinstance(x, dict):
        return {key: cast(each, to) for key, each in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(cast(each, to) for each in x)
    return to(x) if isinstance(x, torch.Tensor) else to(torch.tensor(x)).item() if isinstance(x, float) else x
def as_half(x):
    return cast(x, torch.Tensor.half)
def as_whole(x):
    return cast(x, torch.Tensor.long)
def last_of(xs):
    xs = list(xs)
    return xs[-1:] * len(xs)
"""


@dataclass(frozen=True)
class Mutant:
    """exercise: the function that is graded; where: the function with the slip; line: that statement, with the slip."""

    exercise: str
    where: str
    kind: str
    line: str
    source: str

    @property
    def name(self) -> str:
        """As it stands in equivalent.py."""
        return f"{self.where}: {self.line}"


def mutants(reference: Path, exercises: list[str]) -> Iterator[Mutant]:
    """All slips of a worked solution, each in a graded function or in a helper of it that is not graded itself."""
    tree = ast.parse(reference.read_text())
    found = definitions(tree)
    helpers = {name: (each, used - set(exercises)) for name, (each, used) in found.items()}
    for exercise in exercises:
        seen = set()
        own = {exercise: found[exercise]} | {name: pair for name, pair in helpers.items() if name not in exercises}
        for name in [exercise, *sorted(reached(own)[exercise])]:
            function = found[name][0]
            if not isinstance(function, ast.FunctionDef):
                continue
            for node, kind, new in slips(function):
                changed = copy.deepcopy(function, {id(node): new})
                source = ast.unparse(copy.deepcopy(tree, {id(function): changed})) + CASTS
                if source not in seen and ast.unparse(changed) != ast.unparse(function):
                    seen.add(source)
                    yield Mutant(exercise, name, kind, line_with(function, node, new), source)


def line_with(function: ast.FunctionDef, node: ast.AST, new: ast.AST) -> str:
    """The innermost statement that holds a node, with another in its place, on one line; the head of a compound one."""
    inside = [each for each in ast.walk(function) if isinstance(each, ast.stmt)
              and any(inner is node for inner in ast.walk(each))]
    statement = copy.deepcopy(inside[-1], {id(node): new})           # the walk comes to the inner ones last
    text = ast.unparse(ast.fix_missing_locations(statement))
    return " ".join((text.splitlines()[0] if hasattr(statement, "body") else text).split())


def slips(function: ast.FunctionDef) -> Iterator[tuple[ast.AST, str, ast.AST]]:
    """(node, kind of slip, what stands in its place), for all nodes of a function's body."""
    names = [each.arg for each in function.args.args]
    names += [each.id for each in ast.walk(function) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
    names = list(dict.fromkeys(names))
    strings = [each.value for each in ast.walk(function) if isinstance(each, ast.Constant)
               and isinstance(each.value, str)]
    skipped = {id(each) for statement in function.body if isinstance(statement, ast.Expr) for each in
               ast.walk(statement) if isinstance(statement.value, ast.Constant)}
    skipped |= {id(inner) for each in ast.walk(function) if isinstance(each, (ast.JoinedStr, ast.arguments))
                for inner in ast.walk(each) if not isinstance(inner, (ast.FormattedValue, ast.Name))}
    for statement in function.body:
        for node in ast.walk(statement):
            if id(node) not in skipped:
                for kind, new in variants(node, names, list(dict.fromkeys(strings))):
                    yield node, kind, ast.fix_missing_locations(new)


def but(node: ast.AST, **changes: object) -> ast.AST:
    """A node with some fields changed."""
    new = copy.copy(node)
    for name, value in changes.items():
        setattr(new, name, value)
    return new


def swapped(items: list) -> Iterator[list]:
    """A list with two neighbours exchanged, for each two."""
    for i in range(len(items) - 1):
        yield [*items[:i], items[i + 1], items[i], *items[i + 2:]]


def called(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def variants(node: ast.AST, names: list[str], strings: list[str]) -> Iterator[tuple[str, ast.AST]]:
    """(kind of slip, what stands in the node's place)."""
    if isinstance(node, ast.Compare):
        for other in COMPARED.get(type(node.ops[0]), ()):
            yield "comparison", but(node, ops=[other()])
    elif isinstance(node, ast.BinOp):
        if type(node.op) in SIGNS:
            yield "sign", but(node, op=SIGNS[type(node.op)]())
        if isinstance(node.op, (ast.MatMult, ast.Sub, ast.Div)):
            yield "order", but(node, left=node.right, right=node.left)
        if isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)):
            yield "left out", node.left
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", node.operand
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield from (("off by one", ast.Constant(node.value + step)) for step in (1, -1))
    elif isinstance(node, ast.Constant) and type(node.value) is float:
        yield from (("another number", ast.Constant(factor * node.value)) for factor in (0, 2))
    elif isinstance(node, ast.Constant) and node.value in strings and len(strings) > 1:
        yield "swapped names", ast.Constant(strings[(strings.index(node.value) + 1) % len(strings)])
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        k = names.index(node.id)
        for other in {names[k - 1], names[(k + 1) % len(names)]} - {node.id}:
            yield "swapped names", ast.Name(other, ast.Load())
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        if node.attr == "T":
            yield "transpose", node.value
    elif isinstance(node, ast.Call):
        yield from of_call(node)
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        if isinstance(node.slice, ast.Tuple):
            yield from (("order", but(node, slice=but(node.slice, elts=elts))) for elts in swapped(node.slice.elts))
    elif isinstance(node, ast.Slice):
        for end in ("lower", "upper"):
            if (bound := getattr(node, end)) is not None:
                yield "left out", but(node, **{end: None})
                if not isinstance(bound, ast.Constant):
                    yield "off by one", but(node, **{end: ast.BinOp(bound, ast.Sub(), ast.Constant(1))})
                    yield "off by one", but(node, **{end: ast.BinOp(bound, ast.Add(), ast.Constant(1))})
    elif isinstance(node, (ast.For, ast.comprehension)):
        yield "late binding", but(node, iter=called("last_of", node.iter))
        if isinstance(node, ast.comprehension) and node.ifs:
            yield "left out", but(node, ifs=[])
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield from (("left out", but(node, test=ast.Constant(value))) for value in (True, False))
    elif isinstance(node, ast.Return):
        if isinstance(node.value, ast.Tuple):
            yield from (("order", but(node, value=but(node.value, elts=elts))) for elts in swapped(node.value.elts))
        else:
            yield from (("dtype", but(node, value=called(cast, node.value))) for cast in ("as_half", "as_whole"))
    elif isinstance(node, ast.Dict):
        yield from (("order", but(node, values=values)) for values in swapped(node.values))
    elif isinstance(node, ast.AugAssign) and type(node.op) in SIGNS:
        yield "sign", but(node, op=SIGNS[type(node.op)]())
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.BinOp):
        if ast.unparse(node.value.left) == node.targets[0].id:
            yield "in place", ast.AugAssign(node.targets[0], node.value.op, node.value.right)


def of_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    """Slips with a call: arguments in another order, an axis or keepdim left out, the call itself left out."""
    if len(node.args) > 1 and not any(isinstance(each, ast.Starred) for each in node.args):
        yield from (("order", but(node, args=args)) for args in itertools.islice(swapped(node.args), 2))
    for k, keyword in enumerate(node.keywords):
        yield "left out", but(node, keywords=node.keywords[:k] + node.keywords[k + 1:])
    if isinstance(node.func, ast.Name) and node.func.id == "range":
        last = node.args[-1]
        yield from (("off by one", but(node, args=[*node.args[:-1], ast.BinOp(last, op, ast.Constant(1))]))
                    for op in (ast.Add(), ast.Sub()))
    if isinstance(node.func, ast.Attribute):
        of_module = isinstance(node.func.value, ast.Name) and node.func.value.id in ("torch", "th", "copy")
        if node.func.attr in SIBLINGS and not of_module:
            yield "another function", but(node, func=but(node.func, attr=SIBLINGS[node.func.attr]))
        if node.func.attr in DROPPED:
            value = node.args[0] if of_module and node.args else node.func.value
            yield {"clone": "in place", "deepcopy": "in place", "double": "dtype", "transpose": "transpose"}.get(
                node.func.attr, "left out"), value
