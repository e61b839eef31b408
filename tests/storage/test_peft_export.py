"""What PEFT makes of an exported folder, in a process of transformers and peft alone, is what the tuned model does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.origins.said import BaseOrigin
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.prompts.key_value_prefix import learned_prefix
from lightning_m2pt.storage.foreign.library_names import Extent
from lightning_m2pt.storage.foreign.llava.merging import merge
from lightning_m2pt.storage.foreign.peft.carried import Plan
from lightning_m2pt.storage.foreign.peft.names import BEGINNING, LORA_A, LORA_B, PREFIX_TUNING, PROMPT_EMBEDDINGS
from lightning_m2pt.storage.foreign.peft.written_adapter import (
    adapter_content,
    export_peft,
    said_of_base,
    scales_of_tuner,
)
from lightning_m2pt.testing.random_backbone import random_backbone
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


def test_peft_is_told_each_layers_rank_and_alpha_of_the_component_that_is_written() -> None:
    method = PeftTuner(
        "lora",
        {"r": 3, "lora_alpha": 4, "use_rslora": True, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"up_proj": 5}},
        {"r": 6, "lora_alpha": 7, "init_lora_weights": False},
    )
    written = {
        "language_low_rank": {"layers.0.v_proj": 2, "layers.1.up_proj": 3, "layers.1.q_proj": 3},
        "vision_low_rank": {"blocks.0.fc1": 6},
    }
    said = {}
    for part, ranks in written.items():
        tensors = {f"{BEGINNING}model.{name}{LORA_A}": torch.zeros(rank, 8) for name, rank in ranks.items()}
        tensors |= {f"{BEGINNING}model.{name}{LORA_B}": torch.zeros(9, rank) for name, rank in ranks.items()}
        said[part] = scales_of_tuner(method, {f"model.{name}": (part, name) for name in ranks}, tensors)
    nothing = {"lora_dropout": 0.0, "bias": "none", "use_dora": False}
    assert said["language_low_rank"] == nothing | {
        "r": 3,
        "lora_alpha": 4,
        "rank_pattern": {"model.layers.0.v_proj": 2},
        "alpha_pattern": {"model.layers.1.up_proj": 5},
        "use_rslora": True,
        "init_lora_weights": True,
    }
    assert said["vision_low_rank"] == nothing | {
        "r": 6,
        "lora_alpha": 7,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": False,
        "init_lora_weights": False,
    }


def test_a_prefix_is_cut_into_the_heads_of_keys_and_values(tmp_path: Path) -> None:
    backbone, method = random_backbone(tmp_path), PrefixTuning(3, interaction=False)
    method.build(backbone, torch.Generator().manual_seed(1))
    method.attach(backbone)
    config, tensors = adapter_content(Plan(PREFIX_TUNING, method, "", ("prefix",), {}, "language"), backbone, {})
    shape = backbone.shape
    heads, width, layers = config["num_attention_heads"], config["token_dim"], config["num_layers"]
    assert (heads, width, layers) == (shape.text_key_value_heads, heads * shape.text_head_width, shape.text_layers)
    assert shape.text_heads > heads
    assert (config["num_virtual_tokens"], config["encoder_hidden_size"], config["prefix_projection"]) == (
        3,
        width,
        False,
    )
    cut = (
        tensors[PROMPT_EMBEDDINGS].view(1, 3, 2 * layers, heads, width // heads).permute(2, 0, 3, 1, 4)
    )  # as peft does
    assert method.prefix is not None
    with torch.no_grad():
        past = learned_prefix(backbone.decoder(), method.prefix)
    for pair, (keys, values) in zip(cut.split(2), past.layers, strict=True):
        assert torch.equal(pair, torch.stack([keys, values]))


@pytest.mark.parametrize(("extent", "repository"), [("whole", "a/llava"), ("language", "a/decoder")])
def test_a_base_of_the_hub_is_named_with_its_commit_and_no_other_one(extent: Extent, repository: str) -> None:
    arguments = {
        "model": {"repository": "a/llava", "commit": "1" * 40},
        "language_model": {"repository": "a/decoder", "commit": "1" * 40},
    }
    expected = {"base_model_name_or_path": repository, "revision": "1" * 40}
    for kind, named in (("hub", expected), ("files", dict.fromkeys(expected))):
        base = Mock(**{"origin.return_value": BaseOrigin(kind, "X", arguments)})
        assert said_of_base(base, extent) == named | {"task_type": "CAUSAL_LM", "inference_mode": True}
