"""The table of all transfers, by value, from predictions that are written by hand."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.prompt_transfer.matrix import Direction, directions
from experiments.prompt_transfer.matrix_table import matrix_table, write_matrix
from experiments.prompt_transfer.planned import SEVERAL_BASES, SEVERAL_SEEDS, Carried
from experiments.prompt_transfer.rows import CLIPPED, COMPOSITION, EIGHT_BITS, PROMPT, RANDOM, UNTOUCHED
from experiments.sweep.jobs import Job
from experiments.sweep.transfer_section import TransferPlan
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.metrics.statistics import compare
from lightning_m2pt.runs.scoring import score_file
from tests.support.answers.prediction_files import header_of, row_of

QUESTIONS = 40
PLAN = TransferPlan(
    "likelihood_sum",
    {"A": Path("first.yaml"), "B": Path("second.yaml")},
    {"mnist": Path("mnist.yaml")},
    ("vp",),
    (),
    "vp",
    (("vp", "mnist"),),
)


def write_answers(path: Path, right: Sequence[int], order: int = 1) -> Path:
    """Writes the answers to questions of two classes, some of which are right; ``order`` -1 turns the lines around."""
    lines = []
    for number in range(QUESTIONS):
        target = str(number % 2)
        answer = target if number in right else str(1 - number % 2)
        lines.append(row_of("mnist", f"q{number}", "", "Which?", answer, target, f"{number}.png"))
    path.parent.mkdir(parents=True, exist_ok=True)
    content = [header_of("mnist", ("0", "1")), *lines[::order]]
    path.write_text("".join(json.dumps(line) + "\n" for line in content))
    return path


class Written:
    """Transfers whose answers are written by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.all = folder, []
        for base, right in (("A", range(10)), ("B", range(20))):
            write_answers(folder / f"frozen{base}.jsonl", right)

    def add(
        self, source: str, target: str, seed: int | None, right: Sequence[int] | None, row: str = "vp", **rows: range
    ) -> Carried:
        """Adds a transfer; without answers it is asked for and not there."""
        folder = self.folder / f"{row}-{source}-{target}-{seed}"
        job = Job("", "", "transfer", (("transfer", "--output", str(folder)),), (), Path())
        carried = Carried(row, "mnist", source, target, seed, job)
        self.all.append(carried)
        if right is None:
            return carried
        answers = {PROMPT: right, CLIPPED: right, EIGHT_BITS: right, RANDOM: range(20), **rows}
        paths = {key: write_answers(folder / f"{key}.jsonl", each, -1) for key, each in answers.items()}
        is_composed = COMPOSITION in rows
        paths = dict.fromkeys((UNTOUCHED, COMPOSITION), self.folder / f"frozen{target}.jsonl") | paths
        records = [
            {
                "set": "mnist",
                "row": key,
                "score": 0.0,
                "predictions": str(path),
                "feature_distance": 0.1 * (seed or 0) + 0.1 if key == PROMPT else None,
                "same_as": UNTOUCHED if key == COMPOSITION and not is_composed else "",
            }
            for key, path in paths.items()
        ]
        (folder / "transfer.json").write_text(json.dumps({"format": 1, "rows": records}))
        return carried


def found(written: Written, row: str, source: str = "A", target: str = "B") -> Direction:
    (one,) = [
        each for each in directions(PLAN, written.all) if (each.row, each.source, each.target) == (row, source, target)
    ]
    return one


@pytest.fixture
def written(tmp_path: Path) -> Written:
    made = Written(tmp_path)
    # Trained on A: 25 to 50 percent there. On B, 50 untouched: 60 and 70; trained on B itself: 70 and 80.
    made.add("A", "A", 0, range(20))
    made.add("A", "A", 1, range(20))
    made.add("A", "B", 0, range(24), clipped=range(22))
    made.add("A", "B", 1, range(28), clipped=range(26))
    made.add("B", "B", 0, range(28))
    made.add("B", "B", 1, range(32))
    return made


def test_gains_share_and_losses_by_hand(written: Written) -> None:
    row = found(written, "vp")
    assert (row.untouched, row.score, row.present, row.planned, row.seeds, row.missing) == (50, 65, 2, 2, [0, 1], [])
    assert row.white_box is not None
    assert row.gain is not None
    assert row.ceiling is not None
    assert row.share is not None
    assert (row.white_box.value, row.gain.value, row.ceiling.value) == (25.0, 15.0, 25.0)
    assert row.share.value == pytest.approx(0.6)
    assert row.share.low < 0.6 < row.share.high
    assert row.feature_distance == pytest.approx(0.15)
    assert row.clip_loss is not None
    assert row.clip_loss.value == 5.0
    # Each seed loses two questions that it had right: paired by seed never a gain, with seeds drawn apart it is.
    assert row.clip_loss.low >= 0.0
    assert row.eight_bits_loss is not None
    assert (row.eight_bits_loss.value, row.eight_bits_loss.low, row.eight_bits_loss.high) == (0.0, 0.0, 0.0)


def test_intervals_are_those_of_a_comparison_over_pictures_and_seeds(written: Written) -> None:
    row = found(written, "vp")
    before = score_file(written.folder / "frozenB.jsonl")[1]
    after = [score_file(written.folder / f"vp-A-B-{seed}" / "prompt.jsonl")[1] for seed in (0, 1)]
    expected = compare(read_predictions(written.folder / "frozenB.jsonl"), [before], after)
    assert row.gain is not None
    assert (row.gain.value, row.gain.low, row.gain.high) == (
        expected.difference,
        expected.interval.low,
        expected.interval.high,
    )


