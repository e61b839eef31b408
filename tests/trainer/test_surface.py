"""Every setting of the Trainer is decided: what it does to a run's name, and which values are refused."""

import copy
import importlib
import inspect
import json
import pkgutil
from typing import Any

import lightning.pytorch.callbacks as lightning_callbacks
import lightning.pytorch.plugins as lightning_plugins
import pytest
from lightning.pytorch import Callback, Trainer

import callbacks as our_callbacks
from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import deciding
from experiments.trainer.components import EFFECTS, REFUSED, REFUSED_AS_THEY_ARE, Effect
from experiments.trainer.surface import (
    DEFAULTS,
    OF_EVERY_NAME,
    REASONS,
    ROLES,
    Role,
    check_trainer,
    deciding_settings,
    refuse_endless,
)
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.storage.run_record import short_hash
from tests.support.small_experiment import small_words

EARLY_STOPPING = {
    "class_path": "lightning.pytorch.callbacks.EarlyStopping",
    "init_args": {"monitor": "val/loss", "patience": 2},
}


class Own(Callback):
    """Stands for a user's own callback, which nobody here knows."""

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength


OWN = {"class_path": "tests.trainer.test_surface.Own", "init_args": {"strength": 1.0}}


def settings(**changed: Any) -> dict[str, Any]:
    """Returns a Trainer's settings as the parser gives them, some of them changed."""
    parameters = inspect.signature(Trainer).parameters
    return {name: parameter.default for name, parameter in parameters.items()} | {"max_steps": 10} | changed


def named(micro_batch_size: int | None = None, **changed: Any) -> str:
    """Returns the hash of what a run's name covers of the Trainer's settings."""
    data = {"init_args": {"micro_batch_size": micro_batch_size}}
    return short_hash(deciding_settings({"trainer": settings(**changed), "data": data}))


def test_every_setting_of_the_trainer_has_a_role():
    signature = inspect.signature(Trainer).parameters
    assert list(ROLES) == list(signature)
    assert {key for key, role in ROLES.items() if role is Role.REFUSED} == set(REASONS)
    assert {key for key, role in ROLES.items() if role is Role.DECIDES} | {"fast_dev_run"} == set(OF_EVERY_NAME)
    assert {key: signature[key].default for key in DEFAULTS} == DEFAULTS
    others = {key for key, role in ROLES.items() if role in (Role.FOLLOWS, Role.REFUSED)} - set(DEFAULTS)
    assert {signature[key].default for key in others} == {None}


def named_in(package: Any) -> list[type]:
    return [found for name in package.__all__ if isinstance(found := getattr(package, name), type)]


def subclasses(kind: type) -> set[type]:
    return {kind}.union(*(subclasses(below) for below in kind.__subclasses__()))


def test_every_class_of_lightning_is_decided():
    undecided = {
        kind.__name__
        for kind in [*named_in(lightning_callbacks), *named_in(lightning_plugins)]
        if kind not in EFFECTS and kind not in REFUSED_AS_THEY_ARE and not set(kind.__mro__) & set(REFUSED)
    }
    assert undecided == set()
    assert not set(EFFECTS) & set(REFUSED)


def test_our_own_callbacks_are_there_already_or_said_to_be_right():
    for _, name, _ in pkgutil.iter_modules(our_callbacks.__path__):
        importlib.import_module(f"callbacks.{name}")
    ours = [kind for kind in subclasses(Callback) if kind.__module__.startswith("callbacks.")]
    assert {kind.__name__ for kind in ours if kind in EFFECTS} == {
        *("AttentionMaps", "BenchmarkScores", "BestAdapter", "PromptStatistics", "SampleAnswers")
    }
    for kind in (kind for kind in ours if kind not in EFFECTS):
        component = {"class_path": f"{kind.__module__}.{kind.__name__}", "init_args": {}}
        with pytest.raises(BadInputError, match=kind.__name__):
            check_trainer(settings(callbacks=[component]))


