"""The least-squares fit of arms and seeds to the means of runs, without a matrix of all runs.

Array suffixes: A arms, S seeds, R finished runs, I some of the runs.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rankwise.analysis.scores import Floats, Ints


@dataclass(frozen=True, eq=False)
class Design:
    """Least-squares fit of arms, and of seeds as blocks where shared seeds link all arms.

    arm_R, seed_R   positions of each run's arm and seed, counted from 0 without gaps
    coef_AR   arm estimates = coef_AR @ run means; for a design with no run missing, plain means
    seed_SR   seed effects, which sum to zero, = seed_SR @ run means; None where not paired
    df        residual degrees of freedom
    paired    seeds are blocks
    """

    arm_R: Ints
    seed_R: Ints
    coef_AR: Floats
    seed_SR: Floats | None
    df: int

    @property
    def paired(self) -> bool:
        """Whether seeds are blocks."""
        return self.seed_SR is not None

    def residuals(self, y_RX: Floats) -> Floats:
        """What the fit leaves of values (R,) or (R, X), one column at a time."""
        left_RX = y_RX - (self.coef_AR @ y_RX)[self.arm_R]
        if self.seed_SR is not None:
            left_RX = left_RX - (self.seed_SR @ y_RX)[self.seed_R]
        return np.asarray(left_RX)

    def block(self, of_I: Ints) -> Floats:
        """The rows and columns `of_I` of the matrix that makes residuals (I, I)."""
        fit_II = self.coef_AR[np.ix_(self.arm_R[of_I], of_I)]
        if self.seed_SR is not None:
            fit_II = fit_II + self.seed_SR[np.ix_(self.seed_R[of_I], of_I)]
        return np.asarray(np.eye(len(of_I)) - fit_II)


def fit_design(arm_R: Ints, seed_R: Ints, paired: bool | None = None) -> Design:
    """The intra-block analysis (Cochran and Cox, Experimental Designs, 2nd ed. 1957, section 9.3).

    Without blocks, the effect of a seed on all arms stays in the noise: wider, and correct when
    arms have no common seed.

    Args:
        paired: Whether seeds are blocks; where not given, if shared seeds link all arms.
    """
    _, arm_R = np.unique(arm_R, return_inverse=True)
    _, seed_R = np.unique(seed_R, return_inverse=True)
    if not len(arm_R):
        return Design(arm_R, seed_R, np.empty((0, 0)), None, 0)
    there_AS = coo_array((np.ones(len(arm_R)), (arm_R, seed_R))).toarray()
    arms, seeds = there_AS.shape
    parts = _parts(arm_R, seed_R, arms, seeds)
    if not (parts == 1 if paired is None else paired):
        return Design(arm_R, seed_R, _means(arm_R, arms), None, len(arm_R) - arms)
    df = len(arm_R) - (arms + seeds - parts)
    if seeds <= arms:
        seed_SR, coef_AR = _two_way(seed_R, arm_R, there_AS.T)
    else:
        coef_AR, seed_SR = _two_way(arm_R, seed_R, there_AS)
    # Both are free by a shift: arms are put at the mean over all seeds.
    shift_R = seed_SR.mean(axis=0)
    return Design(arm_R, seed_R, coef_AR + shift_R, seed_SR - shift_R, df)


def _parts(arm_R: Ints, seed_R: Ints, arms: int, seeds: int) -> int:
    """The number of parts of the design that no shared seed links."""
    links = coo_array((np.ones(len(arm_R)), (arm_R, arms + seed_R)), shape=(arms + seeds,) * 2)
    return int(connected_components(links, directed=False)[0])


def _means(level_R: Ints, levels: int) -> Floats:
    """The mean over the runs of each level, as a function of the runs (levels, R)."""
    mean_LR = np.zeros((levels, len(level_R)))
    mean_LR[level_R, np.arange(len(level_R))] = 1 / np.bincount(level_R, minlength=levels)[level_R]
    return mean_LR


def _two_way(few_R: Ints, many_R: Ints, there_FM: Floats) -> tuple[Floats, Floats]:
    """Effects of two factors; the normal equations of the one with few levels, F, are solved.

    With the many levels, M, eliminated they are (diag(n_F) - N diag(1/n_M) N') effects =
    (sums of F) - N (means of M).
    """
    few, many = there_FM.shape
    mean_MR = _means(many_R, many)
    share_FM = there_FM / there_FM.sum(axis=0)
    normal_FF = np.diag(there_FM.sum(axis=1)) - share_FM @ there_FM.T
    sums_FR = np.eye(few)[few_R].T - there_FM @ mean_MR
    few_FR = np.linalg.pinv(normal_FF, rcond=1e-12, hermitian=True) @ sums_FR
    return few_FR, mean_MR - share_FM.T @ few_FR
