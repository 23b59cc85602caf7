"""Where this checkout lies, and modules loaded from their paths: `sys.path` stays as it is."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ASSIGNMENTS = Path(__file__).resolve().parents[1]
REPOSITORY = ASSIGNMENTS.parents[1]
LIBRARY = REPOSITORY / "tinyheads"


def load_module(name: str, file: Path) -> ModuleType:
    """The module in a file, under a name of its own; a package where the file is an __init__.py.

    A module that is loaded under this name already is given as it is.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module                         # before it runs: its own modules import it by this name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
