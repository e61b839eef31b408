"""What the Trainer's settings do to a run: limits in whole steps, a time limit, loggers, profilers, refusals."""

import csv
import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning_utilities.core.imports import RequirementCache
from safetensors.torch import load_file
from torch import Tensor

from callbacks.time_limit import TimeLimit
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.training import prepared_trainer
from experiments.runs.tuning import fit
from experiments.trainer.whole_steps import limit_validation
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.tuning.sample_order import samples_of_steps
from tests.callbacks.test_loggers import board_steps
from tests.support.small_experiment import small_words
from tests.tuning.test_early_stopping import killed
from tests.tuning.test_training import StopAtStep

BATCH_SIZE, SAMPLES = 4, 16
STOPS_BY_TRAINING, STOPS_BY_SCORE = (
    json.dumps([{"class_path": "EarlyStopping", "init_args": {"monitor": monitor, "mode": "max"}}])
    for monitor in ("train/loss", "score/vsr")
)


class Seen(Callback):
    """Notes the samples of every optimizer step."""

    def __init__(self) -> None:
        self.steps: dict[int, list[str]] = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.steps.setdefault(trainer.global_step, []).extend(batch.sample_ids)


def words_of(folder: Path, *words: str, steps: int = 5) -> list[str]:
    return [*small_words(folder, batch_size=BATCH_SIZE, steps=steps), *words]


def tuned(folder: Path, words: list[str], *more: Callback, run: str = "run") -> tuple[Experiment, Path, Seen]:
    experiment, seen = parse_experiment(words), Seen()
    chosen = experiment.trainer_config["callbacks"] or []
    experiment.trainer_config["callbacks"] = [*(chosen if isinstance(chosen, list) else [chosen]), seen, *more]
    return experiment, fit(experiment, folder=folder / run), seen