def test_a_share_of_no_clear_ceiling_is_not_stated(written: Written) -> None:
    written.all = written.all[:4]
    written.add("B", "B", 0, [*range(19), 30, 31])  # 52.5: one lost, two won
    row = found(written, "vp")
    assert row.ceiling is not None
    assert row.ceiling.value == 2.5
    assert row.ceiling.low <= 0
    assert row.share is None
    (texts,) = [line for line in matrix_table("mine", directions(PLAN, written.all)).rows if line[2] == "vp"]
    assert "not stated" in texts


def test_what_is_missing_is_named(written: Written) -> None:
    written.add("A", "B", 2, None)
    written.add("A", "A", 2, None)
    row = found(written, "vp")
    assert (row.present, row.planned) == (2, 3)
    assert row.missing == ["vp, mnist, A to B, seed 2", "vp, mnist, A to A, seed 2"]
    table = matrix_table("mine", directions(PLAN, written.all))
    assert [line[3] for line in table.rows if line[2] == "vp"] == ["2 of 3"]
    assert "2 transfers are missing: vp, mnist, A to B, seed 2; vp, mnist, A to A, seed 2." in table.notes[-1]
    written.add("B", "A", 0, None)
    other = found(written, "vp", "B", "A")
    assert other.gain is None
    assert [line[4] for line in matrix_table("mine", [other]).rows] == ["missing"]


def test_what_composing_alone_loses_is_of_a_seed_that_is_there(tmp_path: Path) -> None:
    written = Written(tmp_path)
    for target, composed in (("A", range(5)), ("B", range(16))):
        written.add("A", target, 0, None)
        written.add("A", target, 1, range(24), composition=composed)
    row = found(written, "composition of vp")
    assert (row.planned, row.present, row.seeds, row.missing) == (1, 1, [1], [])
    assert row.gain is not None
    assert (row.untouched, row.score, row.gain.value) == (50.0, 40.0, -10.0)
    assert row.white_box is not None
    assert row.white_box.value == -12.5


def test_a_random_prompt_and_means_stand_beside_it_and_all_gains_are_adjusted(written: Written, tmp_path: Path) -> None:
    written.add("A", "B", None, range(30), f"vp, {SEVERAL_SEEDS}")
    written.add("B", "B", None, range(32), f"vp, {SEVERAL_SEEDS}")
    written.add("A+B", "B", 0, range(30), f"vp, {SEVERAL_BASES}")
    rows = directions(PLAN, written.all)
    assert [(row.row, row.source) for row in rows] == [
        ("random of vp's norm", "A"),
        ("vp", "A"),
        (f"vp, {SEVERAL_SEEDS}", "A"),
        (f"vp, {SEVERAL_BASES}", "A+B"),
    ]
    random, prompt, over_seeds, over_bases = rows
    assert random.gain is not None
    assert (random.gain.value, random.gain.p_value, random.ceiling) == (0.0, 1.0, None)
    assert over_seeds.ceiling is not None
    assert over_seeds.ceiling.value == 30.0
    assert over_bases.ceiling == prompt.ceiling
    assert over_bases.white_box is None
    assert [row.adjusted_p for row in rows if row.gain and row.adjusted_p == row.gain.p_value] == [1.0]
    table = matrix_table("mine", rows)
    assert "of 4 gains on a target" in " ".join(table.notes)
    content = json.loads(write_matrix(tmp_path / "sweep", PLAN, table, {}).read_text())
    assert content["directions"][1]["gain"]["value"] == 15.0
    assert (tmp_path / "sweep" / "transfers.md").read_text().startswith("### transfers of mine")


def test_answers_are_paired_by_id_and_other_questions_refused(written: Written) -> None:
    """The tuned files' lines are in the reverse order; pairing by place would see other questions."""
    path = written.folder / "vp-A-B-0" / "prompt.jsonl"
    path.write_text(path.read_text().replace('"q3"', '"other"'))
    with pytest.raises(Exception, match="questions"):
        directions(PLAN, written.all)


def test_a_composition_that_is_no_untouched_picture_has_a_row_of_one_prompt(written: Written) -> None:
    """Nothing of it was trained: no seeds, no ceiling, and at home its own gain."""
    for target, right in (("A", range(14)), ("B", range(22))):
        for seed in (0, 1):
            folder = written.folder / f"vp-A-{target}-{seed}"
            content = json.loads((folder / "transfer.json").read_text())
            record = next(each for each in content["rows"] if each["row"] == COMPOSITION)
            record |= {"same_as": "", "predictions": str(write_answers(folder / "composition.jsonl", right))}
            (folder / "transfer.json").write_text(json.dumps(content))
    row = found(written, "composition of vp")
    assert (row.planned, row.present, row.seeds, row.missing, row.ceiling) == (1, 1, [0], [], None)
    assert row.gain is not None
    assert row.white_box is not None
    assert (row.gain.value, row.white_box.value) == pytest.approx((5.0, 10.0))
    assert (row.clip_loss, row.feature_distance) == (None, None)


def test_stars_are_below_the_level_and_of_many_missing_ones_some_are_named() -> None:
    row = Direction("mnist", "vp", "A", "B", 9, missing=[f"m{number}" for number in range(8)])
    cells = [matrix_table("mine", [replace(row, adjusted_p=value)]).rows[0][8] for value in (0.049, 0.05, 0.08, None)]
    assert cells == ["0.049*", "0.050", "0.080", ""]
    note = matrix_table("mine", [row, row]).notes[-1]
    assert note == "8 transfers are missing: m0; m1; m2; m3; m4; m5, and 2 more."
