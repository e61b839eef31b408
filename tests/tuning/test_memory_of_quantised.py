"""What training on a packed base takes: the estimate against counted storages, and 7B on a card of 24 GB."""

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.configuration.cli import parse_experiment
from experiments.runs.memory import upper_bound
from lightning_m2pt.backbones.shortcuts import EVERY_ROW
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared
from lightning_m2pt.testing import random_backbone as random_models
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.memory_estimate import FLOAT32, USABLE_SHARE, MicroBatchSize, estimated_memory
from lightning_m2pt.tuning.module import build_on_meta
from lightning_m2pt.tuning.module_memory import estimate_of
from tests.support.quantised_backbone import quantised
from tests.support.stored_backbone import store_backbone
from tests.support.tensor_peak import TensorPeak

SAMPLES, TEXT, ANSWER = 4, 60, 8
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 8}
SMALL_CARD = 24 * 2**30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("quantised") / "b"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_models, "WIDTH", 256)
        store_backbone(place, {"intermediate_size": 688, "num_hidden_layers": 6, **HEADS})
    return place


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("recomputes", [False, True], ids=["kept", "recomputed"])
def test_the_estimate_is_near_the_measured_peak(folder: Path, quantization: Any, dtype: str, recomputes: bool) -> None:
    backbone, method = quantised(folder, quantization, dtype, load=False), M2PT(4, 5)
    backbone.recompute_activations(recomputes)
    backbone.load()
    method.build(backbone, torch.Generator().manual_seed(0))
    method.attach(backbone)
    freeze_all_but_declared(torch.nn.ModuleList([method, backbone]), method)
    method.train()
    backbone.train()
    size = MicroBatchSize(SAMPLES, TEXT - 1, SAMPLES * ANSWER)
    numbers = backbone.base_parameters(), 0
    estimate = estimated_memory(
        backbone.shape, backbone.attachment, method.places(), numbers, backbone.dtype, size, backbone.base_bytes()
    )
    gradients = FLOAT32 * sum(tensor.numel() for tensor in method.named_tensors().values())
    batch = random_batch(SAMPLES, TEXT, ANSWER, dtype=backbone.dtype)
    with TensorPeak() as measured:
        supervised_rows(backbone, batch, EVERY_ROW).losses.sum().backward()
    held = sum(parameter.numel() * parameter.itemsize for parameter in backbone.parameters())
    assert 0.95 < (estimate.total(recomputes=recomputes) + gradients) / (held + measured.peak) < 1.15


@pytest.mark.parametrize(
    ("quantization", "gigabytes", "fits"), [("nf4", 22.32, True), ("int8", 25.34, False), (None, 31.54, False)]
)
def test_the_published_7b_model_trains_on_24_gb_in_nf4_with_recomputation(
    quantization: Any, gigabytes: float, fits: bool
) -> None:
    """The experiment as it ships: 16 samples of up to 1,024 tokens, every one of them supervised."""
    experiment = parse_experiment(["--config", "experiments/m2pt_vicuna7b.yaml"])
    experiment.model.backbone.quantise_decoder(quantization)
    build_on_meta(experiment.model)
    assert experiment.model.backbone.base_parameters() == 7_045_793_792
    total = estimate_of(experiment.model, upper_bound(experiment.data)).total(recomputes=True)
    assert total / 1e9 == pytest.approx(gigabytes, abs=0.005)
    assert (total < USABLE_SHARE * SMALL_CARD) == fits