VALUES: dict[str, Any] = {
    "accelerator": "cpu",
    "strategy": "ddp",
    "devices": 2,
    "num_nodes": 2,
    "precision": "bf16-mixed",
    "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "x"}},
    "max_epochs": 3,
    "min_epochs": 2,
    "max_steps": 11,
    "min_steps": 2,
    "max_time": "00:00:10:00",
    "limit_train_batches": 5,
    "limit_val_batches": 5,
    "overfit_batches": 1,
    "val_check_interval": 5,
    "check_val_every_n_epoch": 2,
    "enable_progress_bar": False,
    "gradient_clip_val": 1.0,
    "gradient_clip_algorithm": "value",
    "deterministic": True,
    "benchmark": True,
    "profiler": "simple",
    "detect_anomaly": True,
    "enable_autolog_hparams": False,
}


@pytest.mark.parametrize("key", [key for key, role in ROLES.items() if role not in (Role.FOLLOWS, Role.BY_CLASS)])
def test_a_setting_changes_the_name_as_its_role_says(key):
    role = ROLES[key]
    if role is Role.REFUSED:
        with pytest.raises(BadInputError, match=rf"trainer\.{key}") as refused:
            check_trainer(settings(**{key: {"model_registry": "mine", "inference_mode": False}.get(key, 2)}))
        assert len(refused.value.message().splitlines()) == 3
        return
    changed = {key: VALUES[key]}
    check_trainer(settings(**changed))
    assert (named(**changed) != named()) is (role in (Role.DECIDES, Role.DECIDES_IF_SET))
    acts = {"callbacks": [EARLY_STOPPING]}
    assert (named(**changed, **acts) != named(**acts)) is (role is not Role.WATCHES)


@pytest.mark.parametrize("key", [key for key, role in ROLES.items() if role is Role.FOLLOWS])
def test_a_setting_that_follows_from_others_is_refused(key):
    value = "elsewhere" if key == "default_root_dir" else DEFAULTS.get(key) is not True and 2
    with pytest.raises(BadInputError, match=rf"trainer\.{key}: this setting follows"):
        check_trainer(settings(**{key: value}))


def test_a_run_without_new_settings_keeps_its_name():
    """The hash of a run of the command below, made by an earlier version."""
    words = [
        *("--config", "experiments/m2pt_base.yaml", "--trainer.max_steps", "3"),
        *("--model.method.visual_length", "2", "--model.method.textual_length", "1"),
        *("--model.method.interaction", "false", "--data.batch_size", "4", "--data.questions_per_sample", "1"),
    ]
    assert deciding(parse_experiment(words))["trainer"] == {
        **{"max_epochs": -1, "max_steps": 3, "gradient_clip_val": 1.0, "gradient_clip_algorithm": None},
        **{"precision": None, "fast_dev_run": False, "limit_train_batches": None, "overfit_batches": 0.0},
    }


WATCHING = [
    {"class_path": f"lightning.pytorch.callbacks.{kind.__name__}", "init_args": {}}
    for kind, effect in EFFECTS.items()
    if effect is Effect.WATCHES and issubclass(kind, Callback) and kind.__module__.startswith("lightning.")
]
BENCHMARK_SCORES = {"class_path": "callbacks.benchmark_scores.BenchmarkScores", "init_args": {"every_n_steps": 3}}
ENVIRONMENT = {"class_path": "lightning.pytorch.plugins.environments.LightningEnvironment", "init_args": {}}


@pytest.mark.parametrize("component", [*WATCHING, BENCHMARK_SCORES], ids=lambda component: component["class_path"])
def test_what_only_watches_forks_no_run(component):
    check_trainer(settings(callbacks=[component]))
    assert named(callbacks=[component]) == named() == named(callbacks=component)


