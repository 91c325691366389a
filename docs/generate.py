"""Writes what the documents take from the code: spec reference, commands, folders and files.

Usage: python docs/generate.py          (`make docs`)
"""

import ast
import re
from pathlib import Path

from typer.testing import CliRunner

from rankwise.cli.app import app
from rankwise.report.document import to_markdown
from rankwise.report.write import tell
from rankwise.results.columns import Columns
from rankwise.results.from_table import read_outside
from rankwise.results.judge import judge_records
from rankwise.spec.docs import write_docs

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "rankwise"
TREE = re.compile(r"(<!-- tree -->\n```\n).*?(```\n<!-- /tree -->)", re.DOTALL)
COLUMNS = re.compile(r"(<!-- columns -->\n).*?(<!-- /columns -->)", re.DOTALL)
EXCERPT = re.compile(r"(<!-- excerpt classifiers -->\n).*?(<!-- /excerpt -->)", re.DOTALL)
FOLDERS = (  # along the path of the data, from the command to the ground
    "cli",
    "report",
    "study",
    "train",
    "adapters",
    "tasks",
    "base",
    "search",
    "results",
    "data",
    "analysis",
    "store",
    "spec",
)
COMMANDS = (
    "plan", "data", "run", "status", "report", "compare", "guide", "export", "repair", "schema"
)  # fmt: skip


def commands_page() -> str:
    """Every command's own help, as Markdown."""
    runner = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"})
    parts = ["# Commands\n\nGenerated from the command line's own help by `make docs`.\n"]
    for command in ("", *COMMANDS):
        words = [command, "--help"] if command else ["--help"]
        shown = runner.invoke(app, words, prog_name="rankwise").output.strip()
        parts.append(f"## rankwise {command}".rstrip() + f"\n\n```\n{shown}\n```\n")
    return "\n".join(parts)


def phrase_of(path: Path) -> str:
    """The first sentence of a module's docstring."""
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = " ".join(said.split("\n\n")[0].split())
    return re.split(r"(?<=[a-z`)])[.;] ", first)[0].rstrip(".")


def folder_tree() -> str:
    """The package's folders, each with the first sentence of its docstring."""
    folders = [PACKAGE / name for name in FOLDERS]
    found = {path.parent for path in PACKAGE.glob("*/__init__.py")}
    assert set(folders) == found, f"FOLDERS and the package differ: {set(folders) ^ found}"
    lines = [f"  {path.name + '/':<11} {phrase_of(path / '__init__.py')}" for path in folders]
    lines += [f"  {path.name:<11} {phrase_of(path)}" for path in top_modules()]
    return "\n".join(["src/rankwise/", *lines]) + "\n"


def top_modules() -> list[Path]:
    """Modules outside all folders."""
    return sorted(path for path in PACKAGE.glob("*.py") if path.name != "__init__.py")


def file_tree() -> str:
    """The package's files, folder by folder, each with the first sentence of its docstring."""
    lines = []
    for name in FOLDERS:
        inside = sorted(path for path in (PACKAGE / name).rglob("*.py") if path.stem != "__init__")
        lines.append(f"{name}/")
        for path in inside:
            shown = str(path.relative_to(PACKAGE / name))
            lines.append(f"  {shown:<26} {phrase_of(path)}")
    lines += [f"{path.name:<28} {phrase_of(path)}" for path in top_modules()]
    return "\n".join(lines) + "\n"


def with_tree(page: str, tree: str) -> str:
    """A page with the tree between its marks brought up to date."""
    return _between(TREE, page, tree)


def with_excerpt(page: str) -> str:
    """A page with the first lines and the ranking of the report on the example of a table."""
    records = read_outside(ROOT / "examples" / "results" / "classifiers.csv")
    lead, ranking, *_ = to_markdown(tell(judge_records(records))).split("\n## ")
    lines = lead.split("\n")[1:] + [line for line in ranking.split("\n") if line.startswith("|")]
    quoted = "\n".join(f"> {line}".rstrip() for line in lines).removeprefix(">\n")
    return _between(EXCERPT, page, quoted + "\n")


def with_columns(page: str) -> str:
    """A page with the table of the fields of a mapping between its marks brought up to date."""
    rows = [f"| `{name}` | {field.description} |" for name, field in Columns.model_fields.items()]
    return _between(COLUMNS, page, "\n".join(["| field | meaning |", "|---|---|", *rows]) + "\n")


def _between(marks: re.Pattern[str], page: str, inside: str) -> str:
    text = (ROOT / page).read_text()
    assert marks.search(text), f"{page} has no place for what is generated"
    return marks.sub(lambda found: found[1] + inside + found[2], text)


def main() -> None:
    """Write all of them."""
    write_docs(ROOT / "docs")
    (ROOT / "docs" / "commands.md").write_text(commands_page())
    (ROOT / "docs" / "outside.md").write_text(with_columns("docs/outside.md"))
    (ROOT / "docs" / "outside.md").write_text(with_excerpt("docs/outside.md"))
    (ROOT / "README.md").write_text(with_tree("README.md", folder_tree()))
    (ROOT / "ARCHITECTURE.md").write_text(with_tree("ARCHITECTURE.md", file_tree()))


if __name__ == "__main__":
    main()
