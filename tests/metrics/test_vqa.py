"""The official answer processing and soft accuracy; expected values from running the published code."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_m2pt.metrics.vqa import reference_scores, vqa_accuracy, vqa_normalised

NORMALISED = [
    *(("Stop", "stop"), (" stop. ", "stop"), ("STOP!", "stop"), ("stop\nsign", "stop sign"), ("a\tb", "b")),
    *(("the cat", "cat"), ("An apple a day", "apple day"), ("a", ""), ("The", ""), ("", ""), ("?!", ""), (".", "")),
    *(("seven", "7"), ("Ten", "10"), ("eleven", "eleven"), ("none", "0"), ("zero one", "0 1"), ("no one", "no 1")),
    *(("7.", "7"), ("7.5", "7.5"), (".5", ".5"), ("7.0", "7.0"), ("1,000", "1000"), ("1, 2", "1 2"), ("u.s.a.", "usa")),
    *(("and/or", "and or"), ("and / or", "and or"), ("this/ that/those", "this thatthose"), ("t-shirt", "t shirt")),
    *(("(red)", "red"), ("red (dark)", "red dark"), ("#7", "#7"), ("50%", "50%"), ("$5", "$5"), ("a&b", "a&b")),
    *(("10:30", "10:30"), ("x*y", "x*y"), ("é", "é"), ("a@b.com", "bcom"), ("what?is", "whatis"), ("2.", "2")),
    *(("dont", "don't"), ("Don't", "don't"), ("couldnt've", "couldn't've"), ("couldn'tve", "couldn't've")),
    *(("couldntve", "couldntve"), ("somebody'd", "somebodyd"), ("somebodyd", "somebodyd"), ("its", "its")),
    *(("yall'd've", "y'all'd've"), ("twas", "'twas"), ("oclock", "o'clock"), ("well", "well")),
    *(("dog's", "dog 's"), ("let's go", "let 's go"), ("hes", "he's"), ("dont.", "don't"), ("." * 40, "." * 8)),
]


@pytest.mark.parametrize(("text", "expected"), NORMALISED)
def test_answers_are_normalised_as_published(text: str, expected: str) -> None:
    assert vqa_normalised(text) == expected


@pytest.mark.parametrize(
    ("matches", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1), (10, 1)], ids=str
)
def test_of_ten_people_four_make_an_answer_right(matches: int, expected: float) -> None:
    references = ["Stop!"] * matches + [f"word {number}" for number in range(10 - matches)]
    assert vqa_accuracy("the stop", references) == pytest.approx(expected)


def test_few_references_are_defined() -> None:
    assert vqa_accuracy("stop", []) == 0
    assert vqa_accuracy("stop", ["stop"]) == 0
    assert vqa_accuracy("stop", ["stop", "stop"]) == pytest.approx(1 / 3)
    assert reference_scores([]) == {}


@given(
    st.text(max_size=20), st.lists(st.sampled_from(["a", "one", "1", "The cat", "cat", "x"]), min_size=1, max_size=12)
)
def test_the_closed_form_is_the_mean_over_who_is_left_out(answer: str, references: list[str]) -> None:
    for given_answer in (answer, *references):
        normalised = [vqa_normalised(reference) for reference in references]
        matches = [reference == vqa_normalised(given_answer) for reference in normalised]
        others = list(itertools.combinations(matches, len(matches) - 1))
        mean = sum(min(1, sum(kept) / 3) for kept in others) / len(others)
        assert vqa_accuracy(given_answer, references) == pytest.approx(mean)
