"""What loggers may be told in a configuration, and what real ones hold, offline, of a run that was killed."""

import importlib.util
import json
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace
from lightning.pytorch.loggers import CometLogger, Logger, MLFlowLogger, WandbLogger

from callbacks.logger_guards import kept_name
from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import run_folder
from experiments.runs.tuning import fit
from experiments.trainer.components import refuse_components
from experiments.trainer.described import described
from experiments.trainer.failures import cannot_be_made
from experiments.trainer.logger_settings import name_logged_runs, refuse_logger_arguments
from lightning_m2pt.errors import BadInputError
from tests.support.small_experiment import small_words
from tests.trainer.test_settings_in_use import adapter, rows, same
from tests.tuning.test_early_stopping import killed

PATH = "lightning.pytorch.loggers."
CANARY = "canary0canary1canary2canary3canary4canary"


@pytest.mark.parametrize(
    ("name", "arguments", "key", "expected"),
    [
        ("CometLogger", {"api_key": CANARY}, "api_key", "COMET_API_KEY"),
        ("CometLogger", {"dict_kwargs": {"rest_api_keys": CANARY}}, "rest_api_keys", "COMET_API_KEY"),
        ("WandbLogger", {"settings": {"api_key": CANARY}}, "settings.api_key", "WANDB_API_KEY"),
        ("MLFlowLogger", {"tags": {"token": CANARY}}, "tags.token", "MLFLOW_TRACKING_TOKEN"),
        ("MLFlowLogger", {"tracking_uri": f"https://me:{CANARY}@host"}, "tracking_uri", "MLFLOW_TRACKING_PASSWORD"),
        ("MLFlowLogger", {"tracking_uri": f"https://host/a?b=1&api_key={CANARY}"}, "tracking_uri", "MLFLOW_TRACKING"),
        ("MLFlowLogger", {"tags": {"Authorization": f"Bearer {CANARY}"}}, "tags.Authorization", "MLFLOW_TRACKING"),
        ("CSVLogger", {"save_dir": f"s3://{CANARY}@bucket"}, "save_dir", "the environment"),
    ],
)
def test_keys_are_refused_and_not_repeated(name: str, arguments: dict[str, Any], key: str, expected: str) -> None:
    component = {"class_path": PATH + name, "init_args": arguments}
    with pytest.raises(BadInputError) as caught:
        refuse_components({"logger": [component]})
    assert f"trainer.logger.{name}.{key}: keys are not written into an experiment" in str(caught.value)
    assert expected in str(caught.value)
    assert CANARY not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("found", "arguments", "reason"),
    [
        (WandbLogger, {"log_model": True}, "it uploads checkpoints"),
        (WandbLogger, {"resume": "never"}, "a resumed run goes on under the name"),
        (WandbLogger, {"sync_tensorboard": True}, "every number would be there twice"),
        (MLFlowLogger, {"log_model": "all"}, "it uploads checkpoints"),
        (CometLogger, {"mode": "create"}, "a resumed run goes on under the name"),
        (CometLogger, {"online": False}, "an experiment that keeps nothing"),
    ],
)
def test_what_would_not_be_kept_is_refused(found: type, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        refuse_logger_arguments(found, {"class_path": PATH + found.__name__, "init_args": arguments})
    harmless = {
        "experiment_key": "k",
        "tracking_uri": "sqlite:////tmp/a.db",
        "tokenizer": "t",
        "log_model": False,
        "tags": {"a": "https://host/token?b=token"},
    }
    refuse_logger_arguments(found, {"class_path": PATH + found.__name__, "init_args": harmless})


def test_a_run_goes_on_under_the_ids_that_its_folder_keeps(tmp_path: Path) -> None:
    def named(run: Path | None, **arguments: Any) -> list[Any]:
        names = ("WandbLogger", "MLFlowLogger", "CometLogger", "WandbLogger", "CSVLogger")
        listed = [Namespace(class_path=PATH + name, init_args=Namespace(**arguments)) for name in names]
        name_logged_runs(values := Namespace(logger=listed), run)
        keys = ("id", "run_id", "experiment_key", "id", "id")
        return [item.init_args.get(key) for item, key in zip(values.logger, keys, strict=True)]

    first = named(tmp_path)
    assert (len(first[0]), first[1], len(first[2])) == (8, None, 32)
    assert first[0] != first[3]
    assert first[4] is None
    (tmp_path / "loggers").mkdir()
    for name, its_id in (("WandbLogger", "w"), ("MLFlowLogger", "m"), ("CometLogger", "c"), ("WandbLogger-2", "x")):
        (tmp_path / "loggers" / f"{name}.id").write_text(f"{its_id}\n")
    assert named(tmp_path) == ["w", "m", "c", "x", None]
    assert "w" not in named(None)  # a run that begins again
    assert named(tmp_path, id="mine")[0] == "mine"
    assert named(tmp_path, version="mine")[0] is None  # which is the same to Lightning


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    component = {"class_path": f"{PATH}WandbLogger", "init_args": {}}
    error = cannot_be_made(ModuleNotFoundError("No module named 'wandb'"), {"logger": component})
    assert error.hint == "pip install -c constraints.txt -e '.[wandb]'"


def test_of_several_loggers_the_one_that_cannot_be_made_is_named() -> None:
    """As the parser words it: the first was made, the second was not."""
    message = (
        "Does not validate against any of the Union subtypes\nErrors:\n"
        "  - Not a valid subclass of Logger. Got value: [Namespace(...)]\n  - no such store\n"
        "  - Expected a <class 'bool'>\n"
        "Given value: [<lightning.pytorch.loggers.wandb.WandbLogger object at 0x7>, "
        f"Namespace(class_path='{PATH}MLFlowLogger', init_args=Namespace())]"
    )
    listed = [{"class_path": PATH + name, "init_args": {}} for name in ("WandbLogger", "MLFlowLogger")]
    error = cannot_be_made(ValueError(message), {"logger": listed})
    assert (error.where, error.what) == ("trainer.logger", "MLFlowLogger: no such store")


def steps_at_wandb(folder: Path) -> list[int]:
    """Returns the steps with a loss in all offline parts of a run: LevelDB's log of protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    steps = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        content, place, pending = file.read_bytes(), 7, b""
        while place + 7 <= len(content):
            if 32768 - place % 32768 < 7:  # a block's end that no header fits into
                place += 32768 - place % 32768
                continue
            length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
            pending += content[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or the last part
                items = {
                    item.key or ".".join(item.nested_key): item.value_json
                    for item in Record.FromString(pending).history.item
                }
                if "train/loss" in items:
                    steps.append(json.loads(items["trainer/global_step"]))
                pending = b""
    return steps


def steps_at_comet(folder: Path) -> list[int]:
    """Returns the steps with a loss in all archives of an experiment."""
    steps = []
    for archive in sorted(folder.glob("*.zip")):
        with zipfile.ZipFile(archive) as opened:
            for line in opened.read("messages.json").splitlines():
                metric = json.loads(line)["payload"].get("metric") or {}
                if metric.get("metricName") == "train/loss":
                    steps.append(metric["step"])
    return steps


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("wandb", "mlflow", "comet_ml")), reason="an extra each"
)
def test_real_loggers_hold_a_killed_run_once_and_change_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    for variable in ("WANDB_API_KEY", "COMET_API_KEY", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(variable, CANARY)
    for variable, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "COMET_START_ONLINE": "false",
        "COMET_OFFLINE_DIRECTORY": str(tmp_path),
        "COMET_INTERNAL_SENTRY_DSN": "",
    }.items():
        monkeypatch.setenv(variable, value)
    loggers = [
        {"class_path": f"{PATH}WandbLogger", "init_args": {"save_dir": str(tmp_path)}},
        {"class_path": f"{PATH}MLFlowLogger", "init_args": {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}},
        {"class_path": f"{PATH}CometLogger"},
    ]
    plain_words = [*small_words(tmp_path, batch_size=4, steps=5), "--save_every_n_steps", "2"]
    words = [*plain_words, "--trainer.logger", json.dumps(loggers)]
    assert run_folder(parse_experiment(words)) == run_folder(parse_experiment(plain_words))
    plain, run = fit(parse_experiment(plain_words), folder=tmp_path / "plain"), tmp_path / "run"
    killed(words, run, "in the next step", 3, monkeypatch)  # logged three steps, saved two
    ids = [kept_name(run, name) for name in ("WandbLogger", "MLFlowLogger", "CometLogger")]
    fit(parse_experiment(words), folder=run)
    assert ids == [kept_name(run, name) for name in ("WandbLogger", "MLFlowLogger", "CometLogger")]
    assert steps_at_wandb(tmp_path) == [0, 1, 2, 3, 4]
    assert steps_at_comet(tmp_path) == [0, 1, 2, 3, 4]
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        found = store.execute("select step from metrics where key = 'train/loss' order by step").fetchall()
        assert found == [(0,), (1,), (2,), (3,), (4,)]
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)]
    assert same(adapter(plain), adapter(run))
    assert rows(plain) == rows(run)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


class WithKey(Logger):
    """A logger of the user's own that keeps its key, as Comet's does."""

    def __init__(self, project: str, api_key: str) -> None:
        super().__init__()
        self._project, self._api_key = project, api_key

    name = version = None

    def log_metrics(self, *_: Any, **__: Any) -> None: ...

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...


def test_the_key_of_a_logger_that_python_hands_over_is_not_described() -> None:
    made = described([WithKey("p", CANARY)])
    assert made[0]["init_args"] == {"project": "p"}
    refuse_components({"logger": made})
