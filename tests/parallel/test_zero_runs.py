"""Whole experiments under ZeRO: one process's trained tensors from the same samples."""

from itertools import chain
from pathlib import Path

import pytest

from experiments.configuration.cli import Experiment
from tests.parallel import test_sharded_runs
from tests.parallel.test_sharded_runs import STEPS, Outcome, largest_difference, tune, words_for
from tests.support.ranks import on_ranks
from tests.support.small_experiment import small_words
from tests.support.strategies.cpu_zero import CpuZeroStrategy

METHODS = ("m2pt", "vpt", "ptum_prefix", "lora", "aprompt", "adapter")
EVERY_ROW = ("--model.shortcuts.shared_rows_once", "false", "--model.shortcuts.supervised_rows_only", "false")
"""The rows that stage 3 computes."""


def under_zero(words: list[str], run: Path, ranks: int, stage: int) -> list[Outcome]:
    """Tunes on so many ranks under a stage."""

    def tune_here() -> Outcome:
        parse = test_sharded_runs.parse_experiment

        def with_zero(given: list[str]) -> Experiment:
            experiment = parse(given)
            experiment.trainer_objects = {"strategy": CpuZeroStrategy(stage)}
            return experiment

        test_sharded_runs.parse_experiment = with_zero  # in this process, which ends
        return tune([*words, "--trainer.devices", str(ranks)], run)

    return on_ranks(ranks, tune_here, timeout=400)


def alone(words: list[str], run: Path) -> Outcome:
    """Tunes in one process."""
    [outcome] = on_ranks(1, tune, words, run, timeout=400)
    return outcome


def assert_same(ranks: list[Outcome], expected: Outcome, steps: int) -> None:
    for other in ranks[1:]:
        assert largest_difference(other[0], ranks[0][0]) == 0
    difference = largest_difference(ranks[0][0], expected[0])
    assert difference <= 1e-6, f"trained tensors differ by {difference:.1e}"
    shares = [ids for _, ids, _ in ranks]
    together = [sorted(chain.from_iterable(of_step)) for of_step in zip(*shares, strict=True)]
    assert together == [sorted(ids) for ids in expected[1]]
    assert len(together) == steps


def words_under(stage: int, folder: Path, method: str) -> list[str]:
    """Returns the words of an experiment with the passes that the stage takes."""
    path = ("--model.method.path", "token") if method in ("m2pt", "vpt") else ()
    return words_for(folder, method, *((*EVERY_ROW, *path) if stage == 3 else ()))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_tune_the_tensors_of_one_process_from_the_same_samples(
    tmp_path: Path, method: str, stage: int
) -> None:
    words = words_under(stage, tmp_path, method)
    assert_same(under_zero(words, tmp_path / "zero", 2, stage), alone(words, tmp_path / "alone"), STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_one_rank(tmp_path: Path, stage: int) -> None:
    words = words_under(stage, tmp_path, "m2pt")
    assert_same(under_zero(words, tmp_path / "zero", 1, stage), alone(words, tmp_path / "alone"), STEPS)


@pytest.mark.slow
def test_stage_2_takes_compiled_layers(tmp_path: Path) -> None:
    words = [
        *small_words(tmp_path, "experiments/m2pt_base.yaml", 4, 2),
        *("--data.micro_batch_size", "2", "--model.optimizer.learning_rate", "1e-4"),
        *("--model.backbone.compile_backend", "aot_eager"),
    ]
    assert_same(under_zero(words, tmp_path / "zero", 2, 2), alone(words, tmp_path / "alone"), 2)
