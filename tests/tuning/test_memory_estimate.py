"""The memory estimate against what autograd really keeps, and what is decided with it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data_modules.vision_flan import VisionFlan
from experiments.configuration.cli import parse_experiment
from experiments.runs import memory
from experiments.runs.memory import decide_recomputation, upper_bound
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.shortcuts import EVERY_ROW
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.picture_layout import RunRows
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.testing import random_backbone as random_models
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from lightning_m2pt.testing.small_processor import small_processor
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.memory_estimate import MicroBatchSize, available_memory, estimated_memory, text_layer_bytes
from lightning_m2pt.tuning.module import build_on_meta
from lightning_m2pt.tuning.module_memory import estimate_of
from tests.support.quantised_backbone import quantised
from tests.support.small_experiment import small_words
from tests.support.stored_backbone import store_backbone, stored

SAMPLES, TEXT, ANSWER = 6, 40, 8
SMALLEST_WIDTH = 128
"""Below it, numbers kept once a row and head or norm, which the estimate leaves out, are no longer small."""


def kept_bytes(backbone: OpenClipLlama, batch: Batch) -> int:
    """Returns the bytes of all storages that autograd keeps for the backward pass, without the model's tensors."""
    own = {parameter.untyped_storage().data_ptr() for parameter in backbone.parameters()}
    return kept_storages(lambda: supervised_rows(backbone, batch, EVERY_ROW).losses.sum(), own)


def kept_storages(compute: Callable[[], object], own: set[int]) -> int:
    """Returns the bytes of all storages that autograd keeps of a computation, without those at certain addresses."""
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute()
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


def estimate_and_truth(folder: Path, method: Method, dtype: torch.dtype, on_cpu: bool = False) -> float:
    estimate, kept = estimate_and_kept(folder, method, dtype, on_cpu)
    return estimate / kept


