"""The paper's parameter counts, on the meta device at the real shapes."""

import pytest

from experiments.commands.params import count
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.tuning.module import TuningModule

FOLDER = "lightning_m2pt/embedded/vicuna7b"
BASE = 7_045_793_792


def counted(**arguments) -> dict:
    backbone = OpenClipLlama(f"{FOLDER}/vision/open_clip_config.json", "none", f"{FOLDER}/language", "none", "none")
    return count(TuningModule(backbone, M2PT(**arguments)))


@pytest.mark.parametrize(
    ("arguments", "trained", "percent"),
    [
        ({"textual_length": 10, "visual_length": 20}, 6_000_640, 0.0851),
        ({"textual_length": 10, "visual_length": 10}, 5_754_880, 0.0817),
        ({"textual_length": 10, "visual_length": 20, "visual_rows_to_text": "none"}, 5_980_160, 0.0849),
        ({"textual_length": 10, "visual_length": 20, "lm_head": True}, 137_072_640, 1.9450),
        ({"textual_length": 20, "visual_length": 10}, 7_065_600, 0.1002),
    ],
    ids=str,
)
def test_published_counts(arguments, trained, percent):
    table = counted(**arguments)
    assert table["base"] == BASE
    assert table["trained"] == trained
    assert table["percent"] == percent


def test_the_dead_row_is_counted_and_named():
    table = counted(textual_length=10, visual_length=20)
    assert table["dead"] == 1_024
    assert table["parts"][0]["dead_names"] == ["visual_prompts.rows.23 row 0"]
