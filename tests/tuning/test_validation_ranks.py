"""Several processes share out the validation part; what is measured is what one process measures."""

import os
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.last_validation import LastValidation
from data_modules.validation_share import ShareLoader
from experiments.configuration.cli import parse_experiment
from experiments.runs.answering import answering_trainer
from experiments.runs.prepare import check_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.storage.run_record import LAST_VALIDATION, read_run_record
from lightning_m2pt.tuning.module import TuningModule
from tests.support.ranks import on_ranks
from tests.tuning.test_validation import rows_of, words_of

DOUBLE = ("--model.backbone.dtype", "float64")


def words_here(folder: Path, *words: str) -> list[str]:
    """Returns words of a small run on the processes of this job, without dropout, which no two splits share."""
    devices = os.environ.get("WORLD_SIZE", "1")
    return [*words_of(folder, *words, "--model.method.dropout", "0.0", "--trainer.devices", devices), *DOUBLE]


def fitted_here(folder: Path, run: str, *words: str) -> list[list[str]]:
    """Is one process of a run; returns the names of its batches of validation that count."""
    names: list[list[str]] = []
    whole = TuningModule.validation_step

    def step(self: TuningModule, batch: Batch, batch_idx: int) -> None:
        if batch.counts:
            names.append(batch.sample_ids)
        whole(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TuningModule, "validation_step", step)
        fit(parse_experiment(words_here(folder, *words)), folder=folder / run)
    return names


def test_a_run_on_two_processes_measures_what_one_measures(tmp_path):
    words = ("--data.micro_batch_size", "2", "--validate_every_n_steps", "2")
    alone = fitted_here(tmp_path, "one", *words)
    shares = on_ranks(2, fitted_here, tmp_path, "two", *words)
    assert sorted(name for share in shares for batch in share for name in batch) == sorted(chain(*alone))
    assert all(0 < len(share) < len(alone) for share in shares)
    one, two = (rows_of(tmp_path / run) for run in ("one", "two"))
    for row, same in zip(one, two, strict=True):
        for name in ("val/loss", "val/answer_accuracy"):
            assert bool(row[name]) == bool(same[name])
            assert float(row[name] or 0) == pytest.approx(float(same[name] or 0), rel=1e-9)
    measured, same = (read_run_record(tmp_path / run)[LAST_VALIDATION] for run in ("one", "two"))
    assert same == pytest.approx(measured, rel=1e-9)


def validated_here(folder: Path, limit: int | None, *words: str) -> dict[str, float]:
    """Is one process: measures the untouched model on so many batches."""
    experiment = parse_experiment(words_here(folder, *words))
    check_experiment(experiment)
    experiment.data.validation_limit = limit
    trainer = answering_trainer(experiment, [LastValidation()])
    (measured,) = trainer.validate(experiment.model, datamodule=experiment.data, verbose=False)
    return {name: float(value) for name, value in measured.items()}


@pytest.mark.parametrize(
    ("ranks", "micro", "limit"),
    [
        (2, 1, 3),
        pytest.param(3, 1, None, marks=pytest.mark.slow),
        pytest.param(2, 4, None, marks=pytest.mark.slow),
    ],
)
def test_uneven_shares_and_fewer_batches_than_processes_are_exact(tmp_path, ranks, micro, limit):
    """Of the four records there are three or four batches, or one for two processes."""
    words = ("--data.micro_batch_size", str(micro), "--data.batch_size", "4")
    alone = validated_here(tmp_path, limit, *words)
    assert alone["val/loss"] > 0
    for measured in on_ranks(ranks, validated_here, tmp_path, limit, *words):
        assert measured == pytest.approx(alone, rel=1e-12)


class Numbers(torch.utils.data.Dataset):
    """Numbers as samples."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, position: int) -> int:
        return position


def as_batch(numbers: list[int]) -> Any:
    none = torch.zeros(0)
    return Batch(none, none, none, none, [str(number) for number in numbers], [])


@pytest.mark.parametrize("size", [1, 4, 7, 12, 13])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("limit", [None, 1, 2])
def test_shares_are_the_batches_of_one_process_each_counted_once(size, ranks, limit):
    (alone,) = [[batch.sample_ids for batch in ShareLoader(Numbers(size), 3, as_batch, limit=limit)]]
    assert list(chain(*alone)) == [str(number) for number in range(size if limit is None else min(size, 3 * limit))]
    shares = [list(ShareLoader(Numbers(size), 3, as_batch, rank, ranks, limit)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {-(-len(alone) // ranks)}
    counted = [batch.sample_ids for share in shares for batch in share if batch.counts]
    assert sorted(counted) == sorted(alone)
    assert all(batch.sample_ids in alone for share in shares for batch in share)
