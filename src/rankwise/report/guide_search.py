"""The guide's last part: with little memory, specs to start with, and a staged way of searching."""

from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.report.document import (
    Block,
    Bullets,
    CodeBlock,
    Paragraph,
    Section,
    code,
    strong,
    table,
)
from rankwise.report.words import compared
from rankwise.results.judge import Judgement
from rankwise.text import size


@dataclass(frozen=True)
class Start:
    """A spec to start with: the kind of task, its file in `examples/`, and what it holds."""

    kind: str
    file: str
    what: str


@dataclass(frozen=True)
class Stage:
    """One stage of a search: what it answers, its commands, and how to go on from it.

    A command may end with a comment, which says how many runs it has.
    """

    question: str
    commands: tuple[str, ...]
    then: str


STARTS = (
    Start("classes", "start_classes.yaml", "an encoder; a text gets one of a few labels"),
    Start("generation", "start_generation.yaml", "a decoder; it learns to continue plain text"),
    Start("answers", "start_answers.yaml", "a decoder; the loss is on the answer alone"),
    Start("answers", "answers_t5.yaml", "an encoder with a decoder; its base comes from the hub"),
    Start(
        "little memory, under 8 GB",
        "start_little_memory.yaml",
        "a decoder in 4 bits, one row at a time, training held below 7 GB",
    ),
)

SPEC = "examples/start_classes.yaml"
STAGES = (
    Stage(
        "What does it cost?",
        (f"rankwise plan {SPEC}",),
        "Nothing is trained. If it takes too long, lower training.max_steps or data.split, or take "
        "a smaller model.",
    ),
    Stage(
        "Which learning rate, coarsely?",
        (
            f"rankwise run {SPEC}  # 6 runs",
            f"rankwise run {SPEC} --set 'grid.training.learning_rate=[3e-4, 1e-3, 3e-3, 1e-2]'"
            "  # 8 runs, 2 of them new",
        ),
        "The second command is for a best rate at an end of the range: add a rate beyond that end. "
        "Only what is new is trained. Go on when the best is inside.",
    ),
    Stage(
        "Which rank and which modules, each at its own best learning rate?",
        (
            f"rankwise run {SPEC} --set study=start-classes-ranks --set 'grid.lora.r=[4, 16, 64]'"
            "  # 18 runs",
            f"rankwise run {SPEC} --set study=start-classes-modules "
            "--set 'grid.lora.target_modules=[attention, mlp, all-linear]'  # 18 runs",
        ),
        "The grid crosses them with the learning rates. Compare the best rate of one rank with the "
        "best rate of the other, not both at one rate. Alpha stays at 32; for high ranks try "
        "lora.lora_alpha=2r as well, on which sources disagree.",
    ),
    Stage(
        "Which of the tied ones?",
        (
            f"rankwise run {SPEC} --set study=start-classes-tied --set 'grid={{}}' "
            "--set 'configs=[{lora.r: 4, training.learning_rate: 3e-3}, "
            "{lora.r: 16, training.learning_rate: 1e-3}]' --set 'seeds=[10, 11, 12, 13]'  # 8 runs",
        ),
        "Put two or three of the tied configurations here. The seeds are new: the old ones chose "
        "these configurations, so they favour them.",
    ),
    Stage(
        "What was found, and the adapter.",
        (
            "rankwise guide studies/start-classes studies/start-classes-ranks "
            "studies/start-classes-modules studies/start-classes-tied",
            "rankwise export studies/start-classes-tied best --to my-adapter",
        ),
        "If configurations are still tied, take the cheapest, or more seeds.",
    ),
)


def little_memory(judged: Sequence[Judgement]) -> Section:
    """The configuration of each study that needs least memory, and the spec to start with."""
    items = [text for one in judged if (text := _least_memory(one))]
    blocks: list[Block] = [Bullets(tuple(items))] if items else []
    if not items:
        blocks.append(Paragraph("None of these studies recorded memory."))
    file = next(start.file for start in STARTS if "memory" in start.kind)
    blocks.append(
        Paragraph(
            f"With less than 8 GB start with {code(f'examples/{file}')}. Where the base fits in 16 "
            f"bits, compare it with {code('model.quantization: none')}. Memory goes to the base, "
            "to the rows of a batch and their length "
            f"({code('training.per_device_train_batch_size')}, {code('data.max_length')}), and to "
            f"the adapter ({code('lora.target_modules')}, {code('lora.r')}); "
            f"{code('rankwise plan')} predicts it for each configuration."
        )
    )
    return Section("With little memory", "memory", tuple(blocks))


def _least_memory(one: Judgement) -> str:
    memory = {a.name: a.costs["memory"].value for a in one.records.arms if "memory" in a.costs}
    ranked = [r for r in one.verdict.arms if r.place is not None and r.arm in memory]
    if not ranked or one.verdict.best is None:
        return ""
    least = min(ranked, key=lambda r: (memory[r.arm], r.place or 0))
    need = size(memory[least.arm])
    text = f"{code(one.records.title)}: {code(least.arm)} needs the least memory, {need}"
    if least.arm != one.verdict.best:
        gap = one.verdict.difference(least.arm, one.verdict.best)
        said = compared(gap, one.verdict.lower_is_better, one.digits)
        text += f"; against the best mean it is {said}"
    return f"{text}."


def starting_specs() -> Section:
    """The specs to start with, by task."""
    intro = Paragraph(
        "Each of these runs as it is, on models and texts from package indexes; one needs the "
        "model hub. Put your model and your data into it, and keep the rest at first."
    )
    rows = [(start.kind, code(f"examples/{start.file}"), start.what) for start in STARTS]
    return Section("Specs to start with", "start", (intro, table(("task", "spec", "it is"), rows)))


def staged_search() -> Section:
    """The stages of a search, as commands."""
    blocks: list[Block] = [
        Paragraph(
            "This is advice, not a finding of these studies. The first study of a task has one "
            "configuration at a few learning rates and two seeds; its spread over seeds is the "
            "noise floor, and smaller differences mean nothing. Every later stage changes one "
            "setting and crosses it with the learning rate."
        )
    ]
    for number, stage in enumerate(STAGES, 1):
        blocks += [
            Paragraph(strong(f"Stage {number}. {stage.question}")),
            CodeBlock("\n".join(stage.commands), "sh"),
            Paragraph(stage.then),
        ]
    blocks.append(Paragraph("Vary dropout, schedule, biases and quantisation last, one at a time."))
    return Section("A staged way of searching", "search", tuple(blocks))
