"""Candidates of each question's own: as likely as when each question and candidate is computed by itself."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from data_modules.multiple_choice import MultipleChoice, fake_record, write_multiple_choice
from data_modules.vsr import VSR
from experiments.runs.evaluation import answering_of
from lightning_m2pt.answering import likelihood
from lightning_m2pt.answering.decoding import Answer, LikelihoodAnswering
from lightning_m2pt.answering.likelihood import Candidates, candidate_log_probabilities
from lightning_m2pt.answering.own_candidates import OwnCandidateAnswering, own_log_probabilities
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.testing.method_contract import moved
from lightning_m2pt.testing.passes import batch_for
from lightning_m2pt.testing.random_backbone import IMAGE_SIZE, random_backbone
from lightning_m2pt.testing.small_processor import small_processor

OWN = [
    Candidates(("a", "b"), ((5, 0), (6, 7, 8, 0))),
    Candidates(("c",), ((9,),)),
    Candidates(("b", "d", "e"), ((6, 7, 8, 0), (6, 7, 9, 0), (10,))),
    Candidates(("f", "g"), ((11,), (12,))),
]
OPTIONS = [
    ("red", "blue"),
    ("yes", "no", "it is red"),
    ("the color", "red", "it", "blue"),
    ("no", "yes"),
    ("the", "it"),
]
SAME_WORDS = "what color is it ?"


class Bare(MultipleChoice):
    """The options do not stand in the text, so that questions with the same words differ in options alone."""

    def read(self) -> list[Question]:
        return [replace(question, text=SAME_WORDS) for question in super().read()]


def asked(folder: Path, kind: type[MultipleChoice] = MultipleChoice) -> MultipleChoice:
    """Returns ten questions about three pictures, with two to four options, ready to be asked."""
    MultipleChoice.write_fake(folder)
    choices = [list(OPTIONS[number % len(OPTIONS)]) for number in range(10)]
    records = [
        {**fake_record(number), "question": f"{SAME_WORDS} {'the ' * number}", "choices": options, "answer": "B"}
        for number, options in enumerate(choices)
    ]
    write_multiple_choice(folder, records)
    module = kind(str(folder), "plain", batch_size=4, candidates="text")
    module.connect(small_processor(IMAGE_SIZE))
    return module


def answers(module: MultipleChoice, backbone: Backbone, answering: OwnCandidateAnswering) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for batch in module.predict_dataloader():
        if batch.pixel_values.dtype == torch.float32:
            batch = replace(batch, pixel_values=batch.pixel_values.double())
        found |= dict(zip(batch.sample_ids, answering.answer(backbone, batch), strict=True))
    return found


def prepared(folder: Path) -> OpenClipLlama:
    backbone = random_backbone(folder, torch.float64)
    moved(lambda: M2PT(3, 2), backbone).attach(backbone)
    return backbone


def assert_same(found: Sequence[float], expected: Sequence[float]) -> None:
    numpy.testing.assert_allclose(found, expected, atol=1e-5)  # sums are float32


@pytest.mark.parametrize("path", ["auto", "token"])
def test_each_question_is_as_when_its_candidates_are_all_there_are(tmp_path: Path, path: str) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    moved(lambda: M2PT(3, 2, path=path), backbone).attach(backbone)
    batch = batch_for(backbone, answers=False)
    found = own_log_probabilities(backbone, batch, OWN)
    for row, candidates in enumerate(OWN):
        expected = candidate_log_probabilities(backbone, batch, candidates)[row]
        assert_same(found[row], expected.tolist())


@pytest.mark.parametrize("rows", [1, 2])
def test_many_options_are_the_same_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    backbone = prepared(tmp_path)
    batch = batch_for(backbone, answers=False)
    whole = own_log_probabilities(backbone, batch, OWN)
    monkeypatch.setattr(likelihood, "ROWS_PER_LOGITS", rows)
    for found, expected in zip(own_log_probabilities(backbone, batch, OWN), whole, strict=True):
        assert_same(found, expected)


@pytest.mark.parametrize("kind", [MultipleChoice, Bare])
@pytest.mark.parametrize("method", ["likelihood_sum", "likelihood_mean"])
def test_shared_prefixes_answer_as_every_question_by_itself(
    tmp_path: Path, kind: type[MultipleChoice], method: str
) -> None:
    module, backbone = asked(tmp_path, kind), prepared(tmp_path)
    answering = answering_of(module, method)
    assert isinstance(answering, OwnCandidateAnswering)
    alone = answers(module, backbone, answering)
    module.by_picture = True
    together = answers(module, backbone, answering)
    module.by_picture, module.batch_size = False, 1
    one_by_one = answers(module, backbone, answering)
    assert alone.keys() == together.keys() == one_by_one.keys()
    for question in module.questions():
        given = [each[question.id] for each in (alone, together, one_by_one)]
        assert tuple(given[0].log_probabilities) == question.choices
        assert len({answer.text for answer in given}) == 1
        for other in given[1:]:
            assert_same(list(other.log_probabilities.values()), list(given[0].log_probabilities.values()))
        values = {text: value for text, value in given[0].log_probabilities.items()}
        if method == "likelihood_sum":
            assert given[0].text == max(values, key=lambda text: values[text])


def test_letters_or_texts_are_compared_and_headers_say_which(tmp_path: Path) -> None:
    module = asked(tmp_path)
    by_text = answering_of(module, "likelihood_sum")
    assert by_text.most_tokens == 4  # "it is red" and the end token
    letters = MultipleChoice(str(tmp_path), "plain")
    assert letters.candidates_of(letters.questions()[2]) == ("A", "B", "C", "D")
    assert module.candidates_of(module.questions()[2]) == OPTIONS[2]
    module.read_questions = [replace(question, choices=("no", "yes")) for question in module.questions()]
    others = answering_of(module, "likelihood_sum").description()
    assert by_text.description().keys() == {"method", "own_candidates_sha256"}
    assert by_text.description() != others


def test_a_set_without_options_is_compared_as_before(tmp_path: Path) -> None:
    VSR.write_fake(tmp_path)
    module = VSR(str(tmp_path), "plain")
    module.connect(small_processor(IMAGE_SIZE))
    answering = answering_of(module, "likelihood_sum")
    assert isinstance(answering, LikelihoodAnswering)
    assert answering.description() == {"method": "likelihood_sum", "candidate_tokens": {"Yes": 2, "No": 2}}
