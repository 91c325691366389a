"""Imports run downwards only, without a cycle, and light commands stay light."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import rankwise

ROOT = Path(rankwise.__file__).parent
FLOORS = (  # from the ground up: a part imports parts before it, and itself
    "__init__",
    "errors",
    "text",
    "files",
    "reading",
    "spec",
    "store",
    "analysis",
    "data",
    "results",
    "search",
    "base",
    "tasks",
    "adapters",
    "train",
    "study",
    "report",
    "cli",
)
NO_TORCH = (
    "errors",
    "text",
    "files",
    "reading",
    "spec",
    "store",
    "analysis",
    "results",
    "search",
    "data",
    "report",
)
TORCH = ("torch", "peft", "transformers", "safetensors")


def modules_of(root):
    """Dotted name within the package -> file."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and parts[:-1] else parts)] = path
    return found


def imports_of(path, outside=False):
    """Names imported anywhere in a file, inside functions too, a module's own names included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("rankwise.") != outside)


def edges_of(root):
    """Which modules of the package each module imports."""
    modules = modules_of(root)
    edges = {name: set() for name in modules}
    for name, path in modules.items():
        for imported in imports_of(path):
            inner = imported.removeprefix("rankwise.")
            while inner and inner not in modules:
                inner = inner.rpartition(".")[0]
            if inner and inner != name and not name.startswith(f"{inner}."):
                edges[name].add(inner)
    return edges


def cycle_of(root):
    """The modules of one import cycle, or None."""
    try:
        TopologicalSorter(edges_of(root)).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def floor_of(module):
    part = module.split(".")[0]
    assert part in FLOORS, f"{part} has no floor"
    return FLOORS.index(part)


def test_imports_run_downwards_only():
    for module, imported in edges_of(ROOT).items():
        for other in imported:
            assert floor_of(other) <= floor_of(module), f"{module} imports {other}"


def test_there_is_no_import_cycle_even_inside_a_folder():
    assert cycle_of(ROOT) is None


def test_a_cycle_planted_inside_a_folder_is_found(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").write_text("")
    (tmp_path / "room" / "a.py").write_text("from rankwise.room.b import one\n")
    (tmp_path / "room" / "b.py").write_text("def one():\n    from rankwise.room import a\n")
    assert set(cycle_of(tmp_path)) == {"room.a", "room.b"}


def test_every_folder_says_what_it_is_for():
    for path in ROOT.rglob("__init__.py"):
        said = ast.get_docstring(ast.parse(path.read_text()))
        assert said, f"{path} has no docstring"


def test_there_is_no_torch_below_the_model():
    for module, path in modules_of(ROOT).items():
        if module.split(".")[0] in NO_TORCH:
            heavy = [n for n in imports_of(path, outside=True) if n.split(".")[0] in TORCH[:2]]
            assert not heavy, f"{path} imports {heavy}"


@pytest.mark.parametrize(
    "module", ["rankwise.cli.app", "rankwise.report.write", "rankwise.store.writer"]
)
def test_importing_the_light_parts_loads_no_torch(module):
    script = f"import sys, {module}; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
