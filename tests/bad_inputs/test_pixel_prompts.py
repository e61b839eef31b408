"""Mistakes about prompts in pixels, their teachers and their transfer: refused by every verb before weights load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from data_modules.cifar10 import CIFAR10
from experiments.configuration.cli import parse_experiment
from experiments.runs.prepare import render_testbed_if_used
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.storage.adapter_base import AdapterBase
from lightning_m2pt.storage.adapter_folder import save_adapter
from tests.bad_inputs.refusal import assert_refused
from tests.support.regularised.small_clip import stored_clip
from tests.support.small_experiment import small_words
from tests.support.whole_models import qwen_config, write_whole_model

SHIPPED = {name: f"experiments/{name}_base.yaml" for name in ("vp", "evp", "tvp")}
TESTBED = EMBEDDED / "testbed"
REGULARISERS = "lightning_m2pt.tuning.regularisers."


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: Any) -> None:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr(OpenClipLlama, "load", load)


def teacher(folder: Path, **arguments: str) -> str:
    described = {"class_path": f"{REGULARISERS}open_clip_teacher.OpenClipTeacher", "init_args": {"folder": str(folder)}}
    term = {
        "class_path": f"{REGULARISERS}task_semantics.TaskSemantics",
        "init_args": {"teacher": described, **arguments},
    }
    return json.dumps([term])


def with_other_names(folder: Path) -> list[str]:
    """Makes a training set about CIFAR-10's classes that calls one of them otherwise than the evaluation set does."""
    [annotation] = (folder / "vision_flan").glob("*.json")
    records = json.loads(annotation.read_text())
    names = ["airplane", "automobile", "crescent"]
    for number, record in enumerate(records):
        record["conversations"][-1]["value"] = names[number % len(names)]
    annotation.write_text(json.dumps(records))
    CIFAR10.write_fake(folder / "cifar10")
    settings = {"root": str(folder / "cifar10"), "template": "vicuna_v1", "batch_size": 100, "max_new_tokens": 8}
    described = {"class_path": "data_modules.cifar10.CIFAR10", "init_args": settings}
    return ["--benchmarks", json.dumps([described])]


