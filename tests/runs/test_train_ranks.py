"""``m2pt train`` on several processes tunes and evaluates on all of them, whatever strategy tunes."""

import json
import os
from pathlib import Path

import pytest
import torch

from callbacks.loggers import METRICS_FILE
from experiments.commands import train as train_module
from experiments.commands.train import main as train
from experiments.configuration.cli import parse_experiment
from experiments.runs.loading import experiment_of_run, is_in_pieces
from experiments.runs.memory import refuse_base_larger_than_device
from experiments.runs.tuning import fit
from lightning_m2pt.answering.decoding import GreedyAnswering
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main as m2pt
from lightning_m2pt.system.console import is_main_process
from tests.runs.test_evaluation import set_words
from tests.support.ranks import on_ranks
from tests.support.small_experiment import fitted, small_words
from tests.tuning.test_validation import rows_of

FSDP = ("--config", "experiments/strategies/fsdp.yaml")


def words_of(folder: Path, *words: str) -> list[str]:
    """Returns words of a run of two steps with invented MME and VSR questions."""
    return [*small_words(folder, steps=2), *set_words(folder), *words]


def predictions(folder: Path) -> dict[str, bytes]:
    """Returns the prediction files below a folder."""
    return {path.name: path.read_bytes() for path in folder.rglob("*.jsonl*")}


def trained_here(words: list[str], zero: bool = False) -> tuple[int, list[str], bool]:
    """Is one process of the command; returns its exit code, what it asked, and whether its model had to go."""
    names: list[str] = []
    in_pieces: list[bool] = []
    whole = GreedyAnswering.answer

    def answer(self, backbone, batch):
        names.extend(batch.sample_ids)
        return whole(self, backbone, batch)

    def parsed(arguments):
        experiment = parse_experiment(arguments)
        if zero:
            from tests.support.strategies.cpu_zero import CpuZeroStrategy

            experiment.trainer_objects = {"strategy": CpuZeroStrategy()}
        return experiment

    def asked(experiment):
        in_pieces.append(is_in_pieces(experiment))
        return in_pieces[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GreedyAnswering, "answer", answer)
        patch.setattr(train_module, "parse_experiment", parsed)
        patch.setattr(train_module, "is_in_pieces", asked)
        code = train([*words, "--trainer.devices", os.environ["WORLD_SIZE"]])
    return code, names, in_pieces[0]


def evaluated_alone(run: Path) -> dict[str, bytes]:
    """Returns the prediction files of one process that evaluates a run anew."""
    assert m2pt(["evaluate", "--run", str(run), "--force"]) == 0
    return predictions(run)


@pytest.mark.parametrize(
    "strategy",
    ["fsdp", pytest.param("ddp", marks=pytest.mark.slow), pytest.param("zero", marks=pytest.mark.slow)],
)
def test_all_processes_answer_what_one_would(tmp_path, strategy):
    words = words_of(tmp_path, *(FSDP if strategy == "fsdp" else ("--trainer.strategy", "ddp")))
    results = on_ranks(2, trained_here, words, strategy == "zero", timeout=200)
    assert [code for code, _, _ in results] == [0, 0]
    assert [in_pieces for _, _, in_pieces in results] == [strategy != "ddp"] * 2
    (run,) = (path.parent for path in tmp_path.rglob("results.json"))
    several = predictions(run)
    assert sorted(several) == ["mme.jsonl", "vsr.jsonl"]
    shares = [len(names) for _, names, _ in results]
    lines = 2 * sum(content.count(b"\n") - 1 for content in several.values())  # untouched and tuned
    assert lines <= sum(shares) < 2 * lines
    assert evaluated_alone(run) == several