def adapter(run: Path) -> dict[str, Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(bool((one[name] == other[name]).all()) for name in {**one, **other})


def expected_ids(experiment: Experiment, epoch: int, step: int) -> list[str]:
    samples = experiment.data.read_once()[0]
    return [samples[place].id for place in samples_of_steps(0, epoch, SAMPLES, BATCH_SIZE)[step]]


@pytest.mark.parametrize(
    ("limit", "epochs"),
    [(("--trainer.limit_train_batches", "3"), (0, 0, 0, 1, 1)), (("--trainer.overfit_batches", "0.3"), (0,) * 5)],
)
def test_a_limited_epoch_ends_with_a_whole_step_and_resumes_there(tmp_path, limit, epochs):
    """Three of four steps, or always the same one; a run that is stopped at the epoch's end is not another."""
    steps_of_epoch = epochs.count(0) if len(set(epochs)) > 1 else 1
    words = words_of(tmp_path, *limit, "--data.micro_batch_size", "2", "--model.method.dropout", "0.2")
    experiment, whole, seen = tuned(tmp_path, words)
    for step, epoch in enumerate(epochs):
        assert seen.steps[step] == expected_ids(experiment, epoch, step % steps_of_epoch)
    assert [row["step"] for row in rows(whole)] == ["1", "2", "3", "4", "5"]
    assert float(rows(whole)[2]["epoch"]) == (0 if len(set(epochs)) > 1 else 2)
    stopped, again = parse_experiment(words), tmp_path / "stopped"
    stopped.trainer_config["callbacks"] = [StopAtStep(3, signal.SIGTERM)]
    with pytest.raises(SystemExit):
        fit(stopped, folder=again)
    _, again, rest = tuned(tmp_path, words, run="stopped")
    assert list(rest.steps) == [3, 4]
    assert same(adapter(whole), adapter(again))


def test_validation_comes_after_whole_steps_and_the_last_and_has_whole_batches_whatever_the_split(tmp_path):
    words = words_of(tmp_path, "--data.validation_fraction", "0.5", "--trainer.val_check_interval", "2", steps=3)
    words += ["--trainer.limit_val_batches", "1", "--model.backbone.dtype", "float64", "--data.batch_size", "2"]
    experiment, whole, _ = tuned(tmp_path, words)
    _, split, _ = tuned(tmp_path, [*words, "--data.micro_batch_size", "1"], run="split")
    assert len(experiment.data.read_once()[1]) == 4  # of which one batch is half
    measured = [[row["val/loss"] for row in rows(run)] for run in (whole, split)]
    assert [[bool(value) for value in column] for column in measured] == [[False, True, True]] * 2
    assert float(measured[0][1]) == pytest.approx(float(measured[1][1]), rel=1e-3)


def test_each_of_two_devices_validates_on_its_share_of_the_limit_rounded_up(tmp_path):
    words = words_of(tmp_path, "--data.validation_fraction", "0.5", "--data.batch_size", "1")
    data = parse_experiment(words).data
    trainer = SimpleNamespace(world_size=2, check_val_every_n_epoch=1)
    for limit, share in ((3, 2), (4, 2), (1, 1), (0, 0)):
        limit_validation({"limit_val_batches": limit}, data, trainer)
        assert (data.validation_limit, trainer.limit_val_batches) == (limit, share)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--trainer.max_steps", "0"), "untouched model"),
        (("--trainer.limit_train_batches", "0.1"), "limit_train_batches"),
        (("--trainer.val_check_interval", "5"), "an epoch has 4 optimizer steps"),
        (("--trainer.val_check_interval", "0.5", "--trainer.check_val_every_n_epoch", "null"), "epochs do not count"),
        (("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"), "there is no validation"),
        (("--trainer.callbacks", STOPS_BY_TRAINING, "--validate_every_n_steps", "2"), "looks after validations"),
        (("--trainer.callbacks", STOPS_BY_SCORE), "'score/vsr' is never measured"),
        (("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.num_nodes", "2"), "MASTER_ADDR"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_does_not_fit_the_set_or_the_machine_is_known_before_weights_load(tmp_path, words, named):
    experiment = parse_experiment(words_of(tmp_path, *words))
    experiment.connect()
    with pytest.raises(BadInputError, match=named) as refused:
        prepared_trainer(experiment, tmp_path / "run", resumed_step=0)
    assert len(refused.value.message().splitlines()) <= 3
    assert not experiment.model.backbone.is_loaded
    assert not (tmp_path / "run").exists()


TIMER = [{"class_path": "Timer", "init_args": {"duration": "00:00:00:00"}}]


@pytest.mark.parametrize(
    "limit",
    [("max_time", "00:00:00:00"), pytest.param(("callbacks", json.dumps(TIMER)), marks=pytest.mark.slow)],
    ids=lambda key: key[0],
)
def test_a_run_whose_time_is_over_stops_after_a_whole_step_and_goes_on(tmp_path, capsys, limit):
    """Every start has its time again, and makes one step at least; nothing of it shows in the run's files."""
    words = words_of(tmp_path, "--data.micro_batch_size", "2", "--data.validation_fraction", "0.5", steps=3)
    _, straight, _ = tuned(tmp_path, words, run="straight")
    for step in (0, 1):
        _, run, seen = tuned(tmp_path, [*words, f"--trainer.{limit[0]}", limit[1]])
        assert list(seen.steps) in ([step], [step, step + 1])  # a step that is begun is not made
        assert f"stopped after {step + 1} of 3 steps: the same command goes on" in capsys.readouterr().out
        assert "completed" not in json.loads((run / "run.json").read_text())
    _, run, _ = tuned(tmp_path, words)
    assert json.loads((run / "run.json").read_text())["completed"]["optimizer_steps"] == 3
    assert (run / "metrics.csv").read_bytes() == (straight / "metrics.csv").read_bytes()
    assert same(adapter(straight), adapter(run))


def test_chosen_loggers_log_beside_the_runs_own(tmp_path, monkeypatch):
    tables = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(tmp_path / "mine")}}
    board = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": str(tmp_path / "boards"), "name": "tb", "version": ""},
    }
    words = words_of(tmp_path, "--trainer.logger", json.dumps([tables, board]), "--save_every_n_steps", "2", steps=4)
    killed(words, tmp_path / "run", "in the next step", 3, monkeypatch)  # logged three steps, saved two
    _, run, _ = tuned(tmp_path, words)
    mine = [path.read_text().count("\n") - 1 for path in sorted((tmp_path / "mine").rglob("metrics.csv"))]
    assert len(mine) == 2  # every start gets a version of its own
    assert len(rows(run)) == 4
    # The step that was logged before the kill and is made again is not there twice.
    assert sorted(board_steps(tmp_path / "boards", "train/loss")) == [0, 1, 2, 3]
    assert sorted(board_steps(run, "train/loss")) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_profiler_writes_into_the_runs_folder_and_changes_nothing(tmp_path):
    _, plain, _ = tuned(tmp_path, words_of(tmp_path, steps=2), run="plain")
    words = words_of(tmp_path, "--trainer.profiler", "simple", "--trainer.detect_anomaly", "true", steps=2)
    _, run, _ = tuned(tmp_path, words)
    assert "run_training_batch" in (run / "fit-profile.txt").read_text()
    assert same(adapter(plain), adapter(run))


