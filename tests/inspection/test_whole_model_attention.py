"""Attention maps of whole models: those that transformers itself gives out, where a picture is one grid of patches."""

from pathlib import Path

import pytest
import torch

from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inspection.attention import capture_attention
from lightning_m2pt.testing.passes import batch_for
from tests.support.whole_models import idefics3_config, llava_config, onevision_config, write_whole_model


def loaded(folder: Path, config: dict) -> VisionLanguageModel:
    write_whole_model(folder, config)
    backbone = VisionLanguageModel(str(folder), dtype="float64")
    backbone.load()
    return backbone


def test_maps_are_what_the_library_gives_out(tmp_path: Path) -> None:
    backbone = loaded(tmp_path, llava_config())
    batch = batch_for(backbone)
    samples = capture_attention(backbone, batch)
    model = backbone.language_model
    with torch.no_grad():
        embeddings, _, spans = backbone.assemble(batch)
        model.set_attn_implementation("eager")
        tower = model.model.vision_tower(batch.pixel_values, output_attentions=True).attentions
        decoder = backbone.decoder()(inputs_embeds=embeddings, output_attentions=True).attentions
    for number, sample in enumerate(samples):
        real = int((spans[number] != Span.PADDING).sum())
        assert len(sample.language) == len(decoder)
        assert len(sample.vision[0]) == backbone.form.used_blocks
        for layer, found in enumerate(sample.language):
            expected = decoder[layer][number, :, :real, :real]
            torch.testing.assert_close(found.probabilities, expected, rtol=1e-6, atol=1e-7)
        for layer, found in enumerate(sample.vision[0]):
            torch.testing.assert_close(found.probabilities, tower[layer][number], rtol=1e-6, atol=1e-7)
            assert found.spans.tolist() == [Span.CLS] + [Span.PATCH] * backbone.shape.patches


@pytest.mark.parametrize("config", [onevision_config, idefics3_config])
def test_where_a_picture_is_no_grid_of_patches_none_are_shown(tmp_path: Path, config) -> None:
    backbone = loaded(tmp_path, config())
    with pytest.raises(BadInputError, match="cannot be shown"):
        capture_attention(backbone, batch_for(backbone))
