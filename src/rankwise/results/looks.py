"""Looks at a study: how often its results were judged before, and what that leaves of the level.

Who adds seeds until something is significant finds something: of two equal configurations, read at
each of 2 to 10 seeds at the same level, one is declared the winner in about 20 % of studies. So
every set of results that `rankwise run` ends with is noted in the store as a look, and later ones
get less of the level (`share`). The same results read again are the same look. While runs are
missing nothing is declared, so that `rankwise status` and a report on half a study are no looks.
"""

from collections import Counter
from hashlib import sha256

from rankwise.results.records import Records

KIND = "look"


def share(look: int) -> float:
    """The part of each level that the look of this number, from 1, may use.

    The first has all of it, the k-th half of 1 / k^2 (a spending function, Lan and DeMets,
    Biometrika 70, 1983, without a planned number of looks). As the looks at growing data agree
    mostly, a winner among two equal arms that are read at each of 2 to 10 seeds is declared in
    about 5 % of studies (docs/calibration.md).
    """
    return 1.0 if look == 1 else 0.5 / look**2


def look_number(records: Records) -> int:
    """The number of the look at these results: that of its note, or one more than are noted."""
    noted = [str(fact.data["results"]) for fact in records.notes if fact.kind == KIND]
    own = fingerprint(records)
    return noted.index(own) + 1 if own in noted else len(noted) + 1


def is_declared(records: Records) -> bool:
    """Whether a winner may be declared: no run is missing, or `run` ended there by its budget."""
    noted = [str(fact.data["results"]) for fact in records.notes if fact.kind == KIND]
    missing = any(run.state in ("planned", "running", "interrupted") for run in records.runs)
    return not missing or fingerprint(records) in noted


def fingerprint(records: Records) -> str:
    """A text that is equal for equal sets of finished runs, whatever their arms are called."""
    keys = {arm.name: arm.id for arm in records.arms}
    done = sorted((keys[run.arm], run.seed) for run in records.runs if run.finished)
    return sha256(repr(done).encode()).hexdigest()[:16]


def look_to_note(records: Records) -> dict[str, int | str] | None:
    """The values of the fact of kind KIND, where these results were not looked at before.

    None as well where no winner can be declared: one arm has a result, or one seed each.
    """
    number = look_number(records)
    seeds = Counter(run.arm for run in records.runs if run.finished)
    if (
        len(seeds) < 2
        or max(seeds.values()) < 2
        or number <= sum(fact.kind == KIND for fact in records.notes)
    ):
        return None
    runs = sum(run.finished for run in records.runs)
    return {"number": number, "results": fingerprint(records), "runs": runs}
