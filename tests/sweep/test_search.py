"""The learning-rate search of a sweep: the same trials whatever happens, one budget for all, the best one's rates."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from experiments.commands.sweep import refuse_judging_on_nothing, stated_rates
from experiments.sweep.file import read_sweep
from experiments.sweep.jobs import SweepSettings, cells
from experiments.sweep.search import fingerprint, plan_search, trial_rates
from experiments.sweep.study import decides, known_searches
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.tuning.gradient_norm import GradientNorm
from tests.support.runs.sweep_driver import main

ROOT = Path(__file__).parents[2]
RANGES = {"prompts": (1e-3, 1e-1), "interaction": (1e-4, 1e-2)}


@pytest.fixture(autouse=True)
def from_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def write_sweep(folder: Path, trials: int = 4, **config) -> Path:
    """Writes a sweep of two experiments whose best rates differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, best in (("one", 0.03), ("two", 0.01)):
        content = {"steps": 6, "seconds_a_step": 0.03, "best_rate": best, "rates": {"prompts": 0.01}} | config
        (folder / f"{name}.yaml").write_text(json.dumps(content))
    content = {
        "seeds": [0],
        "cells": [{"label": name, "config": str(folder / f"{name}.yaml")} for name in ("one", "two")],
        "search": {"trials": trials, "share_of_steps": "1/3", "seed": 0, "ranges": {"prompt*": [0.001, 0.1]}},
    }
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(content, indent=1))
    return path


def words_for(path: Path, *more: str) -> list[str]:
    return ["run", str(path), "--output_root", str(path.parent / "out"), "--jobs", "2", *more]


def sweep_folder(path: Path) -> Path:
    return path.parent / "out" / "sweeps" / "tiny"


def found(path: Path) -> dict:
    return json.loads((sweep_folder(path) / "search.json").read_text())["variants"]


def ended_jobs(path: Path) -> int:
    """Counts the jobs whose record says that they are done; a record is replaced as a whole."""
    return sum(json.loads(job.read_text())["state"] == "done" for job in (sweep_folder(path) / "jobs").glob("*.json"))


def comparable(path: Path) -> str:
    """Returns the search without folders, whose names stand for theirs."""
    variants = found(path)
    for variant in variants.values():
        variant.pop("fingerprint")
        for trial in variant["trials"]:
            trial.pop("run")
    return json.dumps(variants)


def test_the_first_trial_has_the_stated_rates_and_the_others_follow_from_their_number():
    stated = {"prompts": 0.02, "interaction": 1e-3}
    assert trial_rates(stated, RANGES, 0) == stated
    # Halton: 1/2 and 1/3, 1/4 and 2/3, 3/4 and 1/9 of the logarithmic ranges.
    assert trial_rates(stated, RANGES, 1) == {"prompts": 0.01, "interaction": 0.000464}
    assert trial_rates(stated, RANGES, 2) == {"prompts": 0.00316, "interaction": 0.00215}
    assert trial_rates(stated, RANGES, 3) == {"prompts": 0.0316, "interaction": 0.000167}


def test_every_trial_is_an_ordinary_fit_of_a_third_of_the_steps_with_its_validation(tmp_path):
    sweep = read_sweep(write_sweep(tmp_path))
    assert sweep.search is not None
    search = plan_search(sweep.search, sweep.variants[0], SweepSettings(), {"prompts": 0.01}, max_steps=300)
    assert search.steps == 100
    for max_steps, steps in ((200, 67), (1, 1)):  # rounded, and never none
        few = plan_search(sweep.search, sweep.variants[0], SweepSettings(), {"prompts": 0.01}, max_steps=max_steps)
        assert few.steps == steps
    (fit,) = search.trials[1].commands
    assert fit[0] == "fit"
    assert fit[-7:-2] == ("--seed_everything", "0", "--trainer.max_steps", "100", "--run")
    assert fit[-1] == "--validate"
    assert '--model.optimizer.learning_rate={"prompts": 0.01}' in fit
    assert len({job.key for job in search.trials}) == len(search.trials)