def estimate_and_kept(folder: Path, method: Method, dtype: torch.dtype, on_cpu: bool = False) -> tuple[int, int]:
    """Returns the estimated bytes of activations, and what autograd keeps."""
    backbone = random_backbone(folder, dtype)
    method.build(backbone, torch.Generator().manual_seed(0))
    method.attach(backbone)
    freeze_all_but_declared(torch.nn.ModuleList([method, backbone]), method)
    method.train()
    size = MicroBatchSize(SAMPLES, TEXT - 1, SAMPLES * ANSWER)
    given = backbone.shape, backbone.attachment, method.places(), (0, 0), dtype, size
    estimate = estimated_memory(*given, on_cpu=on_cpu)
    return estimate.activations, kept_bytes(backbone, random_batch(SAMPLES, TEXT, ANSWER, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("make", "lowest", "highest"),
    [
        (lambda: M2PT(0, 0), 0.9, 1.1),
        (lambda: M2PT(4, 0), 0.9, 1.1),
        (lambda: M2PT(4, 5, path="token"), 0.9, 1.2),
        (lambda: M2PT(4, 5), 0.9, 1.2),
        (lambda: Adapter(4), 0.9, 1.1),
        (lambda: LayerNormTuning(vision=True), 0.9, 1.15),
        (lambda: Lora(2, vision=True), 0.85, 1.2),
        (lambda: Full(), 0.9, 2.0),  # the bound for adapted linear layers is twice what a trained one keeps
    ],
    ids=["projector", "visual", "token path", "prefix path", "adapter", "norms", "lora", "full"],
)
def test_the_estimate_is_near_what_autograd_keeps(tmp_path, monkeypatch, make, lowest, highest, dtype):
    monkeypatch.setattr(random_models, "WIDTH", SMALLEST_WIDTH)
    assert lowest < estimate_and_truth(tmp_path, make(), dtype) < highest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_computes_more_than_low_rank_updates_is_not_taken_for_less(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(random_models, "WIDTH", SMALLEST_WIDTH)
    method = PeftTuner("lora", {"r": 4, "use_dora": True})
    assert 1.0 < method.kept_factor() * estimate_and_truth(tmp_path, method, dtype) < 1.7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rank", [2, 16])
def test_matrices_that_are_kept_whatever_the_batch_are_counted(tmp_path, monkeypatch, rank, dtype):
    """HRA keeps a square for every reflection of a layer: with sixteen far more than the rows of so small a batch."""
    monkeypatch.setattr(random_models, "WIDTH", SMALLEST_WIDTH)
    method = PeftTuner("hra", {"r": rank})
    estimate, kept = estimate_and_kept(tmp_path, method, dtype)
    matrices = sum(method.kept_weight_bytes().values())
    assert 1.0 < (estimate + matrices) / kept < 1.7
    assert (matrices > estimate) == (rank == 16)


def first_layers(count: int) -> dict[str, Any]:
    """Returns settings that wrap all linear layers of a decoder's first layers."""
    names = [f"{each}_proj" for each in ("q", "k", "v", "o", "gate", "up", "down")]
    return {"target_modules": names, "layers_to_transform": list(range(count))}


@pytest.mark.parametrize("base", ["float32", "bfloat16", "int8", "nf4"])
@pytest.mark.parametrize("orthogonalised", [False, True])
def test_matrices_are_those_that_autograd_keeps_of_one_row(
    tmp_path: Path, base: Any, orthogonalised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row has next to no activations. Vectors are left out: three of them are small beside squares of 128."""
    monkeypatch.setattr(random_models, "WIDTH", SMALLEST_WIDTH)
    store_backbone(tmp_path)
    is_packed = base in ("int8", "nf4")
    backbone = quantised(tmp_path, base, "float32") if is_packed else stored(tmp_path, base)
    backbone.load()
    settings = {"r": 3, "init_weights": False, "apply_GS": orthogonalised, **first_layers(1)}
    method = PeftTuner("hra", settings, interaction=False)
    method.build(backbone, torch.Generator().manual_seed(0))
    method.attach(backbone)
    (told,) = method.kept_weight_bytes().values()
    frozen = {each.untyped_storage().data_ptr() for each in [*backbone.parameters(), *method.parameters()]}
    layers = [each for each in backbone.language_model.modules() if hasattr(each, "hra_u")]
    assert len(layers) == 7
    rows = [torch.ones(1, each.in_features, dtype=backbone.dtype, requires_grad=True) for each in layers]
    kept = kept_storages(lambda: [layer(row) for layer, row in zip(layers, rows, strict=True)], frozen)
    assert 0.9 * kept < told < kept


@pytest.mark.parametrize(
    ("settings", "vision", "layers"),
    [
        ({"r": 2}, None, ["language"] * 4),
        ({"r": 2, **first_layers(1)}, None, ["language"]),
        (None, {"r": 2}, ["vision"] * 4),
        ({"r": 2, "target_modules": ["layers.3.self_attn.q_proj"]}, {"r": 2}, ["vision"] * 4 + ["query"]),
    ],
    ids=["all", "one layer", "tower", "both"],
)
def test_recomputed_the_matrices_of_the_layer_with_the_most_of_them_count(settings, vision, layers):
    found = []
    for tuner in ("hra", "loha"):  # at the same places; only one has such matrices
        module = parse_experiment(["--config", "experiments/rslora_base.yaml"]).model
        module.method = PeftTuner(tuner, settings, vision)
        build_on_meta(module)
        found.append(estimate_of(module, MicroBatchSize(4, 30, 32)))
    hra, loha = found
    # Three squares and a weight of four projections, of gate and up, and of down; or of the tower's MLP.
    query = 4 * (3 * 128**2 + 128 * 128)
    language = 4 * query + 2 * 4 * (3 * 128**2 + 128 * 352) + 4 * (3 * 352**2 + 352 * 128)
    of_layer = {"query": query, "language": language}
    of_layer["vision"] = 4 * (3 * 128**2 + 128 * 384) + 4 * (3 * 384**2 + 384 * 128)
    assert hra.activations - loha.activations == sum(of_layer[each] for each in layers)
    assert hra.recomputed_activations - loha.recomputed_activations == max(of_layer[each] for each in layers)


def vicuna() -> OpenClipLlama:
    folder = Path("lightning_m2pt/embedded/vicuna7b")
    return OpenClipLlama(
        str(folder / "vision/open_clip_config.json"), "none", str(folder / "language"), "none", "none", "bfloat16"
    )


def test_a_frozen_llama_layer_keeps_sixteen_widths_a_row():
    shape = vicuna().shape
    kept = text_layer_bytes(shape, Attachment(), {"projector"}, torch.bfloat16.itemsize)
    assert kept / (2 * shape.text_width) == pytest.approx(4 + 4 + 3 * 11008 / 4096)


def test_what_nothing_is_trained_in_keeps_nothing():
    shape, size = vicuna().shape, MicroBatchSize(16, 300, 480)
    sums = {
        place: estimated_memory(shape, Attachment(), {place}, (0, 0), torch.bfloat16, size).activations
        for place in ("head", "projector", "vision tower's norms")
    }
    assert sums["head"] == 0 < sums["projector"] < sums["vision tower's norms"]
    estimate = estimated_memory(shape, Attachment(), {"projector"}, (10, 3), torch.bfloat16, size)
    assert (estimate.weights, estimate.trained) == (20, 48)
    assert estimate.logits == 480 * 32000 * (2 + 4 + 4 + 4 + 2)
    assert estimate.recomputed_activations < estimate.activations / 10
    assert estimate.total(recomputes=True) < estimate.total(recomputes=False)


@pytest.mark.parametrize(("patches", "width", "heads"), [(False, 1024, 16), (True, 1024, 16), (True, 32, 1)])
def test_shares_on_a_cpu_are_of_pictures_not_of_patches(patches: bool, width: int, heads: int) -> None:
    """Where pictures have grids of their own their patches are counted, and every one is seen by all of its picture."""
    shape = replace(vicuna().shape, tiles_are_patches=patches, vision_width=width)
    prompts = SimpleNamespace(length=5)
    attachment: Any = SimpleNamespace(
        visual_prompts=prompts, rows_beside_patches=lambda has_cls: 0, rows_before_text=lambda: 0
    )
    tiles = 40 if patches else 1
    rows = 40 if patches else shape.patches + shape.vision_rows_in_front + 5
    size = MicroBatchSize(2, 10, 20, tiles, 40)
    with_shares, without = (
        estimated_memory(shape, attachment, {"visual prompts"}, (0, 0), torch.bfloat16, size, on_cpu=on_cpu).activations
        for on_cpu in (True, False)
    )
    of_vision = (shape.vision_layers - 1) * 2 * heads * rows * rows * 2
    assert with_shares - without == of_vision + shape.text_layers * 2 * shape.text_heads * 50 * 50 * 2


@pytest.mark.parametrize(
    ("experiment", "setting", "memory_bytes", "expected"),
    [
        ("m2pt_base", "auto", 10**12, False),
        ("m2pt_base", "auto", 10**6, True),
        ("m2pt_base", "true", 10**12, True),
        ("m2pt_base", "false", 10**6, False),
    ],
)
def test_auto_recomputes_where_training_would_not_fit(
    tmp_path, monkeypatch, capsys, experiment, setting, memory_bytes, expected
):
    monkeypatch.setattr(memory, "device_memory", lambda *_: memory_bytes)
    words = small_words(tmp_path, f"experiments/{experiment}.yaml")
    parsed = parse_experiment([*words, "--model.backbone.activation_checkpointing", setting])
    before = torch.get_rng_state()
    decide_recomputation(parsed, torch.device("cpu"), upper_bound(parsed.data))
    assert torch.equal(torch.get_rng_state(), before)
    backbone = parsed.model.backbone
    assert backbone.activation_checkpointing is backbone.shape.recomputes_activations is expected
    said = capsys.readouterr().out
    assert said.count("\n") == 2
    assert f"activations are {'recomputed' if expected else 'kept'}" in said
    assert not hasattr(backbone, "language_model")  # what was built for counting is gone


def test_auto_leaves_a_method_alone_that_cannot_be_recomputed(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "device_memory", lambda *_: 10**6)
    monkeypatch.setattr(memory, "can_recompute", lambda model: False)
    parsed = parse_experiment(small_words(tmp_path))
    decide_recomputation(parsed, torch.device("cpu"), upper_bound(parsed.data))
    assert not parsed.model.backbone.activation_checkpointing


@pytest.mark.parametrize("group_by_length", [0, 2])
def test_the_largest_micro_batch_is_that_of_the_loader(tmp_path, group_by_length):
    VisionFlan.write_fake(tmp_path)
    data = VisionFlan(str(tmp_path), "plain", 4, 2, order_seed=5, group_by_length=group_by_length)
    data.connect(small_processor(8))
    batches = list(data.train_dataloader())
    assert data.largest_micro_batch(1, RunRows(16, 3)) == MicroBatchSize(
        samples=2,
        tiles=1,
        picture_rows=16,
        text_rows=max(batch.input_ids.shape[1] for batch in batches) - 1,
        supervised_rows=max(int((batch.labels >= 0).sum()) for batch in batches),
    )


def test_available_memory_is_what_the_kernel_says(tmp_path):
    information = tmp_path / "meminfo"
    information.write_text("MemTotal:  99 kB\nMemAvailable:   7 kB\n")
    assert available_memory(information, tmp_path / "missing") == 7 * 1024
    container = tmp_path / "memory.max"
    for limit, expected in (("max\n", 7 * 1024), ("4096\n", 4096), ("99999999\n", 7 * 1024)):
        container.write_text(limit)
        assert available_memory(information, container) == expected
    assert available_memory(tmp_path / "missing") > 7 * 1024
