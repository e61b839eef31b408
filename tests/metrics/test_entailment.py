"""Yes, no or not sure: a table of tricky answers."""

import pytest

from lightning_m2pt.metrics.entailment import entailment_words

TABLE = [
    *[
        (answer, "yes")
        for answer in ("Yes", "yes.", "YES!", "**Yes**", "_yes_", "yes:", "Entailment", "It is entailed.")
    ],
    *[(answer, "yes") for answer in ("Yes, there are two dogs.", "The answer is\nyes", "I am sure: yes", "yes yes")],
    *[(answer, "no") for answer in ("No", "no.", "NO;", "Contradiction", "contradicted", "There is no dog.")],
    *[
        (answer, "no")
        for answer in ("No, it is a contradiction.", "No. Contradiction", "no\ncontradiction", "contradiction: no")
    ],
    *[(answer, "not sure") for answer in ("Not sure", "not sure.", "I'm not sure", "NOT SURE!", "unsure", "Maybe.")],
    *[
        (answer, "not sure")
        for answer in ("neutral", "uncertain", "Perhaps", "possibly", "It is unclear.", "not\nsure")
    ],
    *[
        (answer, "not sure")
        for answer in ("I cannot tell", "can't tell", "I can\u2019t say.", "I can not tell", "couldn't say")
    ],
    *[
        (answer, "not sure")
        for answer in ("It isn't clear", "not entirely sure", "I am not really certain", "I don't know")
    ],
    *[
        (answer, "not sure")
        for answer in ("It cannot be determined", "impossible to tell", "hard to say", "no way to know")
    ],
    *[(answer, "not sure") for answer in ("Maybe, not sure", "I cannot be sure.", "not-sure", "not possible to tell")],
    *[(answer, None) for answer in ("", " ", "?", "sure", "Y", "eyes", "now", "know", "nothing", "possible", "a cat")],
    *[(answer, None) for answer in ("Yes or no", "yes/no", "Yes, there is no doubt", "yes, maybe", "No, not sure")],
    *[(answer, None) for answer in ("not sure if yes or no", "neutral or contradiction", "entailment, no")],
    *[(answer, None) for answer in ("not a contradiction", "not yes", "isn't entailed", "not unsure", "not neutral")],
    *[(answer, None) for answer in ("There is no contradiction.", "no sign of a contradiction", "no entailment")],
    *[(answer, None) for answer in ("neither", "neither yes nor no", "It cannot be concluded", "I cannot say no")],
    *[
        (answer, None)
        for answer in ("No, it is not", "never", "without contradiction", "unsurely", "neutrality", "yesno")
    ],
    ("No one can tell.", "not sure"),
    ("No idea", "not sure"),
    ("There is no way of knowing", "not sure"),
    ("There is no information about that", "not sure"),
    ("There isn't enough information", "not sure"),
]


@pytest.mark.parametrize(("answer", "expected"), TABLE)
def test_answers_are_read_as_whole_words_and_phrases(answer: str, expected: str | None) -> None:
    assert entailment_words(answer) == expected
