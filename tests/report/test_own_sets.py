"""Sets of one's own in reports: their subtasks in tables, their pictures on the page."""

import json
from pathlib import Path

from data_modules.questions import Questions
from lightning_m2pt.commands.report import read_groups
from lightning_m2pt.report.page.pictures import question_pictures
from lightning_m2pt.report.tables.details import detail_tables
from lightning_m2pt.runs.evaluated import read_run
from lightning_m2pt.testing.set_contract import header_of, lines_of
from tests.support.answers.evaluated_folders import write_run


def evaluated(folder: Path) -> Path:
    """Writes a run that has answered two sets of one's own, one of which is not there any more."""
    Questions.write_fake(folder / "data")
    arguments = {"file": str(folder / "data" / "questions.csv"), "rule": "yes_no_words", "template": "vicuna_v1"}
    gone = arguments | {"file": "gone.csv", "name": "gone"}
    run = folder / "run"
    own = "data_modules.questions.Questions"
    write_run(run, 0, benchmarks=[{"class_path": own, "init_args": each} for each in (gone, arguments)])
    module = Questions(**arguments)
    (run / "predictions").mkdir()
    header = header_of(module) | {"decoding": {}, "toggles": {}, "adapter": None}
    for name in ("questions", "gone"):
        rows = [row | {"set": name} for row in lines_of(module, ["yes"] * 6)]
        lines = [header | {"benchmark": name}, *rows]
        (run / "predictions" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_details_have_the_subtasks_of_sets_of_ones_own(tmp_path: Path) -> None:
    tables = detail_tables(read_groups([evaluated(tmp_path)], [], []))
    assert [table.records[0]["set"] for table in tables] == ["gone", "questions"]
    parts = [(record["part"], round(record["accuracy"], 3), record["n"]) for record in tables[1].records]
    assert parts == [("subtask a", 0.667, 3.0), ("subtask b", 0.333, 3.0)]


def test_pictures_of_sets_of_ones_own_are_found_by_their_names(tmp_path: Path) -> None:
    run = read_run(evaluated(tmp_path))
    pictures, missing = question_pictures(run, {"questions": ["1", "5"], "gone": ["1"]}, [tmp_path])
    assert sorted(pictures) == [("questions", "1"), ("questions", "5")]
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())
    assert missing == ["gone: no pictures (gone.csv is not here)"]
