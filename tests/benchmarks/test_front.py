"""The README and the pages say what the stored results say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import findings, front
from benchmarks.report.cells import Cell, paired_difference
from benchmarks.report.markdown import with_block, wrapped
from benchmarks.report.methods_chart import figure_of
from benchmarks.report.stored import stored
from benchmarks.report.sweep_tables import SETS, chances_of, front_lines, sweep_of
from lightning_m2pt.errors import BadInputError

MARKED = re.compile(r"<!-- (\w+) -->\n.*?<!-- end of \1 -->\n", re.DOTALL)
COMPARISON, LEARNING = stored("comparison"), stored("learning_testbed")


def scores(value: float) -> dict[str, float]:
    return dict.fromkeys(SETS, value)


def invented(**by_method: list[float]) -> dict[str, Any]:
    """A comparison in which every method has one score on all sets, for each seed."""
    return {
        "methods": {
            label: {"trained_percent": 1.25, "by_seed": {str(seed): scores(value) for seed, value in enumerate(values)}}
            for label, values in by_method.items()
        },
        "frozen": scores(40.0),
    }


@pytest.mark.parametrize("path", front.BLOCKS, ids=str)
def test_pages_are_what_the_command_writes(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert page == front.page_of(path), "run: python -m benchmarks.report.front"
    assert {match.group(1) for match in MARKED.finditer(page)} == set(front.BLOCKS[path])


@pytest.mark.parametrize("path", [Path("README.md"), *sorted(Path("docs").rglob("*.md"))], ids=str)
def test_means_over_seeds_are_typed_nowhere(path: Path) -> None:
    outside = MARKED.sub("", path.read_text(encoding="utf-8"))
    assert not re.findall(r"\d ± \d", outside)
    assert not re.findall(r"MMAvg[^.|]{0,40}\d\d\.\d", outside)


def test_stored_means_are_those_of_the_seeds() -> None:
    for name in ("comparison", "ablation"):
        content = stored(name)
        for label, row in sweep_of(content).rows.items():
            found = content["methods"].get(label, {"mean": content["frozen"]})["mean"]
            assert {column: cell.mean for column, cell in row.items()} == pytest.approx(found, abs=0.006), label
    assert content["frozen"] == COMPARISON["frozen"]
    assert {name: LEARNING["frozen"][name]["value"] for name in SETS} == pytest.approx(
        {name: COMPARISON["frozen"][name] for name in SETS}
    )


def test_what_the_pages_say_in_words_holds() -> None:
    rows = sweep_of(COMPARISON).rows
    mean = {label: row["MMAvg"].mean for label, row in rows.items()}
    assert findings.level_with_lead(COMPARISON) == ["vpt"]
    assert not findings.is_clear(*findings.textual_prompts(stored("ablation")))
    assert not findings.is_clear(*findings.second_backbone(stored("learning_testbed_patch12")))
    assert min(mean["m2pt"], mean["vpt"]) > max(mean["lora"], mean["adapter"]) + 5
    # The search did not help M2PT: its file's rates are the ablation's.
    assert sweep_of(stored("ablation")).rows["m2pt"]["MMAvg"].mean > mean["m2pt"]
    assert len(rows) == 11


def test_the_front_table_by_value() -> None:
    content = invented(m2pt=[60.0, 62.0], full=[80.0, 82.0, 84.0], vpt=[60.5, 61.5])
    lines = front_lines(content, dict.fromkeys(SETS, 25.0))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
    assert [row[0] for row in cells[2:]] == ["full tuning", "**M2PT**", "VPT", "frozen", "chance"]
    assert cells[2][1:3] == ["1.25%", "3"]
    assert cells[2][11] == "82.0 ± 2.0"
    # Welch by hand: squared errors 4/3 and 1 make 2.88 degrees; Student's quantile 3.26 times the root of 7/3.
    assert cells[2][12] == "+21.0 ± 5.0"
    assert cells[3][11:] == ["61.0 ± 1.4", ""]
    assert cells[5][11:] == ["40.0", "-21.0 ± 12.7"]
    assert cells[6][11] == "25.0"
    assert findings.level_with_lead(content) == ["vpt"]


def test_sentences_follow_the_figures() -> None:
    ahead = invented(m2pt=[60.0, 60.1], full=[80.0, 80.1], projector=[70.0, 70.1])
    gains, level = findings.comparison_sentences(ahead)
    assert "20.1 above the untouched model, 10.0 below the projector alone" in gains
    assert "Level with M2PT: none" in level
    assert findings.ablation_sentence(invented(**{"m2pt": [60, 61], "no textual prompts": [50, 51.1]})).startswith(
        "**Leaving the textual prompts out changes the mean** (-9.9 ± 0.6"
    )


def test_differences_are_paired_by_seed() -> None:
    paired = paired_difference(Cell((1.0, 5.0)), Cell((0.0, 4.0)))
    assert (paired.mean, paired.deviation) == (1.0, 0.0)
    with pytest.raises(ValueError, match="shorter"):
        paired_difference(Cell((1.0, 2.0)), Cell((1.0,)))


def test_a_marked_place_is_filled_and_asked_for() -> None:
    page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n"
    assert with_block(page, "x", ["new", ""]) == "a\n<!-- x -->\n\nnew\n<!-- end of x -->\nb\n"
    with pytest.raises(BadInputError, match="no place <!-- y -->"):
        with_block(page, "y", [])
    assert wrapped("word " * 40, "- ")[1].startswith("  word")


def test_the_picture_shows_the_table() -> None:
    means, sets = figure_of(COMPARISON, chances_of(LEARNING)).axes
    rows = sweep_of(COMPARISON).rows
    shown = [bar.get_width() for bar in means.patches]
    assert shown == pytest.approx(sorted((row["MMAvg"].mean for row in rows.values()), reverse=True))
    names = [text.get_text() for text in sets.get_legend().get_texts()]
    assert names == ["frozen", "LoRA", "VPT", "M2PT", "full tuning"]
    assert [bar.get_height() for bar in sets.patches[16:24]] == pytest.approx([rows["vpt"][name].mean for name in SETS])
    assert front.CHART.stat().st_size > 0


def test_every_shipped_experiment_of_the_methods_table_is_counted() -> None:
    counted = json.loads(Path("benchmarks/results/parameters.json").read_text())
    assert counted["m2pt_vicuna7b"]["trained"] == 6_000_640
    assert counted["m2pt_base"]["percent"] == COMPARISON["methods"]["m2pt"]["trained_percent"]
