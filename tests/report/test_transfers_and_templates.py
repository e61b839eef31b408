"""Matrices of transfers and spreads over texts in the report, by value; what is damaged or empty is named."""

import json
from pathlib import Path

import pytest

from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.report.page.template_spread import draw_spread, template_spread_part
from lightning_m2pt.report.page.transfers import gain_maps, transfers_parts
from lightning_m2pt.report.tables.template_spread import spread_of
from tests.support.answers.evaluated_folders import write_outputs


def gain(value: float, half: float = 1.0) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "p_value": 0.01}


def write_matrix(path: Path, directions: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"bases": {"A": "first", "B": "second"}, "sets": ["mnist", "pope"], "rows": ["vp", "tvp"]}
    path.write_text(json.dumps({**content, "notes": ["A note."], "directions": directions}))


DIRECTIONS = [
    {"row": "vp", "set": "mnist", "source": "A", "target": "B", "white_box": gain(12.0), "gain": gain(-4.0)},
    {"row": "vp", "set": "mnist", "source": "B", "target": "A", "white_box": gain(2.0, 3.0), "gain": None},
    {"row": "vp", "set": "pope", "source": "A", "target": "B", "white_box": gain(3.0), "gain": gain(2.0)},
    {"row": "composition of vp", "set": "mnist", "source": "A", "target": "B", "white_box": None, "gain": gain(1.0)},
]


def test_gains_are_those_of_the_matrix(tmp_path: Path) -> None:
    write_matrix(tmp_path / "sweeps" / "mine" / "transfers.json", DIRECTIONS)
    (part,), left_out = transfers_parts([tmp_path])
    assert left_out == []
    assert (part.title, part.notes) == (
        "Prompts in pixels on other bases: mine",
        ["A is first, B is second.", "A note."],
    )
    assert part.tables[0].rows[:4] == [
        ("vp", "mnist", "A > A", "+12.0", "+11.0 to +13.0"),
        ("vp", "mnist", "A > B", "-4.0", "-5.0 to -3.0"),
        ("vp", "mnist", "B > A", "missing", ""),
        ("vp", "mnist", "B > B", "+2.0", "-1.0 to +5.0"),
    ]
    for width in (3.25, 6.75):
        (panel,) = gain_maps(part.figures[0].records, width).axes
        shown = [text.get_text() for text in panel.texts]
        assert shown == ["+12.0*", "-4.0*", "missing", "+2.0", "+3.0*", "+2.0*", "missing", "missing"]
        assert panel.get_yticklabels()[0].get_text() == "mnist, trained on A"


def test_matrices_that_are_damaged_or_empty_are_named(tmp_path: Path) -> None:
    assert transfers_parts([tmp_path]) == ([], [])
    write_matrix(tmp_path / "sweeps" / "empty" / "transfers.json", [])
    write_matrix(tmp_path / "sweeps" / "wrong" / "transfers.json", [{"row": "vp"}])
    write_matrix(tmp_path / "sweeps" / "x" / "transfers.json", DIRECTIONS)
    write_matrix(tmp_path / "sweeps" / "y" / "transfers.json", DIRECTIONS)
    parts, left_out = transfers_parts([tmp_path])
    assert [part.name for part in parts] == ["transfers", "transfers-2"]
    assert left_out == [
        "sweeps/empty: nothing of its transfers is there yet",
        "sweeps/wrong: the matrix of transfers is damaged",
    ]


def write_templates(folder: Path) -> None:
    folder.mkdir(parents=True)
    texts = {
        "as_it_is": {"loss": 1.0, "answer_accuracy": 0.5, "samples": 80},
        "brief": {"loss": 0.5, "answer_accuracy": 0.75, "samples": 80},
        "long": {"loss": 3.0, "answer_accuracy": 0.1, "samples": 20},
    }
    spread = {
        "samples": 20,
        "texts": 3,
        "loss": spread_of([1.0, 2.0, 3.0]),
        "answer_accuracy": spread_of([0.1, 0.5, 0.9]),
    }
    record = {"samples": 80, "spread": spread, "texts": texts, "chosen": "brief"}
    (folder / "templates.json").write_text(json.dumps(record))


def test_a_list_of_texts_has_a_dot_each(tmp_path: Path) -> None:
    assert template_spread_part([tmp_path]) == (None, [])
    write_templates(tmp_path / "frozen" / "templates")
    part, left_out = template_spread_part([tmp_path])
    assert part is not None
    assert left_out == []
    assert part.notes[0].startswith("frozen: 3 texts on the same 20 validation samples: answers right 10.0% to 90.0%")
    assert part.tables[0].rows[1] == ("frozen", "brief (chosen)", "80", "0.5000", "75.0%")
    loss, _ = draw_spread(part.figures[0].records, 6.75).axes
    whole, fewer, mean, chosen = (dots.get_offsets().tolist() for dots in loss.collections)
    assert (whole, fewer, mean, chosen) == ([[1.0, 0.0]], [[3.0, 0.0]], [[2.0, 0.0]], [[0.5, 0.0]])


@pytest.mark.parametrize(
    "content", ["{}", "[1]", '{"spread": {}, "samples": 1, "texts": {"a": {}}, "chosen": "a"}', "{"]
)
def test_damaged_figures_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "templates.json").write_text(content)
    part, left_out = template_spread_part([tmp_path])
    assert part is None
    assert left_out == [f"{tmp_path.name}: the figures of the templates are damaged"]


def test_the_page_has_them_once_and_takes_them_away(tmp_path: Path) -> None:
    outputs = write_outputs(tmp_path)
    matrix = outputs / "sweeps" / "mine" / "transfers.json"
    write_matrix(matrix, DIRECTIONS)
    write_templates(outputs / "m2pt_base" / "templates")
    assert main(["report-page", str(outputs), "--cases", "0"]) == ExitCode.DONE
    page = (outputs / "report" / "index.html").read_text()
    assert (page.count('<section id="transfers">'), page.count('<section id="template-spread">')) == (1, 1)
    assert (outputs / "report" / "transfers-text.pdf").is_file()
    matrix.unlink()
    assert main(["report-page", str(outputs), "--cases", "0"]) == ExitCode.DONE
    assert 'id="transfers"' not in (outputs / "report" / "index.html").read_text()
    assert not (outputs / "report" / "transfers-text.pdf").exists()
