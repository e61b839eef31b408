"""``fit`` on the real pair, killed in a step and started again, leaves the bytes of a run that was left alone."""

from pathlib import Path

import pytest

from data_modules.vision_flan import write_vision_flan
from lightning_m2pt.storage.checkpoint import latest_checkpoint, step_of
from tests.real.pair import FEATURE_LAYER, IMAGE_SIZE, pair_folder, records
from tests.support.ranks import RanksFailedError, on_ranks
from tests.support.runs.whole_trainings import tune

pytestmark = pytest.mark.real

STEPS, KILLED_IN = 6, 4
PATIENCE = 900
"""Seconds after which ranks that hang are ended; on two quiet cores they need a tenth."""


def words(folder: Path, projector: Path, dtype: str, devices: int) -> list[str]:
    """Returns the command line: M2PT as on the testbed, in the model's own template, a checkpoint at every step."""
    write_vision_flan(folder / "set", records(8, 2))
    backbone = {
        "vision_tower": pair_folder() / "vision",
        "language_model": pair_folder() / "language",
        "projector": projector,
        "feature_layer": FEATURE_LAYER,
        "image_size": IMAGE_SIZE,
        "dtype": dtype,
    }
    settings = {
        "--config": "experiments/m2pt_base.yaml",
        "--model.backbone": "lightning_m2pt.backbones.pairs.tower_and_decoder.TowerAndDecoder",
        **{f"--model.backbone.{key}": value for key, value in backbone.items()},
        "--data.root": folder / "set",
        "--data.validation_file": "null",
        "--data.template": "native",
        "--data.max_text_length": 400,
        "--data.questions_per_sample": 2,
        "--data.batch_size": 4,
        "--trainer.max_steps": STEPS,
        "--trainer.accelerator": "cpu",
        "--trainer.devices": devices,
        "--trainer.strategy": "ddp" if devices > 1 else "auto",
        "--save_every_n_steps": 1,
        "--benchmarks": "[]",
        "--output_root": folder / "outputs",
    }
    return [str(word) for pair in settings.items() for word in pair]


@pytest.mark.parametrize(
    ("dtype", "devices"), [("float32", 1), ("bfloat16", 1), ("bfloat16", 2)], ids=["float32", "bfloat16", "two ranks"]
)
def test_killed_and_resumed_is_bit_for_bit_the_whole_run(
    tmp_path: Path, projector: Path, dtype: str, devices: int
) -> None:
    settings = words(tmp_path, projector, dtype, devices)
    on_ranks(devices, tune, settings, tmp_path / "whole", timeout=PATIENCE)
    with pytest.raises(RanksFailedError, match="exit code -9"):
        on_ranks(devices, tune, settings, tmp_path / "cut", KILLED_IN, timeout=PATIENCE)
    newest = latest_checkpoint(tmp_path / "cut" / "checkpoints")
    assert newest is not None
    assert step_of(newest) == KILLED_IN - 1
    assert not (tmp_path / "cut" / "adapter").exists()
    on_ranks(devices, tune, settings, tmp_path / "cut", timeout=PATIENCE)
    whole, cut = (tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "cut"))
    assert cut.read_bytes() == whole.read_bytes()
    tables = [(tmp_path / name / "metrics.csv").read_text() for name in ("whole", "cut")]
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) == STEPS + 1
