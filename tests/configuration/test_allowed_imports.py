"""Nothing that a configuration names is imported, unless its package is allowed or a user has opened it."""

import json
import sys

import pytest
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import Callback

from experiments.configuration.cli import parse_experiment
from lightning_m2pt.configuration.allowed_imports import check_class_paths, only_allowed_imports, refuse_functions
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main
from tests.support.small_experiment import small_words

BASE = ["--config", "experiments/m2pt_base.yaml"]
MODULE = "beside_the_configuration"
CODE = """
from pathlib import Path
from lightning.pytorch import Callback
Path(__file__).with_suffix(".ran").touch()
class Evil(Callback):
    def __init__(self, number: int = 1) -> None:
        self.number = number
def function():
    pass
"""
CLASS = f"{MODULE}.Evil"
SCORES = "callbacks.benchmark_scores.BenchmarkScores"
NESTED = {"class_path": SCORES, "init_args": {"benchmarks": [{"class_path": CLASS}]}}
FUNCTIONS = ("torch.load", "torch.hub.load", "torch.os.system", "torch.nn.Linear", "lightning.pytorch.seed_everything")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported; the folder can be imported from."""
    (tmp_path / f"{MODULE}.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop(MODULE, None)


@pytest.mark.parametrize(
    "words",
    [
        ["--model.method", CLASS],
        [f"--model.method={CLASS}"],
        ["--model.method.class_path", CLASS],
        ["--model.method.init", f"{{class_path: {CLASS}}}"],
        ["--model.backbone", json.dumps({"class_path": CLASS, "init_args": {}})],
        ["--data", CLASS],
        ["--benchmarks", f"[{CLASS}]"],
        ["--benchmarks+=" + CLASS],
        ["--trainer.callbacks", CLASS],
        ["--trainer.callbacks", json.dumps([NESTED])],
        ["--trainer.plugins", f"[{CLASS}]"],
        ["--trainer.strategy", f"{{class_path: {CLASS}}}"],
        ["--trainer.logger", f"{{class_path: {CLASS}}}"],
        ["--trainer", f"{{callbacks: [{CLASS}]}}"],
        ["--model", f"{{optimizer: {{class_path: {CLASS}}}}}"],
        ["--output_root", CLASS, "--data", "${output_root}"],
        ["--data", f"torch.{CLASS}"],
        ["--trainer.callbacks", "[{class_path: LambdaCallback, init_args: {on_fit_start: " + MODULE + ".function}}]"],
    ],
    ids=lambda words: " ".join(words)[:60],
)
def test_code_beside_a_configuration_does_not_run(module, words):
    with pytest.raises(BadInputError) as error:
        parse_experiment([*BASE, *words])
    assert len(error.value.message().splitlines()) <= 3
    assert not (module / f"{MODULE}.ran").exists()
    assert MODULE not in sys.modules


def test_a_file_is_refused_with_its_line_and_how_to_open_the_package(module, capsys):
    file = module / "downloaded.yaml"
    file.write_text(f"trainer:\n  callbacks:\n  - class_path: {CLASS}\n")
    for verb in ("fit", "check", "params", "evaluate"):
        assert main([verb, *BASE, "--config", str(file)]) == ExitCode.BAD_INPUT
        message = capsys.readouterr().err
        assert f"{file}:2: trainer.callbacks" in message
        assert f"--allow-import {MODULE}" in message
    assert not (module / f"{MODULE}.ran").exists()


def test_a_user_opens_a_package_for_one_command(module, capsys):
    words = [*small_words(module, steps=1), "--trainer.callbacks", CLASS, "--trainer.callbacks.number", "3"]
    opened = parse_experiment([*words, "--allow-import", MODULE])
    assert opened.opened == (MODULE,)
    assert [callback.number for callback in opened.trainer_config["callbacks"]] == [3]
    with pytest.raises(BadInputError, match=MODULE):  # and it is closed again
        parse_experiment(words)


@pytest.mark.parametrize("package", ["no_such_package", "jsonargparse", "a/b", "*", "", "jsonargparse._util"])
def test_what_cannot_be_opened(package):
    with pytest.raises(BadInputError, match="allow-import"):
        parse_experiment([*BASE, f"--allow-import={package}"])


@pytest.mark.parametrize("path", FUNCTIONS)
def test_functions_and_other_classes_of_allowed_packages_are_no_components(path):
    for key in ("--data", "--model.method", "--trainer.callbacks"):
        with pytest.raises(BadInputError):
            parse_experiment([*BASE, key, path])


def test_a_value_that_became_a_function_is_refused():
    for value in (print, json.loads, "".join, {"class_path": "json.loads"}):
        with pytest.raises(BadInputError, match="function"):
            refuse_functions({"trainer": {"x": [value]}})
    refuse_functions({"class_path": "json.JSONDecoder", "init_args": {"x": int, "y": "print"}})


def test_no_file_is_read_in_the_place_of_a_value(tmp_path):
    """LightningCLI would take ``auto`` for a file of that name in the working folder."""
    file = tmp_path / "Strategy"
    file.write_text("class_path: lightning.pytorch.strategies.DDPStrategy\n")
    assert parse_experiment([*BASE, "--trainer.strategy", str(file)]).trainer_values.strategy == str(file)
    for key in ("--data", "--model.method", "--trainer", "--trainer.callbacks", "--model.optimizer"):
        with pytest.raises(BadInputError):
            parse_experiment([*BASE, key, str(file)])


def test_the_parser_refuses_by_itself_and_forgets_what_was_opened(module):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=Callback)
    for opened, refused in (((), True), ((MODULE,), False), ((), True)):
        with only_allowed_imports(opened):
            if refused:
                with pytest.raises(ArgumentError, match="not allowed"):
                    parser.parse_object({"callback": {"class_path": CLASS}})
            else:
                parser.parse_object({"callback": {"class_path": CLASS}})


def test_classes_are_looked_at_before_the_parser_imports_any():
    for value in (
        NESTED,
        {"x": [{"y": NESTED}]},
        {"class_path": 5},
        {"class_path": "a b"},
        {"class_path": "lightningx.Y"},
    ):
        with pytest.raises(BadInputError):
            check_class_paths(value, opened=("mine",))
    check_class_paths({"class_path": "mine.X", "init_args": {"y": {"class_path": "torch.nn.Linear"}}}, opened=("mine",))


@pytest.mark.parametrize("name", ["LambdaCallback", "lightning.pytorch.callbacks.LambdaCallback"])
def test_a_callback_that_calls_functions_by_name_is_refused_whatever_it_calls(name):
    for arguments in ("{}", "{on_fit_start: torch.nn.Identity}"):
        with pytest.raises(BadInputError, match="LambdaCallback"):
            parse_experiment([*BASE, "--trainer.callbacks", f"[{{class_path: {name}, init_args: {arguments}}}]"])
