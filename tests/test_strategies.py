"""The strategy fragments hold a trainer section and nothing else, and the job script is valid bash."""

import subprocess
from pathlib import Path

import pytest
import yaml

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
FRAGMENTS = sorted((EXPERIMENTS / "strategies").glob("*.yaml"))


def test_the_strategies_there_shall_be_are_there() -> None:
    assert [path.stem for path in FRAGMENTS] == ["ddp", "deepspeed_stage_2", "deepspeed_stage_3", "fsdp"]


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.stem)
def test_a_fragment_sets_strategy_and_devices_only(path: Path) -> None:
    fragment = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(fragment) == {"trainer"}
    assert set(fragment["trainer"]) == {"strategy", "devices"}


@pytest.mark.parametrize("script", sorted((EXPERIMENTS / "slurm").glob("*.sbatch")), ids=lambda path: path.name)
def test_job_scripts_are_valid_and_refuse_to_run_without_an_experiment(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    result = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: command line")
