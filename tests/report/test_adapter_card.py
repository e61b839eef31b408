"""A card is filled from its run's folder alone, by value, and is the same as long as nothing changes."""

import json
import os
import shutil
from pathlib import Path

import pytest

from lightning_m2pt.main import main
from lightning_m2pt.metrics.statistics import percentile_interval, resampled_scores
from lightning_m2pt.report.adapter_card import (
    adapter_card,
    command_text,
    made_rows,
    table,
    tuned_text,
    untouched_cell,
    write_adapter_cards,
)
from lightning_m2pt.report.tables.groups import interval_text
from lightning_m2pt.runs.evaluated import read_run
from lightning_m2pt.runs.results_file import RESULTS_FILE
from lightning_m2pt.storage.adapter_folder import CARD_FILE, CONFIG_FILE
from lightning_m2pt.storage.run_record import read_run_record
from tests.support.adapters.no_paths import paths_said
from tests.support.small_experiment import run_with_a_set, words_with_a_set


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run, and its adapter's card before it was evaluated."""
    run = run_with_a_set(tmp_path_factory.mktemp("private") / "secret_folder")
    before = (run / "adapter" / CARD_FILE).read_text()
    assert main(["evaluate", "--run", str(run)]) == 0
    return run, before


def test_a_run_that_was_not_evaluated_says_so(evaluated: tuple[Path, str]) -> None:
    _, before = evaluated
    assert "It was not evaluated." in before
    assert "for 2 optimizer steps" in before


def test_the_card_says_what_the_folder_does(evaluated: tuple[Path, str]) -> None:
    run, _ = evaluated
    card, record = (run / "adapter" / CARD_FILE).read_text(), read_run_record(run)
    one = read_run(run).sets["vsr"]
    interval = interval_text(percentile_interval(resampled_scores(one.answered, [one.score])[:, 0]), 1.0)
    row = f"| {one.score.name} | yes_no_words | {one.score.value:.1f} | {interval} | {one.score.chance:.1f} | "
    assert f"{row}{one.score.n} |" in card
    assert "# m2pt adapter of experiment m2pt_base" in card
    assert "(seed 0) for 2 optimizer steps." in card
    assert "| visual_prompts | 6,400 | visual_prompts.rows.4 row 0 |" in card
    assert f"| fingerprint | {record['deciding']['backbone']} |" in card
    assert "| template | vicuna_v1 |" in card
    assert f"| data | VisionFlan, content {record['deciding']['data_fingerprint'][:16]} |" in card
    assert f"| started | {record['made_with'][0]['started']} |" in card
    assert "none of the" in card  # of the tuning tasks shares anything
    assert 'model = lightning_m2pt.load("ADAPTER")' in card
    assert "license" not in card.split("---")[1]
    assert paths_said(run / "adapter", "secret_folder") == []


def test_it_is_written_again_only_if_something_changed(evaluated: tuple[Path, str]) -> None:
    run, _ = evaluated
    path = run / "adapter" / CARD_FILE
    content, record = path.read_bytes(), (run / "run.json").read_bytes()
    os.utime(path, (1, 1))
    assert main(["evaluate", "--run", str(run)]) == 0
    assert main(["evaluate", "--run", str(run), "--knock-out", "visual_prompts"]) == 0
    assert (path.read_bytes(), path.stat().st_mtime) == (content, 1)
    assert (run / "run.json").read_bytes() == record
    path.unlink()
    write_adapter_cards(run)
    assert path.read_bytes() == content


