"""The strategy fragments hold a trainer section and nothing else, and the job script is valid bash."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

from experiments.commands import check
from experiments.configuration.cli import parse_experiment
from experiments.runs.training import prepared_trainer
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.parallel.fully_sharded import FullyShardedStrategy
from lightning_m2pt.tuning.proven_strategies import class_names, configured_names, refuse_unproven_strategy
from tests.support.small_experiment import small_words

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
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


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.stem)
def test_every_fragment_names_a_strategy_that_is_proven(path: Path) -> None:
    refuse_unproven_strategy(configured_names(yaml.safe_load(path.read_text(encoding="utf-8"))["trainer"]["strategy"]))


FSDP1 = {"class_path": "lightning.pytorch.strategies.FSDPStrategy", "init_args": {"sharding_strategy": "FULL_SHARD"}}


def test_the_first_form_of_fsdp_as_configured_is_parsed_so_that_its_own_refusal_is_heard() -> None:
    """Its sharding_strategy is an enumeration of numbers."""
    words = ["--config", "experiments/m2pt_base.yaml", "--trainer.strategy", json.dumps(FSDP1)]
    strategy = parse_experiment(words).config["trainer"]["strategy"]
    assert strategy["init_args"]["sharding_strategy"] == "FULL_SHARD"
    with pytest.raises(BadInputError, match=r"FSDPStrategy is not supported.*\n.*\n.*strategies/fsdp.yaml"):
        refuse_unproven_strategy(configured_names(strategy))


class OwnParallelStrategy(ModelParallelStrategy):
    """A user's class: its own name says nothing."""


@pytest.mark.parametrize("name", ["fsdp", "fsdp_cpu_offload", "deepspeed_stage_3_offload", "deepspeed"])
def test_their_short_names_are_refused_too(name: str) -> None:
    with pytest.raises(BadInputError, match=name):
        refuse_unproven_strategy(configured_names(name))


def test_a_class_derived_from_one_is_refused_and_replicas_are_not() -> None:
    with pytest.raises(BadInputError, match="ModelParallelStrategy is not supported: FSDP2"):
        refuse_unproven_strategy(class_names(OwnParallelStrategy()))
    for strategy in (DDPStrategy(), SingleDeviceStrategy(), FullyShardedStrategy()):
        refuse_unproven_strategy(class_names(strategy))
    for name in (None, "auto", "ddp", "ddp_find_unused_parameters_true"):
        refuse_unproven_strategy(configured_names(name))


def test_fit_and_check_refuse_them_before_anything_is_loaded(tmp_path: Path) -> None:
    strategy = json.dumps({"class_path": "lightning.pytorch.strategies.DeepSpeedStrategy", "init_args": {"stage": 3}})
    words = [*small_words(tmp_path), "--trainer.strategy", strategy]
    refusal = r"DeepSpeedStrategy is not supported.*\n.*\n.*strategies/deepspeed_stage_2.yaml"
    with pytest.raises(BadInputError, match=refusal):
        prepared_trainer(parse_experiment(words), tmp_path / "run", resumed_step=0)
    with pytest.raises(BadInputError, match=refusal):
        check.main(words)
