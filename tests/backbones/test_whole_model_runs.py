"""A whole model under the verbs: a few steps of tuning, answers with and without shared prefixes."""

import json
import signal
from pathlib import Path

import pytest

from data_modules.vsr import VSR
from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.main import main
from lightning_m2pt.storage.adapter_folder import TENSOR_FILE
from tests.support.small_experiment import fitted, small_words
from tests.support.whole_models import (
    idefics3_config,
    llava_config,
    next_config,
    onevision_config,
    qwen_config,
    write_whole_model,
)
from tests.tuning.test_training import StopAtStep, adapter, largest_difference

pytestmark = pytest.mark.slow


CONFIGS = {
    "llava": llava_config,
    "next": next_config,
    "onevision": onevision_config,
    "idefics3": idefics3_config,
    "qwen": qwen_config,
}


def words_of(folder: Path, name: str, steps: int) -> list[str]:
    """Returns the words of a small experiment on a tiny model of a family, with one invented set."""
    backbone = f"{VisionLanguageModel.__module__}.{VisionLanguageModel.__name__}"
    init = {"model": "model", "dtype": "float32", "activation_checkpointing": True}
    experiment = {"model": {"backbone": {"class_path": backbone, "init_args": init}}}
    (folder / "model.yaml").write_text(json.dumps(experiment))
    settings = {"root": str(folder / "vsr"), "template": "vicuna_v1", "batch_size": 4, "max_new_tokens": 5}
    sets = json.dumps([{"class_path": "data_modules.vsr.VSR", "init_args": settings}])
    lengths = ["--model.method.visual_length", "0" if name == "qwen" else "3", "--model.method.textual_length", "4"]
    lengths += ["--model.method.visual_rows_to_text", "official" if name == "llava" else "none"]
    words = small_words(folder, steps=steps)
    return [*words, "--config", str(folder / "model.yaml"), *lengths, "--benchmarks", sets]


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_tuned_twice_alike_and_answers_alike_with_and_without_sharing(tmp_path: Path, name: str) -> None:
    write_whole_model(tmp_path / "model", CONFIGS[name]())
    VSR.write_fake(tmp_path / "vsr")
    runs = []
    for root in ("one", "two"):
        assert main(["fit", *words_of(tmp_path, name, 3), "--output_root", str(tmp_path / root)]) == 0
        runs.append(next((tmp_path / root).glob("*/*/adapter")).parent)
    adapters = [(run / "adapter" / TENSOR_FILE).read_bytes() for run in runs]
    assert adapters[0] == adapters[1]
    answers = []
    for run, shares in zip(runs, ("true", "false"), strict=True):
        assert main(["evaluate", "--run", str(run), "--shared-prefix", shares]) == 0
        [file] = run.rglob("vsr.jsonl")
        answers.append([line for line in file.read_text().splitlines() if '"answer"' in line])
    assert [json.loads(line)["answer"] for line in answers[0]] == [json.loads(line)["answer"] for line in answers[1]]
    assert len(answers[0]) == 6


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    write_whole_model(tmp_path / "model", CONFIGS[name]())
    words = [*words_of(tmp_path, name, 5), "--model.method.dropout", "0.2", "--benchmarks", "[]"]
    _, straight = fitted(words, run=tmp_path / "straight")
    experiment, stopped = parse_experiment(words), tmp_path / "stopped"
    experiment.trainer_config["callbacks"] = [StopAtStep(3, signal.SIGTERM)]
    with pytest.raises(SystemExit):
        fit(experiment, folder=stopped)
    fit(parse_experiment(words), folder=stopped)
    assert largest_difference(adapter(straight), adapter(stopped)) == 0
