"""Runs and untouched models' answers that were made before the fingerprint had a version are found and go on."""

import json
from pathlib import Path

import pytest

from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.evaluation import frozen_folder
from experiments.runs.folder import deciding, formerly_deciding, refuse_other_settings, run_folder
from experiments.runs.loading import load_run
from experiments.runs.prepare import check_experiment
from experiments.runs.tuning import COMPLETED, fit
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.report.page.material import fingerprint_of
from lightning_m2pt.runs.evaluated import EvaluatedRun, Group
from lightning_m2pt.storage.run_record import DECIDING, MADE_WITH, read_run_record, short_hash, update_run_record
from tests.storage.test_adapter_manifest import as_format_1
from tests.support.small_experiment import small_words


def former_name(experiment: Experiment) -> Path:
    name = short_hash(formerly_deciding(experiment, deciding(experiment)))
    return run_folder(experiment).with_name(f"{experiment.model.method.name}-seed{experiment.seed}-{name}")


def as_of_before(run: Path, experiment: Experiment) -> Path:
    """Renames a run, and rewrites its record and adapter, to what they were before the fingerprint had a version."""
    as_format_1(run / "adapter")
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    config["base_fingerprint"] = experiment.model.backbone.former_fingerprint()
    (run / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    starts = [{k: v for k, v in start.items() if k != "backbone_names"} for start in read_run_record(run)[MADE_WITH]]
    update_run_record(run, MADE_WITH, starts)
    update_run_record(run, DECIDING, formerly_deciding(experiment, deciding(experiment)))
    return run.rename(former_name(experiment))


def test_a_run_of_before_is_found_goes_on_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = small_words(tmp_path, steps=2)
    first = parse_experiment(words)
    new = fit(first)
    assert new.name.endswith(short_hash(deciding(first)))
    former = as_of_before(new, first)
    assert former != new
    assert run_folder(parse_experiment(words)) == former
    load_run(former, parse_experiment(words))
    # What a kill before the end leaves: the same command goes on there.
    record = json.loads((former / "run.json").read_text())
    del record[COMPLETED]
    (former / "run.json").write_text(json.dumps(record))
    again = parse_experiment(words)
    assert fit(again) == former
    assert COMPLETED in read_run_record(former)
    assert read_run_record(former)[DECIDING] == formerly_deciding(again, deciding(again))
    # From now on its record tells more than its name: a base that the former fingerprint cannot tell is refused.
    refuse_other_settings(former, again)
    monkeypatch.setattr(OpenClipLlama, "fingerprint", lambda _: "v2:" + "0" * 64)
    with pytest.raises(BadInputError, match=r'backbone was "v2:.*is "v2:000'):
        refuse_other_settings(former, again)


def test_a_run_of_another_base_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = parse_experiment(small_words(tmp_path))
    update_run_record(tmp_path / "run", DECIDING, formerly_deciding(experiment, deciding(experiment)))
    refuse_other_settings(tmp_path / "run", experiment)
    monkeypatch.setattr(OpenClipLlama, "former_fingerprint", lambda _: "0" * 64)
    with pytest.raises(BadInputError, match="backbone was"):
        refuse_other_settings(tmp_path / "run", experiment)


def test_an_untouched_models_answers_of_before_are_found(tmp_path: Path) -> None:
    experiment = parse_experiment(small_words(tmp_path))
    check_experiment(experiment)
    today = frozen_folder(experiment)
    names = [experiment.model.backbone.fingerprint(), experiment.model.backbone.former_fingerprint()]
    former = today.with_name(short_hash({"backbone": names[1], "questions": []}))
    assert today.name == short_hash({"backbone": names[0], "questions": []})
    former.mkdir(parents=True)
    assert frozen_folder(experiment) == former
    # Reports find out whose they are through a run that recorded both names.
    tuned = EvaluatedRun(
        tmp_path, tmp_path, {}, {DECIDING: {"backbone": names[0]}, MADE_WITH: [{"backbone_names": names}]}
    )
    for folder in (former, today):
        frozen = EvaluatedRun(folder, folder, {}, {})
        assert fingerprint_of(Group("", [frozen]), [Group("", [tuned])]) == names[0]
    today.mkdir()
    assert frozen_folder(experiment) == today
