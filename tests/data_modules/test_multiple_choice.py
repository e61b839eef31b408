"""Multiple choice in this project's own form: how a record is asked, and what no options and no right one are."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_modules.multiple_choice import MultipleChoice
from data_modules.reading.files import fake_image, write_image
from lightning_m2pt.errors import BadInputError

RECORD = {"image": "a/0.png", "question": " Which one? ", "choices": [" a cat ", "a dog"], "answer": "B"}
NAMED = {"image": "a/0.png", "question": "Who?", "choices": ["x", "y", "z"], "answer": "C", "id": "q7", "subtask": "s"}


def written(root: Path, *records: dict[str, Any], **arguments: Any) -> MultipleChoice:
    """Returns a set of these records."""
    write_image(root / "a" / "0.png", fake_image(0))
    (root / "dev.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return MultipleChoice(str(root), "plain", split="dev", **arguments)


def test_options_are_asked_on_lines_of_their_own_behind_their_letters(tmp_path: Path) -> None:
    first, second = written(tmp_path, RECORD, NAMED).questions()
    assert first.text == (
        "Which one?\nA. a cat\nB. a dog\nAnswer with the option's letter from the given choices directly."
    )
    assert (first.id, first.subtask, first.target, first.choices) == ("dev/1", "", "B", ("a cat", "a dog"))
    assert (first.image, first.image_id, first.source) == (
        tmp_path / "a" / "0.png",
        "a/0.png",
        f"{tmp_path}/dev.jsonl:1",
    )
    assert (second.id, second.subtask, second.target, second.choices) == ("q7", "s", "C", ("x", "y", "z"))
    assert written(tmp_path, RECORD, instruction="").questions()[0].text == "Which one?\nA. a cat\nB. a dog"


def test_letters_or_texts_of_the_questions_own_options_are_compared(tmp_path: Path) -> None:
    letters, texts = (written(tmp_path, RECORD, NAMED, candidates=each) for each in ("letter", "text"))
    assert [letters.candidates_of(each) for each in letters.questions()] == [("A", "B"), ("A", "B", "C")]
    assert [texts.candidates_of(each) for each in texts.questions()] == [("a cat", "a dog"), ("x", "y", "z")]


def test_texts_that_are_letters_of_other_options_are_not_compared(tmp_path: Path) -> None:
    swapped = {**RECORD, "choices": ["C", "B", "A"]}
    module = written(tmp_path, NAMED, swapped, candidates="text")
    first, second = module.questions()
    assert module.candidates_of(first) == ("x", "y", "z")
    with pytest.raises(BadInputError, match="the option 'C' reads as another one's letter") as caught:
        module.candidates_of(second)
    assert caught.value.where == f"{tmp_path}/dev.jsonl:2"
    own = written(tmp_path, {**RECORD, "choices": ["A", "B"]}, candidates="text")
    assert own.candidates_of(own.questions()[0]) == ("A", "B")


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"choices": ["a"]}, ":2: choices", "['a']"),
        ({"choices": [str(number) for number in range(27)]}, ":2: choices", "the value is"),
        ({"choices": ["a", "b", 3]}, ":2: choices", "['a', 'b', 3]"),
        ({"choices": "ab"}, ":2: choices", "'ab'"),
        ({"choices": ["a", " "]}, ":2: choices", "the text is empty"),
        ({"choices": ["A dog", "a  dog."]}, ":2", "the options are"),
        ({"choices": ["a", "."]}, ":2", "the options are"),
        ({"choices": ["a", "<image>"]}, ":2", "<image> stands in the question"),
        ({"answer": "C"}, ":2", "the right option is 'C'"),
        ({"answer": "b"}, ":2", "the right option is 'b'"),
        ({"answer": "a dog"}, ":2", "the right option is 'a dog'"),
        ({"answer": 1}, ":2: answer", "the value is 1"),
        ({"image": "../0.png"}, ":2: image", ""),
        ({"id": ""}, ":2: id", "the text is empty"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_record_is_refused_with_its_place(
    tmp_path: Path, changes: dict[str, Any], where: str, what: str
) -> None:
    module = written(tmp_path, RECORD, {**RECORD, **changes})
    with pytest.raises(BadInputError) as caught:
        module.questions()
    assert caught.value.where == f"{tmp_path}/dev.jsonl{where}"
    assert what in caught.value.what
    assert caught.value.expected


def test_as_many_options_as_there_are_letters_are_accepted(tmp_path: Path) -> None:
    choices = [f"option {number}" for number in range(26)]
    (question,) = written(tmp_path, {**RECORD, "choices": choices, "answer": "Z"}).questions()
    assert question.text.splitlines()[26] == "Z. option 25"
