"""A step of every family of whole models under ZeRO 3 and on one device."""

from functools import partial
from pathlib import Path

import pytest

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.methods.base import Method
from tests.parallel.test_sharded_families import WHOLE, batch_of, method_for
from tests.support.small_training import one_step
from tests.support.strategies.cpu_zero import CpuZeroStrategy
from tests.support.strategies.sharded_training import compare, on_both
from tests.support.whole_models import write_whole_model


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_whole_models(tmp_path: Path, name: str) -> None:
    write_whole_model(tmp_path, WHOLE[name]())

    def make() -> tuple[Backbone, Method]:
        backbone = VisionLanguageModel(str(tmp_path), dtype="float64")
        return backbone, method_for(backbone)

    example = make()[0]
    example.load()
    steps = [one_step([batch_of(example, 2 * step), batch_of(example, 2 * step + 1)]) for step in range(2)]
    found, expected = on_both(make, steps, strategy=partial(CpuZeroStrategy, 3))
    compare(found, expected, 2e-5)
    assert found.share < 0.6