def test_a_search_may_be_judged_on_the_first_batches_of_the_split(tmp_path):
    """They stand in every trial's words; other batches are another search and other trials."""
    path = write_sweep(tmp_path)
    content = json.loads(path.read_text())
    searches = []
    for batches in (None, 50, 60):
        if batches:
            content["search"]["validation_batches"] = batches
        path.write_text(json.dumps(content))
        sweep = read_sweep(path)
        assert sweep.search is not None
        search = plan_search(sweep.search, sweep.variants[0], SweepSettings(), {"prompts": 0.01}, max_steps=300)
        (fit,) = search.trials[1].commands
        at = fit.index("--trainer.limit_val_batches") if batches else len(fit) - 1
        assert fit[at + 1 : at + 2] == ((str(batches),) if batches else ())
        searches.append(search)
    assert [decides([search]).partition(" of the tuned")[0] for search in searches] == [
        "val/answer_accuracy on the validation split",
        "val/answer_accuracy on the first 50 batches of the validation split",
        "val/answer_accuracy on the first 60 batches of the validation split",
    ]
    assert len({search.fingerprint for search in searches}) == 3
    assert len({search.trials[1].key for search in searches}) == 3


def test_a_search_that_would_be_judged_on_nothing_is_refused_before_anything_runs(tmp_path):
    path = write_sweep(tmp_path)
    plan, variant = read_sweep(path).search, read_sweep(path).variants[0]
    assert plan is not None
    refuse_judging_on_nothing(plan, variant, 3)
    refuse_judging_on_nothing(replace(plan, validation_batches=5), variant, 0)
    with pytest.raises(BadInputError, match="no trial can be judged"):
        refuse_judging_on_nothing(plan, variant, 0)


def test_without_batches_the_fingerprint_is_what_it_was_before_the_key(tmp_path):
    """So that a search of rates that was done then is not done again."""
    path = write_sweep(tmp_path)
    sweep = read_sweep(path)
    budget, ranges = '"trials": 4, "share_of_steps": 0.3333333333333333, "seed": 0', '{"prompt*": [0.001, 0.1]}'
    value = f'[{{{budget}, "ranges": {ranges}, "where": ""}}, ["--config", "one.yaml"]]'
    digest = hashlib.sha256(value.encode() + (tmp_path / "one.yaml").read_bytes()).hexdigest()
    assert sweep.search is not None
    assert fingerprint(sweep.search, sweep.variants[0], SweepSettings()) == digest


@pytest.mark.parametrize("key", ["rate", "grey_levels"])
def test_the_rate_of_the_rule_is_searched_like_a_parts(tmp_path, key):
    """What a trial's words say is what its experiment is made of; the parts of the rule have one rate together."""
    path, part = write_sweep(tmp_path), "visual_prompts" if key == "rate" else "pixel_prompt"
    content = json.loads(path.read_text())
    content["search"]["ranges"] = {f"gradient_norm.{key}": [0.1, 10], "*": [1e-5, 1e-3]}
    path.write_text(json.dumps(content))
    sweep, rule = read_sweep(path), GradientNorm(**{key: 2.0}, parts=[part])
    model = SimpleNamespace(gradient_norm=rule, method=SimpleNamespace(part_names=lambda: [part, "interaction"]))
    config = {"model": {"optimizer": {"learning_rate": {"interaction": 1e-4}}}}
    stated = stated_rates(SimpleNamespace(model=model, config=config))
    assert stated == {"interaction": 1e-4, f"gradient_norm.{key}": 2.0}
    assert sweep.search is not None
    search = plan_search(sweep.search, sweep.variants[0], SweepSettings(), stated, max_steps=300)
    for number, rates in enumerate(search.rates):
        (fit,) = search.trials[number].commands
        assert f"--model.gradient_norm.{key}={rates[f'gradient_norm.{key}']}" in fit
        assert f'--model.optimizer.learning_rate={{"interaction": {rates["interaction"]}}}' in fit
        assert 0.1 <= rates[f"gradient_norm.{key}"] <= 10
    (cell,) = cells(sweep, SweepSettings(), {"one": {f"gradient_norm.{key}": 0.5}})[0].commands
    assert f"--model.gradient_norm.{key}=0.5" in cell
    assert not any("learning_rate" in word for word in cell)


