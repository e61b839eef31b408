"""Where rows lie in a picture: a spot in it changes the rows, and the patches, whose places hold the spot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from lightning_m2pt.backbones.families.family import rows_given_to
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel, as_given
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.picture_layout import PreparedPicture
from lightning_m2pt.inputs.picture_rules.tiles_of_grids import TilesOfGrids
from tests.support.whole_models import (
    idefics3_config,
    next_config,
    onevision_config,
    qwen_config,
    write_whole_model,
)

SIZES = [(60, 40), (30, 92), (100, 30)]
"""Heights and widths of pictures."""
SPOT = 0.16
"""Side of a spot, as a share of the picture's."""
PLACES = [(0.1, 0.15), (0.52, 0.8), (0.86, 0.33)]
"""Of its middle, as shares of height and width."""
CONFIGS: dict[str, Callable[[], dict[str, Any]]] = {
    "onevision": onevision_config,
    "next": next_config,
    "idefics3": idefics3_config,
    "qwen2.5": qwen_config,
}


def spotted(height: int, width: int, place: tuple[float, float] | None) -> numpy.ndarray:
    """Returns a grey picture with a bright spot."""
    pixels = numpy.full((height, width, 3), 90, numpy.uint8)
    if place is not None:
        begins = [round((middle - SPOT / 2) * size) for middle, size in zip(place, (height, width), strict=True)]
        ends = [round((middle + SPOT / 2) * size) for middle, size in zip(place, (height, width), strict=True)]
        pixels[begins[0] : ends[0], begins[1] : ends[1]] = 255
    return pixels


def rows_of(backbone: VisionLanguageModel, picture: PreparedPicture) -> tuple[Tensor, Tensor]:
    """Returns the language model's patch rows and the tower's patches, line by line, of blocks that do nothing."""
    sizes = None if picture.size is None else torch.tensor([picture.size])
    connected = backbone.connected_rows(picture.pixels.double(), sizes)
    patches = rows_given_to(backbone.tower_blocks()[0], lambda: backbone.connected_rows(picture.pixels.double(), sizes))
    order = backbone.picture_geometry().order_in_tower(sizes)
    patches = patches[:, int(backbone.form.has_cls) :].flatten(0, 1) if order is None else patches[order.argsort()]
    assert connected.counts == backbone.rows_of_runs(picture.pixels, sizes)
    return connected.rows[connected.spans == Span.PATCH], patches


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_what_a_spot_changes_lies_where_the_spot_is(tmp_path: Path, name: str) -> None:
    write_whole_model(tmp_path, CONFIGS[name]())
    backbone = VisionLanguageModel(str(tmp_path), dtype="float64")
    backbone.load()
    for block in backbone.tower_blocks():
        block.forward = as_given
    processor, geometry = backbone.processor(), backbone.picture_geometry()
    for height, width in SIZES:
        (plain,) = processor.pictures([spotted(height, width, None)])
        rows, patches = rows_of(backbone, plain)
        layout = geometry.map(plain.size)
        shown = geometry.shown(plain.pixels, plain.size)
        assert shown.shape == (3, layout.height, layout.width)
        assert abs(layout.height / layout.width / (height / width) - 1) < 0.35  # sides become whole patches or tiles
        tiles = torch.cat([tile.cells() for tile in layout.tiles])
        for place in PLACES:
            (other,) = processor.pictures([spotted(height, width, place)])
            middle = torch.tensor([place[0] * layout.height, place[1] * layout.width])
            changed = (geometry.shown(other.pixels, other.size) - shown).sum(dim=0)
            lit = (changed > changed.max() / 2).nonzero()
            assert float((lit.double().mean(dim=0) + 0.5 - middle).abs().max()) < 1.5
            found = zip((layout.rows, tiles), (rows, patches), rows_of(backbone, other), strict=True)
            for boxes, before, after in found:
                assert len(boxes) == len(before)
                change = (after - before).norm(dim=1)
                brightest = boxes[change > 0.8 * change.max()]
                assert bool((brightest[:, :2] <= lit.amax(dim=0) + 0.5).all())
                assert bool((brightest[:, 2:] >= lit.amin(dim=0) + 0.5).all())


@pytest.mark.parametrize("most_tiles", [1, 2, 9])
def test_rows_of_a_grid_lie_where_the_library_takes_them_from(most_tiles: int) -> None:
    """Its own layout runs over rows that are numbers of lines and columns; the learned rows at ends are none."""
    from transformers import LlavaOnevisionConfig
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

    config = onevision_config()
    library = LlavaOnevisionConfig.from_dict(config)
    grids = TilesOfGrids(16, 4, config["image_grid_pinpoints"], most_tiles)

    class Layout:
        pack = LlavaOnevisionModel.pack_image_features

        def __init__(self) -> None:
            self.config = library

    for height, width in ((15, 30), (32, 29), (30, 9), (9, 40), (64, 64)):
        layout = grids.map(width, height)
        middles = torch.cat([(cells[:, :2] + cells[:, 2:]) / 2 for cells in (each.cells() for each in layout.tiles)])
        tiles = middles.view(len(layout.tiles), 16, 2)
        (found,), _ = Layout().pack(
            [tiles],
            torch.tensor([[height, width]]),
            torch.full((2,), float("nan")).double(),
            f"anyres_max_{most_tiles}",
        )
        kept = found[~found.isnan().any(dim=1)]
        expected = (layout.rows[:, :2] + layout.rows[:, 2:]) / 2
        assert len(found) - len(kept) == grids.laid_out(width, height)[0]
        torch.testing.assert_close(kept, expected, rtol=0, atol=1e-9)
