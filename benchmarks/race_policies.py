"""What a race is compared with: other ways to spend a budget, over the same replay.

Each takes a replay and a budget in full runs, and ends with the arm of the best result among those
that it trained to the end. Values are mean losses on the deciding examples.
"""

import math
from collections.abc import Callable, Iterator
from itertools import cycle

import optuna
from race_ours import Raced
from race_replay import Replay

ETA = 3
# Shares of a full run at which halving decides: a ninth, a third, all, on the recorded steps.
HALVING = (0.1, 0.3, 1.0)
TOP_K_SHARE = 0.3
MEDIAN_WARMUP = 0.2
# Full fine-tuning of BERT-like encoders: Devlin et al. 2019 give 2e-5 to 5e-5.
ENCODER_RATE = 5e-5

Policy = Callable[[Replay, float], Raced]


def full_grid(replay: Replay, budget: float) -> Raced:
    """Every arm, every seed, and the verdict; the budget is not looked at."""
    runs = [(arm, seed) for arm in replay.order for seed in replay.seeds]
    for arm, seed in runs:
        replay.train(arm, seed, 1.0)
    verdict = replay.verdict(runs)
    assert verdict.best is not None
    return Raced(verdict.best, replay.budget, verdict.tie_group, frozenset(), winner=verdict.winner)


def random_search(replay: Replay, budget: float) -> Raced:
    """As many arms as the budget has runs, one seed each, in random order."""
    for arm in replay.order[: max(round(budget), 1)]:
        replay.train(arm, replay.seeds[0], 1.0)
    return _ended(replay)


def asha(replay: Replay, budget: float) -> Raced:
    """Asynchronous successive halving (Li et al., MLSys 2020): promote if possible, else start."""
    rungs: list[dict[str, float]] = [{} for _ in HALVING]
    waiting = iter(replay.order)
    while replay.budget < budget - 1e-9:
        job = _promotable(rungs) or _begun(waiting) or _promotable(rungs, everything=True)
        if job is None:
            break
        arm, rung = job
        replay.train(arm, replay.seeds[0], HALVING[rung])
        rungs[rung][arm] = replay.mean(arm, replay.seeds[0], HALVING[rung])
    return _ended(replay)


