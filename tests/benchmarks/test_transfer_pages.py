"""What the page on transfers says of a stored matrix, by value, and its picture."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.transfer_chart import draw_transfers, figure_of
from benchmarks.report.transfer_tables import transfer_lines
from experiments.prompt_transfer.matrix import Direction, Estimate


def estimate(value: float, half: float = 1.0) -> Estimate:
    return Estimate(value, value - half, value + half, 0.01)


def record(row: str, source: str, target: str, home: float, there: float, name: str = "mnist", **more: Any) -> dict:
    found = Direction(name, row, source, target, 3, 2, untouched=50.0, score=50.0 + there)
    found.white_box, found.gain, found.adjusted_p = estimate(home), estimate(there), 0.01 if abs(there) > 1 else 0.5
    return asdict(found) | more


CONTENT = {
    "bases": {"A": "first", "B": "second"},
    "sets": ["mnist", "pope"],
    "rows": ["vp", "tvp"],
    "notes": ["A note."],
    "directions": [
        record("vp", "A", "B", 12.0, -4.0, ceiling=asdict(estimate(0.5)), clip_loss=asdict(estimate(2.0))),
        record("vp", "B", "A", 8.0, 0.5),
        record("vp", "A", "B", 3.0, 2.0, "pope", ceiling=asdict(estimate(4.0)), share=asdict(estimate(0.5, 0.25))),
        record("tvp", "A", "B", 6.0, 0.0, gain=None, adjusted_p=None, untouched=None),
    ],
}


def test_the_page_counts_what_is_clear_and_names_what_is_missing() -> None:
    text = "\n".join(transfer_lines(CONTENT))
    assert "A is `first`, B is `second`. A note." in text.replace("\n", " ")
    joined = text.replace("\n  ", " ")
    assert (
        "- **vp**: clearly better at home in 3 of 3 cases; on the target clearly better in 1, clearly worse in 1 of 3; "
        "shares of the ceiling from 0.50 to 0.50."
    ) in joined
    assert (
        "- **tvp**: clearly better at home in 1 of 1 cases; on the target clearly better in 0, clearly worse" in joined
    )
    (first,) = [line for line in text.splitlines() if line.startswith("| mnist | A > B | vp")]
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert cells[3:] == [
        "2 of 3",
        "50.0",
        "+12.0 (+11.0 to +13.0)",
        "-4.0 (-5.0 to -3.0)",
        r"0.010\*",
        "+0.5 (-0.5 to +1.5)",
        "not stated",
        "+2.0 (+1.0 to +3.0)",
        "",
        "",
    ]
    assert "| mnist | A > B | tvp | 2 of 3 | missing | +6.0 (+5.0 to +7.0) |  |" in text


def test_nothing_stored_is_said() -> None:
    assert "Nothing of this" not in "\n".join(transfer_lines(CONTENT))
    assert "Nothing of this has been measured" in transfer_lines({})[0]


def test_the_picture_has_every_gain_once(tmp_path: Path) -> None:
    (panel,) = figure_of(CONTENT).axes  # tvp was trained on one set alone
    assert panel.get_title() == "vp"
    shown = [text.get_text() for text in panel.texts]
    # Lines: mnist on A and on B, pope on A and on B; columns: used on A, used on B.
    assert shown == ["+12.0*", "-4.0*", "+0.5", "+8.0*", "+3.0*", "+2.0*", "missing", "missing"]
    (image,) = panel.get_images()
    assert image.get_clim() == (-12.0, 12.0)
    draw_transfers(CONTENT, tmp_path / "one.png")
    draw_transfers(CONTENT, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    one_set = CONTENT | {"directions": CONTENT["directions"][:2]}
    assert [axes.get_title() for axes in figure_of(one_set).axes] == ["vp"]


def test_the_picture_of_nothing_is_no_error() -> None:
    assert len(figure_of(CONTENT | {"directions": []}).axes) == 1


@pytest.mark.parametrize("half", [1.0, 5.0])
def test_a_star_is_an_interval_without_zero(half: float) -> None:
    content = CONTENT | {"directions": [record("vp", "A", "B", 3.0, 3.0, gain=asdict(estimate(3.0, half)))]}
    (panel,) = figure_of(content).axes
    assert panel.texts[1].get_text() == ("+3.0*" if half == 1.0 else "+3.0")
