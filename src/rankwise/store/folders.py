"""The folders of adapters: named by their run, with readable names beside them."""

from pathlib import Path

from rankwise.store.reader import Reader

ADAPTERS = "adapters"


def link_names(store: Reader) -> None:
    """Link adapters/CONFIG/seed-N to the folder of its run, for every adapter that is there.

    A name that is taken, as in studies of older versions, is left alone; and so are all of them
    where the file system knows no links.
    """
    runs = store.runs()
    taken = {run.folder.partition("/")[0] for run in runs if "/" not in run.folder}
    for config in store.configs():
        if config.name in taken:
            continue
        for run in runs:
            if run.training_id == config.training_id:
                name = store.folder / ADAPTERS / config.name / f"seed-{run.seed}"
                _link(name, store.folder / ADAPTERS / run.folder)


def _link(name: Path, folder: Path) -> None:
    if not folder.is_dir() or name.exists():
        return
    try:
        name.parent.mkdir(exist_ok=True)
        name.unlink(missing_ok=True)  # a link to a folder that is gone
        name.symlink_to(Path("..") / folder.relative_to(name.parent.parent))
    except OSError:
        return
