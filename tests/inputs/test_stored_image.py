"""Pictures inside Parquet files: read late, kept within a limit, and noticed when their file has changed."""

import pickle
from pathlib import Path

import numpy
import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import open_image
from lightning_m2pt.inputs.stored_image import RowGroups, StoredImage
from tests.support.data_fixtures import fake_pictures
from tests.support.hub_files import picture, png, write_parquet


def test_pictures_are_read_late_and_few_row_groups_are_kept(tmp_path: Path) -> None:
    rows = [{"image": picture(image), "label": 0} for image in fake_pictures(9, 16)]
    path = write_parquet(tmp_path / "test.parquet", rows)
    kept = RowGroups(kept_bytes=1)
    assert len(kept.pictures(path, "image", 0)) == 3
    kept.pictures(path, "image", 2)
    assert [key[:3] for key in kept.groups] == [(path, "image", 2)]
    roomy = RowGroups(kept_bytes=10**6)
    for number in (0, 1, 2, 0):
        roomy.pictures(path, "image", number)
    assert [key[2] for key in roomy.groups] == [1, 2, 0]
    write_parquet(path, [{"image": picture(image), "label": 0} for image in fake_pictures(4, 16)])
    assert [len(roomy.pictures(path, "image", number)) for number in (0, 1)] == [3, 1]  # not the old file's


def test_a_stored_image_travels_and_notices_a_change(tmp_path: Path) -> None:
    image = fake_pictures(1, 16)[0]
    path = write_parquet(tmp_path / "test.parquet", [{"image": picture(image)}])
    stored = StoredImage(path, "image", 0, 0, len(png(image)))
    assert pickle.loads(pickle.dumps(stored)) == stored
    assert (numpy.asarray(open_image(stored)) == image).all()
    other = StoredImage(path, "image", 0, 0, len(png(image)) + 1)
    with pytest.raises(BadInputError, match="has changed"):
        other.read()
    with pytest.raises(BadInputError, match="cannot be read"):
        StoredImage(tmp_path / "none.parquet", "image", 0, 0, 1).read()
