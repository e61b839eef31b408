"""A manifest that states no file is of nothing that is whole."""

import json
from pathlib import Path

import pytest

from experiments.testbed.manifest import MANIFEST, file_sha256, is_complete
from experiments.testbed.world_version import WORLD_VERSION


@pytest.mark.parametrize("files", [None, {}, ["a"], "a"], ids=str)
def test_data_whose_files_nobody_states_are_not_complete(files: object, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    head = {"seed": 0, "world_version": WORLD_VERSION, "sets": ["one"]}
    (tmp_path / MANIFEST).write_text(json.dumps({**head, "files": {"a": file_sha256(tmp_path / "a")}}))
    assert is_complete(tmp_path, 0, ["one"])
    (tmp_path / MANIFEST).write_text(json.dumps({**head, "files": files}))
    assert not is_complete(tmp_path, 0, ["one"])