def test_what_acts_is_part_of_the_name_with_its_arguments():
    stronger = {**OWN, "init_args": {"strength": 2.0}}
    names = [named(callbacks=value) for value in (None, [OWN], [stronger], [EARLY_STOPPING], [EARLY_STOPPING, OWN])]
    assert len(set(names)) == len(names)
    assert named(callbacks=[OWN]) == named(callbacks=OWN) == named(callbacks=[WATCHING[0], OWN])
    # What an acting callback may go by is covered beside it.
    assert named(callbacks=[EARLY_STOPPING, BENCHMARK_SCORES]) != named(callbacks=[EARLY_STOPPING])
    assert named(plugins=ENVIRONMENT) == named()


def test_limits_of_split_steps_are_not_those_of_earlier_versions():
    """They counted micro-batches: the same number in the same folder would be another run."""
    assert named(limit_train_batches=5) != named(limit_train_batches=5, micro_batch_size=2)
    assert named() == named(micro_batch_size=2)
    assert named(limit_val_batches=1) != named() == named(limit_val_batches=0) == named(limit_val_batches=1.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"limit_train_batches": 0}, "limit_train_batches"),
        ({"limit_train_batches": 0.0}, "limit_train_batches"),
        ({"limit_train_batches": 1.5}, "limit_train_batches"),
        ({"limit_train_batches": -1}, "limit_train_batches"),
        ({"limit_val_batches": -0.5}, "limit_val_batches"),
        ({"overfit_batches": -1}, "overfit_batches"),
        *(({"devices": devices}, "counts no devices") for devices in ("abc", "1.5", "0", "", 0, -2, [], True)),
        ({"num_nodes": 0}, "0 nodes"),
        ({"overfit_batches": 1, "limit_train_batches": 1}, "one of the two"),
        ({"val_check_interval": 0}, "val_check_interval"),
        ({"val_check_interval": "00:00:01:00"}, "how fast this machine is"),
        ({"val_check_interval": {"minutes": 1}}, "how fast this machine is"),
        ({"check_val_every_n_epoch": 0}, "check_val_every_n_epoch"),
        ({"min_steps": -1}, "min_steps"),
        ({"max_time": "a while"}, "max_time"),
        ({"max_time": {"hours": -1}}, "max_time"),
        ({"gradient_clip_val": float("nan")}, "gradient_clip_val"),
        ({"gradient_clip_val": float("inf")}, "gradient_clip_val"),
        ({"gradient_clip_val": -1.0}, "gradient_clip_val"),
        ({"gradient_clip_algorithm": "foo"}, "norm or value"),
        ({"precision": "16", "accelerator": "cpu"}, "bf16-mixed"),
        ({"precision": "16-mixed", "accelerator": "cpu"}, "bf16-mixed"),
        ({"precision": 64}, "precision"),
        ({"precision": "64"}, "precision"),
        ({"precision": "bf16-true"}, "precision"),
        ({"precision": "transformer-engine"}, "precision"),
        ({"logger": False}, "metrics.csv"),
        ({"profiler": "xla"}, "profiler"),
        ({"strategy": "ddp_fork"}, "notebooks"),
        ({"strategy": "xla"}, "TPUs"),
    ],
    ids=str,
)
def test_values_that_cannot_be_kept_are_refused(changed, said):
    with pytest.raises(BadInputError) as refused:
        check_trainer(settings(**changed))
    message = refused.value.message()
    assert said in message
    assert f"trainer.{next(iter(changed))}" in message or said == "one of the two"
    assert len(message.splitlines()) <= 3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"max_steps": 0}, "untouched model"),
        ({"max_steps": -1, "max_epochs": 0}, "untouched model"),
        ({"max_steps": -5}, "-5 is no number"),
        ({"max_steps": -1}, "nothing says when"),
        ({"max_steps": -1, "max_epochs": -1}, "nothing says when"),
    ],
    ids=str,
)
def test_a_run_without_steps_or_an_end_is_refused(changed, said):
    refuse_endless(settings(max_steps=-1, max_epochs=2))
    with pytest.raises(BadInputError, match=said) as refused:
        refuse_endless(settings(**changed))
    assert refused.value.where in ("trainer.max_steps", "trainer.max_epochs")


