"""Whether a study has nothing left to do; told without model, tokenizer and torch.

A call that leaves nothing to do notes of what the study is made: its spec, its rows and the
versions of what reads them. A later call for which that is the same finds the records as they
were left (every other call takes the note back), and looks after adapters and base by their files.
"""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rankwise import __version__
from rankwise.data.rows import hash_of, needed_columns
from rankwise.data.sources import read_rows
from rankwise.files import unlike
from rankwise.search.space import space_of
from rankwise.spec.arms import Arm, make_arms
from rankwise.spec.identity import canonical
from rankwise.spec.models import StudySpec
from rankwise.store.reader import Reader
from rankwise.store.schema import ADAPTERS, FILE, FINISHED
from rankwise.study.inputs import compare_inputs
from rankwise.study.proposals import entries, stored_proposals

PACKAGES = ("torch", "transformers", "peft", "numpy", "bitsandbytes")
READING = ("tokenizers", "datasets", "pandas", "pyarrow")  # they, too, decide what rows become
LARGE = 64_000_000  # bytes; larger files are compared by size alone before a run


def made_of(spec: StudySpec, arms: Sequence[Arm], rows_sha256: str) -> str | None:
    """A hash of what decides the plan of a study; None where it is a user's function, too.

    Args:
        spec: The study.
        arms: Its configurations.
        rows_sha256: Of the rows of its source.
    """
    if any(arm.augment.function is not None for arm in arms):
        return None
    versions = {"rankwise": __version__, **versions_of((*PACKAGES, *READING))}
    said = {"spec": spec.model_dump(mode="json", warnings=False), "versions": versions}
    return hashlib.sha256(canonical({**said, "rows": rows_sha256}).encode()).hexdigest()


def is_settled(spec: StudySpec, base_dir: Path, folder: Path) -> bool:
    """Whether nothing is left to be done, and spec, rows, base and adapters are those of before.

    False also where only the plan can tell.

    Raises:
        WrongFolderError: the folder holds a study of another base, task or metric.
        DataError: the rows cannot be read.
    """
    if not (folder / FILE).is_file():
        return False
    with Reader(folder, untouched=True) as store:
        if not store.begun():
            return False
        compare_inputs(spec, store)
        arms, noted = _arms(spec, store), store.settled()
        if noted is None or not _adapters_are_whole(spec, arms, store):
            return False
    only = needed_columns(spec.data, [arm.augment for arm in arms])
    return noted == made_of(spec, arms, hash_of(read_rows(spec.data, base_dir, only)))


def _arms(spec: StudySpec, store: Reader) -> tuple[Arm, ...]:
    """The configurations of a spec, with those that its search has proposed."""
    if spec.search is None:
        return make_arms(spec)
    return make_arms(spec, entries(stored_proposals(spec, space_of(spec), store)))


def _adapters_are_whole(spec: StudySpec, arms: Sequence[Arm], store: Reader) -> bool:
    keys = {arm.training_id for arm in arms}
    ours = {one.id for one in store.trainings() if one.key in keys}
    for run in store.runs():
        asked = run.training_id in ours and run.seed in spec.seeds
        if not asked or run.state not in FINISHED or run.best_step is None or run.dropped:
            continue
        written = store.adapter_files(run.id)
        place = store.folder / ADAPTERS / run.folder
        if not written or unlike(place, written, LARGE) is not None:
            return False
    return True


def versions_of(packages: Sequence[str]) -> Mapping[str, str]:
    """Installed versions of these packages; those that are not installed are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
