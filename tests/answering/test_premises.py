"""Calibrated answers by value: probabilities of a plain loop over the library's own model, one candidate at a time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from data_modules.benchmark import BenchmarkDataModule
from data_modules.few_shot import add_examples
from experiments.runs.ways_to_answer import PremiseRule, answering_of
from lightning_m2pt.answering.content_free import ContentFree
from lightning_m2pt.answering.decoding import Answer, AnsweringMethod, LikelihoodAnswering
from lightning_m2pt.answering.domain_premise import DomainPremise
from lightning_m2pt.answering.likelihood import Candidates
from lightning_m2pt.answering.own_candidates import OwnCandidateAnswering
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import DivergedError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.testing.method_contract import moved
from lightning_m2pt.testing.random_backbone import IMAGE_SIZE, random_backbone
from lightning_m2pt.testing.small_processor import CLIP_MEAN, small_processor
from tests.answering.test_own_candidates import asked
from tests.data_modules.test_few_shot import vsr_with_training
from tests.prompts.test_parity import float64_islands

TEXT = "what is it ?"
TEXTS = (TEXT, "the color", "")
EXACT = 1e-10


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenClipLlama]:
    """A float64 model whose pass rounds nowhere to float32."""
    folder = tmp_path / "backbone"
    folder.mkdir()
    with float64_islands(monkeypatch):
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield random_backbone(folder, torch.float64)


def connected(module: BenchmarkDataModule) -> BenchmarkDataModule:
    module.connect(small_processor(IMAGE_SIZE))
    return module


def statements(folder: Path, shots: int = 0, draw: int | None = None) -> BenchmarkDataModule:
    """Returns yes/no questions, with examples that have pictures of their own."""
    module = connected(vsr_with_training(folder / "vsr"))
    if shots:
        add_examples(module, shots, draw)
    return module


def answers(module: BenchmarkDataModule, backbone: OpenClipLlama, answering) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for batch in module.predict_dataloader():
        ready = replace(batch, pixel_values=batch.pixel_values.double())
        found |= dict(zip(batch.sample_ids, answering.answer(backbone, ready), strict=True))
    return found


@torch.no_grad()
def plain_sums(
    backbone: OpenClipLlama, ids: Sequence[int], pictures: Sequence[torch.Tensor], candidates: Candidates
) -> list[float]:
    """Returns each candidate's log-probability by the library's model alone, a whole sequence at a time."""
    embed = backbone.language_model.get_input_embeddings()
    sums = []
    for candidate in candidates.token_ids:
        shown = iter(pictures)
        rows = []
        for token in [*ids, *candidate]:
            if token == IMAGE_TOKEN_ID:
                rows.append(backbone.connected_rows(next(shown)[None]).rows)
            else:
                rows.append(embed(torch.tensor([token])))
        logits = backbone.language_model(inputs_embeds=torch.cat(rows)[None]).logits[0]
        shares = logits.log_softmax(dim=-1)[-len(candidate) - 1 : -1]
        sums.append(sum(float(row[token]) for row, token in zip(shares, candidate, strict=True)))
    return sums


def plain_sums_of(
    backbone: OpenClipLlama, module: BenchmarkDataModule, sample: Sample, candidates: Candidates
) -> list[float]:
    """Returns the same of a conversation."""
    ids = module.processor.encode(sample, module.template, with_answers=False).input_ids.tolist()
    pictures = [module.processor.image(image).double() for image in sample.images]
    return plain_sums(backbone, ids, pictures, candidates)


def one_colour() -> numpy.ndarray:
    return numpy.full((IMAGE_SIZE, IMAGE_SIZE, 3), [round(255 * mean) for mean in CLIP_MEAN], numpy.uint8)


def log_of_mean_share(sums_of_texts: Sequence[Sequence[float]]) -> list[float]:
    shares = numpy.exp(numpy.array(sums_of_texts))
    return numpy.log((shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)).tolist()


def without_content(sample: Sample, text: str, picture: str) -> Sample:
    """Returns what is asked instead of a question, written down again."""
    turns = (*sample.turns[:-1], Turn(text.replace("{question}", sample.turns[-1].question)))
    image = {"mean": one_colour(), "none": None, "own": sample.image}[picture]
    return replace(sample, turns=turns, image=image)


def assert_answered(
    found: Answer, candidates: Candidates, sums: Sequence[float], premise: Sequence[float], tolerance: float = EXACT
) -> None:
    texts = list(candidates.texts)
    assert list(found.log_probabilities) == list(found.premise_log_probabilities) == texts
    numpy.testing.assert_allclose(list(found.log_probabilities.values()), sums, atol=tolerance, rtol=0)
    numpy.testing.assert_allclose(list(found.premise_log_probabilities.values()), premise, atol=tolerance, rtol=0)
    compared = numpy.array(sums) - numpy.array(premise)
    order = numpy.argsort(-compared)
    assert found.text == texts[order[0]]
    assert found.margin == pytest.approx(compared[order[0]] - compared[order[1]], abs=tolerance)


@pytest.mark.parametrize(
    ("texts", "picture", "by_picture"),
    [
        ((TEXT,), "mean", False),
        (TEXTS, "mean", True),
        ((TEXT, "the color"), "none", False),
        ((TEXT,), "own", False),
        ((TEXT,), "own", True),
        (("{question}", TEXT), "mean", True),
        (("{question} what",), "none", False),
    ],
    ids=str,
)
def test_contextual_calibration_of_yes_and_no(tmp_path, backbone, texts, picture, by_picture):
    module = statements(tmp_path)
    module.by_picture = by_picture
    answering = answering_of(module, "contextual_calibration", ContentFree(texts, picture))
    assert isinstance(answering, LikelihoodAnswering)
    found = answers(module, backbone, answering)
    samples = module.asked_samples()
    assert len(found) == len(samples) >= 3
    for sample in samples:
        sums = plain_sums_of(backbone, module, sample, answering.candidates)
        without = [
            plain_sums_of(backbone, module, without_content(sample, text, picture), answering.candidates)
            for text in texts
        ]
        assert_answered(found[sample.id], answering.candidates, sums, log_of_mean_share(without))


@pytest.mark.parametrize(("picture", "draw"), [("mean", 3), ("own", None)])
def test_examples_stay_in_front_of_a_question_without_content(tmp_path, backbone, picture, draw):
    module = statements(tmp_path, shots=2, draw=draw)
    answering = answering_of(module, "contextual_calibration", ContentFree(TEXTS[:2], picture))
    found = answers(module, backbone, answering)
    for sample in module.asked_samples():
        assert len(sample.images) == 3
        sums = plain_sums_of(backbone, module, sample, answering.candidates)
        without = [
            plain_sums_of(backbone, module, without_content(sample, text, picture), answering.candidates)
            for text in TEXTS[:2]
        ]
        assert_answered(found[sample.id], answering.candidates, sums, log_of_mean_share(without))


@pytest.mark.parametrize(("text", "words", "shots"), [(None, "Answer:", 2), ("the color is", "the color is", 0)])
def test_pmi_sets_the_words_before_an_answer_against_a_question(tmp_path, backbone, shots, text, words):
    module = statements(tmp_path, shots)
    answering = answering_of(module, "likelihood_pmi", DomainPremise(text))
    found = answers(module, backbone, answering)
    tokenizer = module.processor.tokenizer
    ids = [tokenizer.bos_token_id, *tokenizer(words, add_special_tokens=False)["input_ids"]]
    premise = plain_sums(backbone, ids, [], answering.candidates)
    for sample in module.asked_samples():
        assert_answered(
            found[sample.id],
            answering.candidates,
            plain_sums_of(backbone, module, sample, answering.candidates),
            premise,
        )
    assert answering.description()["premise"] == {"text": words, "tokens": len(ids)}


@pytest.mark.parametrize(
    ("method", "rule", "by_picture"),
    [
        ("contextual_calibration", ContentFree(TEXTS[:2], "mean"), True),
        ("contextual_calibration", ContentFree((TEXT,), "own"), False),
        ("likelihood_pmi", None, True),
    ],
    ids=["mean", "own", "pmi"],
)
def test_each_question_has_candidates_of_its_own(
    tmp_path: Path, backbone: OpenClipLlama, method: AnsweringMethod, rule: PremiseRule | None, by_picture: bool
) -> None:
    module = asked(tmp_path / "choices")
    module.by_picture = by_picture
    answering = answering_of(module, method, rule)
    assert isinstance(answering, OwnCandidateAnswering)
    found = answers(module, backbone, answering)
    tokenizer = module.processor.tokenizer
    ending = [tokenizer.bos_token_id, *tokenizer("Answer:", add_special_tokens=False)["input_ids"]]
    for sample in module.asked_samples():
        candidates = answering.candidates[sample.id]
        if isinstance(rule, ContentFree):
            without = [
                plain_sums_of(backbone, module, without_content(sample, text, rule.picture), candidates)
                for text in rule.texts
            ]
            premise = log_of_mean_share(without)
        else:
            premise = plain_sums(backbone, ending, [], candidates)
        sums = plain_sums_of(backbone, module, sample, candidates)
        assert_answered(found[sample.id], candidates, sums, premise)


def test_every_premise_is_run_once_for_each_list_of_candidates(tmp_path, backbone, monkeypatch):
    runs: list[int] = []
    whole = OpenClipLlama.prefill
    monkeypatch.setattr(OpenClipLlama, "prefill", lambda self, batch: (runs.append(len(batch)), whole(self, batch))[1])

    def premises_run(module: BenchmarkDataModule, method: AnsweringMethod, rule: PremiseRule | None) -> int:
        module.by_picture = True  # questions take another way
        runs.clear()
        answers(module, backbone, answering_of(module, method, rule))
        assert set(runs) == {1}
        return len(runs)

    module = statements(tmp_path)
    questions = module.questions()
    assert premises_run(module, "contextual_calibration", ContentFree(TEXTS)) == 3
    assert premises_run(module, "likelihood_pmi", None) == 1
    pictures = len({question.image_id for question in questions})
    assert premises_run(module, "contextual_calibration", ContentFree((TEXT,), "own")) == pictures
    of_words = len({question.text for question in questions})
    assert premises_run(module, "contextual_calibration", ContentFree(("{question}",))) == of_words
    choices = asked(tmp_path / "choices")
    assert premises_run(choices, "likelihood_pmi", None) == len({each.choices for each in choices.questions()})


def test_what_was_computed_of_one_model_is_not_another_s(tmp_path, backbone):
    module = statements(tmp_path)
    answering = answering_of(module, "contextual_calibration", ContentFree((TEXT,)))
    untouched = answers(module, backbone, answering)
    moved(lambda: M2PT(3, 2), backbone).attach(backbone)
    tuned = answers(module, backbone, answering)
    fresh = answers(module, backbone, answering_of(module, "contextual_calibration", ContentFree((TEXT,))))
    for name, answer in tuned.items():
        assert answer.premise_log_probabilities == fresh[name].premise_log_probabilities
        differences = [
            abs(answer.premise_log_probabilities[text] - untouched[name].premise_log_probabilities[text])
            for text in ("Yes", "No")
        ]
        assert max(differences) > 1e-4


@pytest.mark.parametrize("rule", [ContentFree((TEXT,), "own"), ContentFree(TEXTS), DomainPremise()], ids=str)
def test_premises_are_the_same_to_the_last_bit_in_any_batch(tmp_path, rule):
    module, method = (
        statements(tmp_path),
        "contextual_calibration" if isinstance(rule, ContentFree) else "likelihood_pmi",
    )
    (tmp_path / "backbone").mkdir()
    backbone = random_backbone(tmp_path / "backbone")
    found = []
    for size, by_picture in ((1, False), (2, True), (100, False)):
        module.batch_size, module.by_picture = size, by_picture
        answering = answering_of(module, method, rule)
        given: dict[str, Answer] = {}
        for batch in module.predict_dataloader():
            given |= dict(zip(batch.sample_ids, answering.answer(backbone, batch), strict=True))
        found.append({name: answer.premise_log_probabilities for name, answer in given.items()})
    assert found[0] == found[1] == found[2]


def test_a_premise_that_is_no_number_is_no_answer(tmp_path, backbone):
    module = statements(tmp_path)
    answering = answering_of(module, "likelihood_pmi")
    answering.premises.log_probabilities = lambda *_: [0.0, math.nan]
    with pytest.raises(DivergedError, match="infinite numbers"):
        answers(module, backbone, answering)
