"""Writes what the documents take from the code: spec reference, commands, the README's file tree.

Usage: python docs/generate.py          (`make docs`)
"""

import ast
import re
from pathlib import Path

from typer.testing import CliRunner

from rankwise.cli.app import app
from rankwise.spec.docs import write_docs

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "rankwise"
TREE = re.compile(r"(<!-- tree -->\n```\n).*?(```\n<!-- /tree -->)", re.DOTALL)
COMMANDS = ("plan", "run", "status", "report", "compare", "guide", "export", "schema")


def commands_page() -> str:
    """Every command's own help, as Markdown."""
    runner = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"})
    parts = ["# Commands\n\nGenerated from the command line's own help by `make docs`.\n"]
    for command in ("", *COMMANDS):
        words = [command, "--help"] if command else ["--help"]
        shown = runner.invoke(app, words, prog_name="rankwise").output.strip()
        parts.append(f"## rankwise {command}".rstrip() + f"\n\n```\n{shown}\n```\n")
    return "\n".join(parts)


def file_tree() -> str:
    """The package's files, each with the first sentence of its docstring."""
    lines = ["src/rankwise/"]
    for path in sorted(PACKAGE.rglob("*.py"), key=_order):
        inside = path.relative_to(PACKAGE)
        if path.name == "__init__.py" and len(inside.parts) == 1:
            continue
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        phrase = " ".join(said.split("\n\n")[0].split())
        phrase = re.split(r"(?<=[a-z`)])[.;] ", phrase)[0].rstrip(".")
        depth = "  " * len(inside.parts)
        if path.name == "__init__.py":
            name, depth = f"{inside.parent}/", "  " * (len(inside.parts) - 1)
        else:
            name = path.name
        lines.append(f"{depth}{name:<{26 - len(depth)}} {phrase}")
    return "\n".join(lines) + "\n"


def _order(path: Path) -> tuple[object, ...]:
    inside = path.relative_to(PACKAGE)
    return (len(inside.parts) > 1, inside.parts[:-1], path.name != "__init__.py", path.name)


def readme_with_tree() -> str:
    """The README with its file tree brought up to date."""
    readme = (ROOT / "README.md").read_text()
    return TREE.sub(lambda found: found[1] + file_tree() + found[2], readme)


def main() -> None:
    """Write all of them."""
    write_docs(ROOT / "docs")
    (ROOT / "docs" / "commands.md").write_text(commands_page())
    (ROOT / "README.md").write_text(readme_with_tree())


if __name__ == "__main__":
    main()
