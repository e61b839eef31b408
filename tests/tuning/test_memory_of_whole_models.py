"""The memory estimate of whole models: pictures with grids of their own, gated blocks, connectors of several layers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.tuning.memory_estimate import MicroBatchSize, estimated_memory
from lightning_m2pt.tuning.module_memory import hidden_width
from tests.backbones.test_three_axes import batch_and_samples
from tests.support.whole_models import llava_config, qwen_config, write_whole_model
from tests.tuning.test_memory_estimate import kept_bytes

METHODS: dict[str, Callable[[], Method]] = {
    "low rank": lambda: Lora(2, vision=True, interaction=False),
    "norms": lambda: LayerNormTuning(vision=True, interaction=False),
    "low rank and merger": lambda: Lora(2, vision=True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model wide enough that what is kept once a row and head is small."""
    config = qwen_config(hidden_size=128, intermediate_size=192)
    config["text_config"]["rope_parameters"]["mrope_section"] = [6, 5, 5]
    config["vision_config"].update(hidden_size=96, intermediate_size=160, out_hidden_size=128, num_heads=4)
    folder = tmp_path_factory.mktemp("qwen")
    write_whole_model(folder, config)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_the_estimate_is_near_what_autograd_keeps(folder: Path, name: str, dtype: str) -> None:
    backbone = VisionLanguageModel(str(folder), dtype=dtype, activation_checkpointing=False)
    backbone.load()
    method = METHODS[name]()
    method.build(backbone, torch.Generator().manual_seed(0))
    method.attach(backbone)
    freeze_all_but_declared(torch.nn.ModuleList([method, backbone]), method)
    method.train()
    batch, _ = batch_and_samples(answer=2)
    batch = replace(batch, pixel_values=batch.pixel_values.float())
    rows = backbone.assembled(batch).embeddings.shape[1]
    patches = len(batch.pixel_values) // len(batch)
    size = MicroBatchSize(len(batch), rows - 10, 2 * len(batch), tiles=patches, picture_rows=10)
    of_type = getattr(torch, dtype)
    hidden = hidden_width(backbone.projector)
    assert hidden == 4 * 96
    estimate = estimated_memory(
        backbone.shape, backbone.attachment, method.places(), (0, 0), of_type, size, hidden_width=hidden
    )
    assert 0.9 < estimate.activations / kept_bytes(backbone, batch) < 1.1


def test_hidden_layers_of_a_projector_are_counted_by_what_is_trained(tmp_path: Path) -> None:
    write_whole_model(tmp_path, llava_config(hidden_size=128))
    backbone = VisionLanguageModel(str(tmp_path), dtype="bfloat16")
    backbone.build_on_meta()
    assert hidden_width(backbone.projector) == 128
    size = MicroBatchSize(3, 20, 6)
    given = backbone.shape, Attachment()
    for place, bytes_of_one in (("projector", 8), ("visual prompts", 2), ("textual prompts", 0)):
        without, counted = (
            estimated_memory(*given, {place}, (0, 0), torch.bfloat16, size, hidden_width=width) for width in (0, 128)
        )
        assert counted.activations - without.activations == 3 * 16 * 128 * bytes_of_one
        assert counted.recomputed_activations - without.recomputed_activations == 3 * 16 * 128 * bytes_of_one
