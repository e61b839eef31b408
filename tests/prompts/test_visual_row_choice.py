"""Whatever layers get visual rows: every patch reaches the language model, and what stands beside them has its span."""

from itertools import product

import pytest
import torch

from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.testing.random_backbone import PATCHES, TEXT_LAYERS, VISION_LAYERS, random_backbone, random_batch

LENGTH, LAST = 3, VISION_LAYERS - 1
LAYER_LISTS = ["all", [LAST], [0], [1, LAST], [0, 1, 2], [2], [0, 1, 2, LAST]]
EXPECTED_SPANS = {
    "official": [Span.VISUAL_PROMPT] * (LENGTH - 1) + [Span.CLS] + [Span.PATCH] * PATCHES,
    "all": [Span.VISUAL_PROMPT] * LENGTH + [Span.PATCH] * PATCHES,
    "none": [Span.PATCH] * PATCHES,
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> OpenClipLlama:
    return random_backbone(tmp_path_factory.mktemp("backbone"), torch.float64)


@torch.no_grad()
def reference_states(backbone: OpenClipLlama, pixels: torch.Tensor, method: M2PT) -> torch.Tensor:
    """(B, 1 + N, D) block by block: rows are put in front of each layer that has some, and taken away at the end."""
    tower, prompts = backbone.vision_tower, method.visual_prompts
    states: list[torch.Tensor] = []
    handle = tower.transformer.resblocks[0].register_forward_pre_hook(lambda _, given: states.append(given[0]))
    tower(pixels)
    handle.remove()
    rows, in_front = states[0], 0
    for block, own in zip(tower.transformer.resblocks[:-1], prompts.layer_rows(), strict=False):
        if own is not None:
            rows = torch.cat([own.to(rows.dtype).expand(len(rows), -1, -1), rows[:, in_front:]], dim=1)
            in_front = LENGTH
        rows = block(rows)
    return rows[:, in_front:]


@pytest.mark.parametrize("position", ["before_cls", "after_cls"])
@pytest.mark.parametrize(("choice", "depth"), [*product(EXPECTED_SPANS, ["deep", "shallow"])])
def test_patches_are_always_there(backbone: OpenClipLlama, choice: str, depth: str, position: str) -> None:
    """Layers that the choice cannot use are refused; all others give these rows."""
    pixels, used = random_batch(size=2, dtype=torch.float64).pixel_values, 0
    for layers in LAYER_LISTS:
        method = M2PT(
            LENGTH,
            0,
            visual_layers=layers,
            visual_depth=depth,
            visual_rows_to_text=choice,
            visual_position=position,
            interaction=False,
        )
        try:
            method.check(backbone.shape)
        except BadInputError:
            continue
        used += 1
        method.build(backbone, torch.Generator().manual_seed(used))
        method.attach(backbone)
        with torch.no_grad():
            visual = backbone.visual_rows(pixels)
            backbone.release_hooks()
            states = reference_states(backbone, pixels, method)
        assert visual.spans == EXPECTED_SPANS[choice], layers
        assert visual.rows.shape == (2, len(visual.spans), backbone.shape.vision_width), layers
        torch.testing.assert_close(visual.rows[:, -PATCHES:], states[:, 1:], msg=f"patches with {layers}")
        if choice == "official":
            torch.testing.assert_close(visual.rows[:, -PATCHES - 1], states[:, 0], msg=f"CLS with {layers}")
        method.detach(backbone)
    assert used >= 1


@pytest.mark.parametrize("depth", ["deep", "shallow"])
def test_real_rows_of_the_decoder_are_always_there(backbone: OpenClipLlama, depth: str) -> None:
    batch = random_batch(dtype=torch.float64)
    plain = backbone(batch)
    for layers in ("all", [0], [TEXT_LAYERS - 1], [1], [0, 2], [1, 2]):
        method = M2PT(0, LENGTH, textual_layers=layers, textual_depth=depth, interaction=False)
        method.check(backbone.shape)
        method.build(backbone, torch.Generator().manual_seed(1))
        method.attach(backbone)
        with torch.no_grad():
            output = backbone(batch)
            state = backbone.prefill(batch)
        assert output.hidden_states.shape == plain.hidden_states.shape
        assert torch.equal(output.spans, plain.spans)
        assert state.segment_ids.shape[1] == output.spans.shape[1] + LENGTH
        method.detach(backbone)