CASES: dict[str, tuple[str, Callable[[Path], list[str]], list[str]]] = {
    "a border thinner than a pixel": (
        "evp",
        lambda _: ["--model.method.border=0.01"],
        ["model.method.border", "of 48 x 48 pixels is less than a pixel"],
    ),
    "a picture smaller than the border": (
        "tvp",
        lambda _: ["--model.method.border=0.495"],
        ["model.method.border", "of 48 x 48 pixels is all of it"],
    ),
    "half of the side and more": ("vp", lambda _: ["--model.method.border=0.5"], ["is no border"]),
    "a composition that is none": ("evp", lambda _: ["--model.method.compose=around"], ["compose", "overlay"]),
    "grey levels of deviations": (
        "vp",
        lambda _: ["--model.gradient_norm.grey_levels=1", "--model.optimizer.learning_rate=1e-3"],
        ["model.gradient_norm.grey_levels", "behind the normalisation"],
    ),
    "two lengths of a step": ("evp", lambda _: ["--model.gradient_norm.rate=1"], ["rate and grey_levels"]),
    "a teacher without text tower": (
        "evp",
        lambda folder: ["--model.regularisers", teacher(stored_clip(folder / "half", text_tower=False))],
        ["no text tower"],
    ),
    "a teacher that is not there": (
        "evp",
        lambda folder: ["--model.regularisers", teacher(folder / "nowhere")],
        ["nowhere"],
    ),
    "classes that the candidates call otherwise": ("evp", with_other_names, ["'crescent'", "cifar10"]),
    "shrunk pictures against the original": (
        "tvp",
        lambda _: [
            "--model.method.compose=shrink",
            "--model.regularisers",
            json.dumps(
                [
                    {
                        "class_path": f"{REGULARISERS}feature_consistency.FeatureConsistency",
                        "init_args": {"reference": "original"},
                    }
                ]
            ),
        ],
        ["shrunk picture"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_trained_is_refused_before_weights_load(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, spoil, named = CASES[case]
    small = small_words(tmp_path, SHIPPED[name])
    words = [*small, *spoil(tmp_path)]
    assert_refused(capfd, ["fit", *words], named, tmp_path)


def adapter(folder: Path, side: int = 48, **arguments: Any) -> Path:
    """Writes the adapter of a prompt for the first backbone."""
    backbone = OpenClipLlama(
        str(TESTBED / "vision" / "open_clip_config.json"),
        str(TESTBED / "vision" / "open_clip_model.safetensors"),
        str(TESTBED / "language"),
        str(TESTBED / "language"),
        str(TESTBED / "projector" / "model.safetensors"),
    )
    method = PixelPrompting(**arguments)
    save_adapter(
        folder,
        method,
        AdapterBase("testbed", backbone.fingerprint()),
        "",
        template="vicuna_v1",
        tensors={"pixel_prompt.delta": torch.full((3, side, side), 0.1)},
    )
    return folder


def transfer(folder: Path, prompt: Path, *more: str) -> list[str]:
    return [
        *("transfer", "--prompt", str(prompt), "--to", "experiments/frozen.yaml", "--benchmarks=cifar10"),
        *(f"--output_root={folder / 'outputs'}", *more),
    ]


def other_normalisation(folder: Path) -> str:
    vision = json.loads((TESTBED / "vision" / "open_clip_config.json").read_text())
    vision["preprocess_cfg"] = {**vision["preprocess_cfg"], "mean": [0.1, 0.2, 0.3]}
    (folder / "open_clip_config.json").write_text(json.dumps(vision))
    return f"--model.backbone.vision_config={folder / 'open_clip_config.json'}"


def test_a_prompt_of_another_normalisation_is_not_carried(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    adapter(run / "adapter", space="normalised")
    assert_refused(
        capfd,
        transfer(tmp_path, run / "adapter", other_normalisation(tmp_path)),
        ["in units of its base's deviations, and an adapter alone does not say"],
        tmp_path,
    )


def test_a_base_that_reads_patches_takes_no_prompt(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prompt = adapter(tmp_path / "adapter")
    write_whole_model(tmp_path / "qwen", qwen_config())
    base = {
        "class_path": "lightning_m2pt.backbones.vision_language_model.VisionLanguageModel",
        "init_args": {"model": str(tmp_path / "qwen")},
    }
    (tmp_path / "qwen.yaml").write_text(yaml.safe_dump({"model": {"backbone": base}}))
    words = transfer(tmp_path, prompt, "--config", str(tmp_path / "qwen.yaml"))
    assert_refused(capfd, words, ["this backbone takes no pixel prompt"], tmp_path)


def test_an_adapter_is_evaluated_on_its_own_base_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    render_testbed_if_used(parse_experiment(["--config", "experiments/frozen.yaml"]))  # or wait for who does
    prompt = adapter(tmp_path / "adapter")
    words = ["evaluate", "--adapter", prompt, "--config", "experiments/frozen.yaml", "--benchmarks=cifar10"]
    other = [*words, "--config", "experiments/backbones/testbed_patch12.yaml", "--output", tmp_path / "answers"]
    assert_refused(capfd, other, ["adapter of another backbone"], tmp_path)


def test_numbers_of_another_size_are_no_adapter_of_a_base(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor file that was exchanged, with everything that describes it: seen when it is put in."""
    monkeypatch.undo()
    render_testbed_if_used(parse_experiment(["--config", "experiments/frozen.yaml"]))  # or wait for who does
    prompt = adapter(tmp_path / "adapter", side=40)
    words = ["evaluate", "--adapter", prompt, "--config", "experiments/frozen.yaml", "--benchmarks=cifar10"]
    assert_refused(capfd, [*words, "--output", tmp_path / "answers"], ["(3, 40, 40)", "(3, 48, 48)"], tmp_path)


def test_numbers_that_are_not_finite_are_not_carried(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prompt = adapter(tmp_path / "adapter")
    config = json.loads((prompt / "adapter_config.json").read_text())
    save_file({"pixel_prompt.delta": torch.full((3, 48, 48), torch.nan)}, prompt / "adapter_model.safetensors")
    (prompt / "adapter_config.json").write_text(json.dumps({**config, "format": 1}))
    assert_refused(capfd, transfer(tmp_path, prompt), ["not finite"], tmp_path)
