"""Studies seen part of the way, for tests of the race: losses drawn about given curves.

Array suffixes: E examples.
"""

import numpy as np

from rankwise.search.seen import Run, Schedule, Seen

LINEAR = Schedule("linear", 0.1, 100)
CONSTANT = Schedule("constant", 0.1, 100)
SHARES = (0.25, 0.5, 0.75, 1.0)


def seen_of(
    curves,
    reached=None,
    seeds=(0,),
    schedules=None,
    settings=None,
    examples=100,
    noise=0.1,
    seed_noise=0.0,
    draw=0,
):
    """`curves[arm]` is a mean loss at each of SHARES; `reached[arm]` a share (all of it).

    Every arm has the same examples; a difference of two has the standard error
    noise * sqrt(2 / examples).
    """
    rng = np.random.default_rng(draw)
    difficulty_E = rng.gamma(2.0, 0.5, examples)
    runs = {}
    for arm, means in curves.items():
        far = (reached or {}).get(arm, 1.0)
        for seed in seeds if far > 0 else ():
            off = seed_noise * rng.standard_normal()
            own_E = difficulty_E + noise * centred(rng, examples) + off
            curve = {s: own_E + m for s, m in zip(SHARES, means, strict=True) if s <= far}
            runs[arm, seed] = Run(curve, finished=far >= 1.0)
    return Seen(runs, schedules or dict.fromkeys(curves, LINEAR), settings or {})


def centred(rng, examples):
    """Standard normal numbers (E,) whose mean is zero, so that means are as they are asked for."""
    drawn_E = rng.standard_normal(examples)
    return drawn_E - drawn_E.mean()
