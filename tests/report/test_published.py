"""The paper's numbers stand beside a run only where it measured the same; the runs here are invented."""

import json

import pytest

from experiments.configuration.cli import parse_experiment
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.metrics.mme import SUBTASKS
from lightning_m2pt.report.tables.published import published_results
from tests.support.answers.evaluated_folders import mme_questions, vsr_questions, write_predictions, write_run

OFFICIAL = published_results()["setting"]["sets"]["mme"]["questions"]
PICTURES = {subtask: questions // 2 for subtask, questions in OFFICIAL.items()}


def paper_config() -> dict:
    shipped = parse_experiment(["--config", "experiments/m2pt_vicuna7b.yaml"]).config
    return {key: shipped[key] for key in ("model", "data", "benchmarks")}


@pytest.fixture
def vicuna(tmp_path):
    """Returns a folder as a run on the paper's backbone would leave it: all of MME, some of VSR."""
    folder = tmp_path / "m2pt_vicuna7b" / "m2pt-seed0"
    write_run(folder, 0, [f"task {number}" for number in range(191)], **paper_config())
    write_predictions(folder, "mme", mme_questions(PICTURES), 0.8)
    write_predictions(folder, "vsr", vsr_questions(40), 0.8)
    return folder


def report(capfd, folder, *words) -> tuple[int, str]:
    code = main(["report", str(folder), "--against", "paper", *words])
    captured = capfd.readouterr()
    return code, captured.out + captured.err


def refused(capfd, folder, *words) -> str:
    code, text = report(capfd, folder, *words)
    assert code == ExitCode.BAD_INPUT
    assert len(text.splitlines()) <= 3
    return text


def rewrite(folder, **changes) -> None:
    config = json.loads((folder / "config.yaml").read_text())
    config["model"]["backbone"]["init_args"] |= changes
    (folder / "config.yaml").write_text(json.dumps(config))


def test_the_stored_numbers_are_those_of_the_official_sets_and_each_has_a_source():
    assert tuple(OFFICIAL) == SUBTASKS
    assert sum(OFFICIAL.values()) == 2374
    results = published_results()
    for entry in results["methods"]:
        for cell in entry["cells"].values():
            assert isinstance(cell["value"], int | float)
            assert cell["source"] in results["sources"]


def test_a_comparable_run_stands_above_the_published_rows(capfd, vicuna):
    code, text = report(capfd, vicuna, "--rule", "mme=mme_m2pt", "--format", "json")
    assert code == ExitCode.DONE, text
    table = json.loads(text)["tables"][0]
    rows = {row["method"]: row for row in table["records"]}
    assert next(iter(rows)) == "m2pt_vicuna7b"
    ours = rows["m2pt_vicuna7b"]
    assert 1500 < ours["mme"] < 2700
    assert (ours["trained_percent"], ours["vsr"], ours["MMAvg"]) == (0.0851, None, None)
    assert rows["M2PT 10/20"]["mme"] == 1503.98
    assert rows["M2PT 10/20"]["sources"]["mme"] == "quoted"
    assert rows["APrompt"]["mme"] is None
    assert "m2pt_vicuna7b, vsr not comparable: scored by yes_no_words (the paper: judge)" in table["notes"]
    assert any(note.startswith("m2pt_vicuna7b, 95% interval of mme: [") for note in table["notes"])
    code, text = report(capfd, vicuna, "--rule", "mme=mme_m2pt", "--format", "markdown")
    row = next(line for line in text.splitlines() if line.startswith("| APrompt"))
    assert row == "| APrompt |" + " ? |" * 10 + "  |"


def test_another_backbone_is_refused_by_name(capfd, vicuna):
    rewrite(vicuna, language_config="lightning_m2pt/embedded/testbed/language")
    text = refused(capfd, vicuna, "--rule", "mme=mme_m2pt")
    assert "backbone language_config is lightning_m2pt/embedded/testbed/language" in text
    (vicuna / "config.yaml").unlink()
    assert "its backbone is not recorded" in refused(capfd, vicuna, "--rule", "mme=mme_m2pt")


def test_another_rule_is_refused_by_name(capfd, vicuna):
    text = refused(capfd, vicuna)
    assert "mme: scored by mme_official (the paper: mme_m2pt)" in text
    assert "vsr: scored by yes_no_words (the paper: judge)" in text
    assert "--rule mme=mme_m2pt" in text


def test_other_data_is_refused_by_name(capfd, vicuna):
    write_predictions(vicuna, "mme", mme_questions({**PICTURES, "OCR": 19}), 0.8)
    assert "mme: 2,372 questions (all: 2,374)" in refused(capfd, vicuna, "--rule", "mme=mme_m2pt")
    write_predictions(vicuna, "mme", mme_questions({**PICTURES, "OCR": 19, "color": 31}), 0.8)
    assert "mme: " in refused(capfd, vicuna, "--rule", "mme=mme_m2pt")
    write_predictions(vicuna, "mme", mme_questions(PICTURES), 0.8)
    write_run(vicuna, 0, ["one task"], **paper_config())
    assert "tuned on 1 tasks (the paper: 191)" in refused(capfd, vicuna, "--rule", "mme=mme_m2pt")
    config = paper_config()
    config["data"]["class_path"] = "somewhere.Else"
    write_run(vicuna, 0, None, **config)
    assert "tuned on somewhere.Else" in refused(capfd, vicuna, "--rule", "mme=mme_m2pt")


def test_answers_with_shown_examples_are_refused(capfd, vicuna):
    write_predictions(vicuna, "mme", mme_questions(PICTURES), 0.8, examples={"shots": 2, "sha256": "c" * 64})
    assert "mme: asked with 2 worked examples (the paper: none)" in refused(capfd, vicuna, "--rule", "mme=mme_m2pt")


def test_what_cannot_be_told_and_another_template_are_said(capfd, vicuna):
    write_run(vicuna, 0, None, **paper_config())
    write_predictions(vicuna, "mme", mme_questions(PICTURES), 0.8, template="plain")
    code, text = report(capfd, vicuna, "--rule", "mme=mme_m2pt", "--format", "markdown")
    assert code == ExitCode.DONE
    text = text.replace("\\", "")
    assert "whether it was tuned on all of the paper's tasks cannot be told" in text
    assert "mme: asked in the template plain (the paper: vicuna_v1)" in text