@pytest.mark.parametrize(
    "changed",
    [
        *({"devices": devices} for devices in ("auto", "-1", "0,", "0,2", "2", -1, 8, [0], [1, 3])),
        {"limit_train_batches": 1.0},
        {"limit_val_batches": 0},
        {"overfit_batches": 0.5},
        {"val_check_interval": 0.5},
        {"max_steps": -1},  # evaluating needs no end
        {"max_time": {"hours": 1}},
        {"gradient_clip_val": 0},
        {"precision": "16-mixed", "accelerator": "gpu"},
        {"logger": True},
    ],
    ids=str,
)
def test_values_that_work_pass(changed):
    check_trainer(settings(**changed))


PACKAGE = "lightning.pytorch"


@pytest.mark.parametrize(
    ("key", "class_path", "arguments", "said"),
    [
        ("callbacks", f"{PACKAGE}.callbacks.GradientAccumulationScheduler", {"scheduling": {"0": 2}}, "add up whole"),
        ("callbacks", f"{PACKAGE}.callbacks.StochasticWeightAveraging", {"swa_lrs": 0.1}, "average"),
        ("callbacks", f"{PACKAGE}.callbacks.EMAWeightAveraging", {}, "average"),
        ("callbacks", f"{PACKAGE}.callbacks.ModelPruning", {"pruning_fn": "l1_unstructured"}, "other tensors"),
        ("callbacks", f"{PACKAGE}.callbacks.BackboneFinetuning", {}, "what is trained"),
        ("callbacks", f"{PACKAGE}.callbacks.LearningRateFinder", {}, "m2pt sweep"),
        ("callbacks", f"{PACKAGE}.callbacks.BatchSizeFinder", {}, "batch_size"),
        ("callbacks", f"{PACKAGE}.callbacks.ModelCheckpoint", {}, "save_every_n_steps"),
        ("callbacks", f"{PACKAGE}.callbacks.OnExceptionCheckpoint", {"dirpath": "x"}, "save_every_n_steps"),
        ("callbacks", f"{PACKAGE}.callbacks.LambdaCallback", {}, "any function"),
        ("callbacks", f"{PACKAGE}.callbacks.SpikeDetection", {}, "come again"),
        ("callbacks", f"{PACKAGE}.callbacks.ThroughputMonitor", {}, "function"),
        ("callbacks", f"{PACKAGE}.Callback", {}, "nothing by itself"),
        ("callbacks", "callbacks.step_checkpoint.StepCheckpoint", {"checkpoints_dir": "x"}, "save_every_n_steps"),
        ("callbacks", "callbacks.gradient_check.GradientCheck", {}, "part of every run"),
        ("callbacks", f"{PACKAGE}.callbacks.EarlyStopping", {"monitor": "val_loss"}, "nothing is logged as 'val_loss'"),
        ("callbacks", f"{PACKAGE}.callbacks.EarlyStopping", {"monitor": "val/los"}, "nothing is logged as 'val/los'"),
        (
            "callbacks",
            f"{PACKAGE}.callbacks.EarlyStopping",
            {"monitor": "val/answer_accuracy"},
            "min would stop a run",
        ),
        ("callbacks", f"{PACKAGE}.callbacks.EarlyStopping", {"monitor": "score/vsr", "mode": "min"}, "score/vsr rises"),
        ("plugins", f"{PACKAGE}.plugins.MixedPrecision", {"precision": "16-mixed"}, "trainer.precision"),
        ("plugins", f"{PACKAGE}.plugins.DoublePrecision", {}, "trainer.precision"),
        ("plugins", f"{PACKAGE}.plugins.BitsandbytesPrecision", {"mode": "nf4"}, "trainer.precision"),
        ("plugins", f"{PACKAGE}.plugins.AsyncCheckpointIO", {}, "save_every_n_steps"),
        ("plugins", f"{PACKAGE}.plugins.TorchSyncBatchNorm", {}, "synchronise"),
        ("plugins", f"{PACKAGE}.plugins.environments.MPIEnvironment", {}, "torchrun, srun"),
        ("logger", f"{PACKAGE}.loggers.CSVLogger", {"save_dir": "x", "version": 3}, "no version"),
        ("profiler", f"{PACKAGE}.profilers.XLAProfiler", {}, "TPUs"),
        ("strategy", f"{PACKAGE}.strategies.DDPStrategy", {"start_method": "fork"}, "popen"),
        ("strategy", f"{PACKAGE}.strategies.DDPStrategy", {"ddp_comm_hook": "x"}, "ddp_comm_hook"),
        ("strategy", f"{PACKAGE}.strategies.DDPStrategy", {"model_averaging_period": 2}, "model_averaging_period"),
        ("strategy", f"{PACKAGE}.strategies.ParallelStrategy", {}, "not known"),
    ],
    ids=lambda value: str(value)[-40:],
)
@pytest.mark.parametrize("as_list", [True, False])
def test_classes_that_cannot_keep_a_runs_word_are_refused(key, class_path, arguments, said, as_list):
    component = {"class_path": class_path, "init_args": arguments}
    value = [component] if as_list and key != "strategy" else component
    with pytest.raises(BadInputError) as refused:
        check_trainer(settings(**{key: value}))
    message = refused.value.message()
    assert said in message
    assert f"trainer.{key}" in message
    assert len(message.splitlines()) <= 3


