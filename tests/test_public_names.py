"""What tinyheads offers by name is documented: every name, the shapes of its tensors, and what it raises."""

import ast
import inspect
import textwrap

import pytest

import tinyheads as th

PUBLIC = {name: value for name, value in vars(th).items()
          if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))}


def functions(names):
    """Every function in a dictionary of names, and every public method in its classes: {"Stream.write": ...}."""
    found = {}
    for name, value in names.items():
        if inspect.isfunction(value):
            found[name] = value
        else:
            found |= {f"{name}.{key}": method for key, member in vars(value).items() if key[0] != "_"
                      for method in [getattr(member, "fget", None) or getattr(member, "__func__", member)]
                      if inspect.isfunction(method)}
    return found


def takes_or_gives_a_tensor(function):
    return "Tensor" in " ".join(map(str, inspect.get_annotations(function).values()))


def raises(function):
    """Does the function's own body raise, or does its text name an error of tinyheads?"""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    errors = [name for name in PUBLIC if name.endswith("Error")]
    return any(isinstance(node, ast.Raise) for node in ast.walk(tree)) or any(
        name in (function.__doc__ or "") for name in errors)


def test_every_public_name_has_a_docstring_of_its_own():
    assert len(PUBLIC) > 70
    bare = [name for name, value in PUBLIC.items() if not (vars(value) if inspect.isclass(value) else
                                                          {"__doc__": value.__doc__}).get("__doc__")]
    # A dataclass without a docstring gets one made of its fields: "Edge(component: ..., ...)".
    made = [name for name, value in PUBLIC.items() if (value.__doc__ or "").startswith(f"{name}(")]
    assert bare == [] and made == []


@pytest.mark.parametrize("name", [name for name, function in functions(PUBLIC).items()
                                  if inspect.isfunction(PUBLIC.get(name)) and takes_or_gives_a_tensor(function)])
def test_a_function_of_tensors_names_a_shape(name):
    assert "[" in (PUBLIC[name].__doc__ or ""), f"{name} takes or gives a Tensor and names no shape in its docstring"


@pytest.mark.parametrize("name", [name for name, function in functions(PUBLIC).items() if raises(function)])
def test_a_function_that_raises_says_so(name):
    function = functions(PUBLIC)[name]
    text = (function.__doc__ or "") + ("" if name in PUBLIC else PUBLIC[name.split(".")[0]].__doc__ or "")
    assert "Raise" in text, f"{name} raises and does not say so"     # a method may leave it to its class's docstring


def test_the_checks_find_what_is_missing():
    def bad(x: "th.Tensor") -> None:
        raise ValueError(x)

    class Class:
        def method(self):
            """Raises HeadError."""
    assert takes_or_gives_a_tensor(bad) and raises(bad) and raises(Class.method)
    assert list(functions({"bad": bad, "Class": Class})) == ["bad", "Class.method"]
    assert not takes_or_gives_a_tensor(functions) and not raises(functions)
