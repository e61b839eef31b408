"""A run's model from its folder alone: the experiment's own, made without a checkout, and nothing else is believed."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from experiments.runs.loading import experiment_of_run, load_run
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.templates import PLAIN, VICUNA_V1
from lightning_m2pt.main import main
from lightning_m2pt.runs.loading import load_weights
from lightning_m2pt.runs.model_of_run import model_of_run, template_of_run
from lightning_m2pt.system import checkout
from tests.support.small_experiment import run_with_a_set


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    """A run of two steps with one evaluation set."""
    return run_with_a_set(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(tuned, tmp_path) -> Path:
    """A copy that a test may harm."""
    return Path(shutil.copytree(tuned, tmp_path / "run"))


def changed(run: Path, change) -> None:
    config = json.loads((run / "config.yaml").read_text())
    change(config)
    (run / "config.yaml").write_text(json.dumps(config))


def test_it_is_the_experiments_model_tensor_by_tensor(tuned, monkeypatch):
    experiment = experiment_of_run(tuned)
    load_run(tuned, experiment)
    monkeypatch.setattr(checkout, "find_checkout", lambda: None)
    model = model_of_run(tuned)
    assert model.backbone.fingerprint() == experiment.model.backbone.fingerprint()
    assert not model.backbone.is_loaded
    load_weights(tuned, model)
    one, other = experiment.model.state_dict(), model.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert model.optimizer_settings == experiment.model.optimizer_settings


def test_words_set_keys_of_the_model_and_nothing_else(tuned):
    assert model_of_run(tuned, ["--model.backbone.dtype", "float64"]).backbone.dtype_name == "float64"
    assert model_of_run(tuned, ["--model.backbone.init_args.dtype=bfloat16"]).backbone.dtype_name == "bfloat16"
    for words, named in (
        (["--data.batch_size", "3"], "'--data.batch_size' is not known here"),
        (["vsr"], "'vsr' is not known here"),
        (["--model.backbone.dtype"], "a value is missing"),
        (["--model.backbone.dtype", "float16"], "float16"),
        (["--model.backbone.dtypo", "float64"], "dtypo"),
        (["--allow-import", "no_such_package_x"], "no_such_package_x"),
    ):
        with pytest.raises(BadInputError, match=named):
            model_of_run(tuned, words)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda config: config["model"]["method"].update(class_path="os.system"), "os.system is not imported"),
        (lambda config: config["model"]["backbone"].update(class_path="yaml.Loader"), "yaml.Loader is not imported"),
        (lambda config: config["model"].update(backbone="lightning_m2pt.main.main"), "main"),
        (lambda config: config["model"]["method"]["init_args"].update(visual_lenght=3), "visual_lenght"),
        (lambda config: config["model"]["method"]["init_args"].update(visual_length="${oc.env:HOME}"), "oc.env:HOME"),
        (lambda config: config["model"]["method"]["init_args"].update(visual_length=-1), "visual_length"),
        (lambda config: config["model"].pop("backbone"), "backbone"),
        (lambda config: config.pop("model"), "there is no model in it"),
        (lambda config: config.update(model=[1]), "there is no model in it"),
    ],
    ids=["function", "foreign class", "no class", "typo", "environment", "value", "missing", "no model", "list"],
)
def test_a_damaged_or_hostile_configuration_is_refused_by_name(run, capsys, change, named):
    changed(run, change)
    assert main(["prompts", "--run", str(run)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert named in lines[0]
    assert str(run / "config.yaml") in lines[0]
    assert len(lines) <= 3


def test_an_alias_is_refused_with_its_line(run):
    (run / "config.yaml").write_text("a: &x 1\nmodel: *x\n")
    with pytest.raises(BadInputError, match=r"config.yaml:\d+: the (alias|tag)"):
        model_of_run(run)


def test_the_adapter_is_compared_before_weights_load(run, monkeypatch):
    monkeypatch.setattr("lightning_m2pt.tuning.module.TuningModule.configure_model", lambda self: pytest.fail("loaded"))
    changed(run, lambda config: config["model"]["method"]["init_args"].update(visual_length=3))
    with pytest.raises(BadInputError, match="visual"):
        load_weights(run, model_of_run(run))


def test_the_template_is_that_of_the_first_set_or_of_the_tuning(run):
    changed(run, lambda config: config["benchmarks"][0]["init_args"].update(template="plain"))
    assert template_of_run(run) is PLAIN
    changed(run, lambda config: config.update(benchmarks=[]))
    assert template_of_run(run) is VICUNA_V1
    shutil.rmtree(run / "adapter")
    with pytest.raises(BadInputError, match="does not say its template"):
        template_of_run(run)
