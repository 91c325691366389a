"""What a study tells beside the events of training: which runs come next, and remarks."""

from collections.abc import Mapping
from dataclasses import dataclass

from rankwise.train.events import Event


@dataclass(frozen=True)
class CohortFormed:
    """Runs begin to train together.

    Attributes:
        number: Of the cohort, from 1.
        of: How many cohorts there are, as far as is known.
        steps: Steps of each run, by its name.
        metric: The validation metric that decides.
    """

    number: int
    of: int
    steps: Mapping[str, int]
    metric: str


@dataclass(frozen=True)
class StudyBegun:
    """What is to be done in this call.

    Attributes:
        steps: Steps of each run that will be trained, by its name.
        work_per_token: Floating-point operations of one training token, about.
        peak: Operations a second of a large product on this device, measured; None: unknown.
    """

    steps: Mapping[str, int]
    work_per_token: float
    peak: float | None


@dataclass(frozen=True)
class Remark:
    """A sentence for whoever watches."""

    text: str


StudyEvent = Event | CohortFormed | StudyBegun | Remark
