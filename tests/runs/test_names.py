"""A run's name goes by what is read and never by where it lies."""

import pytest

from data_modules.vision_flan import VisionFlan
from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import deciding, run_folder
from lightning_m2pt.configuration.paths import FilePath
from tests.support.small_experiment import small_words


class Noted(VisionFlan):
    """A set of one's own that reads a second place."""

    def __init__(self, root: FilePath, notes: FilePath, weight: int = 1) -> None:
        super().__init__(root, "vicuna_v1", batch_size=8)
        self.notes, self.weight = notes, weight


@pytest.fixture
def words(tmp_path):
    root = ["--data", f"{__name__}.Noted", "--data.root", str(tmp_path / "vision_flan"), "--allow-import", "tests"]
    small = small_words(tmp_path)
    start, end = small.index("--data.root"), small.index("--trainer.max_steps")
    return [*small[:start], *root, *small[end:]]


def test_no_path_of_a_set_is_part_of_a_name(words, tmp_path):
    here, there = (parse_experiment([*words, "--data.notes", str(tmp_path / name)]) for name in ("here", "there"))
    assert deciding(here)["data"] == {"class_path": f"{__name__}.Noted", "init_args": {"weight": 1}}
    assert run_folder(here) == run_folder(there)
    other = parse_experiment([*words, "--data.notes", "here", "--data.weight", "2"])
    assert run_folder(other) != run_folder(here)
