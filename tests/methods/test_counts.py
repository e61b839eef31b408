"""The paper's parameter counts, on the meta device at the real shapes."""

import io

import pytest
from rich.console import Console

from experiments.commands.params import count
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.parameter_counts import counts_table

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


@pytest.mark.parametrize("long", ["interaction_of_the_second", "llm.layers.0.self_attn.projection_of_queries" * 2])
def test_a_narrow_terminal_cuts_nothing_off(long):
    names = [long, "visual_prompts"]
    part = {"trained": 123_456_789, "percent": 12.3456, "dead": 1_024, "dead_names": ["visual_prompts.rows.23 row 0"]}
    table = {"base": BASE, "trained": 246_913_578, "percent": 24.6912, "dead": 2_048}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(counts_table({**table, "parts": [{"name": name, **part} for name in names]}))
    said = console.export_text()
    column = "".join(line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│"))
    assert column == f"{long}visual_promptsallbase (frozen)"
    assert "visual_prompts" in said
    assert "123,456,789" in said
    assert "12.3456" in said
    assert "…" not in said
