"""Bad settings of the Trainer: `fit` refuses each by its key before a run's folder is made or a tensor is read."""

from pathlib import Path

import pytest
import torch
from lightning_utilities.core.imports import RequirementCache

from lightning_m2pt.main import main
from tests.bad_inputs.refusal import ENVIRONMENT, Case, assert_refused
from tests.support.small_experiment import small_words

LIGHTNING = "lightning.pytorch"


def wrong(key: str, *values: str, named: tuple[str, ...] = ()) -> dict[str, Case]:
    """Returns a case for every value of one key of the Trainer."""
    return {f"{key}={value}": ((f"--trainer.{key}={value}",), named or (key,)) for value in values}


def component(key: str, path: str, named: tuple[str, ...] = (), **arguments: str) -> dict[str, Case]:
    """Returns a case of a callback, plug-in, logger or profiler with its arguments as words."""
    words = [f"--trainer.{key}={path}", *(f"--trainer.{key}.{name}={value}" for name, value in arguments.items())]
    return {" ".join(words).replace("--trainer.", ""): (words, named or (key, path.rpartition(".")[2]))}


CASES: dict[str, Case] = {
    # How long.
    **wrong("max_steps", "0", "-2", "1.5", "many", ".nan", "-1"),
    **wrong("max_epochs", "0", "-2", "1.5", "x"),
    **wrong("min_steps", "-1", "x"),
    **wrong("min_epochs", "-1"),
    **wrong("max_time", "soon", "1:2", "-00:01:00:00", "[1]", '{"hours": "x"}'),
    **wrong("limit_train_batches", "0", "-1", "1.5", ".nan", "0.01", "0.0", "all", "true"),
    **wrong("limit_val_batches", "-1", "1.5", ".nan", "none"),
    **wrong("limit_test_batches", "1", "0.5"),
    **wrong("limit_predict_batches", "1"),
    **wrong("overfit_batches", "-1", "1.5", ".nan", "0.01", "x"),
    **wrong("val_check_interval", "0", "-1", "1.5", "99", "0.01", "00:01:00:00", "0.0"),
    **wrong("check_val_every_n_epoch", "0", "-1", "1.5"),
    **wrong("fast_dev_run", "true", "2"),
    "two limits": (("--trainer.overfit_batches=1", "--trainer.limit_train_batches=1"), ("limit_train_batches",)),
    # Gradients and numbers.
    **wrong("gradient_clip_val", "-1", ".nan", ".inf", "x", "[1]", "true"),
    **wrong("gradient_clip_algorithm", "nrom", "1"),
    **wrong("accumulate_grad_batches", "2", "0", "x"),
    **wrong("precision", "12", "16-true", "bf16-true", "64-true", "transformer-engine", "16-mixed", "half", "nf4"),
    **wrong("detect_anomaly", "perhaps"),
    **wrong("deterministic", "often"),
    **wrong("benchmark", "yess"),
    **wrong("inference_mode", "false"),
    **wrong("sync_batchnorm", "true"),
    **wrong("use_distributed_sampler", "false"),
    **wrong("reload_dataloaders_every_n_epochs", "1"),
    **wrong("barebones", "true"),
    **wrong("log_every_n_steps", "10", "0"),
    **wrong("enable_checkpointing", "false"),
    **wrong("enable_model_summary", "true"),
    **wrong("num_sanity_val_steps", "2"),
    **wrong("enable_progress_bar", "3", "maybe"),
    **wrong("default_root_dir", "/tmp/elsewhere"),
    **wrong("model_registry", "mine"),
    # Devices.
    **wrong("devices", "0", "-2", "x", "1.5", "[]"),
    **wrong("num_nodes", "0", "-1", "x"),
    **wrong("accelerator", "abacus", "tpu", "1"),
    **wrong("strategy", "dpp", "ddp_spawn", "ddp_notebook", "ddp_fork", "xla", "dp", "horovod", "fsdp", "[ddp]"),
    **wrong("strategy", "os.system", f"{LIGHTNING}.Callback", "subprocess.Popen"),
    # Components.
    **wrong(
        "callbacks", "Nope", "os.abort", "3", '["Timer", "Nope"]', '[{"class_path": "os.abort"}]', "torch.nn.Linear"
    ),
    **wrong("callbacks", '[{"init_args": {}}]', "data_modules.vsr.VSR", "builtins.exec"),
    **component("callbacks", "LambdaCallback", on_fit_start="os.abort"),
    **component("callbacks", "LambdaCallback", ("callbacks",)),
    **component("callbacks", "GradientAccumulationScheduler", scheduling='{"0": 2}'),
    **component("callbacks", "StochasticWeightAveraging", swa_lrs="1e-3"),
    **component("callbacks", "WeightAveraging"),
    **component("callbacks", "ModelCheckpoint"),
    **component("callbacks", "BatchSizeFinder"),
    **component("callbacks", "LearningRateFinder"),
    **component("callbacks", "ModelPruning", pruning_fn="l1_unstructured"),
    **component("callbacks", "BackboneFinetuning"),
    **component("callbacks", "Callback"),
    **component("callbacks", "callbacks.gradient_check.GradientCheck"),
    **component("callbacks", "callbacks.task_loss.TaskLosses", ("TaskLosses",), steps="0"),
    **component("callbacks", "callbacks.prompt_statistics.PromptStatistics", ("every_n_steps",), every_n_steps="x"),
    **component("callbacks", "callbacks.nope.Nope"),
    **component("callbacks", "EarlyStopping", ("monitor",)),
    **component("callbacks", "EarlyStopping", ("monitor",), monitor="val/los"),
    **component("callbacks", "EarlyStopping", ("monitor",), monitor="accuracy"),
    **component("callbacks", "EarlyStopping", ("mode",), monitor="train/loss", mode="low"),
    **component("callbacks", "EarlyStopping", ("patience",), monitor="train/loss", patience="x"),
    **component("callbacks", "EarlyStopping", ("patience",), monitor="train/loss", patience="-1"),
    **component("callbacks", "EarlyStopping", ("min_delta",), monitor="train/loss", min_delta=".nan"),
    **component("callbacks", "EarlyStopping", ("val/loss",), monitor="val/loss"),
    **component(
        "callbacks", "LearningRateMonitor", ("interval", "'step' or 'epoch' or null"), logging_interval="sometimes"
    ),
    **component("callbacks", "Timer", ("duration",), duration="soon"),
    **component("callbacks", "Timer", ("interval",), duration="00:01:00:00", interval="never"),
    **component("plugins", "Nope"),
    **component("plugins", f"{LIGHTNING}.plugins.TorchCheckpointIO"),
    **component("plugins", f"{LIGHTNING}.plugins.AsyncCheckpointIO"),
    **component("plugins", f"{LIGHTNING}.plugins.DoublePrecision"),
    **component("plugins", f"{LIGHTNING}.plugins.MixedPrecision", precision="16-mixed", device="cpu"),
    **component("plugins", f"{LIGHTNING}.plugins.environments.MPIEnvironment", ("plugins",)),
    **component("plugins", "os.system", ("os.system",)),
    **component("profiler", "fast", ("profiler",)),
    **component("profiler", "os.system", ("profiler",)),
    **component("logger", "false", ("logger",)),
    **component("logger", "Nope", ("logger",)),
    **component("logger", "os.system", ("logger",)),
    **component("logger", "CSVLogger", ("version",), save_dir="x", version="3"),
    **component("logger", "CSVLogger", ("save_dirr",), save_dirr="x"),
    **wrong("foo", "1"),
    **wrong("gradient_clip", "1"),
    **wrong("checkpoint_callback", "true"),
}
VARIABLES = {
    "SLURM_NTASKS": "x",
    "NODE_RANK": "two",
    "RANK": "-1",
    "LOCAL_RANK": "a",
    "WORLD_SIZE": "many",
    "MASTER_PORT": "door",
    "PL_TRAINER_MAX_STEPS": "3",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainer")
    small_words(folder)
    return folder


def words_in(folder: Path, outputs: Path) -> list[str]:
    """Returns the words of a run of one step whose outputs are looked at."""
    return [*small_words(folder, steps=1), "--output_root", str(outputs)]


@pytest.mark.parametrize("name", CASES)
def test_a_bad_setting_is_refused_by_its_key(folder, tmp_path, capfd, name):
    words, named = CASES[name]
    if "limit_val" in name or "max_epochs" in name or "max_time" in name:
        words = [*words, "--trainer.max_steps=1"] if "max_epochs" not in name else [*words, "--trainer.max_steps=-1"]
    assert_refused(capfd, ["fit", *words_in(folder, tmp_path), *words], named, tmp_path)


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_bad_variable_of_a_launcher_is_refused_by_its_name(folder, tmp_path, capfd, monkeypatch, variable):
    monkeypatch.setenv(variable, VARIABLES[variable])
    assert_refused(capfd, ["fit", *words_in(folder, tmp_path)], (variable,), tmp_path)


MISSING: dict[str, tuple[list[str], str]] = {
    "a GPU": (["--trainer.accelerator=gpu"], "gpu"),
    "cuda": (["--trainer.accelerator=cuda"], "cuda"),
    "wandb": (["--trainer.logger=WandbLogger"], "wandb"),
    "comet_ml": (["--trainer.logger=CometLogger"], "comet"),
    "mlflow": (["--trainer.logger=MLFlowLogger"], "mlflow"),
}


OF_LOGGERS = {
    "wandb": "wandb._WANDB_AVAILABLE",
    "comet_ml": "comet._COMET_AVAILABLE",
    "mlflow": "mlflow._MLFLOW_AVAILABLE",
}
"""Where Lightning notes whether a package is there."""


@pytest.mark.parametrize("name", MISSING)
def test_what_the_machine_lacks_is_named(folder, tmp_path, capfd, monkeypatch, name):
    if name in ("a GPU", "cuda") and torch.cuda.is_available():
        pytest.skip("this machine has one")
    if name in OF_LOGGERS:
        monkeypatch.setattr(f"lightning.pytorch.loggers.{OF_LOGGERS[name]}", RequirementCache(f"{name}>=9999"))
    words, named = MISSING[name]
    assert_refused(capfd, ["fit", *words_in(folder, tmp_path), *words], (named,), tmp_path, code=ENVIRONMENT)


def test_the_untouched_words_are_right(folder, capfd):
    """Or everything above would be refused for another reason."""
    assert main(["check", *small_words(folder)]) == 0
    capfd.readouterr()
