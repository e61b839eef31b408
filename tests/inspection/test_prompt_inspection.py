"""``m2pt prompts``: nearest words, likeness of layers, lengths over training."""

import csv
import io
import json
from itertools import pairwise

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.commands.prompts import norms_over_training
from lightning_m2pt.inspection import prompt_pictures
from lightning_m2pt.inspection.pixel_prompt_pictures import numbers_of_prompt, prompt_picture
from lightning_m2pt.inspection.prompt_rows import (
    chance_of_nearest,
    chance_of_similarity,
    layer_similarity,
    nearest_words,
    row_norms,
)
from lightning_m2pt.main import main
from lightning_m2pt.prompts.deep import DeepPrompts
from lightning_m2pt.prompts.pixel_prompt import PixelPrompt
from tests.support.small_experiment import run_with_a_set

WIDTH, LENGTH = 16, 3
PIXELS = (
    *("--model.method", "lightning_m2pt.methods.pixel_prompting.PixelPrompting"),
    *("--model.optimizer.learning_rate", "0.1"),
)


def random_table(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))


def prompts_of(*tables: torch.Tensor) -> DeepPrompts:
    prompts = DeepPrompts(range(len(tables)), len(tables), LENGTH, WIDTH, dropout=0.0)
    with torch.no_grad():
        for parameter, table in zip(prompts.rows.values(), tables, strict=True):
            parameter.copy_(table[None])
    return prompts


def test_a_word_times_a_number_finds_itself():
    vocabulary = random_table(40)
    found = nearest_words(vocabulary[[5, 11]] * torch.tensor([[0.01], [300.0]]), vocabulary, count=4)
    assert found.token_ids[:, 0].tolist() == [5, 11]
    torch.testing.assert_close(found.cosines[:, 0], torch.ones(2, dtype=torch.float64))
    cosines = torch.nn.functional.cosine_similarity(vocabulary[5], vocabulary).sort(descending=True).values[:4]
    torch.testing.assert_close(found.cosines[0].float(), cosines)
    assert nearest_words(vocabulary[:1], vocabulary[:2], count=9).token_ids.shape == (1, 2)


def test_chance_is_what_random_rows_reach():
    vocabulary = random_table(40)
    chance = chance_of_nearest(vocabulary)
    reached = nearest_words(random_table(2000, seed=3), vocabulary, 1).cosines[:, 0]
    assert 0.03 < float((reached > chance).double().mean()) < 0.07


def test_likeness_ignores_the_order_and_the_length_of_rows():
    one, other = random_table(LENGTH), random_table(LENGTH, seed=1)
    table = layer_similarity(prompts_of(one, one.flip(0) * 7.0, other))
    assert table[0, 1] == pytest.approx(1.0)
    torch.testing.assert_close(table, table.T)
    torch.testing.assert_close(table.diagonal(), torch.ones(3, dtype=torch.float64))
    assert float(table[0, 2]) < 0.9
    random = torch.stack(
        [
            layer_similarity(prompts_of(random_table(LENGTH, 2 * n), random_table(LENGTH, 2 * n + 1)))[0, 1]
            for n in range(90)
        ]
    )
    assert chance_of_similarity(LENGTH, WIDTH) == pytest.approx(float(random.mean()), abs=0.05)


def test_norms_are_lengths_of_rows():
    table = torch.zeros(LENGTH, WIDTH)
    table[1, :2] = torch.tensor([3.0, 4.0])
    assert row_norms(prompts_of(table))[0] == [0.0, 5.0, 0.0]


