"""The step at which a run is read, chosen on other examples than those it is read on.

The best of several evaluations looks better than it is on the examples that chose it, the more so
the more evaluations there are and the more they differ by chance. So the examples are divided into
folds: on all folds but one the best evaluation is chosen, and on that one it is read (Stone,
"Cross-validatory choice and assessment of statistical predictions", Journal of the Royal
Statistical Society B 36, 1974, p. 111).

Array suffixes: T evaluations of one run, E examples, F folds, G groups of examples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankwise.analysis.scores import Floats, Ints

FOLDS = 5


def fold_of(groups_E: Sequence[object] | NDArray[np.generic], folds: int = FOLDS) -> Ints:
    """The fold of each example (E,), from 0; a function of `groups_E` alone.

    Examples of one group are in one fold. The largest groups are dealt first, each to the fold that
    has the fewest examples; groups of one size in an order drawn once for all. There are fewer
    folds than `folds` where there are fewer groups.
    """
    labels, group_E, size_G = np.unique(
        np.asarray(groups_E), return_inverse=True, return_counts=True
    )
    # Raw streams are the same under every version of NumPy (NEP 19), permutations are not.
    drawn_G = np.random.SFC64(0).random_raw(len(labels))
    fold_G = np.empty(len(labels), dtype=np.intp)
    held = [0] * min(folds, len(labels))
    for g in np.lexsort((drawn_G, -size_G)):
        fold_G[g] = held.index(min(held))
        held[fold_G[g]] += int(size_G[g])
    return fold_G[group_E]


def chosen_without(
    x_TE: Floats, fold_E: Ints, weights_E: Floats | None, lower_is_better: bool
) -> Ints:
    """For each fold the evaluation (F,) with the best mean on all others, the first among equals.

    Args:
        x_TE: Scores of one run, finite.
        fold_E: As `fold_of` gives them; two folds or more.
        weights_E: Weights of the examples in a mean; None: all alike.
        lower_is_better: Direction of the score.
    """
    own_E = np.ones(len(fold_E)) if weights_E is None else weights_E
    others_FE = np.where(np.arange(fold_E.max() + 1)[:, None] == fold_E, 0.0, own_E)
    mean_TF = x_TE @ others_FE.T / others_FE.sum(1)
    return np.asarray(np.argmin(mean_TF if lower_is_better else -mean_TF, axis=0))


def read_at(x_TE: Floats, chosen_F: Ints, fold_E: Ints) -> Floats:
    """Each example's score (E,) at the evaluation chosen for its fold."""
    return np.asarray(x_TE[chosen_F[fold_E], np.arange(x_TE.shape[1])])
