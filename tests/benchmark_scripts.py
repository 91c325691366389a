"""The scripts in `benchmarks/` as modules, for tests that run a small version of them."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / "benchmarks"


@contextmanager
def script(name: str) -> Iterator[ModuleType]:
    """A script and the modules beside it, imported from their folder and forgotten after."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
        own = (m for m in set(sys.modules) - before if (FOLDER / f"{m}.py").exists())
        for module in list(own):
            del sys.modules[module]