def test_the_command_shows_and_writes(tmp_path, capsys):
    run = run_with_a_set(tmp_path, steps=10)
    assert main(["prompts", "--run", str(run), "--words", "2"]) == 0
    shown = capsys.readouterr().out
    assert "nearest words (cosine)" in shown
    assert "near word says little" in shown
    found = json.loads((run / "figures" / "prompts" / "prompts.json").read_text())
    layers = found["textual_prompts"]["layers"]
    words = found["textual_prompts"]["nearest_words"]
    assert [int(layer) for layer in words] == layers
    assert all(len(row) == 2 and row[0][1] >= row[1][1] for rows in words.values() for row in rows)
    assert len(found["visual_prompts"]["similarity"]) == len(found["visual_prompts"]["layers"])
    with (run / "metrics.csv").open() as file:
        logged = [row["train/row_norm/textual_prompts"] for row in csv.DictReader(file)]
    assert found["norms"]["textual_prompts"] == [[10, float(logged[-1])]]
    with Image.open(run / "figures" / "prompts" / "prompts.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize("layers", [2, 9, 10, 12, 13])
def test_numbers_in_cells_do_not_touch_and_vanish_where_they_would(layers, monkeypatch):
    monkeypatch.setattr(prompt_pictures, "png", lambda figure: figure)
    of_kind = {
        "layers": list(range(layers)),
        "similarity": numpy.full((layers, layers), 0.88).tolist(),
        "chance_of_similarity": 0.2,
        "row_norms": {layer: [1.0] for layer in range(layers)},
    }
    kinds = ("visual_prompts", "textual_prompts")
    figure = prompt_pictures.prompts_figure(dict.fromkeys(kinds, of_kind), {kind: [(0, 1.0)] for kind in kinds})
    figure.canvas.draw()
    for panel in figure.axes[:2]:
        boxes = [text.get_window_extent() for text in panel.texts]
        assert len(boxes) == (layers**2 if layers <= 12 else 0)
        for number, (left, right) in enumerate(pairwise(boxes[:layers])):
            assert left.x1 < right.x0, number
        assert not boxes or boxes[0].y0 > boxes[layers].y1
        assert not boxes or panel.texts[0].get_fontsize() == (7.0 if layers < 11 else 6.0)


def test_repeated_numbers_are_one_point(tmp_path):
    rows = ["step,train/row_norm/x,val/loss", "1,,", "2,0.5,", "3,0.5,1.0", "4,0.75,"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    assert norms_over_training(tmp_path / "metrics.csv") == {"x": [(2, 0.5), (4, 0.75)]}


def test_a_run_without_metrics_has_no_curve(tmp_path):
    assert norms_over_training(tmp_path / "metrics.csv") == {}


def test_a_run_without_prompts_is_refused(tmp_path, capsys):
    off = ["--model.method.visual_length", "0", "--model.method.textual_length", "0"]
    rates = ["--model.optimizer.learning_rate", "1e-3"]
    run = run_with_a_set(tmp_path, *off, "--model.method.visual_rows_to_text", "none", *rates)
    assert main(["prompts", "--run", str(run)]) == 2
    assert "has no prompts here" in capsys.readouterr().err


def pixels_in(path):
    with Image.open(path) as picture:
        return numpy.asarray(picture)


def test_a_prompt_in_pixels_is_shown_around_grey_and_in_a_picture(tmp_path, capsys):
    run = run_with_a_set(tmp_path, *PIXELS, "--model.method.space", "normalised", steps=2)
    Image.new("RGB", (80, 60), (255, 255, 255)).save(tmp_path / "white.png")
    assert main(["prompts", "--run", str(run), "--picture", str(tmp_path / "white.png")]) == 0
    folder, said = run / "figures" / "prompts", capsys.readouterr().out
    numbers = json.loads((folder / "pixel_prompt.json").read_text())
    delta = load_file(run / "adapter" / "adapter_model.safetensors")["pixel_prompt.delta"]
    assert (numbers["side"], numbers["border"], numbers["space"]) == (48, 6, "normalised")
    assert numbers["norm"] == pytest.approx(float(delta.double().norm()))
    assert numbers["largest"] == pytest.approx(float(delta.abs().max()))
    in_pixels = delta * embedded_backbone().pixel_normalisation()[1]
    alone = pixels_in(folder / "pixel_prompt.png")[::8, ::8]
    expected = (127.5 + 127.5 * in_pixels / in_pixels.abs().max()).permute(1, 2, 0).numpy()
    assert alone.shape == (48, 48, 3)
    assert numpy.abs(alone - expected).max() <= 0.51
    assert numpy.abs(alone[6:42, 6:42] - 127.5).max() <= 0.51
    assert numpy.abs(alone - 127.5).max() > 127
    on_white = pixels_in(folder / "picture.png")[::8, ::8]
    assert numpy.abs(on_white - (255 + 255 * in_pixels.clamp(max=0)).permute(1, 2, 0).numpy()).max() <= 0.51
    share = float((in_pixels > 1e-4).double().mean())
    assert share > 0.1
    assert f"{share:.1%} of its numbers are none of a picture's" in said


def test_a_picture_for_a_method_without_pixels_is_refused_before_weights_load(tmp_path, capsys, monkeypatch):
    run = run_with_a_set(tmp_path, steps=1)
    monkeypatch.setattr("lightning_m2pt.runs.tuned_model.load_with_adapter", None)
    assert main(["prompts", "--run", str(run), "--picture", "nowhere.png"]) == 2
    assert "puts nothing into a picture" in capsys.readouterr().err


def test_a_picture_that_is_not_there_is_refused_before_weights_load(tmp_path, capsys, monkeypatch):
    run = run_with_a_set(tmp_path, *PIXELS, steps=1)
    monkeypatch.setattr("lightning_m2pt.runs.tuned_model.load_with_adapter", None)
    assert main(["prompts", "--run", str(run), "--picture", str(tmp_path / "nowhere.png")]) == 2
    assert "nowhere.png" in capsys.readouterr().err


def test_a_prompt_in_deviations_is_shown_in_the_pixels_that_it_adds():
    """Each channel has a deviation of its own; what is stored inside the border is not shown."""
    std = torch.tensor([0.5, 0.25, 0.125]).view(3, 1, 1)
    prompt = PixelPrompt(8, 0.25, (torch.zeros(3, 1, 1), std), space="normalised")
    with torch.no_grad():
        prompt.delta.fill_(2.0)
    with Image.open(io.BytesIO(prompt_picture(prompt))) as picture:
        shown = numpy.asarray(picture)[::48, ::48]
    assert shown[0].tolist() == [[255, 191, 159]] * 8
    assert shown[2:-2, 2:-2].tolist() == [[[128] * 3] * 4] * 4
    assert numbers_of_prompt(prompt)["norm"] == pytest.approx(2 * (3 * 48) ** 0.5)
