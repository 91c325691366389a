"""Answers of runs that were trained before anyone asked: a configuration that was added later.

It differs in generation alone from one that is trained, so its runs are there; their adapters are
loaded by peft, and nothing is trained again.
"""

from pathlib import Path

from rankwise.spec.arms import Run
from rankwise.store.folders import ADAPTERS
from rankwise.store.schema import FINISHED
from rankwise.study.answering import ask_runs
from rankwise.study.begin import Study
from rankwise.train.evaluate import Untouched


def unanswered(study: Study) -> list[Run]:
    """Finished runs whose configuration asks something that it has no answers to, nor a failure."""
    outlook, store = study.outlook, study.store
    configs = {config.key: config.id for config in store.configs()}
    said = {(record.config_id, record.run_id) for record in store.answers()}
    failed = {fact.data["who"] for fact in store.facts() if fact.kind == "no_answers"}
    found = []
    for run in outlook.runs:
        if run.arm.generation not in outlook.questions or any(run.id in who for who in failed):
            continue
        record = store.run(store.run_id(run.arm.training_id, run.seed))
        there = (store.folder / ADAPTERS / record.folder).is_dir()
        if record.state in FINISHED and there and (configs[run.arm.id], record.id) not in said:
            found.append(run)
    return found


def answer_again(study: Study) -> None:
    """Put the prompts to the runs that `unanswered` names, one by one."""
    outlook, store = study.outlook, study.store
    for run in unanswered(study):
        record = store.run(store.run_id(run.arm.training_id, run.seed))
        asked = run.arm.generation
        face = _trained(study, run, store.folder / ADAPTERS / record.folder)
        questions = outlook.questions[asked]
        ask_runs(face, [run], asked, questions, study.task, outlook.tokenizer, store)
        study.bases.let_go()  # peft has changed it


def _trained(study: Study, run: Run, folder: Path) -> Untouched:
    """The base with a run's weights, as they were at its best step."""
    if run.arm.method == "full":
        base = study.bases.whole()
        trained = type(base.model).from_pretrained(folder, dtype=base.dtype)  # type: ignore[attr-defined]
        return Untouched(trained.to(study.task.device).eval())
    from peft import PeftModel

    base = study.bases.frozen(run.arm.quantization)
    model = PeftModel.from_pretrained(base.model, folder)
    return Untouched(model.base_model.model.eval())
