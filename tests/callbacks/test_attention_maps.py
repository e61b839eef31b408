"""Attention maps in TensorBoard, and a training that does not notice them."""

import json
import re
from pathlib import Path

import numpy
import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.attention_maps import CELL_HEIGHT, CELL_WIDTH, GAP, AttentionMaps, activation_image
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inspection.activation import Activations
from tests.support.small_experiment import BASE, fitted, small_words

STEPS = 4
ON = ["--trainer.callbacks+", "callbacks.attention_maps.AttentionMaps", "--trainer.callbacks.every_n_steps", "2"]
DROPOUT = ["--model.method.dropout", "0.2"]  # uses the global generator in every step
SPLIT = ["--data.micro_batch_size", "4"]


class GeneratorStates(Callback):
    """Notes the global generators after every batch."""

    def __init__(self) -> None:
        self.torch_states: list[torch.Tensor] = []
        self.numpy_states: list[tuple] = []

    def on_train_batch_start(self, *_: object) -> None:
        self.torch_states.append(torch.get_rng_state())
        self.numpy_states.append(tuple(numpy.random.get_state()[1]))


LORA = json.dumps(
    {"class_path": "lightning_m2pt.methods.lora.Lora", "init_args": {"dropout": 0.2, "interaction": False}}
)
VISUAL = json.dumps(
    {"class_path": "lightning_m2pt.methods.m2pt.M2PT", "init_args": {"textual_length": 0, "dropout": 0.2}}
)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (BASE, ["--model.method.path", "auto", *DROPOUT]),
        (BASE, ["--model.method.path", "token", *DROPOUT]),
        ("experiments/lora_base.yaml", DROPOUT),
        ("experiments/lora_visual_base.yaml", ["--model.method.methods", f"[{LORA}, {VISUAL}]"]),
        ("experiments/ptum_prefix_base.yaml", DROPOUT),
    ],
    ids=["m2pt", "m2pt in the sequence", "lora", "lora and visual prompts", "prefix"],
)
def test_training_does_not_notice(tmp_path, config, words):
    """The same trained tensors bit for bit, the same metrics, and untouched generators, with dropout in between."""
    from experiments.configuration.cli import parse_experiment
    from experiments.runs.tuning import fit

    words = [*small_words(tmp_path, config, steps=STEPS), *SPLIT, *words]
    runs, states = [], []
    for name, more in (("without", []), ("with", ON)):
        experiment = parse_experiment([*words, *more])
        noted = GeneratorStates()
        experiment.trainer_config["callbacks"] = [*(experiment.trainer_config["callbacks"] or []), noted]
        runs.append(fit(experiment, folder=tmp_path / name))
        states.append(noted)
    without, with_maps = (load_file(run / "adapter" / "adapter_model.safetensors") for run in runs)
    assert without.keys() == with_maps.keys()
    assert all(torch.equal(tensor, with_maps[name]) for name, tensor in without.items())
    assert (runs[0] / "metrics.csv").read_text() == (runs[1] / "metrics.csv").read_text()
    for one, other in zip(states[0].torch_states, states[1].torch_states, strict=True):
        assert torch.equal(one, other)
    assert states[0].numpy_states == states[1].numpy_states


def test_maps_of_the_same_samples_are_logged_at_the_chosen_steps(tmp_path):
    """As the page on watching switches them on."""
    page = Path("docs/watching.md").read_text(encoding="utf-8")
    (on,) = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "attention_maps" in block]
    (tmp_path / "on.yaml").write_text(on)
    switched_on = ["--config", str(tmp_path / "on.yaml"), "--trainer.callbacks.every_n_steps", "2"]
    _, run = fitted([*small_words(tmp_path, steps=STEPS), *SPLIT, *switched_on])
    board = EventAccumulator(str(run / "tb"), size_guidance={"images": 0, "scalars": 0})
    board.Reload()
    images = [tag for tag in board.Tags()["images"] if tag.startswith("attention/")]
    assert len(images) == 4  # two samples, decoder and tower
    for tag in images:
        assert [event.step for event in board.Images(tag)] == [0, 2, 4]
    scalars = [tag for tag in board.Tags()["scalars"] if "/textual_prompt/" in tag]
    assert len(scalars) == 2
    for tag in scalars:
        values = [event.value for event in board.Scalars(tag)]
        assert all(0 < value < 1 for value in values)
        assert len(set(values)) == 3  # the prompts move


def test_the_picture_shows_spans_layers_and_mean():
    values = torch.tensor([[0.0, 1.0], [float("nan"), 0.0]])
    image = activation_image(Activations((0, 1), values, torch.tensor([Span.TEXTUAL_PROMPT, Span.PATCH])))
    assert image.shape == (4 * CELL_HEIGHT + 2 * GAP, 2 * CELL_WIDTH, 3)
    assert image[0, 0].tolist() == [0xD5, 0x5E, 0x00]
    first = CELL_HEIGHT + GAP
    assert image[first, 0].astype(int).sum() < image[first, CELL_WIDTH].astype(int).sum()


@pytest.mark.parametrize("arguments", [{"every_n_steps": 0}, {"samples": 0}])
def test_numbers_out_of_range_are_refused(arguments):
    with pytest.raises(BadInputError, match="0 is too few"):
        AttentionMaps(**arguments)
