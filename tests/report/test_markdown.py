"""Plain text stays plain in Markdown, whatever it holds; only marks are more than text."""

import re

import pytest
from markdown_it import MarkdownIt

from rankwise.report.document import (
    Bullets,
    CodeBlock,
    Document,
    Paragraph,
    Section,
    code,
    strong,
    table,
    to_markdown,
)

TRICKY = [
    "# no heading", "1. no list", "- no list", "+ no list", "a | b", "*a* _b_ __c__", "<b>x</b>",
    "`code`", "[a](http://b)", "http://b.c/d", "a\\b", "&amp; & &lt;", "~~x~~", "eval_loss_mean",
    "$x$", "![a](b)", "> no quote", "0.05 helped", "a`b``c",
]  # fmt: skip


def rendered(document: Document) -> str:
    html: str = (
        MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(to_markdown(document))
    )
    return html


def text_of(html: str) -> str:
    plain = re.sub(r"<[^>]+>", "", html)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        plain = plain.replace(entity, character)
    return plain


@pytest.mark.parametrize("text", TRICKY)
def test_plain_text_comes_out_as_it_went_in(text: str) -> None:
    for block in (Paragraph(text), Bullets((text,)), table(("head",), [(text,)])):
        html = rendered(Document("t", (block,), ()))
        assert text in text_of(html)
        assert not re.search(r"<(em|strong|a|b|del|img|h2|ol|blockquote)\b", html)


@pytest.mark.parametrize("text", TRICKY)
def test_code_comes_out_as_it_went_in_as_code(text: str) -> None:
    for block in (Paragraph(code(text)), table(("head",), [(code(text),)])):
        html = rendered(Document("t", (block,), ()))
        assert text in text_of(html)
        assert html.count("<code>") == 1
    assert text in text_of(rendered(Document("t", (CodeBlock(text),), ())))


def test_user_data_cannot_forge_a_mark() -> None:
    forged = code("a\ue001 \ue002b\ue003 \ue000c\x1b[0m\u202e")
    html = rendered(Document("t", (Paragraph(forged),), ()))
    assert html.count("<code>") == 1
    assert "<strong>" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_strong_may_hold_code_and_sections_have_headings() -> None:
    section = Section("S", "s", (Paragraph(strong(f"use {code('x_y')}")),))
    html = rendered(Document("t", (), (section,)))
    assert "<h2>S</h2>" in html
    assert "<strong>use <code>x_y</code></strong>" in html


def test_columns_without_a_value_are_left_out() -> None:
    found = table(("a", "b", "c"), [("1", "–", "2"), ("3", "", "4")], numeric=(2,))
    assert found.head == ("a", "c")
    assert found.numeric == {1}
