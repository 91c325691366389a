"""The scripts in `benchmarks/` as modules, for tests that run a small version of them."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / "benchmarks"


@contextmanager
def script(name: str, folder: Path = FOLDER) -> Iterator[ModuleType]:
    """A script and the modules beside it, imported from their folder and forgotten after."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        for module in [m for m in set(sys.modules) - before if lies_in_folder(sys.modules[m])]:
            del sys.modules[module]


def lies_in_folder(module: ModuleType) -> bool:
    """Whether a module, or a folder as a package, is one of `benchmarks/`."""
    held = vars(module)  # torch has modules that answer to any name
    places = [held.get("__file__"), *held.get("__path__", ())]
    return any(place is not None and FOLDER in Path(place).parents for place in places)
