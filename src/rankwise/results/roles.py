"""What the columns of a table seem to mean, from their names and from what they hold.

Names count without the prefix of a tracker (`config.lr`, `params.lr`, `metrics.loss`). Whatever is
guessed is said in the report; a mapping that names the column decides instead.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.errors import DataError
from rankwise.results.columns import Columns, Role, check_columns, columns_of, named_in
from rankwise.results.role_names import (
    ARMS,
    CONTEXTS,
    COSTS,
    HELD_OUT,
    IDENTIFIERS,
    KNOWN_METRICS,
    MAY_BE_MEASURED,
    MEASURED,
    METRIC_WORDS,
    MODELS,
    NEITHER_SIDE,
    PREFIX,
    REPLICATES,
    RESULT_SIDE,
    RUN_NAMES,
    SEEDS,
    SETTING_SIDE,
    SETTINGS,
    SHARES,
    STATES,
    TEST_SIZES,
    UNIT_ENDS,
    bare,
    unit_of_cost,
    words_of,
)
from rankwise.spec.tasks import lower_is_better
from rankwise.text import columns_words, names, shorten

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Column:
    """One column: its plain name, its words, the side of its prefix, and what it holds."""

    name: str
    plain: str
    words: tuple[str, ...]
    side: str
    values: tuple[Any, ...]
    distinct: int

    @property
    def numeric(self) -> bool:
        known = [value for value in self.values if value is not None]
        return bool(known) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in known
        )

    @property
    def whole(self) -> bool:
        return self.numeric and None not in self.values and all(v == v // 1 for v in self.values)

    @property
    def apart(self) -> bool:
        """Whether every row has another value."""
        return self.distinct == len(self.values) > 1

    @property
    def counts(self) -> bool:
        """Whether it numbers the rows, in any order."""
        return self.apart and self.whole and max(self.values) - min(self.values) < len(self.values)


def guess_roles(
    rows: Rows, mapping: Mapping[str, Any], path: Path
) -> tuple[Columns, tuple[Role, ...]]:
    """The mapping with what it leaves open guessed, and the role of every column of the table.

    A field that the mapping holds is not guessed, null and [] included.

    Raises:
        DataError: the mapping does not fit the table, or no column is a metric.
    """
    if mapping:
        columns_of({"metric": "", **mapping}, path)
    table = {name: _column(name, rows) for name in rows[0]}
    check_columns(mapping, tuple(table), path)
    guess = _Guess(table, dict(mapping))
    guess.metric(path)
    guess.one_of("state", STATES, "its name", _is_text)
    guess.one_of("seed", SEEDS, "its name", _may_be_seed)
    guess.one_of("replicate", REPLICATES, "its name; its values repeat", _repeats)
    guess.test_size()
    guess.costs()
    guess.cost()
    guess.arm()
    guess.context()
    guess.factors()
    columns = columns_of(guess.found, path)
    return columns, guess.roles(columns)


def _column(name: str, rows: Rows) -> _Column:
    found = PREFIX.match(name)
    side = (found[1] or found[2]).lower() if found else ""
    words = words_of(bare(name))
    values = tuple(row[name] for row in rows)
    distinct = len({repr(value) for value in values})
    return _Column(name, "_".join(words), words, side, values, distinct)


def _is_text(column: _Column) -> bool:
    return any(isinstance(value, str) for value in column.values)


def _is_whole(column: _Column) -> bool:
    return column.whole


def _may_be_seed(column: _Column) -> bool:
    return column.whole or column.plain == "seed"


def _repeats(column: _Column) -> bool:
    named = column.plain.startswith("rep")  # `run` and `trial` may as well name a configuration
    return 1 < column.distinct < len(column.values) and (named or column.whole)


class _Guess:
    """The roles under way: `found` is the mapping so far, `why` the reason of each guess."""

    def __init__(self, table: Mapping[str, _Column], mapping: dict[str, Any]) -> None:
        self.table, self.found = table, mapping
        self.why: dict[str, str] = {}
        self.seeded = self.reruns = False

    def free(self) -> list[_Column]:
        """Columns without a role."""
        taken = set(named_in(self.found))
        return [column for column in self.table.values() if column.name not in taken]

    def take(self, field: str, column: _Column, why: str) -> None:
        """Give a column the role of a field of the mapping."""
        self.found[field] = column.name
        self.why[column.name] = why

    def metric(self, path: Path) -> None:
        """The metric: by the names that rankwise uses, then by words of held-out parts."""
        if "metric" in self.found:
            return
        able = [c for c in self.free() if c.side not in (*SETTING_SIDE, *NEITHER_SIDE)]
        known = [c for name in KNOWN_METRICS for c in able if name in (c.name, c.plain)]
        able = [c for c in able if c.numeric and "train" not in c.words]
        held = [c for c in able if set(c.words) & set(HELD_OUT) and set(c.words) & {*METRIC_WORDS}]
        other = [c for c in able if set(c.words) & set(METRIC_WORDS)]
        by_word = sorted(held or other, key=lambda c: _first(METRIC_WORDS, c.words))
        if not (known or by_word):
            first = shorten(next(iter(self.table)), 60)
            raise DataError(
                f"{path}: name the column of the objective metric, such as metric={first}; the "
                f"columns are {columns_words(self.table)}"
            )
        chosen = (known or by_word)[0]
        others = [c.name for c in dict.fromkeys([*known, *by_word]) if c is not chosen]
        also = f"; as likely: {names(others, 4)}" if others else ""
        self.take("metric", chosen, f"its name{also}")

    def one_of(
        self, field: str, known: Sequence[str], why: str, fits: Callable[[_Column], bool]
    ) -> None:
        """The first free column with one of these names that fits."""
        if field in self.found:
            return
        able = [c for name in known for c in self.free() if c.plain == name and fits(c)]
        able = [c for c in able if c.side not in RESULT_SIDE]
        if able:
            self.take(field, able[0], why)

    def test_size(self) -> None:
        """The number of test items, where the metric is a share of items by its name."""
        words = words_of(self.found["metric"])
        if set(words) & set(SHARES):
            self.one_of("test_size", TEST_SIZES, "its name; the metric is a share", _is_whole)

    def costs(self) -> None:
        """Columns of costs, with or without a unit at the end of the name."""
        if "costs" in self.found:
            return
        self.found["costs"] = {}
        for cost, known in COSTS.items():
            able = [c for c in self.free() if c.numeric and c.side not in SETTING_SIDE]
            able = [c for c in able if c.plain in known or _without_unit(c) in known]
            if able:
                unit = unit_of_cost(able[0].name)
                scaled = f"; its unit is {able[0].words[-1]}" if unit != 1 else ""
                self.found["costs"][cost] = able[0].name
                self.why[able[0].name] = f"its name{scaled}"

    def cost(self) -> None:
        """The cost to keep low: the first that is known, parameters before all."""
        known = list(self.found["costs"] or ())
        if "cost" not in self.found and known and "trainable_params" not in known:
            self.found["cost"] = known[0]

    def arm(self) -> None:
        """The name of the configuration: a text that repeats, or that every single run has."""
        self.seeded = any(
            self.table[name].distinct > 1
            for field in ("seed", "replicate")
            if (name := self.found.get(field)) is not None
        )
        if "arm" in self.found:
            return
        free = [c for c in self.free() if _is_text(c) and c.side not in RESULT_SIDE]
        for column in [c for name in ARMS + RUN_NAMES for c in free if c.plain == name]:
            named = column.plain in ("arm", "configuration")
            if (named or column.distinct > 1) and column.distinct < len(column.values):
                return self.take("arm", column, "its name; its values repeat")
            if column.apart and not self.seeded and not self._names_reruns(column):
                return self.take("arm", column, "its name; another value in every row")
        alone = [c for c in free if c.apart and c.plain not in IDENTIFIERS and not c.side]
        if alone and not self.seeded and not self._names_reruns(alone[0]):
            self.take("arm", alone[0], "a text that is another in every row")
        return None

    def _names_reruns(self, column: _Column) -> bool:
        """Whether a name that is another in every row names runs: some have equal settings."""
        own = [c for c in self._settings() if c.distinct > 1 and not (c.apart and _is_text(c))]
        cells = set(zip(*(map(repr, c.values) for c in own), strict=True))
        self.reruns = bool(own) and len(cells) < len(column.values)
        return self.reruns and column.plain not in ARMS

    def context(self) -> None:
        """Models, tasks and sizes, where something else is left to be compared inside them."""
        if "context" in self.found:
            return
        able = [c for c in self.free() if c.plain in CONTEXTS and c.distinct > 1]
        able = [c for c in able if c.side in ("", *SETTING_SIDE)]
        if self.found.get("arm") is None and not self._compared(able):
            models = [c for c in able if c.plain in MODELS]
            if not models or len(able) == 1:
                return
            able.remove(models[0])
            self.take("arm", models[0], "its name; nothing else is there to be compared")
        if able and self._arms_inside(able) >= 2:
            self.found["context"] = tuple(c.name for c in able)
            for column in able:
                self.why[column.name] = (
                    "its name; configurations are compared inside its values only"
                )

    def _compared(self, context: Iterable[_Column]) -> list[_Column]:
        """Settings that vary, were these columns the context."""
        return [c for c in self._settings() if c not in context and c.distinct > 1]

    def _arms_inside(self, context: Sequence[_Column]) -> float:
        """Different configurations in a block, on average."""
        arm = self.found.get("arm")
        naming = [self.table[arm]] if arm else self._compared(context)
        blocks = list(zip(*(map(repr, c.values) for c in context), strict=True))
        cells = {(*cell, block) for *cell, block in zip(*(map(repr, c.values) for c in naming),
                                                      blocks, strict=True)}  # fmt: skip
        return len(cells) / len(set(blocks))

    def factors(self) -> None:
        """All columns of settings."""
        if self.found.get("factors") is None:
            found = self._settings()
            self.found["factors"] = tuple(c.name for c in found)
            self.why |= {c.name: "a value that is no result and no name of a run" for c in found}

    def _settings(self) -> list[_Column]:
        if self.found.get("factors") is not None:
            return [self.table[name] for name in self.found["factors"]]
        free = self.free()
        sided = [c for c in free if c.side in SETTING_SIDE]
        return [c for c in sided or free if self.no_setting(c) is None]

    def no_setting(self, column: _Column) -> str | None:
        """Why a column is no setting; None where it is one."""
        if column.side in (*RESULT_SIDE, *NEITHER_SIDE):
            return f"its prefix is `{column.side}`"
        if column.plain in IDENTIFIERS:
            return "its name is that of a label or time of a run"
        if column.plain.endswith("seed") or self._follows_seed(column):
            return "it changes with the seed"
        if column.apart and (self.seeded or self.reruns) and _is_text(column):
            return "a text that is another in every row"
        if column.counts and (self.seeded or self.reruns):
            return "it counts the rows"
        if column.side in SETTING_SIDE or not column.numeric:
            return None
        if set(column.words) & set(MEASURED):
            return "its name is that of a result"
        if set(column.words) & set(SETTINGS):
            return None
        if set(column.words) & set(MAY_BE_MEASURED):
            return "its name is that of a result"
        if column.distinct > 0.8 * len(column.values) > 8 and not column.whole:
            return "numbers that hardly repeat: a result, not a setting"
        arm = self.found.get("arm")
        if arm and self.seeded and self._varies_in(column, self.table[arm]):
            return "it varies between the runs of one configuration"
        return None

    def _follows_seed(self, column: _Column) -> bool:
        for field in ("seed", "replicate"):
            name = self.found.get(field)
            seeds = self.table[name].values if name is not None else ()
            pairs = {(repr(s), repr(v)) for s, v in zip(seeds, column.values, strict=False)}
            if 1 < column.distinct == len(pairs) == len(set(map(repr, seeds))):
                return True
        return False

    def _varies_in(self, column: _Column, arm: _Column) -> bool:
        context = [self.table[name] for name in self.found.get("context") or ()]
        cells = list(zip(arm.values, *(c.values for c in context), strict=True))
        return len(set(zip(cells, column.values, strict=True))) > len(set(cells))

    def roles(self, columns: Columns) -> tuple[Role, ...]:
        """The role of every column, those first that decide."""
        held: list[tuple[str, list[str | None]]] = [
            ("metric", [columns.metric]),
            ("configuration", [columns.arm]),
            ("block", list(columns.context)),
            ("seed", [columns.seed]),
            ("replicate", [columns.replicate]),
            ("state of the run", [columns.state]),
            ("test items", [columns.test_size if isinstance(columns.test_size, str) else None]),
        ]
        held += [(f"cost: {cost}", [name]) for cost, name in columns.costs.items()]
        held += [("setting", list(columns.factors or ()))]
        found = [
            Role(name, role, self.why.get(name, "given"))
            for role, own in held
            for name in own
            if name is not None
        ]
        found += [Role(c.name, "not read", self._unread(c)) for c in self.free()]
        return tuple(found)

    def _unread(self, column: _Column) -> str:
        return self.no_setting(column) or "the settings are given, or have a prefix of their own"


def _without_unit(column: _Column) -> str:
    *rest, last = column.words or ("",)
    return "_".join(rest) if last in UNIT_ENDS else ""


def _first(known: Sequence[str], words: Iterable[str]) -> int:
    return min((known.index(word) for word in words if word in known), default=len(known))


def direction_words(columns: Columns) -> str:
    """Whether a lower or a higher metric is better, and how that is known."""
    lower = columns.lower_is_better
    better = (
        "lower" if (lower_is_better(bare(columns.metric)) if lower is None else lower) else "higher"
    )
    return f"{better} is better ({'given' if lower is not None else 'by its name'})"


def guessed_words(roles: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """One line for each kind of role that was guessed, for the terminal; `roles` as mappings."""
    guessed = [role for role in roles if role["why"] != "given"]
    lines = []
    for kind in dict.fromkeys(role["role"] for role in guessed):
        own = [shorten(role["column"], 60) for role in guessed if role["role"] == kind]
        lines.append(f"guessed {kind}: {names(own)}")
    return tuple(lines)
