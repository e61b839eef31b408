"""Attribution by captum and its deletion check."""

import json

import pytest
import torch
from PIL import Image

from lightning_m2pt.inspection.attribution import answer_probability, patch_attribution
from lightning_m2pt.inspection.deletion import blank, deletion_check, deletion_curve
from lightning_m2pt.main import main
from lightning_m2pt.testing.random_backbone import IMAGE_SIZE, random_backbone, random_batch
from tests.prompts.test_parity import built_method
from tests.support.small_experiment import run_with_a_set

EDGE = 4
WEIGHTS = torch.linspace(-1.0, 1.0, EDGE * EDGE)


def patch_sums(pictures: torch.Tensor) -> torch.Tensor:
    patches = torch.nn.functional.avg_pool2d(pictures.mean(dim=1, keepdim=True), IMAGE_SIZE // EDGE)
    return patches.flatten(1)


def linear_model(pictures: torch.Tensor) -> torch.Tensor:
    """A model whose true attribution is known: each patch's mean times its weight."""
    return patch_sums(pictures) @ WEIGHTS.to(pictures.dtype)


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_a_linear_model_gets_its_own_weights(method):
    pixels = torch.rand(3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0)) + 0.5
    found = patch_attribution(method, linear_model, pixels, EDGE)
    expected = (patch_sums(pixels[None])[0] * WEIGHTS).reshape(EDGE, EDGE)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_deleting_in_the_right_order_beats_every_random_one_and_in_the_wrong_order_none():
    pixels = torch.ones(3, IMAGE_SIZE, IMAGE_SIZE)
    right = deletion_check(linear_model, pixels, WEIGHTS.reshape(EDGE, EDGE), random_orders=10)
    assert right.orders_beaten == 1.0
    assert right.area < float(right.random_areas.min())
    assert float(right.attributed[0]) == pytest.approx(float(right.random[0, 0]))
    wrong = deletion_check(linear_model, pixels, -WEIGHTS.reshape(EDGE, EDGE), random_orders=10)
    assert wrong.orders_beaten == 0.0


def test_deletion_takes_patches_away_one_by_one():
    pixels = torch.ones(3, IMAGE_SIZE, IMAGE_SIZE)
    curve = deletion_curve(lambda pictures: pictures.mean(dim=(1, 2, 3)), pixels, range(EDGE * EDGE), EDGE)
    torch.testing.assert_close(curve, torch.linspace(1.0, 0.0, EDGE * EDGE + 1))
    blank(pixels, EDGE + 1, EDGE)
    side = IMAGE_SIZE // EDGE
    assert not pixels[:, side : 2 * side, side : 2 * side].any()
    assert int((pixels == 0).sum()) == 3 * side * side


@pytest.mark.parametrize("path", ["token", "auto"])
def test_probability_and_its_gradient_are_the_models(tmp_path, path):
    backbone, batch = random_backbone(tmp_path), random_batch(size=1)
    built_method(backbone, torch.float32, path=path).attach(backbone)
    batch.spans[-1, -1] = batch.spans[-1, -2]
    probability = answer_probability(backbone, batch, token=7)
    expected = backbone.logits(backbone(batch).hidden_states[:, -1]).softmax(-1)[:, 7]
    pictures = torch.cat([batch.pixel_values, batch.pixel_values * 0.5]).requires_grad_()
    found = probability(pictures)
    torch.testing.assert_close(found[:1], expected)
    found.sum().backward()
    assert bool(pictures.grad.abs().sum(dim=(1, 2, 3)).gt(0).all())
    # Completeness: integrated gradients add up to the difference from the blank picture.
    sums = patch_attribution("integrated_gradients", probability, batch.pixel_values[0], EDGE)
    with torch.no_grad():
        difference = probability(batch.pixel_values) - probability(torch.zeros_like(batch.pixel_values))
    assert float(sums.sum()) == pytest.approx(float(difference), abs=5e-3)


def test_a_missing_package_is_one_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["attribution", "--run", str(tmp_path), "--sample", "vsr"]) == 3
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0] == "error: m2pt attribution: captum is not installed"
    assert "pip install -e '.[attribution]'" in lines[-1]
    assert len(lines) == 3


def test_the_command_writes_picture_and_numbers(tmp_path, capsys):
    run = run_with_a_set(tmp_path)
    assert main(["attribution", "--run", str(run), "--sample", "vsr"]) == 0
    files = sorted((run / "figures" / "attribution").glob("*.json"))
    assert files
    for path in files:
        numbers = json.loads(path.read_text())
        edge = len(numbers["attribution"])
        assert len(numbers["deletion_curve"]) == edge * edge + 1
        assert all(0 <= value <= 1 for value in numbers["deletion_curve"])
        assert len(numbers["random_areas"]) == 20
        with Image.open(path.with_suffix(".png")) as picture:
            assert picture.width > 600
    words = ["attribution", "--run", str(run), "--sample", "vsr", "--answer-token", "99"]
    assert main(words) == 2
    assert "has" in capsys.readouterr().err


def test_a_shrunk_picture_is_not_attributed_to(tmp_path, capsys):
    """A patch of what the tower reads is none of the picture that would be shown."""
    method = ["--model.method", "lightning_m2pt.methods.pixel_prompting.PixelPrompting"]
    rates = ["--model.optimizer.learning_rate", "1e-2"]
    run = run_with_a_set(tmp_path, *method, "--model.method.compose", "shrink", *rates, steps=1)
    capsys.readouterr()
    assert main(["attribution", "--run", str(run), "--sample", "vsr"]) == 2
    said = capsys.readouterr().err
    assert "shrinks the picture" in said
    assert len(said.strip().splitlines()) == 3
    assert not (run / "figures" / "attribution").exists()
