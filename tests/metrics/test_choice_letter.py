"""The letter of an option in an answer: what was decided, and what multiple-choice predictions must hold."""

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.choice_letter import choice_letter
from lightning_m2pt.metrics.predictions import check_prediction
from lightning_m2pt.metrics.score import score

CHOICES = ("a red cat", "a dog", "No answer", "North Carolina.")
READ = {
    **dict.fromkeys(("B", "b", " B\n", "(B)", "(b)", "B.", "B)", "B:", "(B).", "B,"), "B"),
    **dict.fromkeys(("The answer is B", "The answer is B.", "the correct answer is (B)", "Answer: B", "answer b"), "B"),
    **dict.fromkeys(("Option B", "My answer is option B.", "The best choice is: B"), "B"),
    **dict.fromkeys(("B. a dog", "(B) a dog", "B: A dog.", "B. It barks.", "(B) because it is no cat"), "B"),
    **dict.fromkeys(("a dog", "A dog", "A DOG.", "a  dog"), "B"),
    **dict.fromkeys(("a red cat", "A red cat.", "A. a red cat"), "A"),
    **dict.fromkeys(("no answer", "C"), "C"),
    **dict.fromkeys(("North Carolina", "north carolina.", "D. North Carolina."), "D"),
    **dict.fromkeys(("", " ", "dog", "a cat", "A cat", "the dog", "E", "(Z)", "E. something", "A B", "A or B"), None),
    **dict.fromkeys(("A. B.", "A. a dog", "B. no answer", "(A) and (B) are right", "B) or C)", "AB", "1", "?"), None),
    **dict.fromkeys(("not B", "The answer is not B", "I think B", "The answer is B or C"), None),
}


@pytest.mark.parametrize("answer", READ, ids=ascii)
def test_answers_are_read_as_decided(answer: str) -> None:
    assert choice_letter(answer, CHOICES) == READ[answer]


def test_a_word_that_is_one_letter_and_another_options_text_says_nothing() -> None:
    assert choice_letter("A", ("B", "A")) is None
    assert choice_letter("(A)", ("B", "A")) == "A"
    assert choice_letter("O", ("A", "B", "O", "AB")) == "C"
    assert choice_letter("\u017f", [str(number) for number in range(26)]) is None  # long s, of which upper case is S
    assert choice_letter("B", ("A", "B", "O", "AB")) == "B"


def line(number: int, target: str, answer: str, choices: list[str] | None = None) -> dict:
    texts = {"set": "s", "subtask": "", "question": "?", "image_id": "p"}
    return {**texts, "id": str(number), "target": target, "answer": answer, "choices": choices or ["x", "y"]}


def test_every_question_is_read_with_its_own_options() -> None:
    three = ["one", "two", "three"]
    lines = [line(0, "B", "B"), line(1, "B", "two", three), line(2, "C", "three", three), line(3, "A", "C")]
    scored = score({"benchmark": "s"}, lines, "choice_letter")
    assert (scored.value, scored.unparsed, scored.n) == (75, 1, 4)  # the last question has no C
    assert scored.parsed == {"0": "B", "1": "B", "2": "C", "3": None}
    assert scored.chance == 50  # always B
    assert scored.yes_ratio is None


def test_predictions_without_options_or_with_a_target_that_is_none_do_not_fit() -> None:
    without = {key: value for key, value in line(0, "A", "A").items() if key != "choices"}
    with pytest.raises(BadInputError, match=r"choice_letter does not fit: .* names no choices"):
        score({"benchmark": "s"}, [without], "choice_letter")
    for target in ("C", "b", "x"):
        with pytest.raises(BadInputError, match=f"the target of '0' is '{target}'"):
            score({"benchmark": "s"}, [line(0, target, "A")], "choice_letter")


@pytest.mark.parametrize("choices", ["A", [], ["x"], ["x", "x"], ["x", " "], ["x", 1], [[]] * 2, ["x"] * 27], ids=repr)
def test_options_that_are_none_are_refused_in_a_prediction_file(choices: object) -> None:
    with pytest.raises(BadInputError, match="line 1: choices"):
        check_prediction({**line(0, "A", "A"), "choices": choices}, "line 1")
