"""The noise of differences in pairs in recorded curves or studies, as `study/noise.py` has it.

    python benchmarks/pair_noise.py benchmarks/curves/reviews.parquet studies/NAME

Each argument is a file of recorded curves or the folder of a study. Prints a line for each.
"""

import sys
from pathlib import Path

import numpy as np

from rankwise.analysis.pair_noise import effective_groups, pair_noise
from rankwise.results.from_store import read_records
from rankwise.results.records import distinct
from rankwise.store.reader import Reader


def noise_of(path: Path) -> str:
    """Standard deviations of the last evaluation, or of the results of a study."""
    if path.suffix == ".parquet":
        sys.path.insert(0, str(path.parent))
        from curves import load

        curves = load(path.stem, path.parent)
        groups, weights = curves.groups_E.tolist(), curves.weights_E
        x_ASE = curves.x_ASTE[:, :, -1]
    else:
        with Reader(path, untouched=True) as store:
            records = distinct(read_records(store))
        assert records.x_ASE is not None
        assert records.groups_E is not None
        groups, weights, x_ASE = records.groups_E.tolist(), records.weights_E, records.x_ASE
    shape = f"{x_ASE.shape[0]} configurations, {x_ASE.shape[1]} seeds, {x_ASE.shape[2]} examples"
    done = int(np.isfinite(x_ASE).all(axis=2).sum())
    return (
        f"{path}: {shape} in {effective_groups(groups):.1f} groups, {done} runs\n"
        f"  {pair_noise(x_ASE, groups, weights)}"
    )


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(noise_of(Path(name)))
