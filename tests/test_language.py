"""What people read is in standard terms: no phrase that reviewers stumbled over comes back."""

import ast
import re
from pathlib import Path

import rankwise

ROOT = Path(rankwise.__file__).parent
PHRASES = (  # a regular expression each, looked for in string literals, docstrings included
    r"behind the face of",
    r"between company and solitude",
    r"built by the .*, spent by the",
    r"in their luck",
    r"middle of nowhere",
    r"slip of the pen",
    r"has not the \S+ columns of the",
    r"(is|are) wanted\b",
    r"^wanted|; wanted",
    r"parts? (them|the two)\b",
    r"what parts",
    r"is its doing",
    r"put down to",
    r"(with|beyond|within)(in)? (what )?chance( does)?\b",
    r"could have been seen",
    r"may be there, unseen",
    r"of which .* remains",
    r"(set|told|tell[s]?) .{0,20}apart",
    r"passed over",
    r"best-looking|looks best",
    r"would settle|to settle\b",
    r"moves by",
    r"lands from itself",
    r"adding up leaves|add up\b",
    r"these very",
    r"turn the order",
    r"speaks? for\b",
    r"nothing (can be|is) (said|known of)",
    r"what became of",
    r"an arm to spare",
    r"\b(seeds?|scores?) an arm\b",
    r"ceased to be",
    r"never learned",
    r"\bnobody\b",
    r"\blest\b",
    r"for want of",
    r"what would do",
    r"as a person (reads|would)",
    r"nearly the same knob",
    r"\bgoes? on with\b",
    r"come by\b",
)
PLAIN = re.compile("|".join(f"(?:{phrase})" for phrase in PHRASES), re.IGNORECASE)


def texts_of(path: Path) -> list[tuple[int, str]]:
    """(line, text) of every string literal; the constant pieces of an f-string joined by `…`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found, inner = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            pieces = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
            inner |= {id(p) for p in node.values}
            found.append((node.lineno, "".join(map(str, pieces))))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [(node.lineno, node.value)] * (id(node) not in inner)
    return [(line, " ".join(text.split())) for line, text in found]


def faults_of(path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {match[0]!r} in {text[:80]!r}"
        for line, text in texts_of(path)
        if (match := PLAIN.search(text))
    ]


def test_no_phrase_that_reviewers_stumbled_over_comes_back() -> None:
    assert [fault for path in sorted(ROOT.rglob("*.py")) for fault in faults_of(path)] == []


def test_a_phrase_in_an_f_string_is_found() -> None:
    module = ast.parse('f"{a} and {b}: what parts them beyond chance"')
    (text,) = (n for n in ast.walk(module) if isinstance(n, ast.JoinedStr))
    assert PLAIN.search("".join(str(p.value) for p in text.values if isinstance(p, ast.Constant)))
