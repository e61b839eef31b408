"""Runs on a packed base equal those on the plain base of its dequantised weights: stopped, resumed, two processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.commands.evaluate import main as evaluate
from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.backbones.families.llava import Llava
from lightning_m2pt.backbones.quantised import QuantisedLinear
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.backbones.whole_model_files import name_in_model
from lightning_m2pt.main import main
from lightning_m2pt.storage.run_record import MADE_WITH, read_run_record
from tests.support.quantised_backbone import needs
from tests.support.small_experiment import fitted, run_with_a_set, small_words
from tests.support.whole_models import llava_config, write_whole_model
from tests.tuning.test_training import DDP, StopAtStep, adapter, largest_difference

BOTH = pytest.mark.parametrize("quantization", ["int8", pytest.param("nf4", marks=pytest.mark.slow)])
CLASS = "lightning_m2pt.backbones.vision_language_model.VisionLanguageModel"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole") / "llava"
    write_whole_model(place, llava_config())
    return place


def base_words(folder: Path, quantization: str | None, dtype: str = "float32") -> list[str]:
    settings = {"model": str(folder), "dtype": dtype, "quantization": quantization}
    return ["--model.backbone", json.dumps({"class_path": CLASS, "init_args": settings})]


def write_dequantised(folder: Path, quantization: Any, place: Path) -> None:
    """Copies a folder; the weights that are packed become, in the files, what they are multiplied by."""
    shutil.copytree(folder, place)
    backbone = VisionLanguageModel(str(folder), dtype="float32", quantization=quantization)
    backbone.load()
    weights = {
        f"{name}.weight": each.weight.contiguous()
        for name, each in backbone.language_model.named_modules()
        if isinstance(each, QuantisedLinear)
    }
    tensors = load_file(place / "model.safetensors")
    replaced = {
        stored: weights[name] for stored in tensors if (name := name_in_model(stored, Llava(), weights)) in weights
    }
    assert len(replaced) == len(weights) == 7 * 3
    tensors |= replaced
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})


def predictions(run: Path) -> list[str]:
    (file,) = (run / "predictions").glob("*.jsonl")
    return file.read_text().splitlines()[1:]


@BOTH
def test_a_run_is_that_of_the_dequantised_weights(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], quantization: str
) -> None:
    needs(quantization)  # type: ignore[arg-type]
    packed = run_with_a_set(tmp_path, *base_words(folder, quantization), steps=3)
    assert "weights 0.00 GB" in capsys.readouterr().out
    write_dequantised(folder, quantization, tmp_path / "dequantised")
    plain = run_with_a_set(tmp_path, *base_words(tmp_path / "dequantised", None), steps=3)
    assert packed != plain
    assert largest_difference(adapter(packed), adapter(plain)) == 0
    assert evaluate(["--run", str(packed)]) == evaluate(["--run", str(plain)]) == 0
    assert predictions(packed) == predictions(plain)
    assert json.loads((packed / "adapter/adapter_config.json").read_text())["base_quantization"] == quantization
    capsys.readouterr()
    assert main(["evaluate", "--run", str(packed), "--model.backbone.quantization", "null"]) == 2
    said = capsys.readouterr().err.splitlines()[-3:]
    assert said[0].endswith(f"tuned on a base in {quantization}, which is in its own type now")
    assert said[2] == f"  hint: --model.backbone.quantization {quantization}"


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, folder: Path) -> None:
    needs("nf4")
    words = [*small_words(tmp_path, steps=6), *base_words(folder, "nf4"), "--model.method.dropout", "0.2"]
    _, straight = fitted(words, run=tmp_path / "straight")
    experiment, stopped = parse_experiment(words), tmp_path / "stopped"
    experiment.trainer_config["callbacks"] = [StopAtStep(3, signal.SIGTERM)]
    with pytest.raises(SystemExit):
        fit(experiment, folder=stopped)
    fit(parse_experiment(words), folder=stopped)
    assert all("bitsandbytes" in start["packages"] for start in read_run_record(stopped)[MADE_WITH])
    assert largest_difference(adapter(straight), adapter(stopped)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_two_processes_equal_one(tmp_path: Path, folder: Path, quantization: Any) -> None:
    needs(quantization)
    words = [*small_words(tmp_path), *base_words(folder, quantization, "float64")]
    words += ["--model.optimizer.learning_rate", "1e-3", "--model.optimizer.epsilon", "1e-4"]
    _, one = fitted(words, run=tmp_path / "one")
    command = ["fit", *words, *DDP, "--run", str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "lightning_m2pt.main", *command], check=True, timeout=300, env=environment)
    assert largest_difference(adapter(one), adapter(tmp_path / "two")) < 1e-6
    assert all(bool(torch.isfinite(tensor).all()) for tensor in adapter(one).values())