def test_numbers_in_a_callbacks_arguments_are_looked_at_too():
    stopping = {**EARLY_STOPPING, "init_args": {"monitor": "val/loss", "min_delta": float("nan")}}
    with pytest.raises(BadInputError, match=r"trainer\.callbacks\.min_delta: nan"):
        check_trainer(settings(callbacks=[stopping]))


def test_the_split_decides_where_something_draws_or_averages_by_micro_batch(tmp_path):
    experiment = parse_experiment(small_words(tmp_path))
    plain = experiment.config

    def of(micro_batch: int | None = None, devices: Any = 1, dropout: float = 0.0, average: str = "step") -> Any:
        experiment.config = copy.deepcopy(plain)
        experiment.config["data"]["init_args"]["micro_batch_size"] = micro_batch
        experiment.config["trainer"]["devices"] = devices
        experiment.config["model"]["method"]["init_args"]["dropout"] = dropout
        experiment.config["model"]["loss_average"] = average
        return deciding(experiment)

    assert of(micro_batch=2) == of() == of(devices=2)
    assert of(micro_batch=2, dropout=0.2) != of(dropout=0.2)
    assert of(devices=2, dropout=0.2) != of(dropout=0.2) == of(devices="auto", dropout=0.2)
    assert of(devices=2, dropout=0.2) == of(devices="2", dropout=0.2) == of(devices=[0, 3], dropout=0.2)
    assert "micro_batch_size" not in of(dropout=0.2)["data"]["init_args"]
    means = {"average": "micro_batch"}
    assert of(micro_batch=2, **means) != of(**means) != of(devices=2, **means)


def test_a_refusal_names_the_file_and_its_line_and_check_finds_it_too(capfd, tmp_path):
    file = tmp_path / "more.yaml"
    file.write_text("trainer:\n  max_steps: 5\n  limit_train_batches: 0\n")
    for verb in ("fit", "check"):
        assert main([verb, *small_words(tmp_path)[:-2], "--config", str(file)]) == ExitCode.BAD_INPUT
        lines = capfd.readouterr().err.strip().splitlines()
        assert lines[0].startswith(f"error: {file}:3: trainer.limit_train_batches: 0 is neither")
        assert len(lines) == 3


def test_one_callback_by_its_name_is_taken_as_a_list_is(tmp_path):
    names = []
    for value in (
        ["LearningRateMonitor"],
        [json.dumps([WATCHING[1]])],
        ["EarlyStopping", "--trainer.callbacks.monitor", "train/loss"],
    ):
        names.append(short_hash(deciding(parse_experiment([*small_words(tmp_path), "--trainer.callbacks", *value]))))
    assert names[0] == names[1] != names[2]
