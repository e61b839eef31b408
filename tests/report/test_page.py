"""`m2pt report-page` on invented outputs: its numbers are those of `m2pt report`, and what is missing is named."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_m2pt.commands.report_page import write_report
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.report.page.material import read_material
from lightning_m2pt.runs.evaluated import read_run
from tests.support.answers.evaluated_folders import mnist_questions, vsr_questions, write_outputs
from tests.support.answers.report_folders import LENGTHS, write_everything, write_frozen, write_tuned

PLACE = "small"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """A whole comparison with its report."""
    root = write_everything(tmp_path_factory.mktemp("page"), ("lora",))
    write_report(read_material([root]), root / "report", [root.parent], 2)
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def report_of(capfd, *words) -> list[dict]:
    assert main(["report", *map(str, words), "--format", "json"]) == ExitCode.DONE
    return json.loads(capfd.readouterr().out)["tables"][0]["records"]


def runs_named(outputs: Path, experiment: str, **arguments) -> list[Path]:
    """Returns an experiment's runs with these arguments of the method."""
    found = []
    for run in sorted((outputs / experiment).glob("*")):
        own = json.loads((run / "run.json").read_text())["deciding"]["method"]["init_args"]
        if own == (arguments or own):
            found.append(run)
    return found


def test_table_1_has_the_numbers_of_m2pt_report(capfd, outputs):
    written = rows_of(outputs / "report" / PLACE / "methods.csv")
    lead = runs_named(outputs, "m2pt_base", **LENGTHS)
    lora, frozen = runs_named(outputs, "lora_base"), [next((outputs / "frozen").glob("*"))]
    assert {row["method"] for row in written} == {"m2pt", "lora", "frozen"}
    page = (outputs / "report" / "index.html").read_text()
    for method, runs in (("m2pt", lead), ("lora", lora), ("frozen", frozen)):
        expected = report_of(capfd, *runs)
        own = [row for row in written if row["method"] == method]
        assert [row["set"] for row in own] == [record["set"] for record in expected]
        for row, record in zip(own, expected, strict=True):
            assert int(row["seeds"]) == record["seeds"]
            for key in ("percent", "percent_low", "percent_high", "score"):
                assert float(row[key]) == record[key]
            if record["maximum"] == 1.0:
                assert f"{record['percent']:.1f}" in page


def test_marks_are_the_verdicts_of_m2pt_report_against_m2pt_and_the_best_is_bold(capfd, outputs, tmp_path):
    lead = tmp_path / "m2pt_base"
    for run in runs_named(outputs, "m2pt_base", **LENGTHS):
        shutil.copytree(run, lead / run.name)
    written = rows_of(outputs / "report" / PLACE / "methods.csv")
    expected = report_of(capfd, *runs_named(outputs, "lora_base"), "--against", lead)
    marks = [row["difference_to_m2pt_inside_the_noise"] for row in written if row["method"] == "lora"]
    assert marks == [str(record["inside_the_noise"]) for record in expected]
    markdown = (outputs / "report" / PLACE / "methods.md").read_text().splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in markdown[2:5]}
    for at, name in enumerate(["mme", "vsr", "pope", "mnist", "mean of vsr, pope, mnist"], start=3):
        values = {row["method"]: float(row["percent"]) for row in written if row["set"] == name}
        for method, row in cells.items():
            assert row[at].startswith("**") == (values[method] == max(values.values())), (method, name)


def test_runs_are_sorted_into_ablation_and_lengths_by_their_records(outputs):
    folder = outputs / "report" / PLACE
    ablation = rows_of(folder / "ablation.csv")
    variants = ["full M2PT", "without visual prompts", "without textual prompts", "without interaction"]
    assert list(dict.fromkeys(row["variant"] for row in ablation)) == variants
    assert {row["seeds"] for row in ablation if row["variant"] == variants[0]} == {"3"}
    assert {row["seeds"] for row in ablation if row["variant"] != variants[0]} == {"2"}
    without = [
        read_run(run).sets["vsr"].score.value
        for run in runs_named(outputs, "m2pt_base", **LENGTHS | {"visual_length": 0})
    ]
    (row,) = [row for row in ablation if row["set"] == "vsr" and row["variant"] == variants[1]]
    assert float(row["percent"]) == pytest.approx(sum(without) / len(without))
    cells = {(int(row["textual_length"]), int(row["visual_length"])) for row in rows_of(folder / "lengths.csv")}
    grid = {(textual, visual) for textual in (5, 20) for visual in (0, 5, 10, 20)} - {(20, 0)}
    assert cells == grid | {(10, 10), (10, 0), (0, 10)}


