"""What the literature reports on each setting and advises: `literature.yaml`, read and checked."""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from rankwise.spec.read_yaml import read_yaml_file

FILE = Path(__file__).with_name("literature.yaml")
READ = {"memory": "from memory, not checked", "quoted": "as others quote it"}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Frozen):
    """Authors and year, title, and arXiv number or address."""

    by: str
    title: str
    at: str


class Statement(_Frozen):
    """What one source reports on one setting.

    source   key of `Literature.sources`; where: section or appendix
    checked  what was read to check it: the passage ("text"), the "abstract", the passage as others
             quote it ("quoted"), or nothing ("memory")
    expects  the metric from a smaller (or absent) to a larger (or present) value, as the source
             reports it: "better" or "same"; None where it says nothing so general
    """

    source: str
    text: str
    checked: Literal["text", "abstract", "quoted", "memory"]
    where: str = ""
    expects: Literal["better", "same"] | None = None


class Advice(_Frozen):
    """An advice that follows from `sources`; from arithmetic alone where there are none."""

    text: str
    sources: tuple[str, ...] = ()


class Notes(_Frozen):
    """A setting: what is reported, where sources disagree, and what to do.

    free                it changes no work, so that runs at all its values cost the same
    start, more, less   what to start with, when to raise (or change) it, how to spend less
    """

    title: str
    statements: tuple[Statement, ...]
    disagreement: str = ""
    free: bool = False
    start: Advice
    more: Advice
    less: Advice


class Literature(_Frozen):
    """Sources by a short key, and notes by the name of the setting (`setting_key`)."""

    sources: dict[str, Source]
    settings: dict[str, Notes]

    @model_validator(mode="after")
    def _sources_are_known(self) -> "Literature":
        """Every source that is named is there, and every source that is there is named."""
        named = set[str]()
        for notes in self.settings.values():
            named |= {statement.source for statement in notes.statements}
            named |= {key for one in (notes.start, notes.more, notes.less) for key in one.sources}
        if named != set(self.sources):
            raise ValueError(f"sources unknown or not used: {sorted(named ^ set(self.sources))}")
        return self

    def is_free(self, setting: str) -> bool:
        """Whether a setting is known to change no work."""
        notes = self.settings.get(setting_key(setting))
        return notes is not None and notes.free

    def cite(self, statement: Statement) -> str:
        """The source of a statement in short, with what was not checked."""
        parts = (self.by(statement.source), statement.where, READ.get(statement.checked, ""))
        return ", ".join(part for part in parts if part)

    def by(self, *keys: str) -> str:
        """`Hu et al. 2021; Schulman et al. 2025`."""
        return "; ".join(self.sources[key].by for key in keys)

    def advice(self, advice: Advice) -> str:
        """An advice with its sources."""
        return f"{advice.text} ({self.by(*advice.sources)})" if advice.sources else advice.text


@cache
def literature() -> Literature:
    """The literature that comes with the package."""
    return Literature.model_validate(read_yaml_file(FILE))


ALIASES = {
    "rank": "r",
    "lora_r": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "scheduler": "lr_scheduler_type",
    "lr_scheduler": "lr_scheduler_type",
    "targets": "target_modules",
}
"""Column names of outside results -> the name used here."""


def setting_key(name: str) -> str:
    """The last part of a dotted setting, in the one spelling used here."""
    leaf = name.rpartition(".")[2]
    return ALIASES.get(leaf, leaf)
