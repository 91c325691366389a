"""The house keeps its floors: imports run downwards only, and light commands stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rankwise

ROOT = Path(rankwise.__file__).parent
FLOORS = (
    {"__init__", "errors"},
    {"locate", "spec"},
    {"spec_mistakes"},
    {"spec_file", "spec_docs", "answers", "analysis"},
    {"plan"},
    {"study_records"},
    {"study_reader"},
    {"store"},
    {"data"},
    {"model"},
    {"cohort"},
    {"outlook"},
    {"final_ranks", "merged_loss"},
    {"report"},
    {"study_start"},
    {"study"},
    {"export", "plan_table", "progress", "status"},
    {"cli"},
)
NO_TORCH = ("errors", "locate", "spec", "spec_mistakes", "spec_file", "spec_docs", "answers")
NO_TORCH += ("analysis", "plan", "store", "data", "report", "status", "cli")


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        yield path, path.relative_to(ROOT).with_suffix("").parts[0]


def imports_of(path):
    """Names imported anywhere in a file, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield f"{node.module}"
            if node.module == "rankwise":
                yield from (f"rankwise.{alias.name}" for alias in node.names)


def floor_of(part):
    found = [number for number, floor in enumerate(FLOORS) if part in floor]
    assert found, f"{part} has no floor"
    return found[0]


def test_every_module_has_a_floor():
    for _, part in modules():
        floor_of(part)


def test_imports_run_downwards_only():
    for path, part in modules():
        for name in imports_of(path):
            above = name.split(".")[1:2]
            if name.startswith("rankwise.") and above[0] != part and above[0] != "__version__":
                assert floor_of(above[0]) < floor_of(part), f"{path} imports {name}"


def test_there_is_no_torch_below_the_model():
    for path, part in modules():
        if part in NO_TORCH:
            heavy = [n for n in imports_of(path) if n.split(".")[0] in ("torch", "peft")]
            assert not heavy, f"{path} imports {heavy}"


@pytest.mark.parametrize("module", ["rankwise.cli", "rankwise.report.story", "rankwise.store"])
def test_importing_the_light_parts_loads_no_torch(module):
    script = f"import sys, {module}; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
