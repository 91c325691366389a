"""Room on disk and in memory: what a study needs at least, and whether that fits."""

from collections.abc import Sequence
from pathlib import Path

from rankwise.adapters.memory import optimizer_bytes, trained_shapes
from rankwise.base.origin import base_name
from rankwise.errors import UserError
from rankwise.files import free_room
from rankwise.spec.arms import Arm, Run
from rankwise.store.schema import FILE
from rankwise.study.checkpoints import KEPT
from rankwise.study.free_memory import free_bytes
from rankwise.study.plan import StudyPlan, pick_device, shared_trainings
from rankwise.text import size
from rankwise.train.bank import FROM_WEIGHT
from rankwise.train.optimizer import evaluation_steps

STEP_ROW = 64  # bytes of one step in the database
EXAMPLE = 5  # bytes of one example of one evaluation: its loss and whether it was right
COPIES = 3  # of a record: database, write-ahead log or backup in the making, and backup
CHECKPOINT = 8  # bytes a trained parameter: weight and best weight, fp32; the optimizer's beside it
CHECKPOINTS = KEPT + 1  # those in place, and the next one until it is whole
REST = 5_000_000  # report, figures, tables


def needed_bytes(plan: StudyPlan, runs: Sequence[Run] | None = None) -> int:
    """About the bytes that a study will write.

    Adapters (4 bytes a weight, a start other than zero doubles them), the rows of the database in
    three copies, checkpoints of the largest cohort, and the report. Answers and tokenizer files
    are left out.

    Args:
        plan: The study.
        runs: Those that will be trained; all of the plan where not given.
    """
    trained = list(shared_trainings(plan.runs if runs is None else runs))
    if not trained:
        return REST
    kept = sum(_adapter(plan, run.arm) + COPIES * _rows(plan, run.arm) for run in trained)
    cohorts = plan.cohorts(trained, pick_device(plan.spec.hardware.device))
    largest = max(sum(_checkpoint(plan, run.arm) for run in cohort) for cohort in cohorts)
    return int(kept + CHECKPOINTS * largest + REST)


def _checkpoint(plan: StudyPlan, arm: Arm) -> int:
    shapes = trained_shapes(plan.structure, plan.adapters[arm.id])
    return CHECKPOINT * _weights(plan, arm) + optimizer_bytes(arm.training.optim, shapes.values())


def _weights(plan: StudyPlan, arm: Arm) -> int:
    return plan.footprints[arm.id].trainable


def _adapter(plan: StudyPlan, arm: Arm) -> int:
    adapter = plan.adapters[arm.id]
    if adapter is None:
        return 4 * plan.footprints[arm.id].total
    doubled = 2 if adapter.init in FROM_WEIGHT else 1
    return 4 * doubled * _weights(plan, arm)


def _rows(plan: StudyPlan, arm: Arm) -> int:
    """Bytes of one run's rows in the database."""
    steps, data = plan.steps(arm), plan.data
    evaluations = 1 + len(evaluation_steps(arm.training, steps))
    return STEP_ROW * steps + EXAMPLE * (evaluations * len(data.validation) + len(data.test))


def refuse_without_room(plan: StudyPlan, runs: Sequence[Run], folder: Path) -> None:
    """Refuse runs whose results will not fit on the disk of a study.

    Raises:
        UserError: less is free than they will write.
    """
    if not runs:
        return
    there = folder / FILE
    backup = there.stat().st_size if there.exists() else 0  # of what is stored already
    needed, free = needed_bytes(plan, runs) + backup, free_room(folder)
    if needed > free:
        raise UserError(
            f"{folder}: this study will write about {size(needed)}, and {size(free)} are free on "
            f"its disk; make room, or use another --out"
        )


def refuse_without_memory(plan: StudyPlan, runs: Sequence[Run]) -> None:
    """Refuse runs whose base alone does not fit into the memory that is free.

    Of the base the size is known, of the rest it is estimated: a run that might fit is tried.

    Raises:
        UserError: less is free than the weights of the base need.
    """
    device = pick_device(plan.spec.hardware.device)
    needed = max((plan.memory(run.arm, device).base for run in runs), default=0)
    free = free_bytes(device)
    if needed > free:
        raise UserError(
            f"model.name: the weights of {base_name(plan.spec.model)} need {size(needed)}, and "
            f"{size(free)} of memory are free for this process on {device}; end other programs, "
            f"raise its limit (ulimit -v, the memory of the container or job), or use a smaller "
            f"base or model.quantization"
        )
