"""A batch of each task: its labels lie where its loss looks for them."""

import numpy as np
import pytest

from rankwise.data.examples import Example
from rankwise.spec.tasks import TASKS
from rankwise.tasks.by_name import LEARNT, WRITTEN, example_of, make_batch, prompt_of, target_count


def example(ids: list[int], labels: list[int] | int, reference: str | None = None) -> Example:
    return Example(np.array(ids), np.array(labels), 0, "", reference)


def test_labels_of_a_causal_batch_lie_beside_its_inputs() -> None:
    rows = [example([5, 6, 7], [-100, 6, 7]), example([8, 9], [-100, 9])]
    batch = make_batch("CAUSAL_LM", rows, 0, 4)
    assert batch.input_ids.tolist() == [[5, 6, 7, 0], [8, 9, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch.labels.tolist() == [[-100, 6, 7, -100], [-100, 9, -100, -100]]
    with pytest.raises(ValueError, match="as long as"):
        make_batch("CAUSAL_LM", [example([1, 2, 3], [1])], 0, 4)


def test_targets_and_classes_have_shapes_of_their_own() -> None:
    pairs = [example([1, 2, 3], [4]), example([5], [6, 7])]
    assert make_batch("SEQ_2_SEQ_LM", pairs, 0, 3).labels.tolist() == [[4, -100], [6, 7]]
    classes = [example([1, 2], 1), example([3], 0)]
    assert make_batch("SEQ_CLS", classes, 0, 2).labels.tolist() == [1, 0]


def test_the_first_token_of_a_causal_example_is_no_target_and_a_class_is_one() -> None:
    assert target_count(example([1, 2, 3], [1, 2, -100]), "CAUSAL_LM") == 1
    assert target_count(example([1], [1, 2, -100]), "SEQ_2_SEQ_LM") == 2
    assert target_count(example([1, 2], 1), "SEQ_CLS") == 1


def test_an_answer_becomes_the_targets_after_its_prompt() -> None:
    prompt, answer = np.array([1, 2]), np.array([3])
    causal = example_of(prompt, answer, "CAUSAL_LM")
    assert (causal.input_ids.tolist(), causal.labels.tolist()) == ([1, 2, 3], [-100, -100, 3])
    paired = example_of(prompt, answer, "SEQ_2_SEQ_LM")
    assert (paired.input_ids.tolist(), paired.labels.tolist()) == ([1, 2], [3])
    assert prompt_of(paired, "SEQ_2_SEQ_LM").tolist() == [1, 2]


def test_every_task_of_the_table_has_a_module() -> None:
    assert set(LEARNT) == set(TASKS)
    assert set(WRITTEN) == {name for name, kind in TASKS.items() if kind.generates}
