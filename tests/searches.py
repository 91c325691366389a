"""Specs of searches, for tests."""

from rankwise.spec.models import StudySpec

GOOD = {
    "study": "space",
    "model": {"name": "nowhere"},
    "task": "SEQ_CLS",
    "data": {"source": "rows.csv", "text": "text", "label": "label"},
    "budget": {"runs": 8},
}
RATES = {"low": 1e-5, "high": 1e-2, "log": True}
SPACE = {"training.learning_rate": RATES, "lora.r": [16, 4, 8]}


def study(space=SPACE, search=None, **more):
    return StudySpec.model_validate({**GOOD, "search": {"space": space, **(search or {})}, **more})
