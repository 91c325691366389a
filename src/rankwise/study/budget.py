"""What training costs, and what of the budget of a race is spent.

The unit is a full run of the configuration whose run is of median cost, its evaluations included;
with `budget.tokens` it is a token that is trained on.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence

from rankwise.base.modules import linear_modules
from rankwise.data.examples import Example
from rankwise.errors import SpecError
from rankwise.spec.arms import Arm
from rankwise.store.reader import Reader
from rankwise.store.schema import ENDED
from rankwise.study.plan import StudyPlan
from rankwise.text import amount
from rankwise.train.optimizer import evaluation_steps


def run_flops(plan: StudyPlan, arm: Arm) -> tuple[float, float]:
    """Floating point operations of a run's matrix products: in training, and in evaluation.

    Per weight and token: 2 forward, 2 backward for the gradient of the input, and 2 for the
    gradient of the weight where it is trained. Evaluations are forward only; the validation part
    is read at each of them, the test part once.
    """
    weights = sum(t.in_features * t.out_features for t in linear_modules(plan.structure))
    evaluations = 1 + len(evaluation_steps(arm.training, plan.steps(arm)))
    read = evaluations * _tokens(plan.data.validation) + _tokens(plan.data.test)
    passes = 6 if arm.method == "full" else 4
    return weights * passes * run_tokens(plan, arm), weights * 2.0 * read


def _tokens(examples: Sequence[Example]) -> int:
    return sum(len(example.input_ids) for example in examples)


def run_tokens(plan: StudyPlan, arm: Arm) -> float:
    """Tokens that a run of an arm is trained on, about: rows of mean length."""
    lengths = [len(example.input_ids) for example in plan.train[arm.training_id]]
    training = arm.training
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return plan.steps(arm) * batch * sum(lengths) / len(lengths)


def run_costs(plan: StudyPlan) -> dict[str, float]:
    """What a full run costs in units of the budget, by training id."""
    arms = {arm.training_id: arm for arm in plan.arms}
    if plan.spec.budget.tokens is not None:
        return {key: run_tokens(plan, arm) for key, arm in arms.items()}
    work = {key: sum(run_flops(plan, arm)) for key, arm in arms.items()}
    median = statistics.median(work.values())
    return {key: flops / median for key, flops in work.items()}


def limit_of(plan: StudyPlan) -> float:
    """The budget in its units; infinite where hours alone are given."""
    budget = plan.spec.budget
    return next((x for x in (budget.runs, budget.tokens) if x is not None), math.inf)


def refuse_small_budget(plan: StudyPlan) -> None:
    """Refuse a budget that cannot compare two configurations.

    Raises:
        SpecError: as said.
    """
    limit = limit_of(plan)
    if limit == math.inf:
        return
    costs = run_costs(plan)
    dearest = max(costs, key=lambda key: costs[key])
    if limit < 2 * costs[dearest]:
        unit = "runs" if plan.spec.budget.tokens is None else "tokens"
        name = next(arm.name for arm in plan.arms if arm.training_id == dearest)
        raise SpecError(
            f"budget.{unit}: {amount(limit)} is less than two full runs of the costliest "
            f"configuration, {name}; one takes {amount(costs[dearest])} {unit}"
        )


def committed(
    plan: StudyPlan,
    store: Reader,
    begun: Collection[tuple[str, int]],
    costs: Mapping[str, float],
) -> float:
    """What the runs that were begun have spent, and would still take to their end.

    A run that ended counts up to its last step; one that began again, from there only.
    """
    arms = {arm.training_id: arm for arm in plan.arms}
    keys = {training.id: training.key for training in store.trainings()}
    total = 0.0
    for run in store.runs():
        arm = arms.get(keys[run.training_id])
        if arm is None or (arm.training_id, run.seed) not in begun:
            continue
        done = 1.0
        if run.state in ENDED:
            done = store.last_step(run.id) / plan.steps(arm)
        total += done * costs[arm.training_id]
    return total
