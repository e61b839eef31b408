"""The adapter of the best step is kept beside the last, through kills, and what is evaluated is written down."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from safetensors.torch import load_file

from callbacks.best_adapter import BestAdapter
from data_modules.vsr import VSR
from experiments.configuration.cli import parse_experiment
from experiments.runs import from_python
from experiments.runs.training import prepared_trainer
from experiments.runs.tuning import fit
from experiments.trainer.best_adapter import sets_chosen_by
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.metrics.predictions import ADAPTER_CHOSEN, read_predictions
from lightning_m2pt.runs.loading import evaluated_adapter
from lightning_m2pt.storage.adapter_folder import CARD_FILE, declared_tensors
from lightning_m2pt.storage.run_record import BEST_ADAPTER, CHOSEN_BY_SETS, read_run_record
from lightning_m2pt.system.tensor_hashes import hash_tensors
from lightning_m2pt.tuning.module import TuningModule
from tests.support.small_experiment import small_words
from tests.tuning.test_early_stopping import killed
from tests.tuning.test_training import DDP, EXACT, largest_difference

NAN = float("nan")
LOSSES = {1: NAN, 2: 3.0, 3: 1.5, 4: 1.5, 5: NAN, 6: 2.0}
"""What a validation says after every step: the least twice, and no number at the start and after it."""
STEPS, BEST_STEP = 6, 3


@pytest.fixture
def scripted(monkeypatch):
    def validation_step(module, batch, batch_idx):
        module.log("val/loss", LOSSES[module.trainer.global_step], batch_size=1)

    monkeypatch.setattr(TuningModule, "validation_step", validation_step)


def best_adapter(**arguments: str) -> str:
    return json.dumps([{"class_path": "callbacks.best_adapter.BestAdapter", "init_args": arguments}])


def words_of(folder: Path, callbacks: str, *words: str) -> list[str]:
    small = small_words(folder, batch_size=4, steps=STEPS)
    validated = ("--data.validation_fraction", "0.5", "--validate_every_n_steps", "1", "--save_every_n_steps", "2")
    return [*small, *validated, "--trainer.callbacks", callbacks, *words]


class Steps(Callback):
    """Keeps the tensors after every step."""

    def __init__(self) -> None:
        self.tensors = {}

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        now = declared_tensors(pl_module.method)
        self.tensors[trainer.global_step] = {name: tensor.clone() for name, tensor in now.items()}


def tensors(folder: Path):
    return load_file(folder / "adapter_model.safetensors")


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def kept(run: Path) -> dict[str, bytes]:
    folders = run / "adapter", run / "adapter_best"
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.name != CARD_FILE]  # says when
    return {str(path.relative_to(run)): path.read_bytes() for path in [*files, run / "metrics.csv"]}


def test_the_earliest_of_the_best_steps_is_kept_beside_the_last_through_kills(tmp_path, scripted, monkeypatch):
    words = words_of(tmp_path, best_adapter(monitor="val/loss"), "--model.method.dropout", "0.2")
    experiment, steps = parse_experiment(words), Steps()
    experiment.trainer_config["callbacks"] = [*experiment.trainer_config["callbacks"], steps]
    whole = fit(experiment, folder=tmp_path / "whole")
    assert equal(tensors(whole / "adapter"), steps.tensors[STEPS])
    assert equal(tensors(whole / "adapter_best"), steps.tensors[BEST_STEP])
    chosen = {"step": BEST_STEP, "steps": STEPS, "by": "val/loss", "value": 1.5}
    assert json.loads((whole / "adapter_best" / "adapter_config.json").read_text())["chosen"] == chosen
    assert "chosen" not in json.loads((whole / "adapter" / "adapter_config.json").read_text())
    assert read_run_record(whole)[BEST_ADAPTER] == {**chosen, "evaluated": "last"}
    assert evaluated_adapter(whole) == whole / "adapter"
    cut = tmp_path / "cut"  # before the best step is in a checkpoint, after it, and behind the last step
    for hook, step in (("in the next step", 3), ("in validation", 4), ("at the end", 6)):
        killed(words, cut, hook, step, monkeypatch)
    fit(parse_experiment(words), folder=cut)
    assert kept(cut) == kept(whole)


def test_what_is_evaluated_is_written_down_everywhere(tmp_path, scripted, capsys):
    VSR.write_fake(tmp_path / "vsr")
    settings = {"root": str(tmp_path / "vsr"), "template": "vicuna_v1", "batch_size": 4, "max_new_tokens": 3}
    sets = json.dumps([{"class_path": "data_modules.vsr.VSR", "init_args": settings}])
    words = words_of(tmp_path, best_adapter(monitor="val/loss", evaluated="best"), "--benchmarks", sets)
    assert main(["train", *words]) == ExitCode.DONE
    said = f"adapter of step {BEST_STEP} of {STEPS}, best val/loss"
    assert said in capsys.readouterr().out
    run = next((tmp_path / "outputs" / "m2pt_base").iterdir())
    header = read_predictions(run / "predictions" / "vsr.jsonl").header
    assert header[ADAPTER_CHOSEN] == {"step": BEST_STEP, "steps": STEPS, "by": "val/loss", "value": 1.5}
    assert header["adapter"] == hash_tensors(tensors(run / "adapter_best")) != hash_tensors(tensors(run / "adapter"))
    assert json.loads((run / "results.json").read_text())["adapter"] == header[ADAPTER_CHOSEN]
    assert evaluated_adapter(run) == run / "adapter_best"
    assert main(["evaluate", "--run", str(run)]) == ExitCode.DONE  # loads it by itself, and finds its answers
    evaluated = capsys.readouterr().out
    assert said in evaluated
    assert "already answered" in evaluated
    assert main(["report", str(run)]) == ExitCode.DONE
    assert said in " ".join(capsys.readouterr().out.split())
    assert main(["fit", *words]) == ExitCode.DONE
    assert f"adapter: {run / 'adapter_best'}" in capsys.readouterr().out.replace("\n", "")


def test_a_choice_by_an_evaluation_set_is_said_below_its_table(tmp_path, scripted, capsys):
    VSR.write_fake(tmp_path / "vsr")
    settings = {"root": str(tmp_path / "vsr"), "template": "vicuna_v1", "batch_size": 4, "max_new_tokens": 3}
    sets = [{"class_path": "data_modules.vsr.VSR", "init_args": settings}]
    scores = {"class_path": "callbacks.benchmark_scores.BenchmarkScores"}
    scores["init_args"] = {"benchmarks": sets, "every_n_steps": 2}
    # Given first, it still looks behind what it goes by.
    callbacks = json.dumps([*json.loads(best_adapter(monitor="score/vsr", evaluated="best")), scores])
    words = words_of(tmp_path, callbacks, "--benchmarks", json.dumps(sets), "--validate_every_n_steps", "0")
    assert main(["train", *words]) == ExitCode.DONE
    run = next((tmp_path / "outputs" / "m2pt_base").iterdir())
    measured = {int(row["step"]): row["score/vsr"] for row in csv.DictReader((run / "metrics.csv").open())}
    values = {step: float(value) for step, value in measured.items() if value}
    assert list(values) == [2, 4, 6]
    best = read_run_record(run)[BEST_ADAPTER]
    assert (best["step"], best["value"]) == (max(values, key=values.__getitem__), max(values.values()))
    assert read_run_record(run)[CHOSEN_BY_SETS] == ["vsr"]
    assert "chosen by the score on vsr" in capsys.readouterr().out


def test_a_model_tuned_from_python_holds_what_is_evaluated(tmp_path, scripted):
    experiment = parse_experiment(words_of(tmp_path, "[]"))
    trainer = {"max_steps": STEPS, "accelerator": "cpu", "callbacks": [BestAdapter(evaluated="best")]}
    run = from_python.fit(experiment.model, experiment.data, trainer, tmp_path / "run", validate_every_n_steps=1)
    assert read_run_record(run)[BEST_ADAPTER]["step"] == BEST_STEP
    assert equal(declared_tensors(experiment.model.method), tensors(run / "adapter_best"))
    assert experiment.model.chosen is not None
    assert not equal(tensors(run / "adapter"), tensors(run / "adapter_best"))


@pytest.mark.slow
def test_two_processes_choose_as_one_does(tmp_path):
    callbacks = best_adapter(monitor="val/loss", mode="max")  # of losses that fall: the first step, and not the last
    words = [*words_of(tmp_path, callbacks), *EXACT]
    one, two = fit(parse_experiment(words), folder=tmp_path / "one"), tmp_path / "two"
    command = ["fit", *words, *DDP, "--run", str(two)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "lightning_m2pt.main", *command], check=True, timeout=300, env=environment)
    chosen = [read_run_record(run)[BEST_ADAPTER] for run in (one, two)]
    assert [each["step"] for each in chosen] == [1, 1]
    assert chosen[0]["value"] == pytest.approx(chosen[1]["value"], rel=1e-6)
    for folder in ("adapter", "adapter_best"):
        assert largest_difference(tensors(one / folder), tensors(two / folder)) < 1e-6
    assert not equal(tensors(one / "adapter"), tensors(one / "adapter_best"))


def test_where_no_number_was_finite_nothing_is_the_best(tmp_path, scripted, monkeypatch):
    monkeypatch.setattr(f"{__name__}.LOSSES", dict.fromkeys(LOSSES, NAN))
    words = words_of(tmp_path, best_adapter(evaluated="best"))
    run = fit(parse_experiment(words), folder=tmp_path / "run")
    assert not (run / "adapter_best").exists()
    with pytest.raises(BadInputError, match="val/loss was never a number") as refused:
        evaluated_adapter(run)
    assert len(refused.value.message().splitlines()) <= 3


@pytest.mark.parametrize(
    ("callbacks", "named"),
    [
        (best_adapter(monitor="train/loss"), "BestAdapter.monitor: an adapter is not chosen by 'train/loss'"),
        (best_adapter(monitor="val/bleu", mode="max"), "BestAdapter.monitor"),
        (best_adapter(evaluated="first"), "evaluated"),
        (json.dumps(json.loads(best_adapter()) * 2), "there are two"),
    ],
)
def test_what_cannot_choose_is_refused(tmp_path, callbacks, named):
    with pytest.raises(BadInputError, match=named) as refused:
        parse_experiment(words_of(tmp_path, callbacks))
    assert len(refused.value.message().splitlines()) <= 3


@pytest.mark.parametrize(
    ("monitor", "mode", "is_less_better"),
    [
        ("val/loss", None, True),
        ("val/answer_accuracy", None, False),
        ("score/vsr", None, False),
        ("val/mine", "min", True),
        ("val/loss", "max", False),
    ],
)
def test_the_monitors_name_says_what_is_better_unless_the_mode_does(monitor, mode, is_less_better):
    assert BestAdapter(monitor, mode).is_less_better == is_less_better
    with pytest.raises(BadInputError, match="nothing says what is a good 'val/mine'"):
        BestAdapter("val/mine")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--trainer.callbacks", best_adapter(monitor="score/vsr")), "'score/vsr' is never measured"),
        (("--trainer.limit_val_batches", "0"), "BestAdapter.monitor: val/loss is never measured"),
        (("--data.validation_fraction", "0.0"), "BestAdapter.monitor: val/loss is never measured"),
    ],
    ids=["score", "no batches", "no records"],
)
def test_what_is_never_measured_is_known_before_weights_load(tmp_path, words, named):
    experiment = parse_experiment([*words_of(tmp_path, best_adapter()), *words])
    experiment.connect()
    with pytest.raises(BadInputError, match=named):
        prepared_trainer(experiment, tmp_path / "run", resumed_step=0)
    assert not experiment.model.backbone.is_loaded


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"step": 1, "value": 0.5, "tensors": {"rows": torch.ones(1)}},
        {"step": 1, "value": 0.5, "tensors": {"weight": torch.ones(3)}},
        {"step": 1, "value": 0.5, "tensors": {"weight": torch.full((2,), NAN)}},
    ],
    ids=["nothing", "other tensors", "another shape", "not finite"],
)
def test_a_checkpoint_of_another_best_adapter_is_refused(state):
    method = SimpleNamespace(named_tensors=lambda: {"weight": torch.zeros(2)})
    callback = BestAdapter()
    callback.load_state_dict(state)
    with pytest.raises(BadInputError, match="the best adapter"):
        callback.on_train_start(SimpleNamespace(global_step=1), SimpleNamespace(method=method))


@pytest.mark.parametrize(("mode", "value"), [("max", float("inf")), ("min", -float("inf")), ("max", float("nan"))])
def test_what_is_not_finite_is_never_the_best(mode: str, value: float) -> None:
    best = BestAdapter("val/loss", mode=mode)
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        sanity_checking=False,
        callback_metrics={"val/loss": torch.tensor(value)},
        strategy=SimpleNamespace(broadcast=lambda number: number),
        global_step=3,
    )
    best.on_validation_end(trainer, None)
    assert best.chosen(5) == {"step": 0, "steps": 5, "by": "val/loss", "value": None}


@pytest.mark.parametrize(("evaluated", "sets"), [("best", ["vsr"]), ("last", [])])
def test_a_set_chooses_only_what_is_evaluated(evaluated: str, sets: list[str]) -> None:
    arguments = {"monitor": "score/vsr", "evaluated": evaluated}
    component = {"class_path": "callbacks.best_adapter.BestAdapter", "init_args": arguments}
    assert sets_chosen_by({"callbacks": [component]}) == sets


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [["--model.backbone.activation_checkpointing", "true"], ["--model.backbone.feature_cache", "features"]],
    ids=["recomputed activations", "cached features"],
)
def test_the_best_adapter_is_the_same_however_its_run_is_computed(tmp_path, scripted, settings):
    words = words_of(tmp_path, best_adapter(monitor="val/loss"), "--model.method.visual_length", "0")
    plain = fit(parse_experiment(words), folder=tmp_path / "plain")
    other = fit(parse_experiment([*words, settings[0], settings[1].replace("features", str(tmp_path / "features"))]))
    assert largest_difference(tensors(plain / "adapter_best"), tensors(other / "adapter_best")) < 1e-6
    assert not equal(tensors(other / "adapter_best"), tensors(other / "adapter"))
    assert read_run_record(other)[BEST_ADAPTER] == read_run_record(plain)[BEST_ADAPTER]


@pytest.mark.slow
def test_a_run_that_is_started_over_forgets_the_best_of_before(tmp_path, scripted, monkeypatch):
    words = words_of(tmp_path, best_adapter(monitor="val/loss"))
    with monkeypatch.context() as better:
        better.setitem(LOSSES, 2, 0.5)
        run = fit(parse_experiment(words), folder=tmp_path / "run")
    assert read_run_record(run)[BEST_ADAPTER]["step"] == 2
    fit(parse_experiment(words), folder=run, force=True)
    assert (read_run_record(run)[BEST_ADAPTER]["step"], read_run_record(run)[BEST_ADAPTER]["value"]) == (BEST_STEP, 1.5)
    again = fit(parse_experiment(words), folder=tmp_path / "again")
    assert equal(tensors(run / "adapter_best"), tensors(again / "adapter_best"))
