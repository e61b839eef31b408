"""What several processes have to begin with alike."""

from importlib.metadata import version
from pathlib import Path

import pytest

from experiments.configuration.cli import parse_experiment
from experiments.runs import start
from experiments.runs.folder import PACKAGES, deciding
from experiments.runs.start import OURS, digests_of_code, ran_in_lockstep, start_of
from tests.support.small_experiment import small_words


def test_what_a_device_recomputes_is_compared_where_all_run_the_same_modules_alone(tmp_path: Path) -> None:
    """GPUs of several sizes decide differently; that is nobody's business under DDP."""
    words = small_words(tmp_path)
    whole = parse_experiment([*words, "--config", "experiments/strategies/ddp.yaml"])
    shared = parse_experiment([*words, "--config", "experiments/strategies/fsdp.yaml"])
    decided = []
    for is_on in (False, True):
        for experiment in (whole, shared):
            experiment.model.backbone.recompute_activations(is_on)
        assert ran_in_lockstep(whole) == {}
        decided.append(ran_in_lockstep(shared))
    assert decided == [{"activation_checkpointing": False}, {"activation_checkpointing": True}]


def test_settings_data_code_packages_and_the_step_are_compared(tmp_path: Path) -> None:
    experiment = parse_experiment(small_words(tmp_path))
    begun = start_of(experiment, 50)
    assert set(begun) >= {"version", "code", "settings", "run", "resumed_step"}
    assert {package: begun["version"][package] for package in PACKAGES} == {each: version(each) for each in PACKAGES}
    assert begun["code"] == digests_of_code(experiment.opened)
    assert begun["settings"]["seed_everything"] == experiment.config["seed_everything"]
    assert begun["run"] == deciding(experiment)
    assert begun["resumed_step"] == 50
    assert str(tmp_path / "vision_flan") not in str(begun["settings"])


def test_a_changed_byte_of_any_package_changes_its_digest_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "CHECKOUT", tmp_path)
    for package in OURS:
        (tmp_path / package / "inner").mkdir(parents=True)
        (tmp_path / package / "inner" / "module.py").write_text("a = 1\n")
    before = digests_of_code(())
    assert set(before) == {"lightning_m2pt", "callbacks", "data_modules", "experiments"}
    for package in OURS:
        file = tmp_path / package / "inner" / "module.py"
        file.write_text("a = 2\n")
        after = digests_of_code(())
        assert {name for name in before if after[name] != before[name]} == {package}
        file.write_text("a = 1\n")
