"""Which runs are trained together over one frozen base."""

from collections.abc import Callable, Iterator, Sequence

from rankwise.spec.arms import Run


def cohorts_of(
    runs: Sequence[Run], max_runs: Callable[[tuple[Run, ...]], int]
) -> tuple[tuple[Run, ...], ...]:
    """Divide runs into cohorts: as few as memory allows, of balanced size, equal seeds together.

    Runs share a cohort if they share the base (LoRA, one quantisation), the rows of a batch and
    the kind of adapter (DoRA or not). Runs of one seed see the same rows, so they come first.

    Args:
        runs: what is to be trained, in any order; every run is in exactly one cohort.
        max_runs: of these runs, how many fit together (values under 1 count as 1).
    """
    groups: dict[tuple[object, ...], list[Run]] = {}
    for number, run in enumerate(runs):
        groups.setdefault(what_is_shared(run) or ("alone", number), []).append(run)
    return tuple(cohort for group in groups.values() for cohort in _parts(group, max_runs))


def what_is_shared(run: Run) -> tuple[object, ...]:
    """Runs of which this is equal can share a cohort; empty: full fine-tuning, shared with none."""
    arm = run.arm
    if arm.method != "lora":
        return ()
    return (arm.quantization, arm.training.per_device_train_batch_size, arm.lora.use_dora)


def _parts(
    group: Sequence[Run], max_runs: Callable[[tuple[Run, ...]], int]
) -> Iterator[tuple[Run, ...]]:
    left = tuple(sorted(group, key=lambda run: run.seed))  # stable: arms keep their order
    while left:
        most = max(1, min(len(left), max_runs(left)))
        parts = -(-len(left) // most)
        size = -(-len(left) // parts)
        while size > 1 and max_runs(left[:size]) < size:  # the first ones may be the large ones
            size -= 1
        yield left[:size]
        left = left[size:]