def _promotable(rungs: list[dict[str, float]], everything: bool = False) -> tuple[str, int] | None:
    for rung in reversed(range(len(rungs) - 1)):
        order = sorted(rungs[rung], key=lambda arm: rungs[rung][arm])
        for arm in order if everything else order[: len(order) // ETA]:
            if arm not in rungs[rung + 1]:
                return arm, rung + 1
    return None


def _begun(waiting: Iterator[str]) -> tuple[str, int] | None:
    arm = next(waiting, None)
    return None if arm is None else (arm, 0)


def hyperband(replay: Replay, budget: float) -> Raced:
    """Brackets of 9, 5 and 3 arms (Li et al., JMLR 18, 2018), again and again within the budget."""
    arms = cycle(replay.order)
    for first, count in cycle(((0, 9), (1, 5), (2, 3))):
        held = [next(arms) for _ in range(min(count, len(replay.order)))]
        for rung in range(first, len(HALVING)):
            for arm in held:
                if replay.budget >= budget - 1e-9:
                    return _ended(replay)
                replay.train(arm, replay.seeds[0], HALVING[rung])
            share = HALVING[rung]
            held.sort(key=lambda arm: replay.mean(arm, replay.seeds[0], share))
            held = held[: max(len(held) // ETA, 1)]
        if len(_finished(replay)) == len(replay.order):
            return _ended(replay)
    raise AssertionError


def median_stopping(replay: Replay, budget: float) -> Raced:
    """Arms one after the other; one is stopped where its best value is above the median of means.

    Golovin et al., KDD 2017: the means of the earlier arms' values up to the same share.
    """
    seed, means = replay.seeds[0], dict[float, list[float]]()
    for arm in replay.order:
        values: list[float] = []
        for share in replay.shares:
            if replay.budget >= budget - 1e-9:
                return _ended(replay)
            replay.train(arm, seed, share)
            values.append(replay.mean(arm, seed, share))
            others = sorted(means.get(share, []))
            means.setdefault(share, []).append(sum(values) / len(values))
            if share >= MEDIAN_WARMUP and others and min(values) > others[len(others) // 2]:
                break
    return _ended(replay)


def top_k(replay: Replay, budget: float) -> Raced:
    """All arms to one share, and as many of the best as the budget has to their end."""
    seed = replay.seeds[0]
    count = min(len(replay.order), int(budget / TOP_K_SHARE))
    for arm in replay.order[:count]:
        replay.train(arm, seed, TOP_K_SHARE)
    kept = max(int((budget - replay.budget) / (1 - TOP_K_SHARE) + 1e-9), 1)
    best = sorted(replay.order[:count], key=lambda arm: replay.mean(arm, seed, TOP_K_SHARE))
    for arm in best[:kept]:
        replay.train(arm, seed, 1.0)
    return _ended(replay)


def tpe(replay: Replay, budget: float) -> Raced:
    """Optuna's TPE with its defaults, every trial a full run; one that repeats an arm is free."""
    return _optuna(replay, budget, optuna.pruners.NopPruner())


def tpe_pruned(replay: Replay, budget: float) -> Raced:
    """Optuna's TPE with its MedianPruner, both with their defaults."""
    return _optuna(replay, budget, optuna.pruners.MedianPruner())


def _optuna(replay: Replay, budget: float, pruner: optuna.pruners.BasePruner) -> Raced:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=replay.number), pruner=pruner
    )
    for _ in range(4 * len(replay.order)):
        if replay.budget >= budget - 1e-9:
            break
        trial = study.ask()
        arm = _proposed(replay, trial)
        ended = _trained(replay, trial, arm)
        state = optuna.trial.TrialState.COMPLETE if ended else optuna.trial.TrialState.PRUNED
        value = replay.mean(arm, replay.seeds[0], 1.0) if ended else None
        study.tell(trial, None if value is None else min(value, 1e6), state=state)
    return _ended(replay)


def _trained(replay: Replay, trial: optuna.Trial, arm: str) -> bool:
    """Whether the trial reached its end."""
    for step, share in enumerate(replay.shares):
        replay.train(arm, replay.seeds[0], share)
        trial.report(min(replay.mean(arm, replay.seeds[0], share), 1e6), step)
        if share < 1 and trial.should_prune():
            return False
    return True


def _proposed(replay: Replay, trial: optuna.Trial) -> str:
    """The recorded arm nearest to the proposed settings."""
    settings = replay.settings
    names = [name for name in ("r", "target_modules", "lr_scheduler_type") if _varies(replay, name)]
    rates = sorted({_rate(replay, arm) for arm in settings})
    rate = trial.suggest_float("learning_rate", rates[0], rates[-1], log=True)
    wanted = {}
    for name in names:
        levels = sorted({str(settings[arm][name]) for arm in settings})
        wanted[name] = trial.suggest_categorical(name, levels)

    def far(arm: str) -> tuple[int, float]:
        differ = sum(str(settings[arm][name]) != wanted[name] for name in names)
        return differ, abs(math.log(_rate(replay, arm) / rate))

    return min(settings, key=lambda arm: (far(arm)[1] + 0.9 * far(arm)[0], arm))


def _rate(replay: Replay, arm: str) -> float:
    return float(str(replay.settings[arm]["learning_rate"]))


def _varies(replay: Replay, name: str) -> bool:
    return len({str(own[name]) for own in replay.settings.values()}) > 1


def formula(replay: Replay, budget: float) -> Raced:
    """The literature's rate with r 16 on all linear modules: the nearest arm, one run.

    tinker-cookbook's get_lr for Llama: 5e-5 * 10 * (2000 / hidden size)^0.781; it knows no
    encoders, for which ten times the rate of full fine-tuning stands.
    """
    wanted = rate_of(replay.curves.base)

    def far(arm: str) -> tuple[int, float, str]:
        own = replay.settings[arm]
        differ = (str(own["r"]) != "16") + (str(own["target_modules"]) not in ("all", "all-linear"))
        return differ, abs(math.log(_rate(replay, arm) / wanted)), arm

    arm = min(replay.settings, key=far)
    replay.train(arm, replay.seeds[0], 1.0)
    return _ended(replay)


def rate_of(base: dict[str, object]) -> float:
    """The literature's learning rate of a base, from its hidden size where it is a Llama."""
    hidden = base.get("hidden_size")
    if base.get("model_type") == "llama" and hidden is not None:
        return float(5e-5 * 10 * (2000 / float(str(hidden))) ** 0.781)
    return ENCODER_RATE * 10


def _finished(replay: Replay) -> list[str]:
    return [arm for (arm, _), share in replay.trained.items() if share > 1 - 1e-9]


def _ended(replay: Replay) -> Raced:
    """The best of the arms that reached their end; if none did, of those that went farthest."""
    seed = replay.seeds[0]
    done = _finished(replay)
    if done:
        value = {arm: float(replay.result(arm, seed) @ replay.weights_E) for arm in done}
        value = {arm: v if math.isfinite(v) else math.inf for arm, v in value.items()}
    else:
        far = max(replay.trained.values(), default=0.0)
        ahead = [arm for (arm, _), share in replay.trained.items() if share > far - 1e-9]
        value = {arm: replay.mean(arm, seed, far) for arm in ahead}
    best = min(value, key=lambda arm: value[arm])
    stopped = frozenset(replay.order) - set(done)
    return Raced(best, replay.budget, (best,), stopped)


POLICIES: dict[str, Policy] = {
    "full grid": full_grid,
    "random search": random_search,
    "ASHA": asha,
    "Hyperband": hyperband,
    "median stopping": median_stopping,
    "top k at one share": top_k,
    "Optuna TPE": tpe,
    "Optuna TPE, pruned": tpe_pruned,
    "formula alone": formula,
}
