"""Attention over a picture: spread over the places it belongs to, those above each other added up."""

import json
import re
import shutil
import subprocess

import numpy
import pytest
import torch

from lightning_m2pt.inputs.picture_map import Grid, PictureMap, assembled, one_square
from lightning_m2pt.inspection.heat import heat_map
from lightning_m2pt.inspection.page import TEMPLATE, places_data


def test_one_square_of_patches_keeps_its_cells() -> None:
    picture, values = one_square(336, 14), torch.rand(576, generator=torch.Generator().manual_seed(0))
    heat, cell = heat_map(values, picture.rows, picture)
    assert cell == 14
    numpy.testing.assert_array_equal(heat.flatten(), values.numpy())


def test_a_remainder_that_no_patch_reads_stays_empty() -> None:
    picture = one_square(384, 14)
    heat, _ = heat_map(torch.ones(27 * 27), picture.rows, picture)
    assert heat.shape == (28, 28)
    assert (heat[:27, :27] == 1).all()
    assert not heat[27].any()


def test_a_small_copy_lies_above_tiles_and_padding_lies_beyond() -> None:
    """Two tiles of two by one patches, padded by one pixel at both sides, and a small copy of one patch."""
    tiles = (Grid(0, 0, 4, 6, 1, 1), Grid(0, -1, 2, 4, 2, 1), Grid(0, 3, 2, 4, 2, 1))
    rows = torch.cat([tile.cells() for tile in tiles])
    picture = PictureMap(4, 6, tiles, rows, small_copy=0)
    heat, cell = heat_map(torch.tensor([12.0, 4, 8, 0, 2]), rows, picture)
    assert cell == 2
    # Cells of two by two pixels. The copy gives 2 to each; the left tile covers 3 pixels of columns 0 and 1.
    expected = [[2 + 4 * 2 / 4, 2 + 4 * 1 / 4, 2], [2 + 8 * 2 / 4, 2 + 8 * 1 / 4 + 2 * 1 / 4, 2 + 2 * 2 / 4]]
    numpy.testing.assert_allclose(heat, expected)


def test_tiles_are_put_together_without_their_padding() -> None:
    tiles = (Grid(0, 0, 1, 1.5, 2, 2), Grid(-1, 0, 2, 2, 2, 2), Grid(-1, 4, 2, 2, 2, 2))
    picture = PictureMap(2, 8, tiles, torch.empty(0, 4), small_copy=0)
    pixels = torch.arange(3 * 16.0).view(3, 1, 4, 4)
    expected = torch.cat([pixels[1, :, 1:3], pixels[2, :, 1:3]], dim=2)
    assert torch.equal(assembled(picture, pixels), expected)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_page_spreads_it_as_the_pictures_do() -> None:
    tiles = (Grid(0, 0, 4, 6, 1, 1), Grid(0, -1, 2, 4, 2, 1), Grid(0, 3, 2, 4, 2, 1))
    picture = PictureMap(4, 6, tiles, torch.cat([tile.cells() for tile in tiles]), small_copy=0)
    values = torch.tensor([12.0, 4, 8, 0, 2])
    function = re.search(r"^function heat.*?^}", TEMPLATE.read_text(encoding="utf-8"), re.S | re.M)
    assert function is not None
    given = json.dumps([values.tolist(), places_data(picture.rows, picture)])
    program = f"{function[0]}\nconsole.log(JSON.stringify([...heat(...{given})]))"
    found = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True, timeout=60).stdout
    numpy.testing.assert_allclose(json.loads(found), heat_map(values, picture.rows, picture)[0].flatten(), atol=1e-6)