def test_answers_of_another_adapter_are_not_its_scores(evaluated: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(evaluated[0], tmp_path / "run")
    path = tmp_path / "run" / "predictions" / "vsr.jsonl"
    first, _, rest = path.read_text().partition("\n")
    path.write_text(json.dumps({**json.loads(first), "adapter": "0" * 64}) + "\n" + rest)
    assert "It was not evaluated." in adapter_card(tmp_path / "run" / "adapter", tmp_path / "run")


def test_answers_without_a_part_are_not_its_scores(evaluated: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(evaluated[0], tmp_path / "run")
    path = tmp_path / "run" / "predictions" / "vsr.jsonl"
    first, _, rest = path.read_text().partition("\n")
    header = json.loads(first)
    header["toggles"]["knocked_out"] = ["visual_prompts"]
    path.write_text(json.dumps(header) + "\n" + rest)
    assert "It was not evaluated." in adapter_card(tmp_path / "run" / "adapter", tmp_path / "run")


def compared(run: Path, **changes: object) -> None:
    """Writes what a comparison of the run's adapter with an untouched model of 12.5% would have kept."""
    tuned = {**read_run(run).sets["vsr"].score.to_json(), "parsed": None}
    content = {"frozen": {"vsr": {**tuned, "value": 12.5, "raw": 0.125}}, "tuned": {"vsr": {**tuned, **changes}}}
    (run / RESULTS_FILE).write_text(json.dumps(content))


def test_the_untouched_models_score_stands_beside_it(
    evaluated: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "m2pt_base" / "run"
    shutil.copytree(evaluated[0], run)
    alone = adapter_card(run / "adapter", run)
    assert "untouched" not in alone
    compared(run)
    card = adapter_card(run / "adapter", run)
    (row,) = [line for line in alone.splitlines() if line.startswith("| vsr | ")]
    assert f"\n{row} 12.5 |\n" in card
    assert "| chance | questions | untouched |\n" in card
    assert "- untouched: what the base alone scored on the same questions\n" in card
    for key, value in (("raw", 0.875), ("n", 3), ("rule", "exact")):  # of another evaluation
        compared(run, **{key: value})
        assert adapter_card(run / "adapter", run) == alone
    compared(run)
    content = json.loads((run / RESULTS_FILE).read_text())
    content["frozen"]["vsr"]["n"] += 1  # the untouched model on other questions
    (run / RESULTS_FILE).write_text(json.dumps(content))
    assert adapter_card(run / "adapter", run) == alone
    assert "leaves" not in capsys.readouterr().out
    (run / RESULTS_FILE).write_text("[]")
    assert adapter_card(run / "adapter", run) == alone
    assert "leaves the untouched model out: no results of a comparison (results.json)" in capsys.readouterr().out


def test_a_set_that_was_not_compared_has_a_cell_too(evaluated: tuple[Path, str]) -> None:
    known = {"vsr": read_run(evaluated[0]).sets["vsr"].score}
    assert untouched_cell("pope", known) == ("not known",)
    assert untouched_cell("pope", {}) == ()


def test_a_training_writes_both_scores_into_the_card(evaluated: tuple[Path, str], tmp_path: Path) -> None:
    folder, outputs = evaluated[0].parents[2], tmp_path / "outputs"
    shutil.copytree(evaluated[0].parents[1], outputs)
    assert main(["train", *words_with_a_set(folder, "--output_root", str(outputs))]) == 0
    run = outputs / "m2pt_base" / evaluated[0].name
    (frozen,) = (outputs / "frozen").iterdir()
    (row,) = [line for line in (run / "adapter" / CARD_FILE).read_text().splitlines() if line.startswith("| vsr | ")]
    assert row.endswith(f" | {read_run(frozen).sets['vsr'].score.value:.1f} |")
    assert row.startswith(f"| vsr | yes_no_words | {read_run(run).sets['vsr'].score.value:.1f} | ")


def test_what_chose_the_adapter_is_said_and_best_adapters_have_cards(
    evaluated: tuple[Path, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated[0], run)
    shutil.copytree(run / "adapter", run / "adapter_best")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "chosen_by_sets": ["vsr"]}))
    (run / "adapter_best" / CARD_FILE).unlink()
    path = run / "adapter_best" / CONFIG_FILE
    chosen = {"step": 1, "steps": 2, "by": "val/loss", "value": 0.5}
    path.write_text(json.dumps({**json.loads(path.read_text()), "chosen": chosen}))
    write_adapter_cards(run)
    assert "chosen by the score on vsr" in (run / "adapter" / CARD_FILE).read_text()
    assert "adapter of step 1 of 2, best val/loss." in (run / "adapter_best" / CARD_FILE).read_text()


def test_what_is_said_of_how_it_was_tuned() -> None:
    ended = {"optimizer_steps": 5, "stopped_by": "patience"}
    said = tuned_text({"written_by": "lightning_m2pt 9"}, {"completed": ended, "deciding": {"seed": 3}})
    assert said == "Tuned with lightning_m2pt 9 (seed 3) for 5 optimizer steps, then stopped by patience."
    began = tuned_text({"written_by": "lightning_m2pt 9", "tuned": {"steps": 2, "seed": 1}}, {"made_with": [{}]})
    assert began.endswith("(seed 1) for 2 optimizer steps; tuning was stopped before its last step.")
    starts = [
        {"started": "a", "command": ["m2pt", "fit"]},
        {"started": "b", "command": ["m2pt", "go"], "git_commit": 1},
    ]
    assert made_rows({"made_with": starts}) == [
        ("started", "a, b"),
        ("command", "`m2pt go`"),
        ("revision of lightning_m2pt", "1"),
    ]
    assert table(("a", "b"), [("x|y", "1\n2")]).splitlines()[2] == r"| x\|y | 1 2 |"


def test_a_damaged_prediction_file_is_left_out(
    evaluated: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(evaluated[0], tmp_path / "run")
    (tmp_path / "run" / "predictions" / "mme.jsonl").write_text("{")
    card = adapter_card(tmp_path / "run" / "adapter", tmp_path / "run")
    assert card == (evaluated[0] / "adapter" / CARD_FILE).read_text().replace("m2pt_base", tmp_path.name)
    shown = capsys.readouterr()
    assert "the model card leaves mme out" in shown.out + shown.err


def test_without_a_record_the_adapter_says_what_it_knows(evaluated: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(evaluated[0] / "adapter", tmp_path / "adapter")
    card = adapter_card(tmp_path / "adapter", tmp_path)
    assert "# m2pt adapter\n" in card
    assert "(seed 0) for 2 optimizer steps." in card
    assert "| textual_prompts | 5,120 |" in card
    assert "| record | there is none |" in card


def test_a_base_of_the_hub_is_in_the_header(evaluated: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(evaluated[0] / "adapter", tmp_path / "adapter")
    path = tmp_path / "adapter" / CONFIG_FILE
    config, place = json.loads(path.read_text()), {"repository": "org/name", "commit": "a" * 40}
    config["base"] = {"kind": "hub", "class": "VisionLanguageModel", "arguments": {"model": place}}
    path.write_text(json.dumps(config))
    card = adapter_card(tmp_path / "adapter", tmp_path)
    assert "\nbase_model: org/name\n" in card
    assert f"| base | org/name at {'a' * 40} |" in card
    config["base"] = {"kind": "files", "class": "OpenClipLlama", "arguments": {}}
    path.write_text(json.dumps(config))
    assert 'load("ADAPTER", base="FOLDER")' in adapter_card(tmp_path / "adapter", tmp_path)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/home/me/bin/m2pt", "fit", "--config", "experiments/base.yaml"], "m2pt fit --config experiments/base.yaml"),
        (["m2pt", "-c/home/me/x.yaml", "-cexperiments/x", "--seed=3"], "m2pt -cPLACE -cPLACE --seed=3"),
        (["m2pt", "--config=/home/me/x.yaml", "--seed", "3"], "m2pt --config=PLACE --seed 3"),
        (["m2pt", "--data.root", "../x", "own.yaml", "~me", "C:\\x"], "m2pt --data.root PLACE PLACE PLACE PLACE"),
        (["m2pt", "--benchmarks", '[{"root": "/x"}]', "experiments/../../x"], "m2pt --benchmarks PLACE PLACE"),
        (["m2pt", "experiments/x/../../../home/me/y", "data_modules.vsr.VSR/home"], "m2pt PLACE PLACE"),
        (["m2pt", "--model.optimizer.learning_rate", "0.001"], "m2pt --model.optimizer.learning_rate 0.001"),
        (["m2pt", "--data", "data_modules.vsr.VSR", "our_sets.X"], "m2pt --data data_modules.vsr.VSR our_sets.X"),
        (None, "not recorded"),
    ],
)  # fmt: skip
def test_a_command_names_no_place_of_its_machine(words: list[str] | None, shown: str) -> None:
    assert command_text(words) == shown
