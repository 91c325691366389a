"""The output of `rankwise data`."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from rankwise.text import count, percent, redacted

LEARNT = "bold green"
BETWEEN, OPEN, CLOSE = "·", "[[", "]]"
SMALL = 0.0005  # a share that would be printed as 0.0 %
NAMES = {"train": "training", "validation": "validation", "test": "test"}


def print_preview(facts: Mapping[str, Any]) -> None:
    """Print the rows and the counts; learnt tokens in colour, or in marks where there is none."""
    console = Console()
    colour = console.is_terminal and not console.no_color
    for line in _head(facts):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if any(any(row["learnt"]) for row in facts["rows"]):
        sign = Text("in colour", style=LEARNT) if colour else Text(f"in {OPEN} {CLOSE}")
        legend = Text.assemble("Tokens with a loss stand ", sign, f", {BETWEEN} parts tokens.")
        console.print(legend, soft_wrap=True)
    for number, row in enumerate(facts["rows"], start=1):
        console.print(
            Text(f"\ntraining row {number}, {count(len(row['tokens']), 'token')}", style="bold")
        )
        console.print(_row(row, colour), soft_wrap=True)
        if row["label"] is not None:
            console.print(Text(f"label: {_visible(row['label'])}"), soft_wrap=True)


def _head(facts: Mapping[str, Any]) -> Iterator[str]:
    learnt = f", train_on: {facts['train_on']}" if facts["train_on"] else ""
    yield f"{facts['study']}: {facts['model']}, {facts['task']}{learnt}"
    for name, part in facts["parts"].items():
        if not part["rows"]:
            continue
        targets = "" if part["targets"] is None else f", {part['targets']:,} tokens with a loss"
        yield f"{NAMES[name]}: {count(part['examples'], 'example')}{targets}"
        yield f"  tokens of a row: {_lengths(part['lengths'])}"
        if "target_lengths" in part:
            yield f"  tokens of a target: {_lengths(part['target_lengths'])}"
        yield f"  {_cut(part, facts['max_length'])}"
    yield from (f"  - {_visible(note)}" for note in facts["notes"])


def _lengths(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {length:,}" for name, length in lengths.items())


def _cut(part: Mapping[str, Any], most: int) -> str:
    """What `max_length` does to a part."""
    said = f"max_length {most:,}"
    if not part["longer"]:
        return f"{said}: no row is longer"
    rows = f"{part['longer']:,} of {count(part['rows'], 'row')}"
    if part["divided_into_blocks"]:
        return f"{said}: {rows} are longer, and divided into blocks; no token is lost"
    cut = part["tokens_cut"] / part["tokens"]
    share = percent(cut) if cut >= SMALL else "less than 0.1 %"
    longest = max(part[side]["most"] for side in ("lengths", "target_lengths") if side in part)
    lost = part["left_out_by_cut"]
    gone = f"; {count(lost, 'row')} left out, as nothing to learn is left" if lost else ""
    return f"{said} cuts {rows}, {share} of all tokens{gone}; {longest:,} would cut none"


def _row(row: Mapping[str, Any], colour: bool) -> Text:
    """The tokens of a row, with what is learnt of them shown."""
    text, inside = Text(), False
    for at, (token, learnt) in enumerate(zip(row["tokens"], row["learnt"], strict=True)):
        if inside and not learnt and not colour:
            text.append(CLOSE)
        if at:
            text.append(BETWEEN, style="dim")
        if learnt and not inside and not colour:
            text.append(OPEN)
        text.append(_visible(token), style=LEARNT if learnt and colour else "")
        inside = learnt
    if inside and not colour:
        text.append(CLOSE)
    return text


def _visible(text: str) -> str:
    """Text on one line, without secrets and without what would steer a terminal."""
    written = redacted(text).replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return "".join(c if c.isprintable() else "\ufffd" for c in written)