def test_a_part_without_a_range_and_an_experiment_without_steps_are_refused(tmp_path):
    sweep = read_sweep(write_sweep(tmp_path))
    assert sweep.search is not None
    with pytest.raises(BadInputError, match="no range fits the part 'vision'"):
        plan_search(sweep.search, sweep.variants[0], SweepSettings(), {"vision": 0.01}, max_steps=300)
    with pytest.raises(BadInputError, match="does not say its steps"):
        plan_search(sweep.search, sweep.variants[0], SweepSettings(), {"prompts": 0.01}, max_steps=-1)


def test_the_best_trials_rates_go_into_the_final_commands(tmp_path, capfd):
    path = write_sweep(tmp_path)
    assert main(words_for(path)) == 0
    variants = found(path)
    assert [trial["rates"]["prompts"] for trial in variants["one"]["trials"]] == [0.01, 0.01, 0.00316, 0.0316]
    assert (variants["one"]["chosen"], variants["two"]["chosen"]) == (3, 0)
    assert variants["one"]["steps"] == 2
    capfd.readouterr()
    assert main(words_for(path, "--dry-run")) == 0
    shown = capfd.readouterr()
    first, second = shown.out.splitlines()
    assert '--model.optimizer.learning_rate={"prompts": 0.0316}' in first
    assert "learning_rate" not in second
    assert "2 cells after a search of 8 trials" in shown.err
    assert main(words_for(path, "--dry-run", "--no-search")) == 0
    shown = capfd.readouterr()
    assert "learning_rate" not in shown.out
    assert shown.err == "2 cells\n"
    rows = json.loads((sweep_folder(path) / "table.json").read_text())["rows"]
    assert {row["label"]: row["searched_rates"] for row in rows}["one"] == {"prompts": 0.0316}


@pytest.mark.parametrize(
    "damage",
    [
        lambda variants: [],
        lambda variants: {"one": 3},
        lambda variants: {"one": {}},
        lambda variants: {"one": variants["one"] | {"chosen": 4}},
        lambda variants: {"one": variants["one"] | {"chosen": -1}},
        lambda variants: {"one": variants["one"] | {"stated": ["prompts"]}},
        lambda variants: {"one": variants["one"] | {"trials": [{"number": 0}]}},
    ],
    ids=["no mapping", "a number", "nothing", "no such trial", "before the first", "parts in a list", "no rates"],
)
def test_a_search_file_with_something_else_in_it_counts_as_none(tmp_path, damage):
    path, setting = write_sweep(tmp_path), SweepSettings("", tmp_path / "out")
    sweep = read_sweep(path)
    rates = [{"prompts": 0.01 * (number + 1)} for number in range(4)]
    kept = {
        "fingerprint": fingerprint(sweep.search, sweep.variants[0], setting),
        "steps": 2,
        "stated": rates[0],
        "chosen": 3,
        "trials": [{"number": number, "rates": each} for number, each in enumerate(rates)],
    }
    file = tmp_path / "search.json"
    file.write_text(json.dumps({"format": 1, "variants": {"one": kept}}))
    searches, chosen = known_searches(sweep, setting, tmp_path)
    assert (searches["one"].rates, chosen) == (rates, {"one": 3})
    file.write_text(json.dumps({"format": 1, "variants": damage({"one": kept})}))
    assert known_searches(sweep, setting, tmp_path) == ({}, {})


