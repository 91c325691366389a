"""What a study learns from its data, before anything else of it: rows as tokens, lengths, cuts.

Needs the rows, the tokenizer and the model's configuration; no weights, and nothing of adapters.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.base.load import load_tokenizer
from rankwise.base.origin import base_name
from rankwise.base.skeleton import own_classes, skeleton
from rankwise.data.examples import Example, StudyData, make_examples
from rankwise.data.order import IGNORED
from rankwise.data.split import with_names_of_base
from rankwise.spec.models import DataSpec, StudySpec, columns_of
from rankwise.spec.tasks import has_classes, is_causal
from rankwise.study.plan import read_split
from rankwise.tasks.by_name import target_count

LONGEST = 1 << 24  # tokens: no row is cut to it
QUANTILES = {"median": 0.5, "90 %": 0.9, "99 %": 0.99}
PARTS = ("train", "validation", "test")


def preview_facts(spec: StudySpec, base_dir: Path, rows: int) -> dict[str, Any]:
    """The first `rows` training rows as tokens, and of each part what is left of it, JSON-ready.

    The rows are those of the `data` section: what configurations change of it is not shown.

    Raises:
        SpecError, DataError, ModelError: a mistake, with place, finding and remedy.
    """
    _, split, shape = read_split(spec, base_dir, [spec.data.augment])
    labels = None if split.label_names is None else len(split.label_names)
    structure = skeleton(spec.model, spec.task, labels)
    split = with_names_of_base(split, own_classes(structure), shape)
    tokenizer = load_tokenizer(spec.model, structure.config)
    data = make_examples(split, shape, tokenizer, base_dir)
    whole_rows = shape.model_copy(update={"max_length": LONGEST})
    whole = make_examples(split, whole_rows, tokenizer, base_dir)
    learns = "text" not in columns_of(shape) and is_causal(spec.task)
    return {
        "study": spec.study,
        "model": base_name(spec.model),
        "task": spec.task,
        "max_length": shape.max_length,
        "train_on": shape.train_on if learns else None,
        "parts": {part: _part_facts(part, data, whole, spec, shape) for part in PARTS},
        "notes": list(data.notes),
        "rows": [_row_facts(one, spec.task, tokenizer) for one in data.train[:rows]],
    }


def _part_facts(
    name: str, data: StudyData, whole: StudyData, spec: StudySpec, shape: DataSpec
) -> dict[str, Any]:
    """One part: its examples, the lengths of its rows before they are cut, and what is cut."""
    kept, rows = getattr(data, name), getattr(whole, name)
    most = shape.max_length
    targets = sum(target_count(one, spec.task) for one in kept)
    divided = is_causal(spec.task) and shape.text is not None
    sides = {"lengths": [len(one.input_ids) for one in rows]}
    if not is_causal(spec.task) and not has_classes(spec.task):
        sides["target_lengths"] = [len(one.labels) for one in rows]
    long = [max(lengths) > most for lengths in zip(*sides.values(), strict=True)]
    beyond = sum(max(0, length - most) for lengths in sides.values() for length in lengths)
    return {
        "examples": len(kept),
        "rows": len(rows),
        "longer": sum(long),
        "left_out_by_cut": 0 if divided else len(rows) - len(kept),
        "divided_into_blocks": divided,
        "tokens": sum(map(sum, sides.values())),
        "tokens_cut": 0 if divided else beyond,
        "targets": None if has_classes(spec.task) else targets,
        **{side: _distribution(lengths) for side, lengths in sides.items()},
    }


def _distribution(lengths: Sequence[int]) -> dict[str, int]:
    """Quantiles that are lengths of rows themselves; empty where there are no rows."""
    if not lengths:
        return {}
    at = np.quantile(lengths, list(QUANTILES.values()), method="inverted_cdf")
    middle = dict(zip(QUANTILES, map(int, at), strict=True))
    return {"least": min(lengths), **middle, "most": max(lengths)}


def _row_facts(example: Example, task: str, tokenizer: Any) -> dict[str, Any]:
    """The tokens of a row, and of each whether it has a loss."""
    read = _words(example.input_ids, tokenizer)
    if has_classes(task):
        return {"tokens": read, "learnt": [False] * len(read), "label": example.reference}
    if not is_causal(task):
        target = _words(example.labels, tokenizer)
        learnt = [False] * len(read) + [True] * len(target)
        return {"tokens": [*read, *target], "learnt": learnt, "label": None}
    learnt = (example.labels != IGNORED).tolist()
    return {"tokens": read, "learnt": [False, *learnt[1:]], "label": None}


def _words(ids: Any, tokenizer: Any) -> list[str]:
    """Each token as text, with the space that it begins with; parts of characters by their name."""
    names = tokenizer.convert_ids_to_tokens([int(one) for one in ids])
    words = []
    for one, name in zip(ids, names, strict=True):
        word = tokenizer.decode([int(one)])
        if not word or "\ufffd" in word:
            word = name
        elif name[:1] in ("\u2581", "\u0120") and not word[:1].isspace():
            word = f" {word}"
        words.append(word)
    return words
