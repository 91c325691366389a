"""Adapters by name: links adapters/CONFIG/seed-N to the folders of runs, for people."""

from contextlib import suppress
from pathlib import Path

from rankwise.files import leaves
from rankwise.store.reader import Reader
from rankwise.store.schema import ADAPTERS


def link_names(store: Reader) -> None:
    """Link every configuration and seed to the folder of its run, where that is there.

    Links of before that no configuration and run have now are removed. A folder that is no link,
    as in studies of older versions, is left alone; and so are all names where the file system
    knows no links.
    """
    place, runs = store.folder / ADAPTERS, store.runs()
    taken = {run.folder.partition("/")[0] for run in runs if "/" not in run.folder}
    wanted = {
        place / config.name / f"seed-{run.seed}": Path("..") / run.folder
        for config in store.configs()
        for run in runs
        if config.name not in taken
        and not leaves(place / config.name, place)
        and run.training_id == config.training_id
        and (place / run.folder).is_dir()
    }
    for name in place.glob("*/seed-*"):
        if leaves(name.parent, place):  # a folder of somebody else, in a foreign study
            continue
        if name.is_symlink() and name.readlink() != wanted.get(name):
            _remove(name)
    for name, folder in wanted.items():
        if not name.exists():
            with suppress(OSError):
                name.parent.mkdir(exist_ok=True)
                name.symlink_to(folder)


def _remove(name: Path) -> None:
    """Remove a link, and the folder that it was in where that is empty then."""
    with suppress(OSError):
        name.unlink()
        name.parent.rmdir()