def test_a_missing_package_is_named(capfd, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", RequirementCache("wandb>=9999"))
    code = main(["fit", *words_of(tmp_path, "--trainer.logger", "WandbLogger")])
    said = capfd.readouterr().err
    assert code == ExitCode.ENVIRONMENT
    assert "error: trainer.logger: WandbLogger needs wandb, which is not installed here" in said
    assert "pip install -c constraints.txt -e '.[wandb]'" in said
    assert len(said.strip().splitlines()) == 3


def test_what_a_callback_refuses_itself_names_it(capfd, tmp_path):
    arguments = {"monitor": "train/loss_of_task/none"}
    callback = json.dumps([{"class_path": "EarlyStopping", "init_args": arguments}])
    code = main(["fit", *words_of(tmp_path, "--trainer.callbacks", callback)])
    message = capfd.readouterr().err.rpartition("error: ")[2].strip()
    assert code == ExitCode.BAD_INPUT
    assert message.startswith("trainer.callbacks: EarlyStopping: ")
    assert len(message.splitlines()) <= 3


class Fails(Callback):
    """A user's own callback with a mistake in it."""

    def on_train_start(self, *_: Any) -> None:
        raise ValueError("my mistake")


def test_a_mistake_in_a_users_own_callback_keeps_its_traceback(tmp_path):
    own = json.dumps([{"class_path": "tests.trainer.test_settings_in_use.Fails"}])
    with pytest.raises(ValueError, match="my mistake") as raised:
        fit(parse_experiment(words_of(tmp_path, "--allow-import", "tests", "--trainer.callbacks", own)))
    assert not isinstance(raised.value, BadInputError)


def test_a_time_limit_is_read_as_lightning_reads_it():
    assert TimeLimit("00:01:00:01", lambda _: None).seconds == 3601
    assert TimeLimit({"minutes": 2}, lambda _: None).seconds == 120


@pytest.mark.parametrize(("name", "text"), [("SLURM_NTASKS", "2"), ("LOCAL_RANK", "one"), ("NODE_RANK", "1")])
def test_half_a_launch_ends_in_three_lines(capfd, monkeypatch, tmp_path, name, text):
    monkeypatch.setenv(name, text)
    assert main(["fit", *words_of(tmp_path)]) == ExitCode.BAD_INPUT
    lines = capfd.readouterr().err.strip().splitlines()
    assert lines[0].startswith("error: ")
    assert name in lines[0]
    assert len(lines) == 3
