"""What PEFT makes of an exported folder, in a process of transformers and peft alone, is what the tuned model does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.storage.foreign.llava.merging import merge
from lightning_m2pt.storage.foreign.peft.written_adapter import export_peft
from tests.storage.test_merging import PICTURE, Dtype, base_of, compared, ours, questions
from tests.support.models.stock_process import stock_inputs, stock_job, stock_results
from tests.support.models.tuned_runs import randomised, write_adapter


@dataclass(frozen=True)
class Case:
    """One export.

    Attributes:
        make: Makes the method.
        base: The testbed's backbone, a LLaVA, or one whose head is tied.
        left_out: Parts that are left out.
        dtype: Of the base; trained norms compute in float32 alone.
        as_prefix: Whether a shallow prompt is a prefix.
        limit: Of differences, by the largest logit; PEFT keeps a prefix in float32.
        together: Whether PEFT answers padded batches as it answers their questions.
    """

    make: Callable[[], Method]
    base: str = "llava"
    left_out: frozenset[str] = field(default_factory=frozenset)
    dtype: Dtype = "float64"
    as_prefix: bool = False
    limit: float = 1e-5
    together: bool = True


NO_VISUAL = frozenset({"visual_prompts"})
SHALLOW = lambda: M2PT(0, 3, textual_depth="shallow")  # noqa: E731
CASES = {
    "embedded, m2pt": Case(lambda: M2PT(3, 2), "testbed", NO_VISUAL),
    "llava, prompts without updates": Case(
        lambda: Combined([Lora(4, interaction=False), M2PT(0, 3, init="normal", init_std=0.5)]),
        left_out=frozenset({"language_low_rank"}),
    ),
    "llava, lora": Case(lambda: Lora(4, vision=True), limit=1e-8),
    "llava, ranks": Case(
        lambda: Lora(
            4,
            interaction=False,
            projector=True,
            targets=["q_proj", "up_proj", "linear_1"],
            ranks={"layers.1.mlp.up_proj": 2},
            alphas={"q_proj": 5.0, "linear_1": 3.0},
        ),
        limit=1e-8,
    ),
    "embedded, ranks": Case(
        lambda: Lora(4, 2.0, interaction=False, projector=True, ranks={"projector": 3}), "testbed", limit=1e-8
    ),
    "llava, rslora with rates of their own": Case(
        lambda: PeftTuner(
            "lora",
            {"r": 3, "use_rslora": True, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 5}},
            {"r": 2, "lora_alpha": 3, "use_rslora": True},
            split_factors=True,
        ),
        limit=1e-8,
    ),
    "llava, the tower's of two": Case(
        lambda: PeftTuner("lora", {"r": 3}, {"r": 2, "lora_alpha": 5, "use_rslora": True}),
        left_out=frozenset({"language_low_rank"}),
        limit=1e-8,
    ),
    "embedded, dora": Case(lambda: PeftTuner("lora", {"r": 3, "use_dora": True}), "testbed", limit=1e-8),
    "llava, pissa": Case(
        lambda: PeftTuner("lora", {"r": 3, "init_lora_weights": "pissa"}), dtype="float32", limit=1e-5
    ),
    "llava, prompt": Case(SHALLOW, together=False, limit=1e-8),
    "llava, prompt beside updates": Case(
        lambda: Combined([Lora(4, interaction=False), SHALLOW()]),
        left_out=frozenset({"language_low_rank"}),
        together=False,
        limit=1e-8,
    ),
    "llava, prompt as prefix": Case(SHALLOW, as_prefix=True),
    "llava, keys and values": Case(lambda: PrefixTuning(3)),
    "llava, keys and values of an embedding": Case(lambda: PrefixTuning(3, reparameterisation=5, interaction=False)),
    "llava, head": Case(lambda: M2PT(0, 3, lm_head=True)),
    "tied, head": Case(lambda: M2PT(0, 3, lm_head=True), "tied"),
    "llava, norms": Case(lambda: LayerNormTuning(vision=True), dtype="float32"),
    "embedded, keys and values": Case(PrefixTuning, "testbed"),
    "embedded, lora": Case(lambda: Lora(4, vision=True), "testbed", limit=1e-8),
    "embedded, norms": Case(lambda: LayerNormTuning(vision=True), "testbed", dtype="float32"),
    "embedded, prompt": Case(SHALLOW, "testbed", together=False, limit=1e-8),
    "llava, float32": Case(lambda: M2PT(0, 3, init="normal", init_std=0.5), dtype="float32"),
}
QUICK = (
    "embedded, m2pt",
    "llava, prompts without updates",
    "llava, lora",
    "llava, ranks",
    "llava, the tower's of two",
    "llava, prompt",
    "llava, norms",
)


def frozen_llava(folder: Path, dtype: Dtype) -> Path:
    """Returns the testbed's backbone as a LLaVA."""
    place = folder / f"testbed-{dtype}"
    if not place.exists():
        method = Lora(1)
        backbone = base_of(folder, "testbed", dtype)
        backbone.load()
        randomised(backbone, method)
        adapter = write_adapter(folder / f"no-adapter-{dtype}", backbone, method)
        merge(adapter, Lora(1), base_of(folder, "testbed", dtype), place, frozenset(method.part_names()), "card")
    return place


def exported(folder: Path, name: str, case: Case) -> tuple[dict[str, Any], Any]:
    """Exports a case; returns what is asked of PEFT, and what we find."""
    backbone, method = base_of(folder / case.base, case.base, case.dtype), case.make()
    backbone.load()
    randomised(backbone, method)
    place = folder / name.replace(", ", "-").replace(" ", "-")
    adapter = write_adapter(place / "adapter", backbone, method)
    method.to(getattr(torch, case.dtype)).attach(backbone, case.left_out)
    batch = questions(backbone)
    own = ours(backbone, batch)
    method.detach(backbone)
    base: Backbone = base_of(folder / case.base, case.base, case.dtype)
    export_peft(adapter, case.make(), base, place / "peft", case.left_out, as_prefix=case.as_prefix)
    assert base.attached_method is None
    model = frozen_llava(folder, case.dtype) if case.base == "testbed" else folder / case.base
    token = PICTURE if case.base != "testbed" else backbone.shape.vocabulary_size
    inputs, mask = stock_inputs(batch, backbone.shape.patches, token)
    job = stock_job(place / "job", model, inputs, mask, place / "peft", dtype=case.dtype)
    return {**job, "gives_positions": case.together}, (own, mask)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, ...]]:
    """Returns by case what PEFT finds, what we find and the mask; quick cases are asked in one process."""
    folder, known = tmp_path_factory.mktemp("exported"), {}

    def result(name: str) -> tuple[Any, ...]:
        if name not in known:
            names = [each for each in CASES if (each in QUICK) == (name in QUICK)]
            made = [exported(folder, each, CASES[each]) for each in names]
            found = stock_results(folder, [job for job, _ in made])
            known.update({each: (one, *own) for each, one, (_, own) in zip(names, found, made, strict=True)})
        return known[name]

    return result


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_logits_and_answers_are_the_tuned_models(name, asked):
    found, own, mask = asked(name)
    case = CASES[name]
    if not case.together:
        found = {key: value for key, value in found.items() if "batch" not in key}
    compared(found, own, mask, case.limit)
