"""Parts of a search on the testbed's validation split, ready to score."""

import numpy
import pytest

from experiments.configuration.cli import Experiment
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.prompt_search.allowed_tokens import AllowedTokens, allowed_tokens
from lightning_m2pt.prompt_search.placing import Position
from lightning_m2pt.prompt_search.prompt_texts import Prompt, PromptTexts
from lightning_m2pt.prompt_search.scored_samples import scored_samples
from lightning_m2pt.prompt_search.scorer import PromptScorer
from tests.support.small_experiment import checked

SAMPLES = 6


@pytest.fixture(scope="package")
def tuned() -> Experiment:
    """The untuned testbed base, loaded."""
    experiment = checked(["--config", "experiments/frozen.yaml"])
    experiment.model.eval()
    return experiment


@pytest.fixture(scope="package")
def split(tuned: Experiment) -> list[Sample]:
    """Forty conversations of its validation split."""
    part = tuned.data.read_once()[1]
    return [part[number] for number in range(40)]


def ready(
    tuned: Experiment,
    split: list[Sample],
    template: str = "vicuna_v1",
    position: Position = "behind_question",
    length: int = 2,
) -> tuple[PromptTexts, AllowedTokens, PromptScorer]:
    """Returns texts, allowed tokens and a scorer of the first samples."""
    processor, backbone = tuned.data.processor, tuned.model.backbone
    texts = PromptTexts(split[:SAMPLES], processor, template_named(template), position)
    allowed = allowed_tokens(texts, split, answer_words=False)
    return texts, allowed, PromptScorer(backbone, processor, scored_samples(texts, backbone), length)


def drawn(allowed: AllowedTokens, number: int, length: int = 2, seed: int = 0) -> list[Prompt]:
    """Returns drawn prompts of allowed tokens."""
    return [tuple(each) for each in numpy.random.default_rng(seed).choice(allowed.ids, (number, length)).tolist()]
