"""TVP's published prompts: what becomes of a file, the picture that it makes, and what is no such file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from experiments.prompt_transfer.source_prompt import read_prompts, sentences_about
from experiments.runs.loading import experiment_of, load_tuned
from lightning_m2pt.main import main
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.prompts.pixel_prompt import PUBLISHED_BORDER, PixelPrompt
from lightning_m2pt.testing.small_processor import CLIP_MEAN, CLIP_STD
from tests.support.adapters.no_paths import paths_said

SIDE, WIDTH = 48, 6
FROZEN = ("--config", "experiments/frozen.yaml")
EVP = ("--config", "experiments/evp_base.yaml")


def perturbation(side: int = SIDE, width: int = WIDTH, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns numbers like those of the shipped checkpoint: in the border alone, half of them negative."""
    drawn = 0.24 * torch.randn(3, side, side, generator=torch.Generator().manual_seed(7))
    drawn[:, width : side - width, width : side - width] = 0
    return drawn.to(dtype)


def published_picture(small: Tensor, delta: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Returns what the published code shows a model: zeros around a small picture, the prompt added, normalised.

    Args:
        small: (B, 3, 164, 164) in 0..1.
        delta: (3, 224, 224).
        mean: (3, 1, 1).
        std: (3, 1, 1).
    """
    pixels = 30
    padded = torch.zeros(len(small), 3, 224, 224, dtype=small.dtype)
    padded[:, :, pixels:-pixels, pixels:-pixels] = small
    mask = torch.ones_like(delta)
    mask[:, pixels:-pixels, pixels:-pixels] = 0
    return (padded + mask * delta - mean) / std


def test_a_published_prompt_makes_the_published_picture() -> None:
    mean, std = (torch.tensor(each, dtype=torch.float32).view(3, 1, 1) for each in (CLIP_MEAN, CLIP_STD))
    prompt = PixelPrompt(224, PUBLISHED_BORDER, (mean, std), "shrink").double()
    delta = perturbation(224, 30, torch.float64)
    with torch.no_grad():
        prompt.delta.copy_(delta)
    pixels = torch.rand(2, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    small = functional.interpolate(pixels, size=164, mode="bicubic", antialias=True).clamp(0, 1)
    expected = published_picture(small, delta, mean.double(), std.double())
    found = prompt((pixels - mean.double()) / std.double())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def written(content: object, name: str = "checkpoint_best.pth") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        if name.endswith(".safetensors"):
            assert isinstance(content, dict)
            save_file(content, path)
        else:
            torch.save(content, path)
        return path

    return write


@pytest.mark.parametrize(
    "write",
    [
        written({"perturbation": perturbation()}),
        written({"model": {"module.perturbation": perturbation()}, "epoch": 0, "optimizer": {"lr": 10.0}}),
        written({"perturbation": perturbation()}, "prompt.safetensors"),
    ],
    ids=["alone", "in a training's checkpoint", "safetensors"],
)
def test_a_file_becomes_an_adapter_with_its_numbers(write: Callable[[Path], Path], tmp_path: Path) -> None:
    source = write(tmp_path)
    assert main(["convert", str(source), *FROZEN, "--output", str(tmp_path / "made")]) == 0
    adapter = tmp_path / "made" / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["base"]["arguments"], paths_said(adapter)) == ({"name": "testbed"}, [])
    assert config["peft_type"] == "PIXEL_PROMPT"
    assert config["template"] is None
    assert config["converted_from"]["converted_from"] == source.name
    arguments = {"compose": "shrink", "space": "pixels", "fill": [0.0, 0.0, 0.0], "clip": "none"}
    assert config["arguments"] == {"border": WIDTH / SIDE, **arguments}
    experiment = experiment_of(None, adapter, FROZEN)
    load_tuned(None, adapter, experiment)
    method = experiment.model.method
    assert isinstance(method, PixelPrompting)
    prompt = method.pixel_prompt
    assert prompt is experiment.model.backbone.attachment.pixel_prompt
    assert prompt is not None
    assert torch.equal(prompt.delta.detach(), perturbation())
    assert prompt.width == WIDTH


def test_what_is_imported_travels_and_nobody_says_where_it_was_trained(tmp_path: Path) -> None:
    source = written({"perturbation": perturbation(dtype=torch.bfloat16)})(tmp_path)
    assert main(["convert", str(source), *EVP, "--output", str(tmp_path / "made")]) == 0
    (prompt,) = read_prompts([tmp_path / "made" / "adapter"])
    assert torch.equal(prompt.delta, perturbation(dtype=torch.bfloat16).float())
    assert prompt.arguments["compose"] == "overlay"  # as the experiment says
    (sentence,) = sentences_about([prompt], [prompt.base_fingerprint], ["vicuna_v1"])
    assert "imported, so it is not known on which base" in sentence


def changed(place: tuple[Any, ...], value: float) -> Tensor:
    delta = perturbation()
    delta[place] = value
    return delta


REFUSED: dict[str, tuple[object, str]] = {
    "a tensor more": ({"perturbation": perturbation(), "scale": torch.ones(1)}, "there is more in it: scale"),
    "another name": ({"delta": perturbation()}, "tensors of no known name: delta"),
    "a batch of one": ({"perturbation": perturbation()[None]}, "float32 of shape [1, 3, 48, 48]"),
    "no square": ({"perturbation": perturbation()[:, 1:]}, "of shape [3, 47, 48]"),
    "one colour": ({"perturbation": perturbation()[:1]}, "of shape [1, 48, 48]"),
    "whole numbers": ({"perturbation": perturbation().int()}, "int32 of shape"),
    "NaN": ({"perturbation": changed((0, 0, 0), torch.nan)}, "NaN or infinity in perturbation"),
    "nothing trained": ({"perturbation": torch.zeros(3, SIDE, SIDE)}, "all of its numbers are 0"),
    "a number inside": (
        {"perturbation": changed((1, 20, 9), 0.1)},
        "not 0 as far as 10 pixels from the edge, and 0 at 7",
    ),
    "no inside": ({"perturbation": torch.ones(3, SIDE, SIDE)}, "not 0 as far as 24 pixels from the edge"),
    "another size": ({"perturbation": perturbation(72, 10)}, "72 x 72 pixels, and this base reads 48 x 48"),
    "another border": (
        {"perturbation": perturbation(width=5)},
        "the outermost 5 pixels are not 0, and the experiment's border has 6 of 48",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_published_prompt_is_refused_and_nothing_is_made(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content, expected = REFUSED[case]
    source = written(content)(tmp_path)
    assert main(["convert", str(source), *EVP, "--output", str(tmp_path / "made")]) == 2
    said = capfd.readouterr().err
    assert expected in said
    assert said.startswith(f"error: {source}: ")
    assert len(said.strip().splitlines()) in (2, 3)
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize(
    "words",
    [["--output", "made"], [*FROZEN], [*FROZEN, "--output", "made", "--layout", "open_clip"]],
    ids=["no base", "no folder", "a layout"],
)
def test_a_prompt_needs_a_base_and_a_folder(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = written({"perturbation": perturbation()})(tmp_path)
    assert main(["convert", str(source), *words]) == 2
    assert "becomes an adapter for a base that reads pictures of its size" in capfd.readouterr().err
    assert not Path("made").exists()


def test_what_runs_code_when_it_is_opened_is_not_opened(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = written({"perturbation": perturbation(), "args": Path("somewhere")})(tmp_path)
    assert main(["convert", str(source), *FROZEN, "--output", str(tmp_path / "made")]) == 2
    assert "it holds more than tensors" in capfd.readouterr().err
