"""What is kept of a sweep, by value, and what cannot be kept."""

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmarks.learning import sweep_scores
from benchmarks.report.sweep_tables import SETS as COLUMNS
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.runs.evaluated import read_run
from tests.support.answers.report_folders import LENGTHS, SETS, write_frozen, write_sweep, write_tuned


def scores_of(folder: Path) -> dict[str, Any]:
    def told(score: Score) -> dict[str, Any]:
        return {"value": score.value, "n": score.n, "chance": score.chance}

    return {name: told(one.score) for name, one in read_run(folder).sets.items()}


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of M2PT and LoRA with two seeds each, on four of the sets."""
    monkeypatch.setattr(sweep_scores, "SETS", {name: COLUMNS[name] for name in SETS})
    monkeypatch.setattr(sweep_scores, "MEMBERS", tuple(name for name in SETS if name != "mme"))
    root = tmp_path / "outputs"
    runs: dict[str, list[Path]] = {"m2pt": [], "lora": []}
    for seed in range(2):
        runs["m2pt"].append(write_tuned(root, "m2pt_base", "m2pt", seed, 0.8, LENGTHS))
        runs["lora"].append(write_tuned(root, "lora_base", "lora", seed, 0.6, {"rank": 8}))
    frozen = scores_of(write_frozen(root))
    for run in (*runs["m2pt"], *runs["lora"]):
        (run / "results.json").write_text(json.dumps({"frozen": frozen, "tuned": scores_of(run)}))
    write_sweep(root, "small", runs)
    table = root / "sweeps" / "small" / "table.json"
    rows = json.loads(table.read_text())["rows"]
    for row in rows:
        row |= {"seeds": [0, 1], "trained_percent": 1.5, "searched_rates": {"interaction": 0.01}}
    table.write_text(json.dumps({"format": 1, "rows": [{"label": "frozen", "runs": [], "seeds": []}, *rows]}))
    return root


def test_a_sweep_is_kept_with_its_paired_differences(outputs: Path) -> None:
    content = sweep_scores.stored_sweep(outputs / "sweeps" / "small", outputs)
    assert list(content["methods"]) == ["m2pt", "lora"]
    by_seed = content["methods"]["lora"]["by_seed"]
    assert list(by_seed) == ["0", "1"]
    (run,) = (outputs / "lora_base").glob("lora-seed1-*")
    assert by_seed["1"]["vsr"] == scores_of(run)["vsr"]["value"]
    assert content["questions"] == {name: len(questions) for name, questions in SETS.items()}
    assert (content["chance"]["vsr"], content["chance"]["mnist"]) == (50.0, 10.0)
    assert (content["commits"], content["instruction_set"]) == (["d" * 40], "AVX2")  # of the runs, not of this machine
    means = {
        label: statistics.mean(statistics.mean(seed[name] for name in ("vsr", "pope", "mnist")) for seed in seeds)
        for label, seeds in ((label, row["by_seed"].values()) for label, row in content["methods"].items())
    }
    assert {baseline: list(found) for baseline, found in content["gains"].items()} == {
        "m2pt": ["lora", "frozen"],
        "no textual prompts": [],
        "textual_length=0": [],
        "frozen": ["m2pt", "lora"],
    }
    gains = content["gains"]["m2pt"]
    assert gains["lora"]["difference"] == pytest.approx(means["lora"] - means["m2pt"], abs=1e-4)
    assert gains["lora"]["low"] < gains["lora"]["difference"] < gains["lora"]["high"] < 0
    frozen = statistics.mean(content["frozen"][name] for name in ("vsr", "pope", "mnist"))
    assert gains["frozen"]["difference"] == pytest.approx(frozen - means["m2pt"], abs=1e-4)
    assert content["gains"]["frozen"]["lora"]["difference"] == pytest.approx(means["lora"] - frozen, abs=1e-4)


def test_a_sweep_without_a_table_or_without_m2pt_is_refused(outputs: Path) -> None:
    with pytest.raises(BadInputError, match="no table"):
        sweep_scores.stored_sweep(outputs / "sweeps" / "none", outputs)
    table = outputs / "sweeps" / "small" / "table.json"
    table.write_text(table.read_text().replace('"m2pt"', '"ours"'))
    with pytest.raises(BadInputError, match="no row with runs is called m2pt, no textual prompts or"):
        sweep_scores.stored_sweep(outputs / "sweeps" / "small", outputs)
    table.write_text(json.dumps({"format": 1, "rows": []}))  # of a sweep that was stopped before its first cell
    with pytest.raises(BadInputError, match="no row with runs is called m2pt, no textual prompts or"):
        sweep_scores.stored_sweep(outputs / "sweeps" / "small", outputs)


def test_the_mean_of_limited_sets_is_kept_under_its_name(outputs: Path) -> None:
    whole = sweep_scores.stored_sweep(outputs / "sweeps" / "small", outputs)
    assert whole["mean_of"] == "mean of vsr, pope, mnist"
    assert whole["mean_of"] in whole["methods"]["m2pt"]["by_seed"]["0"]
    for path in outputs.rglob("results.json"):
        content = json.loads(path.read_text())
        for scores in content.values():
            scores["vsr"]["part"] = "20 of 1,000 questions"
        path.write_text(json.dumps(content))
    limited = sweep_scores.stored_sweep(outputs / "sweeps" / "small", outputs)
    assert limited["mean_of"] == "mean of limited vsr, pope, mnist"
    seed = limited["methods"]["m2pt"]["by_seed"]["0"]
    assert whole["mean_of"] not in seed
    assert seed[limited["mean_of"]] == whole["methods"]["m2pt"]["by_seed"]["0"][whole["mean_of"]]
    assert limited["mean_of"] in limited["unit"]


def test_rates_that_the_search_did_not_choose_are_refused(outputs: Path) -> None:
    folder = outputs / "sweeps" / "small"
    trials = [{"number": 0, "rates": {"interaction": 0.02}}, {"number": 1, "rates": {"interaction": 0.01}}]
    search = {"variants": {name: {"chosen": 1, "trials": trials} for name in ("m2pt", "lora", "never run")}}

    def written(**chosen: int | None) -> None:
        for label, number in chosen.items():
            search["variants"][label] = {"chosen": number, "trials": trials}
        (folder / "search.json").write_text(json.dumps(search))

    written()
    kept = sweep_scores.stored_sweep(folder, outputs)
    written(lora=None)  # its search is not over
    assert sweep_scores.stored_sweep(folder, outputs) == kept
    written(lora=0)
    with pytest.raises(BadInputError, match=r"lora have the rates .*0\.01.* chose those of its file"):
        sweep_scores.stored_sweep(folder, outputs)
    table = folder / "table.json"
    table.write_text(table.read_text().replace('{"interaction": 0.01}', "{}"))  # as --no-search leaves them
    with pytest.raises(BadInputError, match=r"m2pt have the rates of their file, and its search chose .*0\.01"):
        sweep_scores.stored_sweep(folder, outputs)
    written(m2pt=0)
    assert sweep_scores.stored_sweep(folder, outputs)["methods"]["lora"]["searched_rates"] == {}


def test_runs_beside_another_untouched_model_are_refused(outputs: Path) -> None:
    (run,) = (outputs / "lora_base").glob("lora-seed1-*")
    path = run / "results.json"
    content = json.loads(path.read_text())
    content["frozen"]["mme"]["n"] += 1  # no difference is made of MME, so nothing else would notice
    path.write_text(json.dumps(content))
    with pytest.raises(BadInputError, match="not those beside the sweep's first run"):
        sweep_scores.stored_sweep(outputs / "sweeps" / "small", outputs)
    path.unlink()
    with pytest.raises(BadInputError, match="no such file"):
        sweep_scores.stored_sweep(outputs / "sweeps" / "small", outputs)


def test_a_set_that_was_not_answered_is_named() -> None:
    scores = {name: {"value": 1.0} for name in COLUMNS if name != "pope"}
    with pytest.raises(BadInputError, match="no scores of pope"):
        sweep_scores.by_set(scores)


def test_a_search_alone_is_kept(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep_scores, "RESULTS", tmp_path)
    only = outputs / "sweeps" / "only"
    only.mkdir()
    (only / "search.json").write_text('{"variants": {}}')
    both = outputs / "sweeps" / "both"
    shutil.copytree(outputs / "sweeps" / "small", both)
    (both / "search.json").write_text('{"variants": {}}')
    for name in ("only", "small", "both"):
        monkeypatch.setattr("sys.argv", ["sweep_scores", name, "--output_root", str(outputs)])
        sweep_scores.main()
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        *("both.json", "both_search.json", "only_search.json", "small.json"),
    ]
    monkeypatch.setattr("sys.argv", ["sweep_scores", "none", "--output_root", str(outputs)])
    with pytest.raises(SystemExit) as ended:
        sweep_scores.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {outputs}/sweeps/none/table.json: the sweep has no table")