def test_won_and_lost_questions_are_those_with_the_smallest_hashes_and_as_many(outputs):
    shown = rows_of(outputs / "report" / PLACE / "cases.csv")
    lead, lora = (
        read_run(runs_named(outputs, name, **arguments)[0])
        for name, arguments in (("m2pt_base", LENGTHS), ("lora_base", {}))
    )
    for benchmark in ("mme", "vsr", "pope", "mnist"):
        first, second = ({row["id"]: row for row in run.sets[benchmark].answered.predictions} for run in (lead, lora))
        ids = sorted(first, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        right = [{name: one["answer"] == one["target"] for name, one in of.items()} for of in (first, second)]
        won = [name for name in ids if right[0][name] and not right[1][name]]
        lost = [name for name in ids if right[1][name] and not right[0][name]]
        few = min(len(won), len(lost), 2)
        assert few > 0
        for outcome, expected in (("won", won[:few]), ("lost", lost[:few])):
            own = [row for row in shown if row["set"] == benchmark and row["outcome"] == outcome]
            assert [row["id"] for row in own] == expected
            assert all(row["m2pt is right"] == str(outcome == "won") for row in own)
            assert all(row["m2pt"] == first[row["id"]]["answer"] for row in own)
    assert "lora (the best other method)" in (outputs / "report" / "index.html").read_text()


def test_searched_rates_and_their_budget_are_shown(outputs):
    rates = rows_of(outputs / "report" / PLACE / "rates.csv")
    assert [(row["method"], row["trials"], row["chosen_trial"]) for row in rates] == [
        ("m2pt", "2", "0"),
        ("lora", "2", "1"),
    ]
    page = (outputs / "report" / "index.html").read_text()
    assert "every method had the same budget: 2 trials of 100 steps" in page
    assert "interaction 0.004" in page


def test_the_same_runs_give_the_same_bytes_and_nobody_elses_file_is_touched(outputs, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    (again / "own.txt").write_text("mine")
    (again / "files.txt").write_text("old.csv\n../escaped.txt\n")
    (again / "old.csv").write_text("1")
    (tmp_path / "escaped.txt").write_text("2")
    write_report(read_material([outputs]), again, [outputs.parent], 2)
    first = {path.relative_to(outputs / "report"): path for path in (outputs / "report").rglob("*") if path.is_file()}
    for name, path in first.items():
        assert (again / name).read_bytes() == path.read_bytes(), name
    assert (again / "own.txt").read_text() == "mine"
    assert not (again / "old.csv").exists()
    assert (tmp_path / "escaped.txt").exists()


def test_what_is_missing_is_left_out_and_named(capfd, tmp_path):
    outputs = tmp_path / "outputs"
    run = write_tuned(outputs, "m2pt_base", "m2pt", 0, 0.8, LENGTHS, vsr=vsr_questions(20))
    second = write_tuned(
        outputs, "m2pt_base", "m2pt", 1, 0.8, LENGTHS, vsr=vsr_questions(20), mnist=mnist_questions(20)
    )
    damaged = write_tuned(outputs, "lora_base", "lora", 0, 0.8, {}, vsr=vsr_questions(20))
    (damaged / "predictions" / "vsr.jsonl").write_text('{"format": 1')
    for path in (run / "metrics.csv", second / "metrics.csv"):
        path.unlink()
    unanswered = write_tuned(outputs, "full", "full", 0, 0.8, {}, vsr=vsr_questions(20))
    shutil.rmtree(unanswered / "predictions")
    assert main(["report-page", str(outputs)]) == ExitCode.DONE
    said = capfd.readouterr().out
    for name in (
        "radar chart needs 3 sets",
        "no run of M2PT without",
        "no grid of prompt lengths",
        "needs M2PT and another",
        "no run has attention maps",
        "no run has a metrics.csv",
        "no sweep has searched",
    ):
        assert name in said
    assert f"{unanswered.name}: no predictions" in said
    assert "the last line is cut off" in said
    files = {path.name for path in (outputs / "report" / PLACE).iterdir()}
    assert files == {f"{name}.{ending}" for name in ("methods", "cost") for ending in ("csv", "md", "tex")}
    page = (outputs / "report" / "index.html").read_text()
    assert "m2pt has not answered everything: mnist: 1 of 2 seeds" in page
    assert "memory was not recorded" in page


def test_other_backbones_and_other_data_are_other_comparisons(tmp_path):
    outputs = tmp_path / "outputs"
    write_tuned(outputs, "m2pt_base", "m2pt", 0, 0.8, LENGTHS, vsr=vsr_questions(20))
    frozen = write_frozen(outputs, sets={"vsr": vsr_questions(20)})
    write_tuned(outputs, "lora_base", "lora", 0, 0.8, {}, vsr=vsr_questions(30))
    names = [[group.name for group in one.groups] for one in read_material([outputs]).comparisons]
    assert sorted(names) == [["frozen", "m2pt"], ["lora"]]
    frozen.rename(frozen.parent / "01234567")
    found = read_material([outputs]).comparisons
    assert ["frozen"] in [[group.name for group in one.groups] for one in found]
    assert len({one.name for one in found}) == 3
    write_report(read_material([outputs]), outputs / "report", [], 1)
    page = (outputs / "report" / "index.html").read_text()
    assert "3 comparisons that must not be mixed" in page


def test_a_page_without_cases_needs_no_torch(tmp_path):
    outputs = write_outputs(tmp_path)
    program = (
        "import sys; from lightning_m2pt.main import main; "
        f"code = main(['report-page', {str(outputs)!r}, '--cases', '0']); "
        "sys.exit(code or sorted({'torch', 'lightning', 'transformers'} & sys.modules.keys()) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_bad_input_ends_in_three_lines(capfd, tmp_path):
    for words in ([str(tmp_path / "nowhere")], [str(tmp_path)], ["--cases", "-1"]):
        assert main(["report-page", *words]) == ExitCode.BAD_INPUT
        assert len(capfd.readouterr().err.splitlines()) <= 3
