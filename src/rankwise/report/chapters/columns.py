"""What each column of a table from elsewhere was taken for, and how to say it otherwise."""

import yaml

from rankwise.report.document import Block, CodeBlock, Paragraph, Section, code, table
from rankwise.results.judge import Judgement


def columns_read(judgement: Judgement) -> Section | None:
    """Every column with its role, given or guessed, and the mapping that says the same."""
    study = judgement.records.study
    roles = study.get("roles")
    if not roles:
        return None
    guessed = any(role["why"] != "given" for role in roles)
    rows = [(code(role["column"]), role["role"], role["why"]) for role in roles]
    blocks: list[Block] = [
        table(("column", "taken for", "why"), rows),
        Paragraph(f"Direction of {code(study['mapping']['metric'])}: {study['direction']}."),
    ]
    if guessed:
        blocks.insert(
            0,
            Paragraph(
                "Roles that the mapping does not give were guessed from names and contents. If one "
                "is wrong, write it into a mapping (--mapping) and write the report again; null or "
                "[] says that there is no such column."
            ),
        )
    text = yaml.safe_dump(study["mapping"], sort_keys=False, allow_unicode=True)
    blocks += [Paragraph("The mapping that says the same:"), CodeBlock(text, "yaml")]
    return Section("What the columns were taken for", "columns", tuple(blocks))
