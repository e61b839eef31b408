"""Log-probabilities of candidates: equal to teacher forcing one by one, whatever the batch and the injection path."""

import numpy
import pytest
import torch

from experiments.configuration.cli import parse_experiment
from lightning_m2pt.answering.decoding import LikelihoodAnswering
from lightning_m2pt.answering.likelihood import Candidates, candidate_log_probabilities, tokenised_candidates
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from tests.prompts.test_parity import built_method

ROUNDING = 1e-5
"""Of the library's norms and rotary tables, which are float32."""
CANDIDATES = Candidates(("a", "b", "c", "d"), ((5, 0), (6, 7, 8, 0), (6, 7, 9, 0), (10,)))


def one_by_one(backbone: OpenClipLlama, batch: Batch, row: int, ids: tuple[int, ...]) -> float:
    """The reference: a full forward pass over one question and one candidate."""
    length = int((batch.spans[row] != Span.PADDING).sum())
    text = torch.cat([batch.input_ids[row, :length], torch.tensor(ids)])[None]
    spans = torch.cat([batch.spans[row, :length], torch.full((len(ids),), int(Span.ANSWER))])[None]
    pixels = batch.pixel_values.unflatten(0, (len(batch), -1))[row]
    single = Batch(pixels, text, torch.full_like(text, -100), spans, ["s"], [("t",)])
    logits = backbone.logits(backbone(single).hidden_states)[0, -len(ids) - 1 : -1]
    return float(logits.log_softmax(dim=-1)[range(len(ids)), list(ids)].sum())


def questions_of_many_lengths(images: int) -> Batch:
    """Returns four questions with so many pictures each, at other places in every question."""
    batch = random_batch(size=4, text=14, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    ids, spans = batch.input_ids.clamp(min=3), torch.full_like(batch.spans, int(Span.QUESTION))
    for row, length in enumerate((14, 9, 6, 11)):
        places = torch.randperm(length - 1, generator=generator)[:images]
        ids[row, places], spans[row, places] = IMAGE_TOKEN_ID, int(Span.IMAGE)
        spans[row, length:] = Span.PADDING
    pixels = torch.randn(4 * images, *batch.pixel_values.shape[1:], generator=generator, dtype=torch.float64)
    return Batch(pixels, ids, torch.full_like(ids, -100), spans, batch.sample_ids, batch.tasks)


@pytest.mark.parametrize(
    "arguments",
    [
        None,
        {},
        {"path": "token"},
        {"path": "token", "visual_rows_to_text": "none", "textual_layers": [0, 2]},
        {"textual_layers": [1, 2]},
        {"textual_layers": [1, 2], "textual_depth": "shallow"},
        {"textual_length": 0},
    ],
    ids=["untouched", "prefix", "token", "some layers", "not the first layer", "shallow", "no textual prompts"],
)
@pytest.mark.parametrize("images", [1, 3])
def test_side_by_side_equals_teacher_forcing_one_by_one(tmp_path, arguments, images):
    backbone, batch = random_backbone(tmp_path, torch.float64), questions_of_many_lengths(images)
    if arguments is not None:
        built_method(backbone, torch.float64, **arguments).attach(backbone)
    found = candidate_log_probabilities(backbone, batch, CANDIDATES)
    with torch.inference_mode():
        for row in range(len(batch)):
            expected = [one_by_one(backbone, batch, row, ids) for ids in CANDIDATES.token_ids]
            numpy.testing.assert_allclose(found[row], expected, rtol=0, atol=ROUNDING)


def test_sums_are_as_wide_as_the_model_and_at_least_float32(tmp_path):
    for dtype, expected in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
    ):
        backbone = random_backbone(tmp_path, dtype)
        for candidates in (CANDIDATES, Candidates(("a", "d"), ((5,), (10,)))):
            assert candidate_log_probabilities(backbone, random_batch(dtype=dtype), candidates).dtype == expected


def test_sums_favour_short_answers_and_means_do_not(tmp_path):
    backbone, batch = random_backbone(tmp_path), random_batch(answer=1)
    by_sum, by_mean = (
        LikelihoodAnswering(CANDIDATES, method).answer(backbone, batch)
        for method in ("likelihood_sum", "likelihood_mean")
    )
    for summed, averaged in zip(by_sum, by_mean, strict=True):
        sums = summed.log_probabilities
        assert sums == averaged.log_probabilities
        assert summed.text == max(sums, key=sums.get) == "d"  # one token against two and four random ones
        lengths = dict(zip(CANDIDATES.texts, CANDIDATES.lengths, strict=True))
        means = sorted((sums[text] / lengths[text], text) for text in sums)
        assert averaged.text == means[-1][1]
        assert averaged.margin == pytest.approx(means[-1][0] - means[-2][0])


@pytest.fixture(scope="module")
def processor():
    experiment = parse_experiment(["--config", "experiments/frozen.yaml"])
    return experiment.model.backbone.processor()


def test_candidates_are_the_tokens_that_training_supervises(processor):
    candidates = tokenised_candidates(processor, template_named("vicuna_v1"), ["Yes", "No", "not sure"])
    words = [processor.tokenizer.convert_ids_to_tokens(ids) for ids in candidates.token_ids]
    assert words == [["yes", "</s>"], ["no", "</s>"], ["not", "sure", "</s>"]]
    assert candidates.lengths == [2, 2, 3]


@pytest.mark.parametrize("texts", [[], ["yes"], ["yes", "yes"], ["Yes", "yes"], ["yes", ""]], ids=str)
def test_candidates_that_cannot_be_told_apart_are_refused(processor, texts):
    with pytest.raises(BadInputError, match=r"candidate|alike"):
        tokenised_candidates(processor, template_named("plain"), texts)