def test_what_is_chosen_needs_the_record_of_its_trials_no_more(tmp_path, capfd):
    path = write_sweep(tmp_path)
    assert main(words_for(path, "--search-only")) == 0
    before = found(path)
    for entry in (sweep_folder(path) / "jobs").glob("*-trial_*"):
        entry.unlink()
    capfd.readouterr()
    assert main(["status", str(path), "--output_root", str(tmp_path / "out")]) == 0
    assert "2 waiting" in capfd.readouterr().out  # the cells
    content = json.loads(path.read_text())
    (tmp_path / "three.yaml").write_bytes((tmp_path / "one.yaml").read_bytes())
    content["cells"].append({"label": "three", "config": str(tmp_path / "three.yaml")})
    path.write_text(json.dumps(content))
    assert main(words_for(path, "--search-only")) == 0
    after = found(path)
    assert after.pop("three")["chosen"] == 3
    assert after == before
    logs = list((sweep_folder(path) / "logs").glob("one-trial_0*"))
    assert [log.read_text().count("$ m2pt fit") for log in logs] == [1]


def test_what_is_left_of_a_search_alone_has_no_cells(tmp_path, capfd):
    path = write_sweep(tmp_path)
    assert main(words_for(path, "--search-only")) == 0
    counted = [line.strip() for line in capfd.readouterr().out.splitlines() if line.startswith(" ")]
    assert counted[-1] == "8 done"


def test_optunas_own_tools_read_the_journal(tmp_path):
    path = write_sweep(tmp_path)
    assert main(words_for(path, "--search-only")) == 0
    assert not list((tmp_path / "out").glob("*/small*"))  # no cell was run
    storage = JournalStorage(JournalFileBackend(str(sweep_folder(path) / "search.journal")))
    studies = {name.split()[0]: optuna.load_study(study_name=name, storage=storage) for name in names(storage)}
    assert studies["one"].best_params == {"prompts": 0.0316}
    assert len(studies["two"].trials) == 4


def names(storage: JournalStorage) -> list[str]:
    return optuna.get_all_study_names(storage)


def test_a_trial_that_diverges_is_not_chosen_and_not_repeated(tmp_path):
    path = write_sweep(tmp_path, diverges_above=0.02)
    assert main(words_for(path)) == 0
    assert found(path)["one"]["chosen"] == 0  # of trials 0 and 1, which are equal, the first
    assert "val/answer_accuracy" not in found(path)["one"]["trials"][3]
    logs = sorted((sweep_folder(path) / "logs").glob("one-trial_3*"))
    assert main(words_for(path)) == 0
    assert logs[0].read_text().count("$ m2pt fit") == 1


@pytest.mark.slow
def test_a_search_that_is_killed_ends_with_the_same_trials(tmp_path):
    whole, cut = write_sweep(tmp_path / "whole"), write_sweep(tmp_path / "cut")
    assert main(words_for(whole)) == 0
    command = [sys.executable, "-m", "tests.support.runs.sweep_driver", *words_for(cut)]
    for several in (1, 4):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while ended_jobs(cut) < several:
            assert time.monotonic() < end
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    with (sweep_folder(cut) / "search.journal").open("ab") as journal:
        journal.write(b'{"op_code": 0, "wor')  # cut off in the middle of a line
    os.symlink("search.journal", sweep_folder(cut) / "search.journal.lock")
    assert main(words_for(cut)) == 0
    assert comparable(cut) == comparable(whole)


@pytest.mark.parametrize("content", ["", '{"format": 1, "vari', "[]", '{"format": 1}', '{"format": 2, "variants": {}}'])
def test_a_damaged_search_file_counts_as_none(tmp_path, content):
    path = write_sweep(tmp_path)
    sweep_folder(path).mkdir(parents=True)
    (sweep_folder(path) / "search.json").write_text(content)
    assert known_searches(read_sweep(path), SweepSettings("", tmp_path / "out"), sweep_folder(path)) == ({}, {})


def test_searching_only_needs_a_search(tmp_path, capfd):
    path = write_sweep(tmp_path)
    assert main(words_for(path, "--search-only", "--no-search")) == 2
    assert "there is no search to run" in capfd.readouterr().err


def test_other_settings_are_another_search(tmp_path):
    path = write_sweep(tmp_path, trials=2)
    assert main(words_for(path)) == 0
    write_sweep(tmp_path, trials=3)
    assert main(words_for(path)) == 0
    assert len(found(path)["one"]["trials"]) == 3
