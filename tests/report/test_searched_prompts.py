"""Searches of prompts in the report: every record that lies beside runs, by value, and nothing else."""

import csv
import json
from dataclasses import replace
from pathlib import Path

from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.prompt_search.record import SearchRecord
from lightning_m2pt.prompt_search.state import SearchState
from lightning_m2pt.report.page.figures import styles_of_methods
from lightning_m2pt.report.page.searched_prompts import BEGIN, search_curves, searched_prompts_part
from tests.support.answers.evaluated_folders import write_outputs

STATE = SearchState(
    (1, 2), 2.0, (3, 4), 1.5, 900, scored=40, moves=2, curve=((100, 3.0), (500, 1.5)), ended="the budget is spent"
)


def write_record(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    states = {"gcg": STATE, "random": replace(STATE, best_loss=2.5, curve=((100, 3.0), (200, 2.5)), ended="")}
    SearchRecord(path, {"samples": ["a", "b", "c"]}, states).write()


def test_curves_and_ends_are_those_of_the_records(tmp_path):
    write_record(tmp_path / "m2pt_base" / "prompt.json")
    (tmp_path / "results.json").write_text(json.dumps({"states": {}}))
    assert (tmp_path / "m2pt_base" / "prompt.json").read_bytes().startswith(BEGIN)
    part, left_out = searched_prompts_part([tmp_path])
    assert left_out == []
    gcg, random = part.tables[0].rows
    assert gcg[:9] == ("m2pt_base/prompt", "gcg", "2", "3", "900", "40", "3.0000", "1.5000", "2")
    assert (gcg[9], random[9]) == ("the budget is spent", "on its way")
    points = [(each["rows"], each["loss"]) for each in part.figures[0].records if each["method"] == "random"]
    assert points == [(100, 3.0), (200, 2.5), (900, 2.5)]
    (axes,) = search_curves(styles_of_methods(["gcg", "random"], None, ["random"]))(part.figures[0].records, 6.75).axes
    assert list(axes.lines[0].get_ydata()) == [3.0, 1.5, 1.5]


def test_no_record_is_no_part_and_a_damaged_one_is_named(tmp_path):
    assert searched_prompts_part([tmp_path]) == (None, [])
    (tmp_path / "prompt.json").write_bytes(BEGIN + b'}, "states": {"gcg": {}}, "measured": {}}')
    assert searched_prompts_part([tmp_path]) == (None, ["prompt: the record of a search is damaged"])
    (tmp_path / "prompt.json").write_bytes(BEGIN)
    assert searched_prompts_part([tmp_path])[1] == ["prompt: the record of a search is damaged"]


def test_only_so_many_are_drawn_and_the_rest_is_named(tmp_path):
    for number in range(8):
        write_record(tmp_path / f"prompt_{number}.json")
    part, _ = searched_prompts_part([tmp_path])
    assert len({record["search"] for record in part.figures[0].records}) == 6
    assert part.notes == ["not drawn: prompt_6, prompt_7"]
    assert len(part.tables[0].rows) == 16


def test_the_page_has_them_once(tmp_path):
    outputs = write_outputs(tmp_path)
    write_record(outputs / "prompt.json")
    assert main(["report-page", str(outputs), "--cases", "0"]) == ExitCode.DONE
    page = (outputs / "report" / "index.html").read_text()
    assert page.count('<section id="searched-prompts">') == 1
    with (outputs / "report" / "searched-prompts.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 6
    (outputs / "prompt.json").unlink()
    assert main(["report-page", str(outputs), "--cases", "0"]) == ExitCode.DONE
    assert "searched-prompts" not in (outputs / "report" / "index.html").read_text()
    assert not (outputs / "report" / "searched-prompts.csv").exists()