def test_how_a_run_was_tuned_is_forgotten_when_it_answers(tmp_path):
    """Neither what its strategy needs nor its devices have to be there."""
    _, run = fitted(words_of(tmp_path))
    path = run / "config.yaml"
    stored = json.loads(path.read_text())
    zero = {"class_path": "lightning_m2pt.parallel.zero.ZeroStrategy", "init_args": {"stage": 2}}
    stored["trainer"] |= {"strategy": zero, "devices": 8, "num_nodes": 2}
    path.write_text(json.dumps(stored))
    trainer = experiment_of_run(run).config["trainer"]
    assert (trainer["strategy"], trainer["devices"], trainer["num_nodes"]) == ("auto", 1, 1)
    ddp = experiment_of_run(run, ["--config", "experiments/strategies/ddp.yaml"]).config["trainer"]
    assert (ddp["strategy"], ddp["devices"]) == ("ddp", "auto")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_m2pt.parallel.zero.ZeroStrategy.__init__", lambda *_: pytest.fail("it was made"))
        assert m2pt(["evaluate", "--run", str(run)]) == 0


@pytest.mark.parametrize("verb", ["evaluate", "predict", "test", "validate", "train"])
def test_a_launcher_of_more_processes_is_refused_by_all_verbs_that_answer(tmp_path, verb, monkeypatch, capsys):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "tests")
    words = words_of(tmp_path)
    if verb in ("predict", "test"):
        data = json.loads(words[words.index("--benchmarks", words.index("--benchmarks") + 1) + 1])[0]
        words = ["--config", "experiments/frozen.yaml", "--data", json.dumps(data)]
    assert m2pt([verb, *words, "--trainer.devices", "1"]) == 2
    said = capsys.readouterr().err
    assert "torchrun started 2 (LOCAL_WORLD_SIZE), the configuration says 1" in said
    assert len(said.splitlines()) == 3


def test_a_base_that_no_device_holds_is_refused_before_tuning(tmp_path, monkeypatch):
    experiment = parse_experiment(words_of(tmp_path, *FSDP))
    experiment.model.check()
    refuse_base_larger_than_device(experiment, torch.device("cpu"))
    monkeypatch.setattr("experiments.runs.memory.device_memory", lambda _device: 5_000_000)
    with pytest.raises(BadInputError, match="the evaluation holds the whole model on every device") as caught:
        refuse_base_larger_than_device(experiment, torch.device("cpu"))
    assert "m2pt fit" in caught.value.hint


def scored_here(folder: Path, run: str, *words: str) -> bool:
    """Is one process of a run that answers two sets while it tunes."""
    sets = json.loads(set_words(folder)[1])
    arguments = {"benchmarks": sets, "every_n_steps": 2}
    callbacks = [{"class_path": "callbacks.benchmark_scores.BenchmarkScores", "init_args": arguments}]
    attention = {"class_path": "callbacks.attention_maps.AttentionMaps", "init_args": {"every_n_steps": 2}}
    chosen = ["--trainer.callbacks", json.dumps([*callbacks, attention]), "--data.validation_fraction", "0.5"]
    devices = os.environ.get("WORLD_SIZE", "1")
    small = small_words(folder, batch_size=4, steps=2)
    rates = ["--model.optimizer.learning_rate", "1e-4", "--data.micro_batch_size", "2"]
    words_here = [*small, *chosen, *rates, *words, "--trainer.devices", devices]
    fit(parse_experiment(words_here), folder=folder / run)
    return is_main_process()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_scores_answers_and_maps_while_tuning_are_those_of_one_process(tmp_path, strategy):
    scored_here(tmp_path, "one")
    words = FSDP if strategy == "fsdp" else ("--trainer.strategy", "ddp")
    assert on_ranks(2, scored_here, tmp_path, "two", *words, timeout=200) == [True, False]
    assert (tmp_path / "two" / METRICS_FILE).is_file()
    one, two = (rows_of(tmp_path / run)[-1] for run in ("one", "two"))
    scored = [name for name in one if name.startswith(("score/", "val/"))]
    assert {"score/mme", "score/vsr", "val/loss"} <= set(scored)
    for name in scored:
        assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-4), name
    (log,) = (tmp_path / "two").glob("log.txt")
    assert "no more sample answers" not in log.read_text()
