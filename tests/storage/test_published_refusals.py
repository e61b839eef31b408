"""Checkpoints of the published code that are not what they should be: three lines, and no folder has come."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_m2pt.main import main
from lightning_m2pt.system.atomic_files import this_machine
from lightning_m2pt.testing.small_processor import word_tokenizer
from tests.storage.published_model import SHARDS, TOWER_NAME, PublishedModel, write_checkpoint
from tests.support.small_experiment import run_with_a_set

LAST, FIRST = f"{TOWER_NAME}encoder.prompts.3", "model.prompts.0"


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], object]:
    """Changes the second shard."""

    def spoil(folder: Path) -> None:
        content = torch.load(folder / SHARDS[1], weights_only=True)
        change(content)
        torch.save(content, folder / SHARDS[1])

    return spoil


def config(**keys: object) -> Callable[[Path], object]:
    path = "config.json"
    return lambda folder: (folder / path).write_text(json.dumps({**json.loads((folder / path).read_text()), **keys}))


REFUSED: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a layer's prompt is missing": (tensors(lambda all_: all_.pop(LAST)), ["visual prompts: 3 missing"]),
    "a prompt too many": (
        tensors(lambda all_: all_.update({"model.prompts.3": torch.ones(1, 4, 48)})),
        ["textual prompts: 3 left over"],
    ),
    "prompts of two lengths": (
        tensors(lambda all_: all_.update({FIRST: torch.ones(1, 5, 48)})),
        ["textual prompts: 1 [1, 4, 48]", "P alike"],
    ),
    "a prompt of another width": (tensors(lambda all_: all_.update({LAST: torch.ones(1, 5, 31)})), ["3 [1, 5, 31]"]),
    "prompts of two axes": (tensors(lambda all_: all_.update({FIRST: torch.ones(4, 48)})), ["0 [4, 48]"]),
    "NaN": (tensors(lambda all_: all_[LAST].fill_(torch.nan)), ["NaN or infinity in visual_prompts.rows.3"]),
    "a projector of two layers": (
        tensors(lambda all_: all_.update({"model.mm_projector.2.weight": torch.ones(48, 48)})),
        ["left over 2.weight"],
    ),
    "no projector": (
        tensors(lambda all_: [all_.pop(f"model.mm_projector.{name}") for name in ("weight", "bias")]),
        ["there is no projector"],
    ),
    "a projector of another width": (
        tensors(lambda all_: all_.update({"model.mm_projector.weight": torch.ones(48, 30)})),
        ["weight [48, 30], not [48, 32]"],
    ),
    "a tensor nobody knows": (
        tensors(lambda all_: all_.update({"model.gate.weight": torch.ones(2)})),
        ["tensors of no known name: model.gate.weight"],
    ),
    "a norm is missing": (tensors(lambda all_: all_.pop("model.norm.weight")), ["missing model.norm.weight"]),
    "a tower without a tensor": (
        tensors(lambda all_: all_.pop(f"{TOWER_NAME}pre_layrnorm.bias")),
        ["missing pre_layrnorm.bias"],
    ),
    "a head of another size": (
        tensors(lambda all_: all_.update({"lm_head.weight": torch.ones(51, 48)})),
        ["lm_head.weight [51, 48], not [50, 48]"],
    ),
    "a shard is missing": (lambda folder: (folder / SHARDS[0]).unlink(), [f"missing {SHARDS[0]}"]),
    "a shard is cut": (lambda folder: (folder / SHARDS[0]).write_bytes(b"PK\x03\x04" + bytes(90)), ["cut or damaged"]),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), ["config.json cannot be read"]),
    "another layer's features": (config(mm_vision_select_layer=-1), ["mm_vision_select_layer", "-2"]),
    "padded pictures": (config(image_aspect_ratio="pad"), ["image_aspect_ratio", "not padded"]),
    "another model": (config(model_type="mpt"), ["model_type: 'mpt'"]),
    "another number of layers": (config(num_hidden_layers=2), ["left over"]),
    "the tower's heads do not divide": (
        lambda folder: config(num_attention_heads=5)(folder / "tower"),
        ["num_attention_heads"],
    ),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "checkpoint", PublishedModel().state())
    word_tokenizer().save_pretrained(str(tmp_path / "checkpoint"))
    return tmp_path / "checkpoint"


def refused(words: list[str], named: list[str], capsys, place: Path) -> None:
    before = sorted(str(path) for path in place.rglob("*"))
    capsys.readouterr()
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert 1 <= len(shown.err.splitlines()) <= 3
    assert ".draft" not in shown.err
    for part in named:
        assert part in shown.err
    assert sorted(str(path) for path in place.rglob("*")) == before


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_checkpoint_leaves_nothing(checkpoint, tmp_path, capsys, name):
    spoil, named = REFUSED[name]
    spoil(checkpoint)
    words = ["convert", str(checkpoint), "--output", str(tmp_path / "made")]
    refused([*words, "--tower", str(checkpoint / "tower")], named, capsys, tmp_path)


def test_flags_of_a_checkpoint(checkpoint, tmp_path, capsys):
    made = ["--output", str(tmp_path / "made")]
    tower = ["--tower", str(checkpoint / "tower")]
    whole = ["convert", str(checkpoint)]
    refused([*whole, *made], ["the tower 'some/tower' is none that is known", "--tower DIR"], capsys, tmp_path)
    refused([*whole, *tower], ["--output DIR"], capsys, tmp_path)
    refused([*whole, *tower, "--output", str(checkpoint)], ["something stands there already"], capsys, tmp_path)
    second = ["convert", str(checkpoint / SHARDS[1]), *made]
    refused(second, ["no base stands in it", "--config FILE"], capsys, tmp_path)
    twice = ["convert", str(checkpoint), str(checkpoint / SHARDS[1]), *made, *tower]
    refused(twice, ["another file as well"], capsys, tmp_path)


def test_a_base_that_it_was_not_tuned_on(checkpoint, tmp_path, capsys):
    """By its numbers where the checkpoint has them, else by its sizes."""
    made = ["--output", str(tmp_path / "first"), "--tower", str(checkpoint / "tower")]
    assert main(["convert", str(checkpoint), *made]) == 0
    base = ["--config", "experiments/frozen.yaml", "--output", str(tmp_path / "made")]
    refused(["convert", str(checkpoint), *base], ["tuned on another language model"], capsys, tmp_path)
    prompts = {f"model.prompts.{layer}": torch.ones(1, 2, 48) for layer in range(3)}
    torch.save(prompts, tmp_path / "prompts.bin")
    refused(["convert", str(tmp_path / "prompts.bin"), *base], ["textual prompts"], capsys, tmp_path)
    torch.save({str(layer): torch.ones(1, 2, 48) for layer in range(3)}, tmp_path / "list.bin")
    refused(["convert", str(tmp_path / "list.bin"), *base], ["3 prompts of width 48", "neither"], capsys, tmp_path)
    other = [*base, "--config", str(tmp_path / "first" / "backbone.yaml")]
    weights = next((tmp_path / "first" / "base" / "language").glob("model-00001-*.safetensors"))
    changed = load_file(weights)
    changed["model.layers.1.mlp.up_proj.weight"][0, 0] += 1
    save_file(changed, weights, metadata={"format": "pt"})
    refused(["convert", str(checkpoint), *other], ["model.layers.1.mlp.up_proj.weight is not"], capsys, tmp_path)


def test_what_the_published_code_cannot_do_is_not_exported(tmp_path, capsys):
    lengths = ["--model.method.visual_length", "2", "--model.method.textual_length", "2"]
    run = run_with_a_set(tmp_path / "run", *lengths, "--model.method.visual_rows_to_text", "all", steps=1)
    words = ["export", "checkpoint", "--run", str(run), "--output", str(tmp_path / "made")]
    refused(words, ['visual_rows_to_text is "all"', "official"], capsys, tmp_path)
    refused([*words[:2], *words[4:]], ["--run --adapter"], capsys, tmp_path)


def test_what_a_killed_conversion_left_is_cleared_away(checkpoint, tmp_path):
    left = tmp_path / f".made.{this_machine()}-{2**22 + 1}.draft"  # beyond every process number
    other = tmp_path / f".made.{this_machine()}-{os.getppid()}.draft"
    for folder in (left, other):
        (folder / "base").mkdir(parents=True)
    words = ["convert", str(checkpoint), "--output", str(tmp_path / "made"), "--tower", str(checkpoint / "tower")]
    assert main(words) == 0
    assert not left.exists()
    assert other.exists(), "its process may still write it"
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["adapter", "backbone.yaml", "base"]
