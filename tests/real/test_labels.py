"""What is learned from, in the model's own template: the answers and the tokens that end their turns, nothing else.

Texts are what transformers' ``apply_chat_template`` writes, tokens what the tokenizer makes of them on both sides of
the picture. Every type of question that is tuned on is here, and captions.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from experiments.testbed.questions import TUNED_TYPES
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample, Turn
from tests.real.pair import IMAGE_MARK, library_tokenizer, pair, records, tokens_of, written

pytestmark = pytest.mark.real

END = "<|im_end|>"
TYPES = [each.name for each in TUNED_TYPES]
CAPTION = Turn(
    "Describe the image.",
    "The image shows a small green zero at the middle right, a large red bar at the top left and a large yellow circle "
    "at the bottom right.",
)


@pytest.fixture(scope="module")
def processor(projector: Path) -> Processor:
    return pair(projector).processor()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return library_tokenizer()


@pytest.fixture(scope="module")
def turns_by_type() -> dict[str, list[Turn]]:
    """Returns questions and answers of several hundred about rendered scenes, by the name of their type."""
    found: dict[str, list[Turn]] = defaultdict(list)
    for record in records(80, 8):
        found[record.task_name.removeprefix("testbed+")].append(Turn(record.instruction, record.answer))
    return found


def assert_labelled(processor: Processor, tokenizer: Any, turns: tuple[Turn, ...]) -> None:
    """Compares a conversation's tokens and labels with the library's text."""
    sample = Sample("a", Path("a.png"), "a.png", turns, ("",) * len(turns), "a test")
    (encoded,) = processor.encode_all([sample], template_named("native"))
    before, behind = written(tokenizer, turns).split(IMAGE_MARK)
    expected = [*tokens_of(tokenizer, before), IMAGE_TOKEN_ID, *tokens_of(tokenizer, behind)]
    assert encoded.input_ids.tolist() == expected
    supervised = [int(label) for label in encoded.labels if label != IGNORED_LABEL]
    assert tokenizer.decode(supervised) == "".join(f"{turn.answer}{END}" for turn in turns)
    assert supervised.count(tokenizer.convert_tokens_to_ids(END)) == len(turns)
    assert supervised[-1] == tokenizer.convert_tokens_to_ids(END)
    (asked,) = processor.encode_all([sample], template_named("native"), with_answers=False)
    before, behind = written(tokenizer, [*turns[:-1], Turn(turns[-1].question)]).split(IMAGE_MARK)
    assert asked.input_ids.tolist() == [*tokens_of(tokenizer, before), IMAGE_TOKEN_ID, *tokens_of(tokenizer, behind)]
    assert encoded.input_ids[: len(asked)].tolist() == asked.input_ids.tolist()
    assert encoded.labels[len(asked)] != IGNORED_LABEL


@pytest.mark.parametrize("name", TYPES)
def test_answers_of_a_type(
    processor: Processor, tokenizer: Any, turns_by_type: dict[str, list[Turn]], name: str
) -> None:
    turns = turns_by_type[name]
    assert len(turns) >= 3
    for turn in turns:
        assert_labelled(processor, tokenizer, (turn,))


def test_captions(processor: Processor, tokenizer: Any) -> None:
    assert_labelled(processor, tokenizer, (CAPTION,))


def test_several_questions_of_one_picture_in_one_conversation(
    processor: Processor, tokenizer: Any, turns_by_type: dict[str, list[Turn]]
) -> None:
    mixed = [turns[0] for turns in turns_by_type.values()]
    for length in (2, 4, len(mixed)):
        assert_labelled(processor, tokenizer, tuple(mixed[:length]))
