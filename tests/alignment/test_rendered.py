"""Rendered captions are found again if they are whole and of the same settings; what others wrote is left alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_modules.vision_flan import ANNOTATION_FILE
from experiments.alignment.caption_sets import UNSEEN_ANNOTATION
from experiments.alignment.rendered import files_below, rendered_captions
from experiments.alignment.settings import AlignmentSettings
from lightning_m2pt.errors import BadInputError

FEW = replace(AlignmentSettings("x"), pictures=3, unseen=2)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_below(folder)}


def test_they_are_rendered_once_and_again_where_something_is_missing(tmp_path):
    folder = rendered_captions(FEW, tmp_path)
    first = content(folder)
    assert {ANNOTATION_FILE, UNSEEN_ANNOTATION, "captions.json"} < set(first)
    assert len([name for name in first if name.endswith(".png")]) == 5
    changed = {path: path.stat().st_mtime_ns for path in files_below(folder)}
    assert rendered_captions(FEW, tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in files_below(folder)} == changed
    (folder / UNSEEN_ANNOTATION).write_text("[]")
    (tmp_path / "captions.partial").mkdir()  # as a killed process leaves it
    (tmp_path / "captions.partial" / "half.png").write_bytes(b"")
    rendered_captions(FEW, tmp_path)
    assert content(folder) == first
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize("changed", [{"seed": 1}, {"pictures": 2}, {"unseen": 1}])
def test_other_settings_render_again(changed, tmp_path):
    first = content(rendered_captions(FEW, tmp_path))
    other = content(rendered_captions(replace(FEW, **changed), tmp_path))
    assert other != first
    assert len([name for name in other if name.endswith(".png")]) == 5 - (0 if "seed" in changed else 1)


def test_what_others_wrote_is_not_removed(tmp_path):
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "mine.txt").write_text("mine")
    with pytest.raises(BadInputError, match="did not write"):
        rendered_captions(FEW, tmp_path)
    assert (tmp_path / "captions" / "mine.txt").read_text() == "mine"
