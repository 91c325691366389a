"""The documents say what the code says."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_commands_page_is_the_help_of_the_commands(generate):
    assert (ROOT / "docs" / "commands.md").read_text() == generate.commands_page()


def test_the_page_on_outside_results_has_the_fields_of_a_mapping_and_a_report_of_today(generate):
    page = (ROOT / "docs" / "outside.md").read_text()
    assert page == generate.with_columns("docs/outside.md")
    assert page == generate.with_excerpt("docs/outside.md")


def test_the_readme_names_every_folder_and_the_architecture_every_file(generate):
    readme, architecture = (
        generate.with_tree("README.md", generate.folder_tree()),
        generate.with_tree("ARCHITECTURE.md", generate.file_tree()),
    )
    assert (ROOT / "README.md").read_text() == readme
    assert (ROOT / "ARCHITECTURE.md").read_text() == architecture


def test_every_link_in_the_documents_leads_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
