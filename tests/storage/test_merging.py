"""A merged folder is read by transformers alone, and computes and answers what the tuned model does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.storage.foreign.llava.merging import merge
from lightning_m2pt.testing.random_backbone import random_batch
from tests.support.models.stock_process import NEW_TOKENS, stock_inputs, stock_job, stock_results
from tests.support.models.tuned_runs import randomised, write_adapter
from tests.support.whole_models import llava_config, write_whole_model

Dtype = Literal["float32", "float64"]
PICTURE = 59
"""The token that stands for a picture's row in a small whole model."""


def chosen_layers() -> Lora:
    """Returns low-rank updates of some layers, with ranks and alphas of their own, and of the projector."""
    ranks, alphas = {"q_proj": 3, "layers.1.self_attn.q_proj": 2}, {"down_proj": 5.0}
    return Lora(4, vision=False, interaction=False, projector=True, ranks=ranks, alphas=alphas)


CASES: dict[str, tuple[str, Callable[[], Method], frozenset[str]]] = {
    "embedded, lora": ("testbed", lambda: Lora(4, vision=True), frozenset()),
    "embedded, chosen layers": ("testbed", chosen_layers, frozenset()),
    "embedded, norms": ("testbed", lambda: LayerNormTuning(vision=True), frozenset()),
    "embedded, full": ("testbed", Full, frozenset()),
    "embedded, projector and head": ("testbed", lambda: M2PT(0, 0, lm_head=True), frozenset()),
    "embedded, prompts left out": ("testbed", M2PT, frozenset({"visual_prompts", "textual_prompts"})),
    "llava, lora": ("llava", lambda: Lora(4, vision=True), frozenset()),
    "llava, chosen layers": ("llava", chosen_layers, frozenset()),
    "llava, tied, full": ("tied", Full, frozenset()),
    "llava, tied, head": ("tied", lambda: M2PT(0, 0, lm_head=True), frozenset()),
}
NARROW = ("embedded, norms",)
"""Trained norms compute in float32 whatever their base's type is; all others are compared in float64."""
QUICK = ("embedded, lora", "embedded, chosen layers", "embedded, prompts left out", "llava, tied, head")


def base_of(folder: Path, name: str, dtype: Dtype) -> Backbone:
    if name == "testbed":
        return embedded_backbone(dtype=dtype)
    if not folder.exists():
        config = llava_config(tie_word_embeddings=name == "tied")
        write_whole_model(folder, {**config, "tie_word_embeddings": name == "tied"})
    return VisionLanguageModel(str(folder), dtype=dtype)


def questions(backbone: Backbone) -> Batch:
    batch = random_batch(size=2, answer=1)
    size = backbone.shape.image_size
    return replace(batch, pixel_values=torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(5)))


def ours(backbone: Backbone, batch: Batch) -> tuple[Tensor, list[list[int]]]:
    with torch.no_grad():
        logits = backbone.logits(backbone(batch).hidden_states)
        answers = [answer.token_ids for answer in greedy_answers(backbone, batch, NEW_TOKENS, end_token_id=-1)]
    return logits, answers


def compared(found: dict[str, Tensor], expected: tuple[Tensor, list[list[int]]], mask: Tensor, limit: float) -> None:
    """Compares what the stock libraries found, one by one and together if they were, with ours, padded on the right."""
    logits, answers = expected
    for number, length in enumerate(mask.sum(1).tolist()):
        own = logits[number, :length]
        scale = float(own.abs().max())
        together = "batch logits" in found
        for theirs in (found[f"{number} logits"][0], *([found["batch logits"][number, -length:]] if together else [])):
            torch.testing.assert_close(theirs[:, : own.shape[1]], own, rtol=0, atol=limit * scale)
        for theirs in (found[f"{number} answers"][0], *([found["batch answers"][number]] if together else [])):
            assert theirs.tolist() == answers[number]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, ...]]:
    """Returns by case what the stock libraries find and what we find; quick cases are asked in one process."""
    folder, known = tmp_path_factory.mktemp("merged"), {}

    def ask(names: tuple[str, ...]) -> None:
        jobs, expected = [], []
        for name in names:
            base, make, left_out = CASES[name]
            place = folder / name.replace(", ", "-").replace(" ", "-")
            dtype: Dtype = "float32" if name in NARROW else "float64"
            backbone, method = base_of(folder / base, base, dtype), make()
            backbone.load()
            randomised(backbone, method)
            adapter = write_adapter(place / "adapter", backbone, method)
            method.to(getattr(torch, dtype)).attach(backbone, left_out)
            batch = questions(backbone)
            expected.append(ours(backbone, batch))
            method.detach(backbone)
            merge(adapter, make(), base_of(folder / base, base, dtype), place / "merged", left_out, "card")
            token = PICTURE if base != "testbed" else backbone.shape.vocabulary_size
            inputs, mask = stock_inputs(batch, backbone.shape.patches, token)
            jobs.append(stock_job(place / "job", place / "merged", inputs, mask, dtype=dtype))
            known[name] = (place, mask)
        for name, found, own in zip(names, stock_results(folder, jobs), expected, strict=True):
            known[name] = (*known[name], found, own)

    def result(name: str) -> tuple[Any, ...]:
        if name not in known:
            ask(QUICK if name in QUICK else tuple(case for case in CASES if case not in QUICK))
        return known[name]

    return result


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_logits_and_answers_are_the_tuned_models(name, asked):
    _, mask, found, own = asked(name)
    compared(found, own, mask, 1e-5 if name in NARROW else 1e-8)
